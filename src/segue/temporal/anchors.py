"""Which few frames of a film show most of what all of its frames show: those that the others are to look at.

Attention finds what is alike wherever it stands in a picture. So a frame counts as covered as far as each of its
patches has one that is like it in some anchor, and the anchors are chosen one by one, each for what it covers that
those before it do not: facility location, whose greedy solution is within 1 - 1/e of the best (Nemhauser et al. 1978,
Mathematical Programming 14).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate

from segue.errors import TaskError
from segue.motion.descriptors import described
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

WORTH = 0.005
"""What a further anchor must bring the film nearer by: the difference of small patches, per value in [0, 1]. Of footage
that was measured, with one thing in each, a second anchor was worth 0.009 to 0.015 and a third 0.004 to 0.005."""
_SIDE, _PATCH, _TERMS, _STRIDE = 36, 7, 12, 4
_MIDDLE_SIDE = 180
_CANDIDATES, _CLIENTS = 32, 96
_FLAT = 0.03
"""Standard deviation of brightness of a picture that shows nothing."""
_BLURRED = 0.6
"""Of the sharpness that three quarters of the frames of its shot stay below, what a frame must have to be looked at."""


def choose_anchors(
    frames: Frames, shots: Sequence[int] = (), *, most: int = 4, worth: float = WORTH, progress: Progress = silent
) -> tuple[int, ...]:
    """Numbers of the frames that the others are to look at, in order; the same for the same film.

    Each shot gets one, then the film as many more as are worth it. None is flat, black or blurred beside the others of
    its shot, unless all are: such a shot gets none, and a film of nothing else its sharpest frame.

    Args:
        frames: the film, which is read once, in order, about 100 frames of it.
        shots: numbers of the frames that begin a shot, but for the first: `segue.motion.cuts`.
        most: anchors of the film, if its shots are not more.
        worth: what a further anchor must bring the frames nearer by, in the mean, 0 or more.
        progress: told of each frame that is read.

    Raises:
        TaskError: there is no frame, or no anchor is allowed.
    """
    count = len(frames)
    if count < 1 or most < 1:
        raise TaskError(f"expected a film, and 1 or more anchors of it; got {count} frames and {most} anchors")
    numbers = _sampled(count, _CLIENTS, shots)
    patches, sharpness, contrast = _looked_at(frames, numbers, progress)
    shot = torch.bucketize(torch.tensor(numbers), torch.tensor(sorted(shots)), right=True)
    usable = _usable(sharpness, contrast, shot)
    if not bool(usable.any()):
        return (numbers[int(sharpness.argmax())],)
    every = torch.nonzero(usable)[:, 0].tolist()
    kept = set(
        _sampled(len(every), _CANDIDATES, [i for i in range(1, len(every)) if shot[every[i]] != shot[every[i - 1]]])
    )
    candidates = [one for place, one in enumerate(every) if place in kept]
    far = torch.stack([_farness(patches, patches[one]) for one in candidates])
    chosen: list[int] = []
    for own in sorted({int(shot[one]) for one in candidates}):
        among = [place for place, one in enumerate(candidates) if int(shot[one]) == own]
        chosen.append(among[_best(far[among][:, shot == own].mean((1, 2)))])
    least = far[chosen].amin(0)
    while len(chosen) < most:
        left = torch.minimum(far, least).mean((1, 2))
        best = _best(left)
        if float(least.mean() - left[best]) <= max(worth, 1e-6):
            break
        chosen.append(best)
        least = torch.minimum(least, far[best])
    return tuple(sorted(numbers[candidates[place]] for place in chosen))


def further_anchors(
    frames: Frames,
    parts: Sequence[tuple[int, int]],
    chosen: Sequence[int],
    *,
    most: int,
    worth: float = WORTH,
    progress: Progress = silent,
) -> tuple[int, ...]:
    """Numbers of frames of later parts that are to be looked at besides, in order; none where parts show nothing new.

    A film is drawn part after part, so that an anchor serves its own part and those behind it. A part has one at most,
    which must bring it nearer by what it is worth; of those that do, the ones that bring the whole film nearest are
    taken. A second one of a part costs as much and was seen to bring frames no nearer to each other.

    Args:
        frames: the film, which is read once, in order, about 100 frames of it.
        parts: of it, each the first frame and that after the last, in order.
        chosen: anchors of the first part.
        most: how many are taken, at most.
        worth: what one must bring the frames of its part nearer by, in the mean, 0 or more.
        progress: told of each frame that is read.
    """
    if len(parts) < 2 or most < 1:
        return ()
    stops = torch.tensor([stop for _, stop in parts])
    # Of a film of very many parts, some are left to those before them.
    starts = [first for first, _ in parts[1:]][: _CLIENTS if len(parts) <= _CLIENTS else 0]
    numbers = sorted({*_sampled(len(frames), _CLIENTS, starts), *chosen})
    part = torch.bucketize(torch.tensor(numbers), stops, right=True)
    patches, sharpness, contrast = _looked_at(frames, numbers, progress)
    usable = _usable(sharpness, contrast, part) & (part > 0)
    candidates = torch.nonzero(usable)[:, 0].tolist()
    least = torch.stack([_farness(patches, patches[numbers.index(one)]) for one in chosen]).amin(0)
    far = {one: _farness(patches, patches[one]) for one in candidates}
    found: list[int] = []
    while len(found) < most:
        nearer = {one: (least - far[one]).clamp(min=0).mean(1) for one in candidates}
        helped = [one for one in candidates if float(nearer[one][part == part[one]].mean()) > max(worth, 1e-6)]
        if not helped:
            break
        best = helped[_best(torch.stack([-nearer[one][part >= part[one]].sum() for one in helped]))]
        found.append(best)
        behind = part >= part[best]
        least[behind] = torch.minimum(least, far[best])[behind]
        candidates = [one for one in candidates if part[one] != part[best]]
    return tuple(sorted(numbers[one] for one in found))


def _sampled(count: int, most: int, starts: Sequence[int]) -> list[int]:
    """At most so many of `count` things, evenly, and at least one behind each start."""
    stride = -(-count // most)
    found = {min(count - 1, place + stride // 2) for place in range(0, count, stride)}
    ends = [*sorted(starts), count]
    found |= {(start + end) // 2 for start, end in zip([0, *sorted(starts)], ends, strict=True) if end > start}
    return sorted(found)


def _looked_at(
    frames: Frames, numbers: Sequence[int], progress: Progress
) -> tuple[Float[Tensor, "t p d"], Float[Tensor, " t"], Float[Tensor, " t"]]:
    """The patches of frames, their sharpness (mean square of what neighbouring pixels differ by) and their contrast."""
    patches: list[Tensor] = []
    sharpness: list[float] = []
    contrast: list[float] = []
    for done, number in enumerate(numbers, 1):
        picture = frames[number : number + 1].cpu()
        grey = _reduced(picture, _MIDDLE_SIDE).mean(1)
        sharpness.append(float(grey.diff(dim=1).square().mean() + grey.diff(dim=2).square().mean()))
        contrast.append(float(grey.std(correction=0)))
        small = _reduced(picture, _SIDE)
        rows = described(small, _PATCH, _TERMS).unflatten(1, small.shape[2:])
        patches.append(rows[0, _STRIDE // 2 :: _STRIDE, _STRIDE // 2 :: _STRIDE].flatten(0, 1))
        progress("choosing anchors", done, len(numbers))
    return torch.stack(patches), torch.tensor(sharpness), torch.tensor(contrast)


def _reduced(picture: Float[Tensor, "1 3 h w"], side: int) -> Float[Tensor, "1 3 h w"]:
    scale = side / min(picture.shape[2:])
    if scale >= 1:
        return picture
    height, width = (max(1, round(length * scale)) for length in picture.shape[2:])
    return interpolate(picture, (height, width), mode="bilinear", antialias=True)


def _usable(sharpness: Tensor, contrast: Tensor, shot: Tensor) -> Bool[Tensor, " t"]:
    usable = contrast >= _FLAT
    for own in shot.unique().tolist():
        inside = shot == own
        usable &= ~inside | (sharpness >= _BLURRED * sharpness[inside].quantile(0.75))
    return usable


def _farness(patches: Float[Tensor, "t p d"], anchor: Float[Tensor, "p d"]) -> Float[Tensor, "t p"]:
    """How far each patch of each frame is from the nearest of an anchor."""
    return torch.cdist(patches.flatten(0, 1), anchor).amin(1).unflatten(0, patches.shape[:2])


def _best(left: Tensor) -> int:
    """The place of the least, to six digits; of several, the first."""
    rounded = [round(value, 6) for value in left.tolist()]
    return rounded.index(min(rounded))
