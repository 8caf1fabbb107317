"""Trained parts as a standard diffusers folder: fp16 safetensors that stock StableDiffusionPipeline reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from segue.errors import TrainingError
from segue.models.families.sd import AUTOENCODERS

Autoencoder = AutoencoderKL | AutoencoderTiny


def load_codec(folder: Path, device: str | torch.device = "cpu") -> Autoencoder:
    """Read a codec of either kind, in float32 and ready to be used."""
    kind = AUTOENCODERS[codec_kind(folder)]
    codec: Any = kind.from_pretrained(folder, torch_dtype=torch.float32)
    return codec.to(device).eval()


def codec_kind(folder: Path) -> str:
    """The name of a codec's class.

    Raises:
        TrainingError: there is none, or it is of another kind.
    """
    try:
        kind = json.loads((folder / "config.json").read_text("utf-8")).get("_class_name")
    except OSError as error:
        raise TrainingError(f"no codec in {folder}: train one first (segue train codec), or name its folder") from error
    if kind not in AUTOENCODERS:
        raise TrainingError(f"{folder}: expected a codec of {' or '.join(AUTOENCODERS)}, got {kind}")
    return kind


def save_codec(codec: Autoencoder, scaling_factor: float, folder: Path) -> Path:
    """Write the codec; `scaling_factor` turns its latents into unit variance."""
    codec.register_to_config(scaling_factor=scaling_factor)
    codec.half().save_pretrained(folder)
    settings = folder / "config.json"
    config = json.loads(settings.read_text("utf-8"))
    if isinstance(codec, AutoencoderTiny):
        config.pop("block_out_channels", None)  # written by AutoencoderTiny, and then warned about when it reads it
    config.pop("_name_or_path", None)  # a path of this machine
    _write_json(settings, config)
    return folder


def save_pipeline(
    folder: Path,
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    tokenizer: Path,
    codec: Path,
    scheduler: Mapping[str, Any],
) -> Path:
    """Write a whole model to `folder`; `tokenizer` and `codec` are folders that are copied. The parts become fp16."""
    unet.half().save_pretrained(folder / "unet")
    _save_text(text.half(), folder / "text_encoder")
    for part, source in (("tokenizer", tokenizer), ("vae", codec)):
        shutil.copytree(source, folder / part, dirs_exist_ok=True)
    (folder / "scheduler").mkdir(exist_ok=True)
    version = {"_diffusers_version": diffusers.__version__}
    _write_json(folder / "scheduler" / "scheduler_config.json", {**scheduler, **version})
    index = {
        "_class_name": "StableDiffusionPipeline",
        **version,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": ["transformers", CLIPTextModel.__name__],
        "tokenizer": ["transformers", CLIPTokenizer.__name__],
        "unet": ["diffusers", UNet2DConditionModel.__name__],
        "vae": ["diffusers", codec_kind(codec)],
    }
    _write_json(folder / "model_index.json", index)  # last: a folder that has it is whole
    return folder


def _save_text(text: CLIPTextModel, folder: Path) -> None:
    """The text encoder under the key names of published checkpoints, which every version of transformers reads."""
    folder.mkdir(parents=True, exist_ok=True)
    text.config.dtype = torch.float32  # what to compute in; without it transformers 5 would take that of the file
    text.config.save_pretrained(folder)
    tensors = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in text.state_dict().items()}
    tensors.pop("text_model.embeddings.position_ids", None)  # a count, not a weight
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
