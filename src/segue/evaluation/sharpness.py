"""How much of the fine detail of a film is there, by itself or held against another film."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from segue.evaluation.alike import check_films
from segue.evaluation.measure import Measure
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

SLIGHT = (0.5 / 255) ** 2
"""Energy of gradients up to which a picture is plain but for rounding, and nothing is said of what is kept of it."""
SLIGHT_FINE = (2 / 255) ** 2
"""The same of Laplacians: that of a ramp that rises half a level by pixel both ways is 2 levels, by rounding alone."""


@dataclass(frozen=True)
class Kept:
    """What is left of the detail of another film. All are 1 for the same film, and None if that is plain.

    Args:
        gradients: energy of the gradients (mean of the squares) over that of the other film, mean over the frames. Blur
            lowers it; what is added, be it detail, grain or halos, raises it.
        fine: the same of the Laplacian, which looks at the finest detail alone; None too where the other film has
            slopes and nothing else.
        shared: what the gradients have in common: the factor with which the other film's gradients are in this film's
            (least squares). Independent noise does not raise it, as it does the others; so it is lower than their roots
            wherever detail is not the same, also where it only moved.
        worst: the least `gradients` of any frame.
        worst_at: that frame.
        frames: `gradients` of every frame.
    """

    gradients: float | None
    fine: float | None
    shared: float | None
    worst: float | None
    worst_at: int | None
    frames: tuple[float | None, ...]


@dataclass(frozen=True)
class Sharpness:
    """How sharp a film is.

    Args:
        gradient: the root mean square difference of neighbouring pixels, of a full range of 1, mean over the frames.
        kept: against another film, if one was given.
    """

    gradient: float
    kept: Kept | None = None

    def measures(self) -> list[Measure]:
        """All numbers, each with its meaning."""
        told = "difference of neighbouring pixels, of a full range of 1; blur lowers it, noise raises it"
        found = [Measure("sharpness", self.gradient, "higher", told)]
        if (kept := self.kept) is None:
            return found
        worst = "" if kept.worst is None else f"; least in frame {kept.worst_at}: {kept.worst:.3g}"
        of = "energy of gradients over the source's; blur lowers it, noise and halos raise it"
        return [
            *found,
            Measure("sharpness kept", kept.gradients, "near 1", of + worst),
            Measure("finest kept", kept.fine, "near 1", "the same of the finest detail (Laplacian)"),
            Measure("detail shared", kept.shared, "near 1", "how much of the source's own detail; noise adds nothing"),
        ]


def sharpness(frames: Frames, reference: Frames | None = None, *, progress: Progress = silent) -> Sharpness:
    """The sharpness of a film at its full size, read one frame at a time.

    Args:
        frames: one or more.
        reference: another film of the same size and length, whose detail is taken for the right amount.
        progress: told of every frame.

    Raises:
        ValueError: there are no frames, a side is shorter than 3 pixels, or the reference is of another size or length.
    """
    check_films(frames, reference, side=3)
    slopes: list[float] = []
    rows: list[tuple[float | None, float | None, float | None]] = []
    for number in range(len(frames)):
        window = slice(number, number + 1)
        here = frames[window]
        energy = float(_gradient_products(here, here))
        slopes.append(energy**0.5)
        if reference is not None:
            there = reference[window]
            due, both = float(_gradient_products(there, there)), float(_gradient_products(here, there))
            fine, fine_due = float(_laplacian_energy(here)), float(_laplacian_energy(there))
            fine_kept = fine / fine_due if fine_due > SLIGHT_FINE else None
            rows.append((None, None, None) if due <= SLIGHT else (energy / due, fine_kept, both / due))
        progress("measuring sharpness", number + 1, len(frames))
    return Sharpness(fmean(slopes), None if reference is None else _kept(rows))


def _kept(rows: list[tuple[float | None, float | None, float | None]]) -> Kept:
    gradients, fine, shared = zip(*rows, strict=True)
    known = [i for i, value in enumerate(gradients) if value is not None]
    worst = min(known, key=lambda i: gradients[i] or 0.0, default=None)
    least = None if worst is None else gradients[worst]
    return Kept(_mean(gradients), _mean(fine), _mean(shared), least, worst, gradients)


def _mean(values: tuple[float | None, ...]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _gradient_products(a: Float[Tensor, "1 3 h w"], b: Float[Tensor, "1 3 h w"]) -> Tensor:
    """Mean over pixels and directions of the inner product of gradients; for equal pictures, their energy."""

    def along(difference: Callable[[Tensor], Tensor]) -> Tensor:
        return (difference(a) * difference(b)).double().mean()

    across, down = along(lambda x: x[..., 1:] - x[..., :-1]), along(lambda x: x[..., 1:, :] - x[..., :-1, :])
    return (across + down) / 2


def _laplacian_energy(pictures: Float[Tensor, "1 3 h w"]) -> Tensor:
    """Mean of the squares of the 5-point Laplacian, in the interior."""
    around = pictures[..., :-2, 1:-1] + pictures[..., 2:, 1:-1] + pictures[..., 1:-1, :-2] + pictures[..., 1:-1, 2:]
    return (around - 4 * pictures[..., 1:-1, 1:-1]).square().double().mean()
