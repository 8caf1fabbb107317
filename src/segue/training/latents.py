"""Latents of the pictures that a recipe learns from, made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from segue.training.journal import watched
from segue.types import Codec

SLICE = 16
_PARTS = 64
"""Slices that are kept at once: a run that is cut while it encodes goes on from there."""


def latents_of(
    pictures: NDArray[np.uint8], codec: Codec, kept: Path, key: str, precision: torch.autocast
) -> Float[Tensor, "n c h w"]:
    """The latents of all pictures, in half precision; kept in the file `kept` while `key` is the same.

    A run that is cut half-way goes on with what it has.

    Args:
        pictures: (n, h, w, 3), in memory, or in a mapped file.
        codec: with weights that stay as they are.
        kept: a safetensors file.
        key: what the latents follow from.
        precision: what the codec computes in.

    Raises:
        TaskError: the pictures do not fit the codec.
    """
    made = _known(kept, key)
    if len(made) == len(pictures):
        return made
    found, fresh = [made] if len(made) else [], 0
    with torch.no_grad(), precision, watched("encoding", len(pictures)) as tell:
        for first in range(len(made), len(pictures), SLICE):
            part = torch.from_numpy(np.array(pictures[first : first + SLICE])).permute(0, 3, 1, 2).float() / 255
            found.append(codec.encode(part).half().cpu())
            fresh += 1
            tell(min(first + SLICE, len(pictures)))
            if fresh % _PARTS == 0:
                found = [_save(torch.cat(found), kept, key)]
    return _save(torch.cat(found), kept, key)


def _known(kept: Path, key: str) -> Tensor:
    """What is there already."""
    if kept.exists():
        with safe_open(kept, "pt") as file:
            if (file.metadata() or {}).get("made_of") == key:
                return file.get_tensor("latents")
    return torch.empty(0)


def _save(latents: Tensor, kept: Path, key: str) -> Tensor:
    latents, part = latents.contiguous(), kept.with_name(kept.name + ".part")
    save_file({"latents": latents}, part, {"made_of": key})
    part.replace(kept)
    return latents
