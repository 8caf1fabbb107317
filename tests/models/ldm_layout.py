# pyright: basic
"""Write a tiny diffusers folder as one file of the original layout, as Stable Diffusion was published."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
VAE_NAMES = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "resnets": "block",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "final_layer_norm": "ln_final",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
}


def swap(key: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        key = key.replace(ours, theirs)
    return key


def unet_key(key: str, layers: int, attends_up: list[bool]) -> str:
    for ours, theirs in UNET_ENDS.items():
        if key.startswith(f"{ours}."):
            rest = key.removeprefix(ours)
            return theirs + (swap(rest, RESNET) if "resnets" in ours else rest)
    side, block, kind, layer, rest = key.split(".", 4)
    i, j = int(block), int(layer)
    if side == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{1 + i * (layers + 1) + layers}.0.{rest.replace('conv', 'op')}"
        place = f"input_blocks.{1 + i * (layers + 1) + j}"
    else:
        if kind == "upsamplers":
            return f"output_blocks.{i * (layers + 1) + layers}.{2 if attends_up[i] else 1}.{rest}"
        place = f"output_blocks.{i * (layers + 1) + j}"
    return f"{place}.0.{swap(rest, RESNET)}" if kind == "resnets" else f"{place}.1.{rest}"


def vae_key(key: str, blocks: int) -> str:
    if "mid_block.attentions" in key:
        key = swap(key, VAE_ATTENTION)
    key = swap(key, VAE_NAMES)
    parts = key.split(".")
    if parts[1] == "down_blocks":
        parts[1] = "down"
    elif parts[1] == "up_blocks":
        parts[1:3] = ["up", str(blocks - 1 - int(parts[2]))]
    return ".".join(parts)


def open_clip(text: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {}
    for key, value in text.items():
        if ".q_proj." in key:
            rows = [text[key.replace("q_proj", f"{name}_proj")] for name in "qkv"]
            place, kind = key.split(".self_attn.q_proj.")
            found[f"{swap(place + '.', OPEN_CLIP)}attn.in_proj_{kind}"] = torch.cat(rows)
        elif ".k_proj." not in key and ".v_proj." not in key:
            found[swap(key, OPEN_CLIP)] = value
    width = text["final_layer_norm.weight"].shape[0]
    return {**found, "text_projection": torch.eye(width)}


def bare_text(folder: Path) -> dict[str, torch.Tensor]:
    words = load_file(folder / "model.safetensors")
    return {key.removeprefix("text_model."): value for key, value in words.items()}


def both_texts(folder: Path) -> dict[str, torch.Tensor]:
    first, second = bare_text(folder / "text_encoder"), bare_text(folder / "text_encoder_2")
    projection = second.pop("text_projection.weight")
    found = {f"conditioner.embedders.0.transformer.text_model.{key}": value for key, value in first.items()}
    return found | {
        f"conditioner.embedders.1.model.{key}": value
        for key, value in {**open_clip(second), "text_projection": projection.T}.items()
    }


def to_ldm(folder: Path, path: Path, *, text: str = "clip") -> Path:
    """`text` is "clip" (1.x), "open_clip" (2.x) or "both" (XL)."""
    unet = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    vae = load_file(folder / "vae/diffusion_pytorch_model.safetensors")
    words = bare_text(folder / "text_encoder")
    attends = [text == "both", text != "both"]
    file = {f"model.diffusion_model.{unet_key(key, 1, attends)}": value for key, value in unet.items()}
    for key, value in vae.items():
        flat = value[:, :, None, None] if "mid_block.attentions" in key and value.ndim == 2 else value
        file[f"first_stage_model.{vae_key(key, 4)}"] = flat
    if text == "both":
        file |= both_texts(folder)
    elif text == "clip":
        file |= {f"cond_stage_model.transformer.text_model.{key}": value for key, value in words.items()}
        file["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    else:
        file |= {f"cond_stage_model.model.{key}": value for key, value in open_clip(words).items()}
    file["model_ema.decay"] = torch.tensor(0.9999)
    save_file({key: value.contiguous() for key, value in file.items()}, path)
    return path
