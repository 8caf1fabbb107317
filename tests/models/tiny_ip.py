# pyright: basic
"""Tiny IP-Adapters and encoders of pictures, in the layout in which they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tiny_control import stirred
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from segue.models.control import unet_of
from segue.models.ip_adapter import cross_sites
from segue.models.weights import quiet

SIDE, SEEN, SAID, TOKENS = 32, 48, 24, 4
"""Pixels that the encoder looks at, its width, what it says of a whole picture, and tokens that are made of it."""


def write_encoder(folder: Path, *, seed: int = 0, said: int = SAID) -> Path:
    settings: dict[str, Any] = {"hidden_size": SEEN, "intermediate_size": 64, "num_attention_heads": 4}
    config = CLIPVisionConfig(num_hidden_layers=3, image_size=SIDE, patch_size=8, projection_dim=said, **settings)
    with quiet():
        stirred(CLIPVisionModelWithProjection(config), seed).save_pretrained(folder)
    return folder


def write_ip(
    folder: Path,
    model: Any,
    kind: Literal["plain", "plus", "full"] = "plain",
    *,
    seed: int = 0,
    wide: int | None = None,
) -> Path:
    """ip.safetensors for a model, and image_encoder beside it."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / max(shape[-1], 1) ** 0.5

    places: list[Any] = list(cross_sites(unet_of(model).unet))
    width = wide or places[0].module.to_k.weight.shape[1]
    file: dict[str, torch.Tensor] = {}
    if kind == "plain":
        file |= {"proj.weight": drawn(TOKENS * width, SAID), "proj.bias": drawn(TOKENS * width)}
        file |= {"norm.weight": 1 + drawn(width), "norm.bias": drawn(width)}
    elif kind == "full":
        file |= {"proj.0.weight": drawn(SEEN, SEEN), "proj.0.bias": drawn(SEEN)}
        file |= {"proj.2.weight": drawn(width, SEEN), "proj.2.bias": drawn(width)}
        file |= {"proj.3.weight": 1 + drawn(width), "proj.3.bias": drawn(width)}
    else:
        hidden, inner = 64, 64
        file |= {"latents": drawn(1, TOKENS, hidden)}
        file |= {"proj_in.weight": drawn(hidden, SEEN), "proj_in.bias": drawn(hidden)}
        file |= {"proj_out.weight": drawn(width, hidden), "proj_out.bias": drawn(width)}
        file |= {"norm_out.weight": 1 + drawn(width), "norm_out.bias": drawn(width)}
        for layer in range(4):  # diffusers knows no other number
            place = f"layers.{layer}"
            for norm in ("0.norm1", "0.norm2", "1.0"):
                file |= {f"{place}.{norm}.weight": 1 + drawn(hidden), f"{place}.{norm}.bias": drawn(hidden)}
            file |= {
                f"{place}.0.to_q.weight": drawn(inner, hidden),
                f"{place}.0.to_kv.weight": drawn(2 * inner, hidden),
            }
            file |= {f"{place}.0.to_out.weight": drawn(hidden, inner)}
            file |= {f"{place}.1.1.weight": drawn(4 * hidden, hidden), f"{place}.1.3.weight": drawn(hidden, 4 * hidden)}
    named = {f"image_proj.{key}": value for key, value in file.items()}
    for number, site in enumerate(places):
        inside = site.module.to_k.weight.shape[0]
        for name in "kv":
            named[f"ip_adapter.{2 * number + 1}.to_{name}_ip.weight"] = 2 * drawn(inside, width)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(named, folder / "ip.safetensors")
    write_encoder(folder / "image_encoder", seed=seed)
    return folder / "ip.safetensors"
