"""Pictures that exist as latents and are decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segue.tasks.sampling import with_threads

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.temporal.timeline import Shot
    from segue.types import Codec


@dataclass(frozen=True)
class DecodedFrames:
    """The frames of a film whose pictures are kept as latents; pixels exist only for the window that is asked for.

    Args:
        latents: by name.
        shots: what each frame shows.
        codec: turns latents into pictures.
        batch: pictures that are decoded together; 1 makes the bits of each independent of the others.
        threads: CPU threads to decode with, which the bits depend on; None leaves what is set.
    """

    latents: Mapping[int, Float[Tensor, "c h w"]]
    shots: tuple[Shot, ...]
    codec: Codec
    batch: int = 8
    threads: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width = next(iter(self.latents.values())).shape[-2:]
        return width * self.codec.scale, height * self.codec.scale

    def __len__(self) -> int:
        return len(self.shots)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        import torch

        shown = self.shots[window]
        if not shown:
            width, height = self.size
            return torch.zeros(0, 3, height, width)
        names = sorted({name for shot in shown for name in (shot.left, shot.right)})
        pictures: dict[int, Tensor] = {}
        with torch.no_grad(), with_threads(self.threads):
            for first in range(0, len(names), self.batch):
                part = names[first : first + self.batch]
                decoded = self.codec.decode(torch.stack([self.latents[name] for name in part])).float().cpu()
                pictures.update(zip(part, decoded, strict=True))
        return torch.stack([_mixed(pictures, shot) for shot in shown])


def _mixed(pictures: Mapping[int, Float[Tensor, "3 h w"]], shot: Shot) -> Float[Tensor, "3 h w"]:
    if shot.left == shot.right:
        return pictures[shot.left]
    return pictures[shot.left] * (1 - shot.share) + pictures[shot.right] * shot.share
