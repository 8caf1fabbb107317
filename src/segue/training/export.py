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

from segue.errors import ModelNotFoundError, TrainingError
from segue.models.families.sd import AUTOENCODERS
from segue.models.weights import read_json, read_network
from segue.training.folders import replaced

Autoencoder = AutoencoderKL | AutoencoderTiny


def load_codec(folder: Path, device: str | torch.device = "cpu") -> Autoencoder:
    """Read a codec of either kind, in float32 and ready to be used or to learn."""
    return load_part(AUTOENCODERS[codec_kind(folder)], folder, device)


def load_part(kind: type[Any], folder: Path, device: str | torch.device = "cpu") -> Any:
    """Read an exported network of that class, in float32 and in eval mode; its weights may be trained on.

    Nothing is downloaded, and no pickle is opened.

    Raises:
        ModelNotFoundError: there is no such folder, or it has no weights.
        UnsafeFileError: its weights come as a pickle only.
        CheckpointError: they are damaged, or do not fit its config.json.
    """
    stem = "model" if kind is CLIPTextModel else "diffusion_pytorch_model"
    network, _ = read_network(kind, folder, stem, torch.device(device), torch.float32)
    return network.requires_grad_(True)


def codec_kind(folder: Path) -> str:
    """The name of a codec's class.

    Raises:
        TrainingError: there is none, or it is of another kind.
        CheckpointError: its config.json is damaged.
    """
    try:
        kind = read_json(folder / "config.json").get("_class_name")
    except ModelNotFoundError as error:
        raise TrainingError(f"no codec in {folder}: train one first (segue train codec), or name its folder") from error
    if kind not in AUTOENCODERS:
        raise TrainingError(f"{folder}: expected a codec of {' or '.join(AUTOENCODERS)}, got {kind}")
    return kind


def save_codec(codec: Autoencoder, scaling_factor: float, folder: Path) -> Path:
    """Write the codec; `scaling_factor` turns its latents into unit variance."""
    codec.register_to_config(scaling_factor=scaling_factor)
    with replaced(folder) as part:
        codec.half().save_pretrained(part)
        settings = part / "config.json"
        config = json.loads(settings.read_text("utf-8"))
        if isinstance(codec, AutoencoderTiny):
            config.pop("block_out_channels", None)  # written by AutoencoderTiny, and then warned about when it reads it
        config.pop("_name_or_path", None)  # a path of this machine
        _write_json(settings, config)
    return folder


def save_decoder(vae: AutoencoderTiny, folder: Path) -> Path:
    """Write a codec that only decodes: `segue.models.preview` reads it, and so does diffusers, as far as it goes."""
    config = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    config.pop("block_out_channels", None)
    with replaced(folder) as part:
        tensors = {f"decoder.{name}": value.half().contiguous() for name, value in vae.decoder.state_dict().items()}
        save_file(tensors, part / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        said = {"_class_name": AutoencoderTiny.__name__, "_diffusers_version": diffusers.__version__}
        _write_json(part / "config.json", {**said, **config})
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
    with replaced(folder) as part:
        unet.half().save_pretrained(part / "unet")
        _save_text(text.half(), part / "text_encoder")
        for name, source in (("tokenizer", tokenizer), ("vae", codec)):
            shutil.copytree(source, part / name)
        _save_settings(part, scheduler, codec_kind(codec))
    return folder


def save_upscaler(
    folder: Path,
    unet: UNet2DConditionModel,
    copied: Mapping[str, Path],
    scheduler: Mapping[str, Any],
    low_res_scheduler: Mapping[str, Any],
    max_noise_level: int,
) -> Path:
    """Write an upscaler to `folder`, in the layout of StableDiffusionUpscalePipeline; the network becomes fp16.

    Args:
        copied: where its other parts are: vae, text_encoder, tokenizer.
        scheduler: of its latents.
        low_res_scheduler: of the noise on the small picture.
        max_noise_level: the last level of that noise that it knows.
    """
    with replaced(folder) as part:
        unet.half().save_pretrained(part / "unet")
        for name, source in copied.items():
            shutil.copytree(source, part / name)
        version = {"_diffusers_version": diffusers.__version__}
        for name, said in (("scheduler", scheduler), ("low_res_scheduler", low_res_scheduler)):
            (part / name).mkdir()
            _write_json(part / name / "scheduler_config.json", {**said, **version})
        index = {
            "_class_name": "StableDiffusionUpscalePipeline",
            **version,
            "feature_extractor": [None, None],
            "low_res_scheduler": ["diffusers", low_res_scheduler["_class_name"]],
            "max_noise_level": max_noise_level,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "text_encoder": ["transformers", CLIPTextModel.__name__],
            "tokenizer": ["transformers", CLIPTokenizer.__name__],
            "unet": ["diffusers", UNet2DConditionModel.__name__],
            "vae": ["diffusers", codec_kind(copied["vae"])],
            "watermarker": [None, None],
        }
        _write_json(part / "model_index.json", index)
    return folder


def _save_settings(folder: Path, scheduler: Mapping[str, Any], codec: str) -> None:
    """The scheduler's configuration, and the list of the parts; `codec` is the name of a class."""
    (folder / "scheduler").mkdir()
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
        "vae": ["diffusers", codec],
    }
    _write_json(folder / "model_index.json", index)


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
