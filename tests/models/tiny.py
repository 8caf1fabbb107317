# pyright: basic
"""Tiny random checkpoints of the real layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from segue.models.single_file import byte_letters
from segue.models.weights import quiet

WIDTH = 32
MERGES = ["r e", "re d</w>", "a p", "p l", "ap pl", "appl e</w>", "c a", "ca t</w>"]
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
}


def write_tokenizer(folder: Path, length: int) -> CLIPTokenizer:
    letters = byte_letters()
    words = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*letters, *(f"{a}</w>" for a in letters), *words, "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]))
    settings = {"model_max_length": length, "pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return CLIPTokenizer.from_pretrained(folder)


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    settings: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (WIDTH, 64),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**{**settings, **changes})


def tiny_vae(kind: Literal["kl", "tiny"]) -> AutoencoderKL | AutoencoderTiny:
    if kind == "tiny":
        return AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            num_encoder_blocks=(1, 1, 1, 1),
            num_decoder_blocks=(1, 1, 1, 1),
            scaling_factor=1.4,
        )
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (16, 16, 32, 32),
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "sample_size": 64,
    }
    return AutoencoderKL(**settings)


def write_model(
    folder: Path,
    *,
    prediction: Any = "epsilon",
    length: int = 77,
    vae: Literal["kl", "tiny"] = "kl",
    seed: int = 0,
    **unet: Any,
) -> Path:
    """A random model of the Stable Diffusion layout: 8 latents a side, 64 pixels."""
    torch.manual_seed(seed)
    with quiet():
        tokenizer = write_tokenizer(folder / "tokenizer", length)
        special: dict[str, Any] = {f"{kind}_token_id": tokenizer.eos_token_id for kind in ("eos", "pad")}
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=length,
            **special,
        )
        CLIPTextModel(config).save_pretrained(folder / "text_encoder")
        tiny_unet(**unet).save_pretrained(folder / "unet")
        autoencoder = tiny_vae(vae)
        autoencoder.save_pretrained(folder / "vae")
        DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ).save_pretrained(folder / "scheduler")
    index = {**INDEX, "vae": ["diffusers", type(autoencoder).__name__]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
