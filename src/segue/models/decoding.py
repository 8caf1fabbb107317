"""How large a picture can be decoded in one piece, by what it is predicted to take."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from segue.errors import ModelError
from segue.models.rehearsal import rehearsed, weights_of

if TYPE_CHECKING:
    from segue.models.codec import AutoencoderCodec

SHARE = 4
"""One part in so many of a device's memory is what decoding may take unless a tile is asked for."""

STEP = 8
SMALLEST = 32
"""Latents along the side of the smallest tile: seams would be a large part of smaller ones."""


def tiled(codec: AutoencoderCodec, tile: int | None, memory: int) -> AutoencoderCodec:
    """The codec with a bound on what it decodes at once.

    Args:
        codec: any.
        tile: side in pixels of the largest picture that is decoded in one piece; None chooses it by prediction.
        memory: bytes of the device, of which a quarter is for decoding; 0 is unknown, and changes nothing.

    Raises:
        ModelError: the tile is smaller than the codec can be cut into.
    """
    if tile is not None:
        side = tile // codec.scale
        if side < SMALLEST:
            raise ModelError(f"tile must be {SMALLEST * codec.scale} pixels or more for this model; got {tile}")
        return replace(codec, tile=side)
    return replace(codec, tile=largest_side(codec, memory // SHARE)) if memory else codec


def largest_side(codec: AutoencoderCodec, room: int) -> int:
    """Latents along the side of the largest square that is decoded within so many bytes, in steps of 8."""
    area = room / (bytes_per_latent(codec) * codec.together)
    return max(SMALLEST, math.isqrt(int(area)) // STEP * STEP)


def bytes_per_latent(codec: AutoencoderCodec) -> float:
    """What decoding takes at its peak for each place of the latents: its tensors grow with the area alone."""
    vae: Any = codec.vae
    config = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    return _measured(type(codec), type(vae), json.dumps(config, sort_keys=True), vae.dtype)


@cache
def _measured(codec: type[AutoencoderCodec], kind: type[Any], config: str, dtype: torch.dtype) -> float:
    from segue.models.weights import quiet

    meta, side = torch.device("meta"), SMALLEST
    with quiet(), meta:
        # Also where a constructor fills a tensor with numbers, which come to be in main memory.
        vae = kind.from_config(json.loads(config)).to(meta, dtype).eval().requires_grad_(False)
    shape = (1, int(vae.config["latent_channels"]), side, side)
    work = rehearsed(lambda: codec(vae).decode(torch.empty(shape, device=meta)), weights_of(vae))
    return work.peak / side**2
