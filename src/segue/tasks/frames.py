"""Pictures that exist as latents and are decoded when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from segue.media.clip import to_uint8
from segue.tasks.album import Album
from segue.tasks.masks import Kept
from segue.tasks.sampling import with_threads

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from segue.temporal.timeline import Shot
    from segue.types import Codec


@dataclass
class Developer:
    """Makes pictures of latents.

    Near a key that is a given picture, what the codec loses of that picture is added, all of it at the key and nothing
    half-way to the next: else the step from the picture to its neighbour would be that loss.

    Args:
        codec: turns latents into pictures.
        given: pictures in [0, 1] by the number of their key, which are shown as they are.
        lost: of each, what is left of it when its own decoded latents are taken away.
        kept: shows one picture outside a mask; nothing, if the whole film changes.
    """

    codec: Codec
    given: dict[int, Float[Tensor, "3 h w"]] = field(default_factory=dict[int, "Tensor"])
    lost: dict[int, Float[Tensor, "3 h w"]] = field(default_factory=dict[int, "Tensor"])
    kept: Kept | None = None

    def __call__(
        self, latents: Float[Tensor, "b c h w"], names: Sequence[int], positions: Sequence[float]
    ) -> Float[Tensor, "b 3 H W"]:
        """One picture per node, float32 on the CPU; positions are those on the line of the keys."""
        return self.finished(self.codec.decode(latents).float().cpu(), names, positions)

    def finished(
        self, decoded: Float[Tensor, "b 3 H W"], names: Sequence[int], positions: Sequence[float]
    ) -> Float[Tensor, "b 3 H W"]:
        """The pictures of nodes, from what a codec made of their latents."""
        import torch

        return torch.stack([self._finished(*one) for one in zip(decoded, names, positions, strict=True)])

    def _finished(self, picture: Float[Tensor, "3 h w"], name: int, position: float) -> Float[Tensor, "3 h w"]:
        own = self._own(picture, name, position)
        return self.kept(own) if self.kept else own

    def _own(self, picture: Float[Tensor, "3 h w"], name: int, position: float) -> Float[Tensor, "3 h w"]:
        if name in self.given:
            return self.given[name]
        for key, lost in self.lost.items():
            away = abs(position - key)
            if away < 0.5:
                picture = (picture + math.cos(math.pi * away) ** 2 * lost).clamp(0, 1)
        return picture


@dataclass
class Sketcher:
    """Makes quick pictures of the same latents: by a small decoder, and in all else as the developer does.

    Args:
        developer: makes the film's own.
        codec: the small decoder.
    """

    developer: Developer
    codec: Codec

    def __call__(
        self, latents: Float[Tensor, "b c h w"], names: Sequence[int], positions: Sequence[float]
    ) -> Float[Tensor, "b 3 H W"]:
        """One picture per node, float32 on the CPU; positions are those on the line of the keys."""
        return self.developer.finished(self.codec.decode(latents).float().cpu(), names, positions)


@dataclass(frozen=True)
class DecodedFrames:
    """The frames of a film whose pictures are kept as latents; pixels exist only for the window that is asked for.

    Args:
        latents: by name.
        shots: what each frame shows.
        positions: of the same, on the line of the keys.
        develop: turns latents into pictures.
        batch: pictures that are decoded together.
        threads: CPU threads to decode with, which the bits depend on; None leaves what is set.
        known: pictures that were developed already, by the same hand; None begins with none.
    """

    latents: Mapping[int, Float[Tensor, "c h w"]]
    positions: Mapping[int, float]
    shots: tuple[Shot, ...]
    develop: Developer
    batch: int = 1
    threads: int | None = None
    known: Album | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width = next(iter(self.latents.values())).shape[-2:]
        scale = self.develop.codec.scale
        return width * scale, height * scale

    def __len__(self) -> int:
        return len(self.shots)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        import torch

        shown = self.shots[window]
        if not shown:
            width, height = self.size
            return torch.zeros(0, 3, height, width)
        names = sorted({name for shot in shown for name in (shot.left, shot.right)})
        latents, places = torch.stack([self.latents[name] for name in names]), [self.positions[name] for name in names]
        with torch.no_grad(), with_threads(self.threads):
            pictures = dict(zip(names, self._album(latents, names, places), strict=True))
        return torch.stack([_mixed(pictures, shot) for shot in shown])

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window as they are written, 256 levels a colour."""
        import torch

        shown = self.shots[window]
        if not shown or not all(shot.left == shot.right for shot in shown):
            return to_uint8(self[window])
        with torch.no_grad(), with_threads(self.threads):
            return torch.stack(self._album.levels([shot.left for shot in shown], self.latents, self.positions))

    @cached_property
    def _album(self) -> Album:
        return self.known or Album(self.develop, self.batch)


def _mixed(pictures: Mapping[int, Float[Tensor, "3 h w"]], shot: Shot) -> Float[Tensor, "3 h w"]:
    if shot.left == shot.right:
        return pictures[shot.left]
    # Unlike a sum of two products, this leaves alone what is equal in both: the area that a mask keeps.
    return pictures[shot.left].lerp(pictures[shot.right], shot.share)
