"""What an annotator is: pictures in, control pictures of the same size out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from segue.errors import TaskError
from segue.types import Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.types import Frames

_SLACK = 1e-4  # what rounding may put beyond [0, 1]


class Annotator(Protocol):
    """Draws control pictures."""

    @property
    def kind(self) -> str:
        """One of KINDS."""
        ...

    def __call__(self, pictures: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 h w"]:
        """Control pictures in [0, 1] of pictures in [0, 1], each by itself."""
        ...

    def over(self, frames: Frames, *, progress: Progress = silent) -> Frames:
        """The control pictures of a clip, drawn when they are asked for.

        Where single pictures do not tell enough, as how far away the farthest thing of a clip is, or where someone's
        hand was a frame ago, the clip is looked at first.
        """
        ...


@dataclass(frozen=True)
class ByFrame:
    """An annotator that needs to know nothing but the frame.

    Args:
        kind: one of KINDS.
        draw: a control picture of one picture, both (h, w, 3) float32 in [0, 1].
    """

    kind: str
    draw: Callable[[np.ndarray], np.ndarray]

    def __call__(self, pictures: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 h w"]:
        """Control pictures, each of one picture alone.

        Raises:
            TaskError: they are no pictures in [0, 1].
        """
        check_pictures(pictures)
        drawn = [self.draw(picture.permute(1, 2, 0).float().cpu().contiguous().numpy()) for picture in pictures]
        if not drawn:
            return pictures.clone()
        return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous().to(pictures)

    def over(self, frames: Frames, *, progress: Progress = silent) -> Frames:
        """Those of a clip, drawn when they are asked for."""
        return Annotated(self, frames)


@dataclass(frozen=True)
class Annotated:
    """The control pictures of a clip, each drawn when it is asked for."""

    draw: Callable[[Tensor], Tensor]
    of: Frames

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as that of the clip."""
        return self.of.size

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return self.draw(self.of[window])


def check_pictures(pictures: Tensor) -> None:
    """See that these are pictures.

    Raises:
        TaskError: their shape, type or range is another.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point() or 0 in pictures.shape[2:]:
        found = f"{pictures.dtype} {tuple(pictures.shape)}"
        raise TaskError(f"an annotator takes pictures of shape (t, 3, h, w) as floats in [0, 1], got {found}")
    if not len(pictures):
        return
    low, high = (float(end) for end in pictures.aminmax())
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise TaskError(f"an annotator takes pictures in [0, 1], got values from {low:g} to {high:g}")
