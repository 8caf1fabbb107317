"""Lines in the picture where parts of it meet: do they show?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn.functional import avg_pool2d

from segue.errors import TaskError
from segue.evaluation.alike import check_films
from segue.evaluation.loops import SURROUNDINGS
from segue.evaluation.measure import Measure
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Axis = Literal["column", "row"]
MARGIN = 2
"""Pixels on each side of a line that are needed to tell a jump from a slope."""
STRETCH = 16
"""Pixels along a line over which jumps are averaged: what crosses it, as texture does, jumps both ways."""


@dataclass(frozen=True)
class Seam:
    """How much a line stands out.

    Args:
        axis: what it lies beside.
        at: the number of the first column or row after it.
        jump: the step across it, less the mean of the steps before and after it, so that slopes are none: the mean
            over stretches of 16 pixels along it, and the root mean square of these, of a full range of 1.
        ratio: that over the median of the same at up to 8 lines on each side; 1 cannot be found.
        source: the ratio of the source there; None if none was given.
    """

    axis: Axis
    at: int
    jump: float
    ratio: float
    source: float | None = None

    def measures(self) -> list[Measure]:
        """Its ratio, with its meaning."""
        of = "" if self.source is None else f"; source: {self.source:.4g}"
        told = f"the jump of {self.jump:.2g} across the line before that {self.axis}, over those at lines near{of}"
        return [Measure(f"seam at {self.axis} {self.at}", self.ratio, "near 1", told)]


def check_borders(size: tuple[int, int], columns: Sequence[int], rows: Sequence[int]) -> dict[Axis, Sequence[int]]:
    """The borders by their axis, of pictures of (width, height) pixels.

    Raises:
        TaskError: one is nearer than 2 pixels to an end of the picture, or named twice.
    """
    lines: dict[Axis, Sequence[int]] = {"column": columns, "row": rows}
    for (axis, places), length in zip(lines.items(), size, strict=True):
        for place in places:
            if not MARGIN <= place <= length - MARGIN:
                raise TaskError(
                    f"expected a border at a {axis} from {MARGIN} to {length - MARGIN}, as there are {length}, "
                    f"got {place}"
                )
            if [*places].count(place) > 1:
                raise TaskError(f"expected each border once, and {axis} {place} is given twice: leave one out")
    return lines


def seams(
    frames: Frames,
    source: Frames | None = None,
    *,
    columns: Sequence[int] = (),
    rows: Sequence[int] = (),
    progress: Progress = silent,
) -> tuple[Seam, ...]:
    """How much the borders of tiles, or of pictures that were put side by side, stand out; read frame by frame.

    Edges of things that move are at all lines in turn, and a seam is always at its own.

    Args:
        frames: one or more, of 4x4 pixels or more.
        source: of the same size and length: what stands out there, too, such as a frame around the picture, is none.
        columns: the numbers of the first columns to the right of borders.
        rows: the numbers of the first rows below borders.
        progress: told of every frame.

    Raises:
        TaskError: a border is nearer than 2 pixels to an end of the picture, or named twice.
        ValueError: there are no frames, a side is shorter than 4 pixels, or the source is of another size or length.
    """
    check_films(frames, source, side=2 * MARGIN)
    lines = check_borders(frames.size, columns, rows)
    if not columns and not rows:
        return ()
    here = _energies(frames, progress)
    there = None if source is None else _energies(source, progress)
    found: list[Seam] = []
    for axis, places in lines.items():
        for at in places:
            usual = None if there is None else _ratio(there[axis], at, places)
            found.append(Seam(axis, at, here[axis][at] ** 0.5, _ratio(here[axis], at, places), usual))
    return tuple(found)


def _energies(frames: Frames, progress: Progress) -> dict[Axis, list[float]]:
    """By axis and place, the mean square of jumps across the line before it; 0 where there are no pixels for that."""
    across, down = (torch.zeros(side, dtype=torch.float64) for side in frames.size)
    for number in range(len(frames)):
        picture = frames[number : number + 1][0].double()
        across[MARGIN : 1 - MARGIN] += _jumps(picture).square().mean((0, 1))
        down[MARGIN : 1 - MARGIN] += _jumps(picture.mT).square().mean((0, 1))
        progress("looking for seams", number + 1, len(frames))
    return {"column": (across / len(frames)).tolist(), "row": (down / len(frames)).tolist()}


def _jumps(picture: Float[Tensor, "c h w"]) -> Float[Tensor, "c stretches w-3"]:
    steps = picture[..., 1:] - picture[..., :-1]
    jumps = steps[..., 1:-1] - (steps[..., :-2] + steps[..., 2:]) / 2
    return avg_pool2d(jumps, (min(STRETCH, jumps.shape[1]), 1), ceil_mode=True)


def _ratio(energies: list[float], at: int, borders: Sequence[int]) -> float:
    # A step shows in the jumps of the lines next to it, too.
    touched = {border + side for border in borders for side in (-1, 0, 1)}
    near = range(max(MARGIN, at - 1 - SURROUNDINGS), min(len(energies) - MARGIN, at + 1 + SURROUNDINGS) + 1)
    others = [energies[i] for i in near if i not in touched]
    usual = median(others) if others else 0.0
    everywhere = sum(energies) / max(1, len(energies) - 2 * MARGIN + 1)
    usual = usual or everywhere
    return (energies[at] / usual) ** 0.5 if usual > 0 else 1.0
