"""How a film looks, in numbers that need no other film: how colourful it is, and what a trained head says of beauty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from segue.evaluation.measure import Measure
from segue.evaluation.windows import reduced
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

AREA = 512 * 512
"""Pixels of a picture whose colours are looked at: larger ones are reduced first."""


@dataclass(frozen=True)
class Looks:
    """How a film looks.

    There is no measure of beauty without a network that learned it from people. So where none is given, this is one
    property that people were asked about, under its own name; more of it is not better.

    Args:
        colourful: M3 of Hasler & Süsstrunk 2003 ("Measuring colourfulness in natural images"), mean over the frames: 0
            for greys; they call 33 moderately, 59 quite and 109 extremely colourful.
        source: the same of the film that it was made from.
        aesthetic: mean of the scores that a linear head on CLIP gives the frames.
        head: which head, and on which CLIP.
    """

    colourful: float
    source: float | None = None
    aesthetic: float | None = None
    head: str | None = None

    def measures(self) -> list[Measure]:
        """All numbers, each with its meaning."""
        beside = "" if self.source is None else f"; source: {self.source:.3g}"
        told = f"33 is moderate, 59 quite, 109 extremely (Hasler & Süsstrunk); says nothing of beauty{beside}"
        found = [Measure("colourfulness", self.colourful, "neither", told)]
        if self.aesthetic is not None:
            found.append(Measure("aesthetic score", self.aesthetic, "higher", f"by {self.head}, mean over the frames"))
        return found


def looks(
    frames: Frames,
    source: Frames | None = None,
    *,
    aesthetic: tuple[str, Callable[[Float[Tensor, "b d"]], Float[Tensor, " b"]]] | None = None,
    features: Float[Tensor, "t d"] | None = None,
    progress: Progress = silent,
) -> Looks:
    """How a film looks.

    Args:
        frames: one or more.
        source: the film that it was made from.
        aesthetic: the name of a head, and the head, which scores features.
        features: of the frames, which it scores.
        progress: told of every frame.
    """
    own, other = (None if film is None else _colourful(film, progress) for film in (frames, source))
    if aesthetic is None or features is None:
        return Looks(own or 0.0, other)
    name, head = aesthetic
    return Looks(own or 0.0, other, float(head(features).double().mean()), name)


def colourfulness(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """M3 of Hasler & Süsstrunk 2003 of pictures in [0, 1], in levels of 255 as they have it."""
    r, g, b = (255 * pictures.double()).flatten(2).unbind(1)
    red_green, yellow_blue = r - g, (r + g) / 2 - b
    spread = (red_green.var(1, correction=0) + yellow_blue.var(1, correction=0)).sqrt()
    return spread + 0.3 * (red_green.mean(1).square() + yellow_blue.mean(1).square()).sqrt()


def _colourful(frames: Frames, progress: Progress) -> float:
    found: list[float] = []
    with torch.no_grad():
        for number in range(len(frames)):
            found.append(float(colourfulness(reduced(frames[number : number + 1], AREA))))
            progress("looking at colours", number + 1, len(frames))
    return fmean(found)
