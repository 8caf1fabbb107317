# pyright: basic
"""A tiny random checkpoint of the x4-upscaler layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from tiny import tiny_unet, write_model

from segue.models.weights import quiet


def small_vae(kind: Literal["kl", "tiny"]) -> AutoencoderKL | AutoencoderTiny:
    """An autoencoder of 4 pixels a latent."""
    if kind == "tiny":
        return AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
        )
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (16, 16, 32),
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "sample_size": 64,
        "scaling_factor": 0.08333,
    }
    return AutoencoderKL(**settings)


def stir(network: torch.nn.Module) -> None:
    """Move all weights, so that none of those that begin at zero hides what it multiplies."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))


def write_upscaler(folder: Path, *, vae: Literal["kl", "tiny"] = "kl", shared: bool = False, **unet: Any) -> Path:
    """A random upscaler of 16 latents a side; without text encoder and tokenizer, if these are shared."""
    write_model(folder, seed=5, length=24)
    torch.manual_seed(6)
    settings = {"in_channels": 7, "num_class_embeds": 1000, "sample_size": 16, **unet}
    with quiet():
        network = tiny_unet(**settings)
        stir(network)
        network.save_pretrained(folder / "unet")
        shutil.rmtree(folder / "vae")
        autoencoder = small_vae(vae)
        stir(autoencoder)
        autoencoder.save_pretrained(folder / "vae")
        DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(folder / "low_res_scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {
        "_class_name": "StableDiffusionUpscalePipeline",
        "low_res_scheduler": ["diffusers", "DDPMScheduler"],
        "max_noise_level": 350,
        "vae": ["diffusers", type(autoencoder).__name__],
        "watermarker": [None, None],
    }
    for part in ("image_encoder", "requires_safety_checker"):
        del index[part]
    (folder / "model_index.json").write_text(json.dumps(index))
    if shared:
        for part in ("text_encoder", "tokenizer"):
            shutil.rmtree(folder / part)
    return folder
