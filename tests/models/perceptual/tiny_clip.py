# pyright: basic
"""A tiny random CLIP, as transformers writes it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

from models.tiny import write_tokenizer
from segue.models.weights import quiet

SIDE, WIDTH = 32, 12


def write_clip(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    with quiet():
        tokenizer = write_tokenizer(folder, 20)
        special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
        text = {**shape, "vocab_size": len(tokenizer), "max_position_embeddings": 20, **special}
        vision = {**shape, "image_size": SIDE, "patch_size": 8}
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)).save_pretrained(folder)
    sight = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(sight))
    return folder
