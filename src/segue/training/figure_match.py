"""Which of a figure's known postures a picture shows, without any pose network.

This is no pose estimation: it draws the subject in every posture of known motions and takes the one that looks most
like the picture. So it never finds a posture that is in none of the motions, and it must be told who is to be seen.
What it measures is whether a restyled or generated figure does what it was asked to do, and when.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import avg_pool2d, interpolate

from segue.errors import TrainingError
from segue.training.figure import MOTIONS, FigureClip
from segue.types import KeyPoints
from segue.types.keypoints import POINTS

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_SIDE = 64  # pixels of the shorter side at which pictures are compared
_LEAST = 0.3  # share of what stands out from the ground that a posture must explain


@dataclass(frozen=True)
class Matches:
    """Postures that pictures show.

    Args:
        key_points: of the posture nearest to each picture; absent where none explains it. Their confidence is the share
            of what stands out from the ground that it explains.
        motions: the name of each posture's motion; "" where there is none.
        phases: the share of the motion's period at which each posture is; NaN where there is none.
    """

    key_points: KeyPoints
    motions: tuple[str, ...]
    phases: Float[Tensor, " t"]


def nearest_postures(
    pictures: Float[Tensor, "t 3 h w"], like: FigureClip, *, motions: Iterable[str] | None = None, phases: int = 24
) -> Matches:
    """The known posture that each picture looks most like, each picture by itself.

    Args:
        pictures: in [0, 1], of a figure on a ground of one colour, which is read from their borders.
        like: a clip of the subject, as large and in the same place and view.
        motions: whose postures are tried; all, if left out.
        phases: how many postures of each motion.

    Raises:
        TrainingError: an unknown motion, no posture to try, or pictures of other proportions than the clip's.
    """
    width, height = like.size
    if pictures.ndim != 4 or pictures.shape[2] * width != pictures.shape[3] * height:
        raise TrainingError(f"expected pictures with the proportions of {like.size}, got {tuple(pictures.shape)}")
    tried = tuple(MOTIONS) if motions is None else tuple(motions)
    if not tried or phases < 1:
        raise TrainingError(f"expected motions and phases to try, got {tried} and {phases}")
    factor = _SIDE / min(width, height)
    size = (round(width * factor), round(height * factor))
    clips = [
        replace(like, motion=motion, size=size, length=phases, period=phases, phase=0.0, ground=(0.0, 0.0, 0.0))
        for motion in tried
    ]
    layers = _smooth(torch.stack([clip.layer(frame) for clip in clips for frame in range(phases)]))
    points = [clip.key_points.at((pictures.shape[3], pictures.shape[2])) for clip in clips]
    places = torch.full((len(pictures), 1, POINTS, 2), torch.nan)
    sure = torch.zeros(len(pictures), 1, POINTS)
    names: list[str] = []
    found = torch.full((len(pictures),), torch.nan)
    for number, picture in enumerate(pictures):
        seen = _smooth(interpolate(picture[None].float(), (size[1], size[0]), mode="area"))
        ground = _border(seen[0])
        stands_out = float((seen - ground).square().mean())
        error = (layers[:, :3] + (1 - layers[:, 3:]) * ground - seen).square().mean((1, 2, 3))
        best = int(error.argmin())
        explained = 1 - float(error[best]) / max(stands_out, 1e-9)
        if explained < _LEAST or stands_out < 1e-5:
            names.append("")
            continue
        motion, phase = divmod(best, phases)
        names.append(tried[motion])
        found[number] = phase / phases
        places[number, 0] = points[motion].places[phase, 0]
        sure[number, 0] = explained * points[motion].confidence[phase, 0]
    size_of_pictures = (pictures.shape[3], pictures.shape[2])
    return Matches(KeyPoints(places, sure, size_of_pictures), tuple(names), found)


def _smooth(pictures: Tensor) -> Tensor:
    """Without what is finer than limbs, such as patterns and noise."""
    return avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)


def _border(picture: Tensor) -> Float[Tensor, "3 1 1"]:
    """The usual colour around the picture."""
    sides = [picture[:, :2].flatten(1), picture[:, -2:].flatten(1), picture[:, :, :2].flatten(1)]
    return torch.cat([*sides, picture[:, :, -2:].flatten(1)], 1).median(1).values[:, None, None]
