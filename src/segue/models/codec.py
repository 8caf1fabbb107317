"""Pictures to latents and back, with autoencoders of the diffusers layout; memory is bounded by slices and tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from segue.errors import TaskError
from segue.models.exhaustion import FURTHER, told_if_exhausted

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class AutoencoderCodec:
    """A Codec around AutoencoderKL (the mode of its posterior) or AutoencoderTiny.

    Args:
        vae: the autoencoder; its config says scaling and shift.
        slice: the most pictures that go through it at once; fewer do, so that they are no larger than one tile.
        tile: side, in latents, above which a picture is cut into overlapping tiles that are blended linearly.
            Tiles of an AutoencoderKL differ a little from the whole, since its norms and attention see less.
    """

    vae: AutoencoderKL | AutoencoderTiny | AutoencoderKLTemporalDecoder
    slice: int = 4
    tile: int = 128

    @property
    def scale(self) -> int:
        """Pixels per latent, along one side."""
        return 2 ** (len(self._config["block_out_channels"]) - 1)

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int(self._config["latent_channels"])

    @property
    def together(self) -> int:
        """Pictures that are decoded at once however large they are."""
        return 1

    def encode(self, frames: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t c h/s w/s"]:
        """Pictures in [0, 1] to latents of about unit variance, float32.

        Raises:
            TaskError: height or width is no multiple of `scale`.
        """
        height, width = frames.shape[-2:]
        if height % self.scale or width % self.scale:
            raise TaskError(
                f"a picture's width and height must be multiples of {self.scale} for this model; got {width}x{height}. "
                f"Resize it to {_nearest(width, self.scale)}x{_nearest(height, self.scale)}"
            )
        return self._sliced(self._encode, frames, self.tile * self.scale, 1 / self.scale)

    def decode(self, latents: Float[Tensor, "t c h/s w/s"]) -> Float[Tensor, "t 3 h w"]:
        """Latents to pictures in [0, 1], float32."""
        return self._sliced(self._decode, latents, self.tile, self.scale).clamp(0, 1)

    def unscaled(self, latents: Float[Tensor, "t c h w"]) -> Float[Tensor, "t c h w"]:
        """Latents of `encode` as the autoencoder itself gives them, before its config's shift and scaling."""
        return latents / self._scaling + self._shift

    def _encode(self, frames: Tensor) -> Tensor:
        x = 2 * frames.to(self.vae.device, self.vae.dtype) - 1
        if isinstance(self.vae, AutoencoderTiny):
            z = self.vae.encode(x, return_dict=False)[0]
        else:
            z = self.vae.encode(x, return_dict=False)[0].mode()
        return (z.float() - self._shift) * self._scaling

    def _decode(self, latents: Tensor) -> Tensor:
        z = latents.float() / self._scaling + self._shift
        vae: Any = self.vae  # its stubs ask for a FloatTensor
        x = vae.decode(z.to(self.vae.device, self.vae.dtype), return_dict=False)[0]
        return x.float() / 2 + 0.5

    def _sliced(self, f: Callable[[Tensor], Tensor], x: Tensor, tile: int, factor: float) -> Tensor:
        height, width = (min(side, tile) for side in x.shape[-2:])
        together = max(1, min(self.slice, tile**2 // (height * width)))
        pixels = round(max(1, factor) * width), round(max(1, factor) * height)
        doing = f"{'decoding' if factor > 1 else 'encoding'} {min(together, len(x))} x {pixels[0]}x{pixels[1]} pixels"
        with told_if_exhausted(doing, f"take a smaller --tile, {FURTHER}"):
            return torch.cat([tiled_call(f, part, tile, factor).to(x.device) for part in x.split(together)])

    @property
    def _config(self) -> Mapping[str, Any]:
        return self.vae.config

    @property
    def _scaling(self) -> float:
        return float(self._config["scaling_factor"])

    @property
    def _shift(self) -> float:
        return float(self._config.get("shift_factor") or 0.0)


def _nearest(side: int, multiple: int) -> int:
    return max(multiple, round(side / multiple) * multiple)


def tiled_call(f: Callable[[Tensor], Tensor], x: Tensor, tile: int, factor: float) -> Tensor:
    """f(x), computed on windows of at most `tile` with a quarter of overlap; `factor` is how f changes sizes."""
    height, width = x.shape[-2:]
    if height <= tile and width <= tile:
        return f(x)
    total: Tensor | None = None
    weights: Tensor | None = None
    for top in _starts(height, tile):
        for left in _starts(width, tile):
            part = f(x[..., top : top + tile, left : left + tile])
            if total is None or weights is None:
                whole = (round(height * factor), round(width * factor))
                total = part.new_zeros(*part.shape[:2], *whole)
                weights = part.new_zeros(whole)
            rows = slice(round(top * factor), round(top * factor) + part.shape[-2])
            columns = slice(round(left * factor), round(left * factor) + part.shape[-1])
            inner = (top > 0, top + tile < height), (left > 0, left + tile < width)
            weight = _ramp(part.shape[-2], inner[0], part)[:, None] * _ramp(part.shape[-1], inner[1], part)
            total[..., rows, columns] += part * weight
            weights[rows, columns] += weight
    assert total is not None and weights is not None
    return total / weights


def _starts(length: int, tile: int) -> list[int]:
    """Where windows begin: evenly spread multiples of 8, at least a quarter of overlap, the last one flush right."""
    if length <= tile:
        return [0]
    stride = max(8, tile * 3 // 4 // 8 * 8)
    return [*range(0, length - tile, stride), length - tile]


def _ramp(length: int, inner: tuple[bool, bool], like: Tensor) -> Tensor:
    """Blending weights along one side. Towards a neighbour they rise over the overlap, a quarter of the length, but for
    its outermost places, which see too little of what surrounds them and count for nothing."""
    position = torch.arange(length, dtype=like.dtype, device=like.device) + 0.5
    blind = length // 16
    rise = ((position - blind) / (length / 4 - 2 * blind)).clamp(0, 1)
    weight = torch.ones_like(position)
    if inner[0]:
        weight = weight * rise
    return weight * rise.flip(0) if inner[1] else weight


def codec_dtype(config: Mapping[str, Any], dtype: torch.dtype) -> torch.dtype:
    """What an autoencoder should compute in: float32 where its config says that float16 overflows."""
    return torch.float32 if dtype == torch.float16 and config.get("force_upcast") else dtype
