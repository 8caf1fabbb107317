"""Is a frame a double exposure of the frames around it? No network is asked.

A cross-fade shows two half-transparent pictures at once, a real in-between shows one. Both lie between their neighbours
in brightness, so the question is asked of gradients, in small patches: is this patch the mix of how it was before and
how it will be, and did the edges in it have to change place for that? What slides or turns passes from the one to the
other in its own time in every patch; what fades is on its way everywhere at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import avg_pool2d, pad

from segue.evaluation.windows import reduced, windows
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

AREA = 128 * 128
"""Pixels of a picture that is judged. Two copies of a thing that are closer than a pixel or two of these look blurred,
not double."""
PATCH = 8
"""Pixels along a patch, in which one mix must hold. Edges are compared in 24, as in fewer, different ones agree by
chance, and blurred, so that one may move by about two pixels and still be in its place."""
SLIGHT = 1.5 / 255
"""The change of gradients, root mean square over a patch, up to which it is rounding and is not judged."""
REACH = 128
"""Frames before and after a frame that it is compared with at most."""
_CHUNK = 32
_TINY = 1e-12


@dataclass(frozen=True)
class Exposure:
    """How much of a double exposure each frame is.

    Args:
        mix: the share of what changes around it that is there as a mix: 0, something else, to 1, half and half.
        sag: how much gradient energy it lacks against its neighbours, by their shares of it: 0, none, to 1, all of it.
            Half and half of two unrelated pictures lacks 0.5.
    """

    mix: Float[Tensor, " b"]
    sag: Float[Tensor, " b"]

    @property
    def score(self) -> Float[Tensor, " b"]:
        """In [0, 1]: the mix, halved for a frame that is as sharp as its neighbours, which no double exposure is."""
        return self.mix * (0.5 + self.sag).clamp(max=1)


def ghosting(
    left: Float[Tensor, "b 3 h w"], middle: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, " b"]:
    """How much each `middle` is a double exposure of `left` and `right`: 0, not at all, to 1, half and half.

    It is 0 where nothing changes, where only colours or brightness do, and where `middle` equals an end (a cut). It
    asks about these three pictures alone: if `left` and `right` differ only by the small step of a slow movement,
    there is nothing to see double, and the answer is near 0. Pictures are in [0, 1]; see `exposure`.
    """
    return exposure(left, middle, right).score


def exposure(
    left: Float[Tensor, "b 3 h w"], middle: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"]
) -> Exposure:
    """Both parts of the ghosting of pictures in [0, 1], between which `middle` is shown.

    With the gradients l, m, r of a patch, C = |r - l|^2, and (1-w) l + w r the mix in it that is nearest to m: the
    patch holds a double exposure of energy w(1-w) C, and |m - mix|^2 of something else. What the first exceeds the
    second by, weighed by how far the edges of l and r disagree, is summed over the patches, and divided by the most
    that it can be, the sum of C / 4. A film that appears out of a plain ground is no double exposure: pictures whose
    contrasts differ more than fourfold count less.

    Raises:
        ValueError: the shapes differ, or are none of pictures.
    """
    if not left.shape == middle.shape == right.shape or left.ndim != 4 or left.shape[1] != 3:
        shapes = ", ".join(str(tuple(part.shape)) for part in (left, middle, right))
        raise ValueError(f"ghosting is judged of pictures of one shape (b, 3, h, w), got {shapes}")
    ends = reduced(left, AREA), reduced(right, AREA)
    before, after = map(_gradients, ends)
    change, moved = after - before, _gradients(reduced(middle, AREA)) - before
    energy = _patches((change * change).sum(1, keepdim=True))
    along = _patches((change * moved).sum(1, keepdim=True))
    share = (along / energy.clamp(min=_TINY)).clamp(0, 1)
    other = _patches((moved * moved).sum(1, keepdim=True)) - 2 * share * along + share**2 * energy
    double = (share * (1 - share) * energy - other).clamp(min=0) * (1 - _agreement(*ends))
    judged = energy > SLIGHT**2
    mix = _total(4 * double * judged) / _total(energy * judged).clamp(min=_TINY)
    return Exposure(mix * _balance(before, after), _sag(before, before + moved, after))


def exposures(frames: Frames, *, progress: Progress = silent) -> Exposure:
    """The exposure of every frame of a clip, the first and the last being none.

    Each frame is compared with those 1, 2, 4 ... 128 frames before and after it, or the first and the last; the largest
    mix counts. Between near frames a slow fade shows nothing double, and between far ones other things happen too.
    """
    count = len(frames)
    spans = [2**power for power in range(REACH.bit_length()) if 2**power < count]
    found: list[Exposure] = []
    held: list[Tensor] = []
    first = 0
    ahead = windows(frames, AREA)
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        while first + len(held) < min(stop + REACH, count):
            held += next(ahead)[1].unbind()
        found.append(_largest(held, range(start - first, stop - first), spans))
        gone = max(0, stop - REACH - first)
        held, first = held[gone:], first + gone
        progress("looking for ghosts", stop, count)
    return Exposure(torch.cat([part.mix for part in found]), torch.cat([part.sag for part in found]))


def _largest(pictures: list[Tensor], middles: range, spans: list[int]) -> Exposure:
    """Of the pictures at `middles`, each over all spans, as far as there are pictures."""
    best = Exposure(torch.zeros(len(middles)), torch.zeros(len(middles)))
    middle = torch.stack([pictures[i] for i in middles])
    for span in spans:
        left = torch.stack([pictures[max(i - span, 0)] for i in middles])
        right = torch.stack([pictures[min(i + span, len(pictures) - 1)] for i in middles])
        found = exposure(left, middle, right)
        larger = found.mix > best.mix
        best = Exposure(torch.where(larger, found.mix, best.mix), torch.where(larger, found.sag, best.sag))
    return best


def _agreement(a: Tensor, b: Tensor) -> Float[Tensor, "b 1 p q"]:
    """How far edges of two pictures lie in the same places around each patch, whatever their colours: 0 to 1.

    The RV coefficient (Robert & Escoufier 1976) of their gradients, pixels being the observations and colours the
    variables: turning the colours, or making contrasts stronger, changes nothing.
    """
    a, b = _gradients(_halved(a)), _gradients(_halved(b))
    both, one, other = (_vicinities(_products(*pair)) for pair in ((a, b), (a, a), (b, b)))
    return both / (one * other).sqrt().clamp(min=_TINY**2)


def _balance(a: Tensor, b: Tensor) -> Tensor:
    """1 where the gradients of two pictures are of like strength, 0 where one has none."""
    one, other = _total(a * a), _total(b * b)
    ratio = torch.minimum(one, other) / torch.maximum(one, other).clamp(min=_TINY)
    return (4 * ratio.sqrt()).clamp(max=1)


def _sag(left: Tensor, middle: Tensor, right: Tensor) -> Tensor:
    """From the gradients of three pictures, the middle one being taken for a mix as a whole."""
    change = right - left
    share = (_total(change * (middle - left)) / _total(change * change).clamp(min=_TINY)).clamp(0, 1)
    before, now, after = (_total(part * part) for part in (left, middle, right))
    due = torch.lerp(before, after, share)
    return (due - now).clamp(min=0) / due.clamp(min=_TINY)


def _gradients(pictures: Tensor) -> Float[Tensor, "b 6 h w"]:
    """Differences to the next pixel, across and then down, of each colour; 0 at the border."""
    more = pad(pictures, (0, 1, 0, 1), mode="replicate")
    return torch.cat([more[..., :-1, 1:] - pictures, more[..., 1:, :-1] - pictures], 1)


def _products(a: Tensor, b: Tensor) -> Float[Tensor, "b 9 h w"]:
    """The inner product, over the two directions, of each colour of the one with each of the other."""
    across, down = a[:, :3, None] * b[:, None, :3], a[:, 3:, None] * b[:, None, 3:]
    return (across + down).flatten(1, 2)


def _halved(pictures: Tensor) -> Float[Tensor, "b 3 h/2 w/2"]:
    """Blurred as by a Gaussian of 2.4 pixels, of which every second is kept."""
    pictures = avg_pool2d(pictures, 2, ceil_mode=True)
    for _ in range(2):
        pictures = avg_pool2d(pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return pictures


def _patches(x: Tensor) -> Tensor:
    return avg_pool2d(x, PATCH, PATCH, ceil_mode=True)


def _vicinities(x: Tensor) -> Tensor:
    """The strength of products in the surroundings of each patch, three times its size, at half the resolution."""
    side = PATCH // 2
    around = avg_pool2d(pad(x, [side] * 4, mode="replicate"), 3 * side, side, ceil_mode=True)
    return around.square().sum(1, keepdim=True)


def _total(x: Tensor) -> Float[Tensor, " b"]:
    return x.flatten(1).sum(1)
