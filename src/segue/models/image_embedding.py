"""What models are told that are told by a picture in place of words: its embedding by CLIP, as a text of one token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import conv2d, interpolate, pad

from segue.errors import TaskError
from segue.models.perceptual.clip import DEVIATION, MEAN, Sight
from segue.types import Conditioning

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformers import CLIPVisionModelWithProjection


@dataclass(frozen=True)
class Squeeze:
    """How a picture is made ready of which all is looked at: both sides are brought to one, after a blur.

    Args:
        side: pixels of the square that it becomes.
        mean: of each colour.
        deviation: of each colour.
    """

    side: int
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = DEVIATION

    @classmethod
    def read(cls, folder: Path, side: int) -> Squeeze:
        """With the colours that a checkpoint's preprocessor_config.json names; without one, those of CLIP.

        Raises:
            CheckpointError: what it says is no such thing, or does not fit the network's `side`.
        """
        sight = Sight.read(folder, side)
        return cls(side, sight.mean, sight.deviation)

    def __call__(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 side side"]:
        """Pictures in [0, 1], made ready; corners stay corners, and what is finer than the square is blurred first."""
        blurred = _blurred(2 * pictures - 1, tuple(length / self.side for length in pictures.shape[-2:]))
        small = interpolate(blurred, (self.side, self.side), mode="bicubic", align_corners=True)
        mean, deviation = (small.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.deviation))
        return ((small + 1) / 2 - mean) / deviation


def _blurred(pictures: Tensor, factors: Sequence[float]) -> Tensor:
    """Along height and width, by a Gaussian of half of what a pixel of the small picture exceeds one of the large."""
    for axis, factor in zip((-2, -1), factors, strict=True):
        deviation = max((factor - 1) / 2, 0.001)
        taps = int(max(4 * deviation, 3)) | 1
        away = torch.arange(taps, dtype=pictures.dtype, device=pictures.device) - taps // 2
        weights = torch.exp(-(away**2) / (2 * deviation**2))
        kernel = (weights / weights.sum()).reshape((-1, 1) if axis == -2 else (1, -1)).expand(3, 1, -1, -1)
        edge = taps // 2
        sides = (0, 0, edge, edge) if axis == -2 else (edge, edge, 0, 0)
        pictures = conv2d(pad(pictures, sides, mode="reflect"), kernel, groups=3)
    return pictures


@dataclass(frozen=True)
class ImageEmbedding:
    """A TextEncoder that has no words: the empty prompt is a token of zeros, and pictures are told by `shown`.

    Args:
        encoder: of pictures, with the projection into the space that CLIP has in common with texts.
        squeeze: how pictures are made ready for it.
        device: where embeddings go.
    """

    encoder: CLIPVisionModelWithProjection
    squeeze: Squeeze
    device: torch.device

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """A row of zeros for each empty prompt.

        Raises:
            TaskError: a prompt has words.
        """
        said = next((prompt for prompt in prompts if prompt.strip()), None)
        if said is not None:
            raise TaskError(
                f"this model takes no words, and would not hear {said!r}: give it a picture and an empty prompt, or "
                "take a model that is told in words"
            )
        return Conditioning(torch.zeros(len(prompts), 1, self.width, device=self.device))

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        return int(self.encoder.config.projection_dim)

    @torch.no_grad()
    def shown(self, pictures: Float[Tensor, "b 3 h w"]) -> Conditioning:
        """What pictures in [0, 1] say, one row for each; they may have any size, and are seen as a square."""
        ready = self.squeeze(pictures.float()).to(self.encoder.device, self.encoder.dtype)
        said: Any = self.encoder(ready).image_embeds
        return Conditioning(said[:, None].float().to(self.device))
