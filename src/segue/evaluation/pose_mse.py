"""Pose-MSE: how far key points of one clip are from those of another, in shares of the figure's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment

from segue.evaluation.measure import Measure
from segue.types.keypoints import BODY, FACE, LEFT_HAND, RIGHT_HAND

if TYPE_CHECKING:
    from torch import Tensor

    from segue.types import KeyPoints

PARTS = {
    "body": (BODY,),
    "hands": (RIGHT_HAND, LEFT_HAND),
    "face": (FACE,),
}
"""Which points each part has."""


@dataclass(frozen=True)
class PoseMse:
    """How far poses are from those that were asked for.

    Args:
        value: the mean squared distance of points that both clips have, in squares of the figure's size; None if they
            have none in common.
        parts: the same of body, hands and face.
        missing: the share of the points asked for that were not found: they have no distance, and count here alone.
        points: how many distances there are.
        size: of the figure asked for: the usual diagonal of its body's points, in pixels.
    """

    value: float | None
    parts: dict[str, float | None]
    missing: float
    points: int
    size: float

    def measures(self) -> list[Measure]:
        """It, and right after how much of the pose it says nothing about."""
        told = "mean squared distance of key points, in squares of the figure's size; of points that were found"
        lost = "points of the pose asked for that were not found; Pose-MSE leaves them out"
        return [
            Measure("Pose-MSE", self.value, "lower", told),
            Measure("Pose points missing", self.missing, "lower", lost),
        ]


def pose_mse(found: KeyPoints, asked: KeyPoints) -> PoseMse:
    """The Pose-MSE of a clip.

    Persons are matched so that they are nearest over the whole clip; each must be in one place of its own, as
    `segue.motion.keypoints.tracked` puts them.

    Args:
        found: in the clip that is judged.
        asked: as they should be, in pictures of the same size.

    Raises:
        ValueError: the clips differ in size or length, or there is nobody in the one that is asked for.
    """
    if found.size != asked.size or len(found) != len(asked):
        raise ValueError(
            f"expected key points of as many pictures of one size, got {len(found)} of {found.size} and "
            f"{len(asked)} of {asked.size}; KeyPoints.at(size) brings them to another size"
        )
    if not bool(asked.present.any()):
        raise ValueError("there is nobody in the clip whose poses are asked for")
    size = _size(asked.places[:, :, BODY])
    squared = (found.places[:, :, None].double() - asked.places[:, None].double()).square().sum(-1) / size**2
    rows, columns = linear_sum_assignment(_cost(squared).numpy())
    matched = torch.full(asked.places.shape[:3], torch.nan, dtype=torch.float64)
    for row, column in zip(rows, columns, strict=True):
        matched[:, column] = squared[:, row, column]
    parts = {name: _mean(torch.cat([matched[:, :, points] for points in slices], 2)) for name, slices in PARTS.items()}
    there = matched.isfinite()
    return PoseMse(
        value=_mean(matched),
        parts=parts,
        missing=float((asked.present & ~there).sum() / asked.present.sum()),
        points=int(there.sum()),
        size=size,
    )


def _cost(squared: Tensor) -> Tensor:
    """Of each pair of persons (found, asked); pairs that share no point are the last to be chosen."""
    there = squared.isfinite()
    mean = squared.nan_to_num(0).sum((0, 3)) / there.sum((0, 3)).clamp(min=1)
    return torch.where(there.any(3).any(0), mean, mean.max() + 1e6)


def _size(places: Tensor) -> float:
    """The median of the diagonals of all bodies that have one."""
    low = torch.where(places.isnan(), torch.inf, places).amin(2)
    high = torch.where(places.isnan(), -torch.inf, places).amax(2)
    diagonal = (high - low).norm(dim=-1)
    sizes = diagonal[diagonal.isfinite() & (diagonal > 0)]
    if not len(sizes):
        raise ValueError("a figure has no size without two points of its body in some frame")
    return float(sizes.double().median())


def _mean(values: Tensor) -> float | None:
    kept = values[values.isfinite()]
    return float(kept.mean()) if len(kept) else None
