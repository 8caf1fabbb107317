# pyright: basic
"""Files are called what they are, by the names that published ones have."""

from __future__ import annotations

import pytest

from segue.models.kinds import kind_of
from segue.models.weights import Entry

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
KOHYA = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0"
LDM = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0"


def entries(*names: str, shape: tuple[int, ...] = (4, 4)) -> dict[str, Entry]:
    return {name: Entry("F16", shape) for name in names}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (entries(f"{LDM}.attn2.to_k.weight", shape=(640, 768)), "a checkpoint of Stable Diffusion 1.x"),
        (entries(f"{LDM}.attn2.to_k.weight", shape=(640, 1024)), "a checkpoint of Stable Diffusion 2.x"),
        (entries(f"{LDM}.attn2.to_k.weight", shape=(640, 2048)), "a checkpoint of Stable Diffusion XL"),
        (
            entries(f"{LDM}.x", "conditioner.embedders.1.model.ln_final.bias", "conditioner.embedders.0.transformer.x"),
            "a checkpoint of Stable Diffusion XL",
        ),
        (
            entries(f"{LDM}.x", "conditioner.embedders.0.model.ln_final.bias"),
            "a checkpoint of the refiner of Stable Diffusion XL",
        ),
        (entries("model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.bias"), "a checkpoint of Stable Diffusion 3"),
        (entries("model.diffusion_model.double_blocks.0.img_attn.qkv.bias"), "a checkpoint of FLUX"),
        (entries("double_blocks.0.img_attn.qkv.bias"), "a transformer for FLUX"),
        (entries("transformer_blocks.0.attn.to_q.bias", "pos_embed.proj.bias"), "a transformer for Stable Diffusion 3"),
        (
            entries("transformer_blocks.0.attn.to_q.bias", "single_transformer_blocks.0.attn.to_q.bias"),
            "a transformer for FLUX",
        ),
        (entries(f"{KOHYA}_attn2_to_k.lora_down.weight", shape=(8, 768)), "a LoRA for Stable Diffusion 1.x"),
        (entries(f"unet.{BLOCK}.attn2.to_k.lora_A.weight", shape=(8, 1024)), "a LoRA for Stable Diffusion 2.x"),
        (
            entries(f"unet.{BLOCK}.attn2.processor.to_v_lora.down.weight", shape=(8, 2048)),
            "a LoRA for Stable Diffusion XL",
        ),
        (entries("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"), "a LoRA for Stable Diffusion XL"),
        (
            entries("lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_k.lora_down.weight"),
            "a LoRA for Stable Diffusion XL",
        ),
        (entries("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"), "a LoRA"),
        (entries("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"), "a LoRA for FLUX"),
        (entries("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"), "a LoRA for FLUX"),
        (entries("transformer.transformer_blocks.0.attn.to_q.lora_A.weight"), "a LoRA for Stable Diffusion 3"),
        (entries("emb_params", shape=(2, 768)), "a textual inversion for Stable Diffusion 1.x"),
        (
            {**entries("clip_l", shape=(2, 768)), **entries("clip_g", shape=(2, 1280))},
            "a textual inversion for Stable Diffusion XL",
        ),
        (entries("controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.conv1.bias"), "a ControlNet"),
        (
            {
                **entries("controlnet_cond_embedding.conv_in.weight"),
                **entries(f"{BLOCK}.attn2.to_k.weight", shape=(640, 2048)),
            },
            "a ControlNet for Stable Diffusion XL",
        ),
        (entries("control_model.time_embed.0.weight"), "a ControlNet"),
        (entries("down_blocks.0.motion_modules.0.temporal_transformer.norm.bias"), "a motion adapter"),
        (entries("ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"), "an IP-Adapter"),
        (entries("conv_in.weight", "down_blocks.0.resnets.0.conv1.bias"), "a UNet"),
        (
            entries("down_blocks.0.resnets.0.conv1.bias", "add_embedding.linear_1.weight"),
            "a UNet for Stable Diffusion XL",
        ),
        (entries("decoder.up_blocks.0.resnets.0.conv1.bias"), "an autoencoder"),
        (entries("first_stage_model.decoder.up.0.block.0.conv1.bias"), "an autoencoder"),
        (entries("encoder.layers.0.weight", "decoder.layers.0.weight"), "an autoencoder"),
        (entries("text_model.encoder.layers.0.mlp.fc1.bias"), "a text encoder"),
        (entries("encoder.block.0.layer.0.SelfAttention.q.weight"), "a text encoder"),
        (entries("lm_head.weight"), "None"),
        ({}, "None"),
    ],
)
def test_what_a_file_is(header, said):
    assert str(kind_of(header)) == said


def test_advice_is_there_for_all_of_them():
    for name in ("unet.a.lora_A.weight", "emb_params", "decoder.up.0.x", "model.diffusion_model.x"):
        found = kind_of(entries(name))
        assert found and found.advice
