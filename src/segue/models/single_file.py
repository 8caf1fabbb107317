"""Models in one .safetensors file of the original (ldm) layout, read offline: the configurations come with Segue."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segue.errors import CheckpointError
from segue.models.codec import codec_dtype
from segue.models.families import sd
from segue.models.inpainting import concat_channels
from segue.models.text import ClipText
from segue.models.weights import MISFITS, Entry, freeze, quiet, read_header, read_json

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTokenizer

    from segue.models.bundle import LatentDiffusion
    from segue.types import Prediction

CONFIGS = Path(__file__).parent / "configs"
_UNET = "model.diffusion_model."
_FIRST = f"{_UNET}input_blocks.0.0.weight"
_TEXT = f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
SD1, SD2 = CONFIGS / "sd15", CONFIGS / "sd21"
_BY_TEXT_WIDTH = {768: SD1, 1024: SD2}
TEXT_TO_IMAGE = 4
INPAINTING = TEXT_TO_IMAGE + concat_channels(TEXT_TO_IMAGE)
"""Channels that the first layer takes."""


def from_file(
    path: Path,
    *,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    prediction: Prediction | None = None,
    config: Path | None = None,
) -> LatentDiffusion:
    """A Stable Diffusion 1.x or 2.x model from one file.

    A file of 2.x does not say what its UNet predicts: "v_prediction" (the 768 px models) is assumed; pass
    "epsilon" for the 512 px ones. The inpainting model of 2.x is one of 512 px, and taken as such.

    Args:
        path: a .safetensors file of the original layout.
        name: what to call the model.
        device: where its networks live.
        dtype: what they compute in.
        prediction: what the UNet predicts.
        config: a diffusers folder whose configurations and tokenizer to use instead of those of 1.x and 2.x.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or of an architecture that Segue does not read.
    """
    header = read_header(path)
    folder = find_config(path, header, config)
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    if config is None:
        inpaints = header[_FIRST].shape[1] == INPAINTING
        if inpaints and folder == SD2:
            prediction = prediction or "epsilon"
        given: dict[str, Any] = {"tokenizer": clip_tokenizer(folder / "tokenizer")}
        parts = _read(path, folder, {**given, "unet": _read_inpainting(path, folder)} if inpaints else given)
    else:
        parts = _read(path, folder, {})
    freeze(parts["unet"], device, dtype)
    freeze(parts["text_encoder"], device, dtype)
    freeze(parts["vae"], device, codec_dtype(parts["vae"].config, dtype))
    model = sd.assemble(
        parts["unet"],
        ClipText(parts["text_encoder"], parts["tokenizer"]),
        parts["vae"],
        scheduler,
        name=name,
        weights=(path,),
        settings=sd.settings_of(folder),
        prediction=prediction,
    )
    if folder == SD2 and model.denoiser.prediction == "epsilon":
        model = replace(model, defaults=replace(model.defaults, size=(512, 512)))
    return replace(model, config=config, family="sd")


def find_config(path: Path, header: Mapping[str, Entry], config: Path | None) -> Path:
    """The configurations to read a file with: `config`, or those that the names and shapes in its header ask for.

    Raises:
        CheckpointError: it holds something else, which is named as far as it can be told.
    """
    if config is not None and not (config / "model_index.json").is_file():
        raise CheckpointError(f"config must be a folder of the diffusers layout; there is no {config}/model_index.json")
    if _FIRST not in header or _TEXT not in header:
        raise CheckpointError(f"{path} {_what(header)}; expected a whole Stable Diffusion 1.x or 2.x model in one file")
    channels, width = header[_FIRST].shape[1], header[_TEXT].shape[1]
    if config is not None:
        return config
    if channels not in (TEXT_TO_IMAGE, INPAINTING):
        raise CheckpointError(
            f"{path} takes {channels} channels: it is an instruction or upscaling model; expected a text-to-image "
            f"model, which takes {TEXT_TO_IMAGE}, or one for inpainting, which takes {INPAINTING}"
        )
    if any(key.startswith("conditioner.embedders.") for key in header):
        raise CheckpointError(f"{path} is a Stable Diffusion XL model; Segue reads 1.x and 2.x")
    if width not in _BY_TEXT_WIDTH:
        raise CheckpointError(
            f"{path} takes text of width {width}: it is neither Stable Diffusion 1.x (768) nor 2.x (1024). "
            "Pass the folder that it was made from as config"
        )
    return _BY_TEXT_WIDTH[width]


def _what(header: Mapping[str, Entry]) -> str:
    if any("lora" in key for key in header):
        return "is a LoRA: load the model that it was made for, and give this file as one of its loras"
    if any(key.startswith(("down_blocks.", "encoder.", "text_model.", "embeddings.")) for key in header):
        return "is one part of a model folder: give the folder that holds model_index.json"
    if any(key.startswith(("double_blocks.", "joint_blocks.", f"{_UNET}joint_blocks.")) for key in header):
        return "is a transformer (Flux or Stable Diffusion 3)"
    return f"is of an unknown layout ({len(header)} tensors, such as {next(iter(header), 'none')})"


def _read_inpainting(path: Path, folder: Path) -> UNet2DConditionModel:
    """The network of an inpainting model: that of the configurations, with a wider first layer."""
    with quiet():
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    settings: dict[str, Any] = {"config": str(folder), "subfolder": "unet", "local_files_only": True}
    try:
        with quiet():
            return UNet2DConditionModel.from_single_file(str(path), in_channels=INPAINTING, **settings)
    except MISFITS as error:
        raise CheckpointError(_misfit(path, folder, " ".join(str(error).split())[:300])) from error


def _read(path: Path, folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    with quiet():  # the pipeline's module warns about picture processors that no model here uses
        from diffusers.loaders.single_file_utils import SingleFileComponentError
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    try:
        with quiet():
            pipeline = StableDiffusionPipeline.from_single_file(
                str(path), config=str(folder), local_files_only=True, safety_checker=None, **given
            )
    except (*MISFITS, SingleFileComponentError) as error:
        raise CheckpointError(_misfit(path, folder, " ".join(str(error).split())[:300])) from error
    parts = {part: getattr(pipeline, part) for part in ("unet", "text_encoder", "vae", "tokenizer")}
    for part in ("unet", "text_encoder", "vae"):
        empty = [key for key, value in parts[part].named_parameters() if value.is_meta]
        if empty:
            raise CheckpointError(_misfit(path, folder, f"{part} lacks {len(empty)} tensors, such as {empty[0]}"))
    return parts


def _misfit(path: Path, folder: Path, why: str) -> str:
    return f"{path} does not fit the architecture of {folder.name} that its shapes suggest: {why}"


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer with the special tokens of tokenizer_config.json in `folder`.

    The vocabulary is 256 bytes, the same at the end of a word, one token per merge, and two special ones (Radford et
    al. 2021, arXiv:2103.00020, section 2.4); only the merges are stored.
    """
    from transformers import CLIPTokenizer

    merges = gzip.decompress((CONFIGS / "clip" / "merges.txt.gz").read_bytes()).decode("utf-8")
    letters = byte_letters()
    joined = [line.replace(" ", "") for line in merges.splitlines()]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *joined, "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        (here / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
        (here / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
        (here / "tokenizer_config.json").write_bytes((folder / "tokenizer_config.json").read_bytes())
        with quiet():
            return CLIPTokenizer.from_pretrained(here, local_files_only=True)


def byte_letters() -> list[str]:
    """A printable letter for every byte, in the order in which byte-pair vocabularies list them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(hidden))]
