"""The Fréchet distance between two sets of clips, in features of pictures and of how these change.

FVD (Unterthiner et al. 2018, arXiv:1812.01717) is the same formula in the features of I3D, a network of clips. There is
none here, so that this is never called FVD: a clip's vector is the mean of its frames' features, and how strongly each
of these changes from frame to frame. The second half is what tells a clip from the same frames in another order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from segue.errors import TaskError
from segue.evaluation.features import Features
from segue.evaluation.frechet import FrechetDistance, frechet_distance
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

LENGTH = 16
"""Frames of a clip, as FVD has them."""


def clip_features(
    films: Iterable[Frames], features: Features, *, length: int = LENGTH, progress: Progress = silent
) -> Float[Tensor, "n 2*d"]:
    """One vector for each stretch of `length` frames of the films; what is left at an end is left out.

    Args:
        films: of any number of frames.
        features: of pictures.
        length: of a clip, 2 or more.
        progress: told of every clip.

    Raises:
        TaskError: `length` is below 2, or no film has as many frames.
    """
    if length < 2:
        raise TaskError(f"a clip has 2 frames or more, got {length}")
    found = list["Tensor"]()
    for film in films:
        for start in range(0, len(film) - length + 1, length):
            with torch.no_grad():
                seen = torch.cat([features(film[at : at + 1]).float().cpu() for at in range(start, start + length)])
            changes = (seen[1:] - seen[:-1]).square().mean(0).sqrt()
            found.append(torch.cat([seen.mean(0), changes]))
            progress("looking at clips", len(found), len(found))
    if not found:
        raise TaskError(f"expected films of {length} frames or more, to compare clips of so many")
    return torch.stack(found)


def frechet_video_distance(
    films: Iterable[Frames], others: Iterable[Frames], features: Features, *, length: int = LENGTH
) -> FrechetDistance:
    """How far apart two sets of clips are; see `FrechetDistance`, whose pictures are clips here.

    Raises:
        TaskError: one set has fewer than 2 clips.
    """
    mine, theirs = (clip_features(each, features, length=length) for each in (films, others))
    if min(len(mine), len(theirs)) < 2:
        raise TaskError(
            f"sets of 2 clips of {length} frames or more are compared; got {len(mine)} and {len(theirs)}: give longer "
            "films, or more of them"
        )
    return frechet_distance(mine, theirs, f"{features.name} of clips of {length} frames, and their changes")
