"""A model from wherever it is: a local folder, a hub repository, or a single file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segue.errors import CheckpointError, ModelError, ModelNotFoundError, SegueError
from segue.models.devices import find_device
from segue.models.families import family_of, find_family
from segue.models.hub import download, parse_repository
from segue.models.kinds import kind_of
from segue.models.precision import quicker_dtype
from segue.models.profiles import find_profile, with_profile
from segue.models.weights import read_header, read_json, refuse_pickle

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion
    from segue.types import Prediction

AUTO = "auto"
"""A dtype that is decided by the device, and on a CPU by measurement."""


def load_model(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    prediction: Prediction | None = None,
    config: str | Path | None = None,
    loras: Mapping[str | Path, float] | None = None,
    name: str | None = None,
    profile: str | None = None,
    at_home: bool = False,
    text_from: Path | None = None,
) -> LatentDiffusion:
    """A frozen model, ready to use. Only safetensors are read, and no code that comes with a model is ever run.

    Args:
        source: a folder of the diffusers layout; a single .safetensors file of the original layout; a hub repository
            "owner/name", "owner/name@revision", or "owner/name/path/file.safetensors" for a single file in it.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes the fastest that this machine has.
        dtype: see `dtype_of`.
        prediction: what the network predicts, where the files cannot tell: a single file of Stable Diffusion 2.x does
            not say whether it is a 768 px v-model (assumed) or a 512 px epsilon-model.
        config: a folder of the diffusers layout whose configurations a single file shall be read with.
        loras: LoRA files and their scales, merged into the weights.
        name: what to call the model; by default, the source.
        profile: a name of `segue.models.profiles`, whose defaults to take; None is what the checkpoint's scheduler asks
            for, or else its family's.
        at_home: leave its networks in main memory, though they work on `device`: see `segue.models.placement`.
        text_from: the folder of the model whose text encoder and tokenizer an upscaler shares, if it has none itself.

    Raises:
        ModelNotFoundError: nothing is there.
        ModelAccessError: the hub refuses, or cannot be reached.
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or of an architecture that Segue does not read.
        ModelError: a device or dtype that this machine does not have, a prediction that there is not, a config for a
            folder, which has its own, or a profile that there is not or that does not suit the model.
    """
    place = find_device(device)
    path = locate(source)
    precision = dtype_of(path, place, dtype)
    place = torch.device("cpu") if at_home else place
    title = name or str(source)
    if path.is_dir():
        if config is not None:
            raise ModelError(f"config is what a single file is read with, and {path} is a folder: leave config out")
        model = _from_folder(path, title, place, precision, prediction, text_from)
    else:
        from segue.models.single_file import from_file

        folder = Path(config).expanduser() if config is not None else None
        if profile is not None and folder is None:
            prediction = prediction or find_profile(profile).prediction
        model = from_file(path, name=title, device=place, dtype=precision, prediction=prediction, config=folder)
    model = with_profile(model, profile, stated=path.is_dir() or config is not None)
    if loras:
        from segue.models.lora import merged

        model = merged(model, {Path(file): scale for file, scale in loras.items()})
    return model


def locate(source: str | Path) -> Path:
    """The folder or file that `source` means, downloaded if it is on the hub and not here yet."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    repository = parse_repository(str(source)) if isinstance(source, str) else None
    if repository is None:
        raise ModelNotFoundError(
            f"there is no model at {source}: expected a folder of the diffusers layout, a .safetensors file, "
            'or a hub repository such as "stable-diffusion-v1-5/stable-diffusion-v1-5"'
        )
    if repository.file is not None:
        refuse_pickle(Path(repository.file))
    return download(repository)


def _from_folder(
    folder: Path,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    prediction: Prediction | None,
    text_from: Path | None,
) -> LatentDiffusion:
    if not (folder / "model_index.json").is_file():
        raise ModelNotFoundError(_no_index(folder))
    family = find_family(read_json(folder / "model_index.json"), str(folder))
    reader = import_module(f"segue.models.families.{family.module}")
    if text_from is not None and family.module != "upscaler":
        raise ModelError(f"{folder} is {family.name}, which has a text encoder of its own: leave text out of its card")
    more = {} if text_from is None else {"text_from": text_from}
    try:
        model = reader.from_folder(folder, name=name, device=device, dtype=dtype, prediction=prediction, **more)
    except SegueError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: its configurations do not say enough, or say what cannot be: {error}"
        ) from error
    return replace(model, family=family.module)


def _no_index(folder: Path) -> str:
    single = sorted(folder.glob("*.safetensors"))
    hint = f"; it holds {single[0].name}: give the path of that file" if single else ""
    kind = kind_of(read_header(single[0])) if single else None
    if kind is not None and kind.what != "checkpoint":
        hint = f"; {single[0].name} in it is {kind}: {kind.advice}"
    return f"{folder} is not a model folder: expected model_index.json, unet/, text_encoder/, tokenizer/, vae/{hint}"


def dtype_of(path: Path, device: torch.device, dtype: str | torch.dtype | None) -> torch.dtype:
    """What a model there computes in: "float32", "float16" or "bfloat16", if one is named.

    None is float32 on the CPU, elsewhere what the family computes in: bfloat16 for Stable Diffusion 3 and FLUX, float16
    for others. "auto" is that too, but on a CPU bfloat16 where a measurement finds it quicker.

    Raises:
        ModelError: it is none of these.
    """
    stated = None if dtype == AUTO and device.type != "cpu" else dtype
    return find_dtype(stated or usual_dtype(path, device), device)


def usual_dtype(path: Path, device: torch.device) -> str | None:
    """What a model there computes in unless somebody says otherwise; None if only the device decides."""
    index = path / "model_index.json"
    if device.type == "cpu" or not index.is_file():
        return None
    family = family_of(str(read_json(index).get("_class_name")))
    return family.half if family else None


def find_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The floating-point type that is meant.

    Raises:
        ModelError: it is none of float32, float16, bfloat16 and auto.
    """
    if dtype == AUTO and device.type == "cpu":
        return quicker_dtype()
    if dtype is None or dtype == AUTO:
        return torch.float32 if device.type == "cpu" else torch.float16
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    chosen = known.get(str(dtype).removeprefix("torch."))
    if chosen is None:
        raise ModelError(f"dtype must be one of {', '.join(known)} or {AUTO}; got {dtype}")
    return chosen
