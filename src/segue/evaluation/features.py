"""Deep features of many pictures, a few at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from segue.types import Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class Features(Protocol):
    """A network that makes one vector of a picture, such as `segue.models.perceptual.EfficientNetFeatures`."""

    @property
    def name(self) -> str:
        """What is written beside every number that is computed in these features."""
        ...

    def __call__(self, pictures: Float[Tensor, "b 3 h w"], /) -> Float[Tensor, "b d"]:
        """One vector per picture in [0, 1]."""
        ...


def extract(
    features: Features, pictures: Tensor, *, batch: int = 32, progress: Progress = silent
) -> Float[Tensor, "n d"]:
    """The features of pictures, float32 on the CPU.

    Args:
        features: the network.
        pictures: (n, 3, h, w) in [0, 1], or (n, h, w, 3) of bytes as a corpus holds them.
        batch: how many are looked at together.
        progress: told how many are done.
    """
    found: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(pictures), batch):
            found.append(features(floats(pictures[start : start + batch])).float().cpu())
            progress("looking at pictures", min(start + batch, len(pictures)), len(pictures))
    return torch.cat(found)


def floats(pictures: Tensor) -> Float[Tensor, "n 3 h w"]:
    """Pictures in [0, 1], channels first: bytes (n, h, w, 3) are turned into it, floats are taken as they are."""
    return pictures.permute(0, 3, 1, 2).float() / 255 if pictures.dtype == torch.uint8 else pictures
