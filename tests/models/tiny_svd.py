# pyright: basic
"""A tiny random checkpoint of the layout of Stable Video Diffusion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from tiny_upscaler import stir
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from segue.models.weights import quiet

WIDTH = 32
INDEX = {
    "_class_name": "StableVideoDiffusionPipeline",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
}


def tiny_temporal_vae() -> AutoencoderKLTemporalDecoder:
    settings: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "layers_per_block": 1,
        "latent_channels": 4,
        "sample_size": 32,
    }
    return AutoencoderKLTemporalDecoder(**settings)


def write_svd(folder: Path, **unet: Any) -> Path:
    """A random model of 4 frames, 8 latents a side, 2 pixels a latent."""
    torch.manual_seed(3)
    settings: dict[str, Any] = {
        "block_out_channels": (WIDTH, 64),
        "layers_per_block": 1,
        "sample_size": 8,
        "in_channels": 8,
        "out_channels": 4,
        "num_frames": 4,
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        "cross_attention_dim": WIDTH,
        "num_attention_heads": 4,
        "projection_class_embeddings_input_dim": 96,
        "addition_time_embed_dim": 32,
    }
    encoder = CLIPVisionConfig(
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=4,
    )
    networks = {
        "unet": UNetSpatioTemporalConditionModel(**{**settings, **unet}),
        "image_encoder": CLIPVisionModelWithProjection(encoder),
        "vae": tiny_temporal_vae(),
    }
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        interpolation_type="linear",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
    )
    with quiet():
        for name, network in networks.items():
            stir(network)
            network.save_pretrained(folder / name)
        scheduler.save_pretrained(folder / "scheduler")
    (folder / "feature_extractor").mkdir()
    sight = {"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 32}}
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(sight))
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    return folder
