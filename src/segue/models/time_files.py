"""Files of layers that look along time: weights in 8 bits, the shape of the layers, and the model that they are of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from segue.errors import CheckpointError
from segue.models.eight_bits import packed, unpacked
from segue.models.time_inserted import Kind, TimeSettings, time_layers, with_time
from segue.models.weights import read_header

if TYPE_CHECKING:
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

METADATA = "segue_time_layers"


def save_time(
    path: Path, model: LatentDiffusion, *, weights: Mapping[str, Tensor] | None = None, whole: bool = False
) -> None:
    """Write the layers along time of a model. The file is replaced when the new one is whole.

    Weights are stored in 8 bits, with a scale for each output of a layer, all else in half precision.

    Args:
        path: of the file.
        model: that `with_time` made.
        weights: other values of the layers' parameters, by name, such as an average of them; None is their own.
        whole: store all in float32 instead.

    Raises:
        ModelError: the model has no such layers.
    """
    layers = time_layers(model)
    state = weights if weights is not None else layers.state_dict()
    floats = {name: value.detach().float().cpu().contiguous() for name, value in state.items()}
    made = path.with_name(path.name + ".part")
    said = {"settings": asdict(layers.settings), "base": model.name, "fingerprint": model.fingerprint}
    save_file(floats if whole else packed(floats), made, {METADATA: json.dumps(said)})
    made.replace(path)


def with_time_file(model: LatentDiffusion, path: Path) -> LatentDiffusion:
    """A model of single pictures with the layers along time of a file.

    It need not be the model that they learned on: they move other models of its shape, too (Video LDM, section 4.2).

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: damaged, no such layers, or made for another architecture.
        ModelError: time cannot be put into the model; see `with_time`.
    """
    settings = read_settings(path)
    try:
        there = unpacked(load_file(path))
    except (SafetensorError, LookupError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    moving = with_time(model, settings)
    layers = time_layers(moving)
    own = {name: tuple(value.shape) for name, value in layers.state_dict().items()}
    odd = [name for name in own.keys() | there.keys() if name not in there or own.get(name) != tuple(there[name].shape)]
    if odd:
        raise CheckpointError(
            f"{path} holds layers along time for a model of another architecture than {model.name}: {min(odd)} differs"
        )
    layers.load_state_dict(there)
    layers.requires_grad_(False).eval()
    return replace(moving, weights=(*model.weights, (path, 1.0)))


def is_time_file(path: Path) -> bool:
    """Whether a file says that it holds layers along time.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: no safetensors file, or damaged.
    """
    return METADATA in _said(path)


def read_settings(path: Path) -> TimeSettings:
    """The shape of the layers along time in a file.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: damaged, or no file of such layers.
    """
    said = _said(path).get(METADATA)
    if said is None:
        raise CheckpointError(f"{path} holds no layers along time: expected a file that segue train videoldm wrote")
    try:
        stated: dict[str, Any] = json.loads(said)["settings"]
        settings = TimeSettings(**stated)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} does not say what shape its layers along time have ({error})") from None
    if {settings.blocks, settings.transformers} - {None, *get_args(Kind)}:
        raise CheckpointError(f"{path} has layers along time of kinds that Segue does not know")
    return settings


def _said(path: Path) -> Mapping[str, str]:
    read_header(path)
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
