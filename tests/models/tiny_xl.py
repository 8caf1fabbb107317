# pyright: basic
"""A tiny random checkpoint of the layout of Stable Diffusion XL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from tiny import INDEX, tiny_vae, write_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from segue.models.weights import quiet

XL_INDEX = {
    **INDEX,
    "_class_name": "StableDiffusionXLPipeline",
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "force_zeros_for_empty_prompt": True,
}
WIDTHS = (32, 48)
XL_UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": sum(WIDTHS),
    "attention_head_dim": (2, 4),
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + WIDTHS[1],
}


def shaken(network: Any) -> Any:
    """With every number moved a little, so that nothing stays at the 0 or 1 that it began with."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return network


def write_xl(
    folder: Path, *, seed: int = 0, vae: Literal["kl", "tiny"] = "kl", index: dict[str, Any] | None = None, **unet: Any
) -> Path:
    """A random model of the XL layout: 8 latents a side, 64 pixels; the second encoder is the wider one."""
    torch.manual_seed(seed)
    with quiet():
        write_tokenizer(folder / "tokenizer", 77)
        tokenizer = write_tokenizer(folder / "tokenizer_2", 77)
        settings = folder / "tokenizer_2" / "tokenizer_config.json"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "pad_token": "!"}))
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        for kind, width, act, place in zip(
            kinds, WIDTHS, ("quick_gelu", "gelu"), ("text_encoder", "text_encoder_2"), strict=True
        ):
            special: dict[str, Any] = {f"{name}_token_id": tokenizer.eos_token_id for name in ("eos", "pad")}
            config = CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                intermediate_size=64,
                num_hidden_layers=3,
                num_attention_heads=4,
                projection_dim=width,
                hidden_act=act,
                **special,
            )
            shaken(kind(config)).save_pretrained(folder / place)
        shaken(UNet2DConditionModel(**{**XL_UNET, **unet})).save_pretrained(folder / "unet")
        autoencoder = shaken(tiny_vae(vae))
        autoencoder.save_pretrained(folder / "vae")
        EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ).save_pretrained(folder / "scheduler")
    said = {**XL_INDEX, "vae": ["diffusers", type(autoencoder).__name__], **(index or {})}
    (folder / "model_index.json").write_text(json.dumps(said))
    return folder
