"""Whether a film leaves its source slowly: colours and large forms that are other ones at the end than at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.evaluation.alike import check_films
from segue.evaluation.measure import Measure
from segue.evaluation.windows import reduced
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

AREA = 32 * 32
"""Pixels of a picture that shows forms and no detail."""
FIRST = 8
"""Frames whose mean is how the film began."""


@dataclass(frozen=True)
class Drift:
    """What grows over the time of a film of its difference from its source, of a full range of colours of 1.

    A difference that is there from the first frame on, as a restyling makes it, is none; nor is one that comes and goes
    evenly. Where the source itself changes, as over a cut, its restyling may differ otherwise; that is not told apart.

    Args:
        colour: root mean square over the channels of how far their means depart from the source's from the first frame
            to the last, on the straight line of least squares.
        colour_error: what that would be by chance, if frames were off independently: a flicker has some of it.
        structure: the same of each place of pictures of 32x32 pixels' area, without what the mean colour does.
        structure_error: what that would be by chance.
        departures: of every frame, the root mean square difference, at that size, between how it differs from the
            source and how the first frames do.
    """

    colour: float
    colour_error: float
    structure: float
    structure_error: float
    departures: tuple[float, ...]

    def measures(self) -> list[Measure]:
        """All numbers, each with its meaning."""
        colours = f"how far mean colours leave the source's over time; by chance {self.colour_error:.2g}"
        forms = f"the same of large forms, besides their mean colour; by chance {self.structure_error:.2g}"
        return [
            Measure("colour drift", self.colour, "lower", colours),
            Measure("structure drift", self.structure, "lower", forms),
        ]


def drift(frames: Frames, source: Frames, *, progress: Progress = silent) -> Drift:
    """How a film departs from its source with time, read one frame at a time.

    Args:
        frames: three or more, as a line through two has no error.
        source: of the same size and length.
        progress: told of every frame.

    Raises:
        ValueError: the films differ in size or length, or there are fewer than three frames.
    """
    check_films(frames, source, least=3)
    colours, structure = _Line(len(frames)), _Line(len(frames))
    begun: list[Tensor] = []
    departures: list[float] = []
    for number in range(len(frames)):
        window = slice(number, number + 1)
        apart = frames[window] - source[window]
        forms = reduced(apart, AREA)[0].double()
        colours.add(apart.double().mean((0, 2, 3)))
        structure.add(forms - forms.mean((1, 2), keepdim=True))
        if number < FIRST:
            begun.append(forms)
        else:
            departures.append(_size(forms - torch.stack(begun).mean(0)))
        progress("looking for drift", number + 1, len(frames))
    first = [_size(forms - torch.stack(begun).mean(0)) for forms in begun]
    return Drift(*colours.found(), *structure.found(), (*first, *departures))


class _Line:
    """The lines of least squares through many values over time, which are told one frame after the other."""

    def __init__(self, count: int) -> None:
        time = (torch.arange(count).double() - (count - 1) / 2) / (count - 1)
        self.times, self.spread = time.tolist(), float(time.square().sum())
        self.told = 0
        self.total = self.squares = self.along = torch.zeros((), dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Those of the next frame."""
        self.along = self.along + self.times[self.told] * values
        self.total, self.squares = self.total + values, self.squares + values.square()
        self.told += 1

    def found(self) -> tuple[float, float]:
        """Root mean squares of the rises from first to last, and of their standard errors."""
        rise = self.along / self.spread
        left = self.squares - self.total.square() / self.told - rise.square() * self.spread
        variance = left.clamp(min=0) / (self.told - 2) / self.spread
        return _size(rise), float(variance.mean().sqrt())


def _size(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
