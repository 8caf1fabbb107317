"""Poses: key points that somebody finds, put in order over a clip, and drawn as sticks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from segue.errors import TaskError
from segue.models.annotate.annotator import check_pictures
from segue.models.annotate.skeleton import draw_skeleton
from segue.types import KeyPoints, Progress, silent
from segue.types.keypoints import POINTS

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.types import Frames

_WINDOW = 8  # frames that are read at a time


class KeyPointFinder(Protocol):
    """Finds persons in pictures."""

    def __call__(self, pictures: Float[Tensor, "t 3 h w"]) -> KeyPoints:
        """Their key points, each picture by itself; persons in any order."""
        ...


@dataclass(frozen=True)
class Pose:
    """An annotator: sticks of persons.

    Args:
        find: who finds their key points.
        steady: puts those of a clip in order, such as `segue.motion.keypoints.smoothed`; as they are, if left out.
    """

    find: KeyPointFinder
    steady: Callable[[KeyPoints], KeyPoints] | None = None
    kind: str = "pose"

    def __call__(self, pictures: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 h w"]:
        """Sticks, each picture by itself; black where nobody is found.

        Raises:
            TaskError: they are no pictures in [0, 1].
        """
        check_pictures(pictures)
        return draw_skeleton(self.find(pictures)).to(pictures)

    def key_points(self, frames: Frames, *, progress: Progress = silent) -> KeyPoints:
        """Those of a clip, in order.

        Raises:
            TaskError: nobody is found in any of its frames.
        """
        found: list[KeyPoints] = []
        for start in range(0, len(frames), _WINDOW):
            found.append(self.find(frames[start : start + _WINDOW]))
            progress("finding poses", min(start + _WINDOW, len(frames)), len(frames))
        points = joined(found, frames.size)
        if len(frames) and not bool(points.present.any()):
            raise TaskError(
                f"no person was found in any of {len(frames)} frames, so that there is no pose to draw; "
                "leave out the pose control, or give a clip of its maps"
            )
        return self.steady(points) if self.steady else points

    def over(self, frames: Frames, *, progress: Progress = silent) -> Frames:
        """The sticks of a clip, drawn when they are asked for; its key points are found first.

        Raises:
            TaskError: nobody is found in any of its frames.
        """
        return Skeletons(self.key_points(frames, progress=progress))


@dataclass(frozen=True)
class Skeletons:
    """Sticks of key points, drawn when they are asked for."""

    points: KeyPoints

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.points.size

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return draw_skeleton(self.points[window])


def joined(parts: Sequence[KeyPoints], size: tuple[int, int]) -> KeyPoints:
    """Key points of frames one after another, with room for as many persons as are in any of them."""
    count = max((part.persons for part in parts), default=1)
    length = sum(len(part) for part in parts)
    places = torch.full((length, count, POINTS, 2), torch.nan)
    sure = torch.zeros(length, count, POINTS)
    start = 0
    for part in parts:
        places[start : start + len(part), : part.persons] = part.places
        sure[start : start + len(part), : part.persons] = part.confidence
        start += len(part)
    return KeyPoints(places, sure, size)
