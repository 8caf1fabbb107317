# pyright: basic
"""Tiny random checkpoints of Stable Diffusion 3 and FLUX, as diffusers' own pipelines write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from tiny import write_tokenizer
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from segue.models.weights import quiet

WIDTH, POOLED, CHANNELS = 64, 32, 16
WORDS = ["▁a", "▁red", "▁green", "▁apple", "▁cat", "▁of", "▁on", "▁white", "ish"]


def t5_tokenizer(folder: Path) -> T5Tokenizer:
    """Whole words, letters, and the space before a word."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    vocabulary += [(word, -2.0) for word in WORDS] + [(letter, -4.0) for letter in letters]
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)
    tokenizer.save_pretrained(folder)
    return T5Tokenizer.from_pretrained(folder)


def t5(vocabulary: int, width: int = WIDTH) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary,
            d_model=width,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )


def clip(kind: type[Any], tokenizer: Any, width: int, projection: int = POOLED) -> Any:
    special: dict[str, Any] = {f"{name}_token_id": tokenizer.eos_token_id for name in ("eos", "pad")}
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=projection,
        **special,
    )
    return kind(config)


def autoencoder() -> AutoencoderKL:
    channels: Any = (8, 8, 16, 16)
    down: Any = ("DownEncoderBlock2D",) * 4
    up: Any = ("UpDecoderBlock2D",) * 4
    return AutoencoderKL(
        down_block_types=down,
        up_block_types=up,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.5,
        shift_factor=0.06,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def stirred(network: Any) -> Any:
    """With no layer at zero, as trained ones have none: biases are, and so are whole layers of some transformers."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any() or parameter.ndim == 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return network


def flow(dynamic: bool, shift: float) -> FlowMatchEulerDiscreteScheduler:
    # Few tokens lie between so small ends, as those of real pictures between 256 and 4096.
    ends: dict[str, Any] = {"base_image_seq_len": 4, "max_image_seq_len": 64} if dynamic else {}
    return FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=dynamic, **ends)


def write_sd3(folder: Path, *, with_t5: bool = True, dynamic: bool = False, shards: str = "1GB", seed: int = 0) -> Path:
    """Latents 8 to a side, 64 pixels; one block attends twice, as those of 3.5 medium do."""
    torch.manual_seed(seed)
    with quiet():
        tokenizers = [write_tokenizer(folder / name, 77) for name in ("tokenizer", "tokenizer_2")]
        further = t5_tokenizer(folder / "tokenizer_3") if with_t5 else None
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=3,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=POOLED + 24,
            pos_embed_max_size=8,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        )
        pipeline = StableDiffusion3Pipeline(
            transformer=stirred(transformer),
            scheduler=flow(dynamic, 3.0),
            vae=autoencoder(),
            text_encoder=clip(CLIPTextModelWithProjection, tokenizers[0], 32),
            text_encoder_2=clip(CLIPTextModelWithProjection, tokenizers[1], 24, 24),
            text_encoder_3=t5(len(further)) if further else None,  # pyright: ignore[reportArgumentType]
            tokenizer=tokenizers[0],
            tokenizer_2=tokenizers[1],
            tokenizer_3=further,  # pyright: ignore[reportArgumentType]
        )
        pipeline.save_pretrained(folder, max_shard_size=shards)
    return folder


def write_flux(folder: Path, *, embeds: bool = True, dynamic: bool = True, shards: str = "1GB", seed: int = 0) -> Path:
    """Like dev, unless neither guidance is embedded nor the schedule shifted: that is like schnell."""
    torch.manual_seed(seed)
    with quiet():
        tokenizer = write_tokenizer(folder / "tokenizer", 77)
        further = t5_tokenizer(folder / "tokenizer_2")
        transformer = FluxTransformer2DModel(
            patch_size=1,
            in_channels=4 * CHANNELS,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=POOLED,
            guidance_embeds=embeds,
            axes_dims_rope=(4, 4, 8),
        )
        pipeline = FluxPipeline(
            scheduler=flow(dynamic, 3.0 if dynamic else 1.0),
            vae=autoencoder(),
            text_encoder=clip(CLIPTextModel, tokenizer, POOLED),
            tokenizer=tokenizer,
            text_encoder_2=t5(len(further)),
            tokenizer_2=further,
            transformer=stirred(transformer),
        )
        pipeline.save_pretrained(folder, max_shard_size=shards)
    return folder
