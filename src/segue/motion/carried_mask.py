"""Masks that go along with what a clip shows: given at a frame or several, and carried to all others.

A mask that is handed on from frame to frame is resampled each time, and slips off what it lay on. Here each frame asks
the given masks themselves, along composed and along searched ways, so that a mask is resampled once however far it
comes, what was hidden for a while is found again behind it, and every given mask is a new beginning. What no way leads
from, because it was hidden or not in the picture, is filled in from what is around it, looks the same and moves alike.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from itertools import pairwise
from math import cos, pi
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import max_pool2d

from segue.errors import TaskError
from segue.motion.carried import Paths, alike
from segue.motion.filled import filled

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.motion.fields import Fields

    Side = tuple[Float[Tensor, "1 1 h w"], Float[Tensor, "1 1 h w"]]

EVENED = 1 / 64
"""Share of the shorter side within which the edges of a mask that was carried are made even."""
_DOUBTED, _BELIEVED = 0.4, 0.8
"""How far a way is believed up to which it has no say in a pixel, and from which on nothing else has."""
_LEAST = 0.02
"""What a side counts whose way is not believed at all, against one whose is."""
_BETTER = 1e-3
_LEVELS = 255
_PIXEL = 0.2
"""What a pixel of movement counts, against colours in [0, 1]."""
_SPECK = 3
"""Half the side, in pixels, of what is too small to be believed."""


class CarriedMask:
    """The mask of every frame of a clip, found out when it is asked for; in any order, the same bits.

        masks = CarriedMask(Fields(FlowMatcher(), frames, cuts=cuts(frames)), {0: drawn, 40: corrected})
        masks.mask(17)

    Args:
        fields: the ways between frames.
        given: masks in [0, 1] by the numbers of their frames, of the size of the fields; soft edges stay as soft.

    Raises:
        TaskError: there is no mask, or one is of another size, has other values or is of no frame; or a shot has none.
    """

    def __init__(self, fields: Fields, given: Mapping[int, Float[Tensor, "h w"]]) -> None:
        self.fields = fields
        self.given = {number: _checked(given[number], number, fields) for number in sorted(given)}
        self._places = tuple(self.given)
        self._paths = Paths(fields, len(fields))
        for first, stop in pairwise([*sorted({0, *fields.cuts}), len(fields)]):
            if not any(first <= place < stop for place in self._places):
                raise TaskError(
                    f"the shot of the frames {first} to {stop - 1} has no mask, and none is carried over a cut: give "
                    "one of its frames a mask, black if nothing of it is meant"
                )

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t h w"]:
        width, height = self.fields.size
        found = [self.mask(number) for number in range(len(self))[window]]
        return torch.stack(found) if found else torch.empty(0, height, width, device=self.fields.device)

    def mask(self, number: int) -> Float[Tensor, "h w"]:
        """That of a frame, in [0, 1]: the given one, to the bit, or else of 256 levels, so that 0 and 1 are exact.

        Raises:
            IndexError: no such frame.
        """
        if number in self.given:
            return self.given[number]
        mixed = total = torch.zeros(())
        for near, (levels, belief) in self._near(number):
            weight = near * (_LEAST + belief)
            mixed, total = mixed + weight * levels, total + weight
        return _levels(mixed / total)[0, 0]

    def trust(self, number: int) -> Float[Tensor, "h w"]:
        """How far it is known there what the mask is, 0 to 1; what is not is filled in from around it.

        Raises:
            IndexError: no such frame.
        """
        if number in self.given:
            return torch.ones_like(self.given[number])
        return torch.stack([belief for _, (_, belief) in self._near(number)]).amax(0)[0, 0]

    def _near(self, number: int) -> list[tuple[float, Side]]:
        """What the frames with a mask before and after make of a frame, and how near they are."""
        places = self._sides(number)
        apart = sum(abs(place - number) for place in places)
        near = [cos(pi / 2 * abs(place - number) / apart) if len(places) == 2 else 1.0 for place in places]
        return [(share, self._side(number, place)) for place, share in zip(places, near, strict=True)]

    def _side(self, number: int, place: int) -> Side:
        """The mask of a frame as that of another makes it, nothing left out; and how far it is believed."""
        brought, belief = self._brought(number, place)
        known = _sure(belief)
        if bool((known < 1).any()):
            brought = filled(brought, known, self._seen(number))
        return brought.clamp(0, 1), belief

    def _sides(self, number: int) -> tuple[int, ...]:
        """The frames of the same shot, before and after, that have a mask and are nearest."""
        first, last = self.fields.shot(range(len(self))[number])
        before, after = bisect_left(self._places, number) - 1, bisect_right(self._places, number)
        near = [self._places[place] for place in (before, after) if 0 <= place < len(self._places)]
        return tuple(place for place in near if first <= place <= last)

    def _seen(self, number: int) -> Float[Tensor, "1 5 h w"]:
        """What tells things apart in a frame: its colours, and how they move from the frame before to that after."""
        picture = self.fields.picture(number)
        near = [other for other in (number - 1, number + 1) if self.fields.joined(number, other)]
        moves = [self.fields.way(number, other).way * (other - number) for other in near]
        return torch.cat([picture, _PIXEL / len(moves) * torch.stack(moves).sum(0)], 1)

    def _brought(self, number: int, place: int) -> Side:
        """A given mask at another frame, and how far to believe it: by the best of three ways, pixel by pixel.

        From frame to frame, small things that are fast are followed; by few long steps, little is lost on the way; and
        what is searched at once passes by whatever was in between.
        """
        here, there = self.fields.picture(number), self.fields.picture(place)
        mask = self.given[place][None, None]
        best: tuple[Tensor, Tensor] | None = None
        for way in (self._paths.way(number, place), self.fields.way(number, place), self.fields.direct(number, place)):
            belief = way.confidence[:, None] * alike(here, way.remap(there))
            brought = way.remap(mask)
            if best is None:
                best = brought, belief
            else:
                better = belief > best[1] + _BETTER
                best = torch.where(better, brought, best[0]), torch.where(better, belief, best[1])
        assert best is not None
        return best


def _sure(belief: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 1 h w"]:
    """How far a belief is acted on: specks of it amid what is not believed have come about by chance."""
    sure, side = ((belief - _DOUBTED) / (_BELIEVED - _DOUBTED)).clamp(0, 1), 2 * _SPECK + 1
    worn = -max_pool2d(-sure, side, 1, _SPECK)
    return torch.minimum(sure, max_pool2d(worn, side, 1, _SPECK))


def _levels(mask: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 1 h w"]:
    return (mask.clamp(0, 1) * _LEVELS).round() / _LEVELS


def _checked(mask: Tensor, number: int, fields: Fields) -> Float[Tensor, "h w"]:
    """The mask of a frame, as it is used.

    Raises:
        TaskError: it is none, or of no frame.
    """
    width, height = fields.size
    if not 0 <= number < len(fields):
        raise TaskError(f"a mask is of one of the frames 0 to {len(fields) - 1}; got one of frame {number}")
    if tuple(mask.shape) != (height, width):
        got = "x".join(map(str, reversed(mask.shape)))
        raise TaskError(f"the mask of frame {number} must be {width}x{height}, as the frames; got {got}: fit it first")
    mask = mask.detach().to(fields.device, torch.float32)
    low, high = (float(end) for end in mask.aminmax())
    if not 0 <= low <= high <= 1:
        raise TaskError(f"a mask is in [0, 1], and that of frame {number} goes from {low:g} to {high:g}")
    return mask


def evened(mask: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """A mask without the frays that its edges get on the way, where nothing in a picture says what moves.

    The median around each pixel, over two 64ths of the shorter side, or over less of a small area: edges and ramps that
    are straight stay as they are, and what is 0 or 1 all around does. In 256 levels.
    """
    import cv2
    import numpy as np

    radius = float((mask > 0.5).sum() / torch.pi) ** 0.5
    reach = round(min(EVENED * min(mask.shape), radius / 8))
    if not reach:
        return mask
    levels = np.ascontiguousarray((255 * mask).round().to(torch.uint8).numpy())
    return torch.from_numpy(cv2.medianBlur(levels, 2 * reach + 1)).to(mask.dtype) / 255
