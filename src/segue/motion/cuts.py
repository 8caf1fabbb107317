"""Where one shot ends and the next begins."""

from __future__ import annotations

from itertools import product
from statistics import median
from typing import TYPE_CHECKING

from torch.nn.functional import avg_pool2d, interpolate, pad

from segue.motion.flow import SMALLEST, flow
from segue.motion.warp import warp
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_AREA = 96 * 54
"""Pixels that a picture is reduced to: shots differ in the large, and noise is averaged away."""
_LOST = 0.2
"""The share of a picture that is found nowhere in the other, from which on it may be another shot. Of real footage that
was measured, noisy and flickering, no two neighbours in a shot reached 0.13; over a cut, with half of the screen
standing still, none was below 0.31."""
_STANDS_OUT = 1.6
"""How many times more is lost at a cut than at most steps around it, so that fast movement throughout is none."""
_FLASH = 3
"""A picture that is back after fewer frames than this was never gone."""
_AROUND = 4
_RADIUS = 2
_MIDDLE, _SPREAD = 0.5, 0.2
_FLAT = 0.01
"""Standard deviation of brightness of a picture with nothing on it, which is not made to stand out."""
_FAINT = 1e-3
"""Variance of brightness that is taken for none."""


def cuts(frames: Frames, *, progress: Progress = silent) -> tuple[int, ...]:
    """The numbers of the frames that begin a shot, but for the first; hard cuts only.

    Two neighbours belong to different shots if much of either is found nowhere in the other: pictures are reduced,
    freed from gain and offset, brought together along the optical flow, and compared by their correlation around each
    pixel, which flicker does not change. What comes back at once is a flash; where much is lost at every step, it is
    movement.

    Args:
        frames: the clip, of which a few small pictures are held.
        progress: told of each frame.
    """
    shapes: list[Tensor] = []
    steps: list[float] = []
    found: list[int] = []
    for number in range(len(frames) + _AROUND):
        if number < len(frames):
            shapes.append(_shape(frames[number : number + 1]))
            if number:
                steps.append(lost(shapes[-2], shapes[-1]))
            progress("looking for cuts", number + 1, len(frames))
        # The step into a frame is judged when those around it are known.
        judged = number - _AROUND
        if 0 < judged < len(frames) and _is_cut(judged, steps, shapes):
            found.append(judged)
        old = number - 2 * _AROUND
        if 0 <= old < len(shapes):
            shapes[old] = shapes[old].new_empty(0)  # A part of it would hold it all.
    return tuple(found)


def lost(a: Float[Tensor, "1 1 h w"], b: Float[Tensor, "1 1 h w"]) -> float:
    """The share of one picture that is not found in the other, 0 to 1; of the one of which it is less."""
    grey, other = a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)
    ways = flow(grey, other), flow(other, grey)
    return min(float(1 - _alike(a, warp(b, ways[0])).mean()), float(1 - _alike(b, warp(a, ways[1])).mean()))


def _is_cut(number: int, steps: list[float], shapes: list[Tensor]) -> bool:
    step = steps[number - 1]
    around = [*steps[max(0, number - 1 - _AROUND) : number - 1], *steps[number : number + _AROUND]]
    if step < _LOST or (around and step < _STANDS_OUT * median(around)):
        return False
    sides = product(range(1, _FLASH + 1), range(_FLASH))
    pairs = [(number - before, number + after) for before, after in sides if 1 < before + after <= _FLASH]
    return all(
        lost(shapes[before], shapes[after]) >= _LOST for before, after in pairs if before >= 0 and after < len(shapes)
    )


def _shape(picture: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 1 h w"]:
    """Small, grey, and level."""
    height, width = picture.shape[2:]
    scale = min(1.0, (_AREA / (height * width)) ** 0.5)
    size = max(SMALLEST, round(height * scale)), max(SMALLEST, round(width * scale))
    grey = interpolate(picture.cpu().mean(1, keepdim=True), size, mode="bilinear", antialias=True)
    apart = grey - grey.mean()
    return (_MIDDLE + apart * (_SPREAD / apart.square().mean().sqrt().clamp(min=_FLAT))).clamp(0, 1)


def _alike(a: Tensor, b: Tensor) -> Float[Tensor, "1 1 h w"]:
    """How alike the surroundings of each pixel are, but for their brightness: 1 the same, 0 nothing in common."""
    of_a, of_b, of_both = _mean(a), _mean(b), _mean(a * b)
    shared = of_both - of_a * of_b
    spread = _mean(a * a) - of_a.square() + _mean(b * b) - of_b.square()
    return ((2 * shared + _FAINT) / (spread.clamp(min=0) + _FAINT)).clamp(0, 1)


def _mean(plane: Tensor) -> Tensor:
    return avg_pool2d(pad(plane, (_RADIUS,) * 4, mode="reflect"), 2 * _RADIUS + 1, 1)
