"""Frames that agree: each becomes the mean of those around it, brought to its place, with its detail kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from segue.motion.carried import Carrier
from segue.motion.detail import energy, gain, high, split, whole
from segue.motion.doubling import Pool, Side, centred
from segue.motion.joint import Pairs
from segue.motion.kept import Shelf
from segue.motion.steady import SharedDetail, Steadied
from segue.types import Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.motion.fields import Fields
    from segue.types import Frames

Mode = Literal["fast", "balanced", "accurate"]
Detail = Literal["carried", "own", "auto"]
MOST = 4.0
"""The largest gain of detail that only the mean has."""


@dataclass(frozen=True)
class Blending:
    """How frames are blended.

    Args:
        window: frames to each side that a frame is blended with.
        mode: "fast" doubles (see `segue.motion.doubling`), "balanced" brings every frame of the window along its own
            composed way, "accurate" searches for all of these, and once more for what agrees.
        grain: 0 to 1, how much there is of the detail that each frame has for itself: 0 cleans noise away; with 1,
            there is as much as in the frames, but it moves with what is shown.
        every: frames from one key to the next, of which such detail is taken.
        detail: whose detail a frame shows. "carried" is that of keys (see `segue.motion.carried`): right where frames
            differ in it. "own" is each frame's, right where light alone flickers, which two means one after the other
            then take out, over twice the window. "auto" takes "own" for shots whose frames share their detail (see
            `segue.motion.steady`).

    Raises:
        ValueError: a value is out of range.
    """

    window: int = 7
    mode: Mode = "fast"
    grain: float = 1.0
    every: int = 24
    detail: Detail = "carried"

    def __post_init__(self) -> None:
        fits = self.window >= 0 and self.mode in get_args(Mode) and 0 <= self.grain <= 1 and self.every >= 1
        if not fits or self.detail not in get_args(Detail):
            raise ValueError(
                f"blending takes a window of 0 frames or more, a mode of {', '.join(get_args(Mode))}, a grain of 0 to "
                f"1, keys at every 1 or more frames and a detail of {', '.join(get_args(Detail))}; got {self}"
            )

    @property
    def reach(self) -> int:
        """Frames to each side that a frame is made of, detail of keys apart."""
        return self.window if self.detail == "carried" else 2 * self.window


def blended(
    style: Frames,
    fields: Fields,
    blending: Blending | None = None,
    *,
    numbers: Iterable[int] | None = None,
    progress: Progress = silent,
) -> Iterator[tuple[int, Float[Tensor, "3 h w"], Float[Tensor, "h w"]]]:
    """The number of each frame, the frame blended with its neighbours, and how far that changed it.

    Nothing is blended across a cut; equal frames come out as they are, bit for bit. A clip that runs backwards gives
    the same pictures in turn. Any frame can be asked for, in any order, with the same bits; one after the other they
    are quickest, and memory holds about three windows of pictures, six where detail may be their own.

    Args:
        style: pictures in [0, 1].
        fields: where their pixels are found in each other; of as many frames of the same size.
        blending: how.
        numbers: which frames; all by default.
        progress: told of each frame.

    Returns:
        The change is the largest over the colours, in [0, 1], and exactly 0 where the pixel is as it was.

    Raises:
        ValueError: `style` and `fields` differ in size or length, or there is no such frame; when it comes to it, a
            frame has values that are not finite, which would spread over all that are blended with it.
    """
    if len(style) != len(fields) or style.size != fields.size:
        raise ValueError(
            f"expected pictures like those that were compared, {len(fields)} of {fields.size[0]}x{fields.size[1]}; "
            f"got {len(style)} of {style.size[0]}x{style.size[1]}"
        )
    blending = blending or Blending()
    asked = list(range(len(style)) if numbers is None else numbers)
    if any(number not in range(len(style)) for number in asked):
        raise ValueError(f"frames are 0 to {len(style) - 1}; asked for {asked}")
    return _blended(style, fields, blending, asked, progress)


def _blended(
    style: Frames, fields: Fields, blending: Blending, asked: list[int], progress: Progress
) -> Iterator[tuple[int, Tensor, Tensor]]:
    leaves = Leaves(style, fields, blending.window + blending.reach)
    pools = _pools(fields, leaves, blending)
    finish = _finishing(style, fields, blending, leaves, pools)
    fields.hold((blending.reach + 1) * (blending.window.bit_length() + 1) + blending.every)
    for done, number in enumerate(asked):
        leaf = leaves(number)
        picture = finish(number) if blending.window else leaf[:, :3]
        change = (picture - leaf[:, :3]).abs().amax(1)
        yield number, picture[0], change[0]
        progress("blending frames", done + 1, len(asked))


class Leaves:
    """Frames as they are blended: their colours, and the energy of their detail.

    Args:
        style: the frames.
        fields: the ways between them.
        held: how many that were asked for last are in memory, and two more.
    """

    def __init__(self, style: Frames, fields: Fields, held: int) -> None:
        self.style, self.fields = style, fields
        self._held: Shelf[Tensor] = Shelf(0, least=held + 2)
        self._details: Shelf[Tensor] = Shelf(0, least=3)

    def detail(self, number: int) -> Float[Tensor, "1 6 h w"]:
        """The detail of a frame, in bands."""
        detail = self._details.get(number)
        if detail is None:
            detail = split(high(self(number)[:, :3]))
            self._details.put(number, detail, 1)
        return detail

    def __call__(self, number: int) -> Float[Tensor, "1 4 h w"]:
        leaf = self._held.get(number)
        if leaf is None:
            picture = self.style[number : number + 1].to(self.fields.device, torch.float32)
            if not bool(picture.isfinite().all()):
                raise ValueError(
                    f"frame {number} of the pictures to blend has values that are not finite: expected all in [0, 1]; "
                    "make the frame anew, or mend it"
                )
            leaf = torch.cat([picture, energy(high(picture))], 1)
            self._held.put(number, leaf, 1)
        return leaf


def _pools(fields: Fields, leaves: Leaves, blending: Blending) -> Callable[[int], Pool]:
    if blending.mode != "fast":
        find = Pairs(fields, leaves, blending.window, joint=blending.mode == "accurate").at
    else:
        before, after = (Side(fields, leaves, blending.window + 1, sign) for sign in (-1, 1))

        def find(number: int) -> Pool:
            return centred(before.at(number), after.at(number), leaves(number))

    # A mean of means asks for each again.
    held: Shelf[Pool] = Shelf(0, least=1 + blending.reach)

    def kept(number: int) -> Pool:
        pool = held.get(number)
        if pool is None:
            pool = find(number)
            held.put(number, pool, 1)
        return pool

    return kept


def _finishing(
    style: Frames, fields: Fields, blending: Blending, leaves: Leaves, pools: Callable[[int], Pool]
) -> Callable[[int], Float[Tensor, "1 3 h w"]]:
    """What makes the picture of a frame, with whichever detail."""
    carrier = Carrier(fields, leaves.detail, blending.every)
    steadied, shared = Steadied(fields, leaves, pools, blending.window), SharedDetail(style, fields)

    def finished(number: int) -> Tensor:
        pool, frame = pools(number), leaves(number)[:, :3]
        mean, bands = pool.mean[:, :3], split(high(pool.mean[:, :3]))
        detail, aim = whole(bands), None
        energies = energy(high(mean)), pool.mean[:, 3:4], pool.weight.square() / pool.squares
        if blending.detail == "own" or (blending.detail == "auto" and shared(number)):
            mean = mean + steadied.light(number)
            aim = steadied.detail(number, whole(leaves.detail(number)))
        elif blending.grain > 0:
            carried, trust = carrier(number, bands)
            # Where no key is believed, the mean's own detail is made as loud.
            louder = gain(*energies, 1.0, MOST) * detail
            aim = louder + trust * (carried - louder)
        picture = mean + (gain(*energies, 0.0, MOST) - 1) * ((1 - blending.grain) * detail)
        if aim is not None:
            picture = picture + blending.grain * (aim - detail)
        # What nothing was joined with, and nothing carried to, stays as it is.
        return torch.where(picture == frame, frame, picture.clamp(0, 1))

    return finished
