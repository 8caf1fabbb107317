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
from segue.models import kinds
from segue.models.codec import codec_dtype
from segue.models.families import find_family, sd, sdxl
from segue.models.inpainting import concat_channels
from segue.models.instruction import picture_channels
from segue.models.text import ClipText
from segue.models.weights import MISFITS, Entry, freeze, quiet, read_header, read_json

if TYPE_CHECKING:
    from torch import nn
    from transformers import CLIPTokenizer

    from segue.models.bundle import LatentDiffusion
    from segue.types import Prediction

CONFIGS = Path(__file__).parent / "configs"
_UNET = "model.diffusion_model."
_FIRST = f"{_UNET}input_blocks.0.0.weight"
SD1, SD2, XL = CONFIGS / "sd15", CONFIGS / "sd21", CONFIGS / "sdxl"
_SHIPPED = {kinds.SD1: SD1, kinds.SD2: SD2, kinds.XL: XL}
TEXT_TO_IMAGE = 4
INPAINTING = TEXT_TO_IMAGE + concat_channels(TEXT_TO_IMAGE)
INSTRUCTION = TEXT_TO_IMAGE + picture_channels(TEXT_TO_IMAGE)
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
    """A model of Stable Diffusion 1.x, 2.x or XL from one file.

    A file of 2.x does not say what its UNet predicts: "v_prediction" (the 768 px models) is assumed; pass
    "epsilon" for the 512 px ones. The inpainting model of 2.x is one of 512 px, and taken as such. Files of XL that
    predict v carry a mark, and perhaps another for a last level of pure noise.

    Args:
        path: a .safetensors file of the original layout.
        name: what to call the model.
        device: where its networks live.
        dtype: what they compute in.
        prediction: what the UNet predicts.
        config: a diffusers folder whose configurations and tokenizers to use instead of those that come with Segue.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or of an architecture that Segue does not read.
    """
    header = read_header(path)
    folder = find_config(path, header, config)
    family = find_family(read_json(folder / "model_index.json"), str(folder)).module
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    precise = codec_dtype(read_json(folder / "vae" / "config.json"), dtype)
    channels = header[_FIRST].shape[1] if config is None else TEXT_TO_IMAGE
    if channels == INPAINTING and folder == SD2:
        prediction = prediction or "epsilon"
    given: dict[str, Any] = {} if config else {part: clip_tokenizer(folder / part) for part in _TOKENIZERS[family]}
    given |= (
        {"unet": _read_part(path, folder, "unet", dtype, in_channels=channels)} if channels != TEXT_TO_IMAGE else {}
    )
    given |= {"vae": _read_part(path, folder, "vae", precise)} if precise != dtype else {}
    if "v_pred" in header:
        prediction = prediction or "v_prediction"
        scheduler |= {"rescale_betas_zero_snr": True} if "ztsnr" in header else {}
    parts = _read(path, folder, family, dtype, given)
    for part in _PARTS[family]:
        freeze(parts[part], device, precise if part == "vae" else dtype)
    told: dict[str, Any] = {"name": name, "weights": (path,), "prediction": prediction}
    told["settings"] = sd.settings_of(folder, _PARTS[family])
    if family == "sdxl":
        pair = parts["tokenizer"], parts["tokenizer_2"]
        index = read_json(folder / "model_index.json")
        text = sdxl.text_of(parts["text_encoder"], parts["text_encoder_2"], pair, index)
        model = sdxl.assemble(parts["unet"], text, parts["vae"], scheduler, **told)
    else:
        text = ClipText(parts["text_encoder"], parts["tokenizer"])
        model = sd.assemble(parts["unet"], text, parts["vae"], scheduler, **told)
    if folder == SD2 and model.denoiser.prediction == "epsilon":
        model = replace(model, defaults=replace(model.defaults, size=(512, 512)))
    return replace(model, config=config, family=family)


_PARTS = {"sd": ("unet", "text_encoder", "vae"), "sdxl": sdxl.PARTS}
_TOKENIZERS = {"sd": ("tokenizer",), "sdxl": ("tokenizer", "tokenizer_2")}


def find_config(path: Path, header: Mapping[str, Entry], config: Path | None) -> Path:
    """The configurations to read a file with: `config`, or those that the names and shapes in its header ask for.

    Raises:
        CheckpointError: it holds something else, which is named as far as it can be told.
    """
    if config is not None and not (config / "model_index.json").is_file():
        raise CheckpointError(f"config must be a folder of the diffusers layout; there is no {config}/model_index.json")
    kind = kinds.kind_of(header)
    if kind is None or kind.what != "checkpoint" or _FIRST not in header:
        what = f"is {kind}: {kind.advice}" if kind else f"is of an unknown layout ({_some(header)})"
        raise CheckpointError(f"{path} {what}; expected a whole model of Stable Diffusion 1.x, 2.x or XL in one file")
    if any(".time_stack." in key for key in header):
        raise CheckpointError(
            f"{path} is Stable Video Diffusion in one file; Segue reads it from folders of the diffusers layout and "
            "from the hub only. Load stabilityai/stable-video-diffusion-img2vid-xt, or convert it"
        )
    if config is not None:
        _check_config(path, kind, config)
        return config
    channels = header[_FIRST].shape[1]
    if channels not in (TEXT_TO_IMAGE, INPAINTING, INSTRUCTION):
        raise CheckpointError(
            f"{path} takes {channels} channels, as models that enlarge pictures or are shown depth do; expected "
            f"{TEXT_TO_IMAGE} (text to image), {INPAINTING} (inpainting) or {INSTRUCTION} (instructions)"
        )
    if "edm_vpred.sigma_max" in header:
        raise CheckpointError(
            f"{path} is of the kind of CosXL, whose noise levels Segue does not know; it reads plain XL"
        )
    if kind.family == kinds.REFINER:
        raise CheckpointError(f"{path} is {kind}, which only finishes pictures that another began: load the base model")
    if "edm_mean" in header:
        raise CheckpointError(f"{path} is Playground 2.5, whose noise levels Segue does not know; it reads plain XL")
    if kind.family not in _SHIPPED:
        raise CheckpointError(
            f"{path} is of no family that its shapes tell: neither Stable Diffusion 1.x, 2.x nor XL. "
            "Pass the folder that it was made from as config"
        )
    return _SHIPPED[kind.family]


def _check_config(path: Path, kind: kinds.Kind, config: Path) -> None:
    """Raise CheckpointError if a file of one family is to be read with the configurations of another."""
    family = find_family(read_json(config / "model_index.json"), str(config))
    if family.module not in _PARTS or (family.module == "sdxl") != (kind.family == kinds.XL):
        raise CheckpointError(f"{path} is {kind}, and config {config} is made for {family.name}: they are no pair")


def _some(header: Mapping[str, Entry]) -> str:
    return f"{len(header)} tensors, such as {next(iter(header), 'none')}"


def _read_part(path: Path, folder: Path, part: str, dtype: torch.dtype, **changes: Any) -> nn.Module:
    """The UNet or the autoencoder alone: in another dtype than the rest, or with changes to its configuration, as an
    inpainting model has a wider first layer."""
    with quiet():
        from diffusers.loaders.single_file_utils import SingleFileComponentError
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    kind: Any = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
    settings: dict[str, Any] = {"config": str(folder), "subfolder": part, "local_files_only": True}
    try:
        with quiet():
            return kind.from_single_file(str(path), torch_dtype=dtype, **settings, **changes)
    except (*MISFITS, SingleFileComponentError) as error:
        raise CheckpointError(_misfit(path, folder, " ".join(str(error).split())[:300])) from error


def _read(path: Path, folder: Path, family: str, dtype: torch.dtype, given: Mapping[str, Any]) -> dict[str, Any]:
    """The networks and tokenizers of a file, but for those that are given.

    Networks come in `dtype` from the first: by way of float32, half precision would take twice the memory.
    """
    with quiet():  # the pipelines' modules warn about picture processors that no model here uses
        from diffusers.loaders.single_file_utils import SingleFileComponentError
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
        from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

    kind: Any = StableDiffusionPipeline
    absent: dict[str, Any] = {"safety_checker": None}
    if family == "sdxl":
        kind, absent = StableDiffusionXLPipeline, {"add_watermarker": False}
    try:
        with quiet():
            pipeline = kind.from_single_file(
                str(path), config=str(folder), local_files_only=True, torch_dtype=dtype, **absent, **given
            )
    except (*MISFITS, SingleFileComponentError) as error:
        raise CheckpointError(_misfit(path, folder, " ".join(str(error).split())[:300])) from error
    parts = {part: getattr(pipeline, part) for part in (*_PARTS[family], *_TOKENIZERS[family])}
    for part in _PARTS[family]:
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
