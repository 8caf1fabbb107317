"""Files of layers that look along time: weights in 8 bits, the shape of the layers, and the model that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from segue.errors import CheckpointError
from segue.models.own_files import said_of, weights_of, write_own
from segue.models.time_decoder_files import PREFIX, SAID, put_in
from segue.models.time_inserted import Kind, TimeLayers, TimeSettings, time_layers, with_time

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
    said = {"settings": asdict(layers.settings), "base": model.name, "fingerprint": model.fingerprint}
    write_own(path, METADATA, said, layers.state_dict() if weights is None else weights, whole=whole)


def with_time_file(model: LatentDiffusion, path: Path) -> LatentDiffusion:
    """A model of single pictures with the layers along time of a file, and with the decoder that may be in it.

    It need not be the model that they learned on: they move other models of its shape, too (Video LDM, section 4.2).

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: damaged, no such layers, or made for another architecture.
        ModelError: time cannot be put into the model; see `with_time`.
    """
    moving = with_time(model, read_settings(path))
    layers = time_layers(moving)
    layers.load_state_dict(fitting_weights(path, layers, model.name))
    layers.requires_grad_(False).eval()
    stated = said_of(path, METADATA) or {}
    if SAID in stated:
        moving = put_in(moving, path, stated[SAID], weights_of(path))
    return replace(moving, weights=(*model.weights, (path, 1.0)))


def fitting_weights(path: Path, layers: TimeLayers, name: str) -> dict[str, Tensor]:
    """The weights of a file, for layers along time in the model of this name.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: damaged, or made for layers of another shape.
    """
    read_settings(path)
    there = {key: value for key, value in weights_of(path).items() if not key.startswith(PREFIX)}
    own = {key: tuple(value.shape) for key, value in layers.state_dict().items()}
    odd = [key for key in own.keys() | there.keys() if key not in there or own.get(key) != tuple(there[key].shape)]
    if odd:
        raise CheckpointError(
            f"{path} holds layers along time for a model of another architecture than {name}: {min(odd)} differs"
        )
    return there


def is_time_file(path: Path) -> bool:
    """Whether a file says that it holds layers along time.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: no safetensors file, or damaged.
    """
    return said_of(path, METADATA) is not None


def read_settings(path: Path) -> TimeSettings:
    """The shape of the layers along time in a file.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: damaged, or no file of such layers.
    """
    said = said_of(path, METADATA)
    if said is None:
        raise CheckpointError(f"{path} holds no layers along time: expected a file that segue train videoldm wrote")
    try:
        stated: dict[str, Any] = said["settings"]
        settings = TimeSettings(**stated)
        heard = tuple((words, instead) for words, instead in settings.heard)
        settings = replace(settings, heard=heard, moves=tuple(settings.moves))
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} does not say what shape its layers along time have ({error})") from None
    odd = {settings.blocks, settings.transformers} - {None, *get_args(Kind)}
    if odd or settings.attention not in ("own", "clip") or not 0 < settings.strength <= 1:
        raise CheckpointError(f"{path} has layers along time of kinds that Segue does not know")
    return settings
