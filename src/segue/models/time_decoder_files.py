"""Files of decoders that look along time: by themselves, or within the file of the layers along time of a UNet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from segue.errors import CheckpointError, ModelError
from segue.models.codec import AutoencoderCodec
from segue.models.own_files import said_of, weights_of, write_own
from segue.models.time_decoder import DecoderSettings, TimeCodec, with_time_decoder

if TYPE_CHECKING:
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

METADATA = "segue_time_decoder"
PREFIX = "decoder."
"""Of the names of its weights, in either file."""
SAID = "decoder"
"""What a file of layers along time calls the shape of the decoder that is in it."""


def save_decoder(
    path: Path, codec: TimeCodec, model: LatentDiffusion, *, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write the layers along time of a decoder, in 8 bits. The file is replaced when the new one is whole.

    Args:
        path: of the file.
        codec: that `with_time_decoder` made.
        model: whose codec it was made of.
        weights: other values of the layers' parameters, by name; None is their own.
    """
    said = {"settings": asdict(codec.layers.settings), "base": model.name, "fingerprint": model.fingerprint}
    state = weights if weights is not None else codec.layers.state_dict()
    write_own(path, METADATA, said, {PREFIX + name: value for name, value in state.items()})


def with_decoder_file(model: LatentDiffusion, path: Path) -> LatentDiffusion:
    """A model whose decoder looks along time where it decodes a clip, by the layers of a file.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: damaged, no such layers, or made for another architecture.
        ModelError: time cannot be put into the model's decoder; see `with_time_decoder`.
    """
    said = said_of(path, METADATA)
    if said is None:
        raise CheckpointError(f"{path} holds no decoder along time: expected a file of segue train time_decoder")
    return replace(put_in(model, path, said.get("settings"), weights_of(path)), weights=(*model.weights, (path, 1.0)))


def put_in(model: LatentDiffusion, path: Path, settings: Any, stored: Mapping[str, Tensor]) -> LatentDiffusion:
    """The model with the decoder that a file holds.

    Args:
        model: with a codec of single pictures.
        path: of the file, which errors name.
        settings: what the file says of the decoder's shape.
        stored: weights in float32, some of which begin with PREFIX.

    Raises:
        CheckpointError: the file does not say what shape its layers have, or they are for another architecture.
        ModelError: time cannot be put into the model's decoder.
    """
    shape = _shape(path, settings)
    if not isinstance(model.codec, AutoencoderCodec):
        raise ModelError(f"the codec of {model.name} is {type(model.codec).__name__}, into which no time can be put")
    codec = with_time_decoder(model.codec, shape)
    there = {name.removeprefix(PREFIX): value for name, value in stored.items() if name.startswith(PREFIX)}
    own = {name: tuple(value.shape) for name, value in codec.layers.state_dict().items()}
    odd = [name for name in own.keys() | there.keys() if name not in there or own.get(name) != tuple(there[name].shape)]
    if odd:
        raise CheckpointError(
            f"{path} holds a decoder along time for a model of another architecture than {model.name}: {min(odd)} "
            "differs"
        )
    codec.layers.load_state_dict(there)
    codec.layers.requires_grad_(False).eval()
    return replace(model, codec=codec, parts={**model.parts, "vae": codec.vae})


def read_shape(path: Path) -> DecoderSettings | None:
    """The shape of the decoder that is in a file of layers along time of a UNet; None if there is none.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: damaged, or it does not say what shape its layers have.
    """
    from segue.models.time_files import METADATA as LAYERS

    said = said_of(path, LAYERS) or {}
    return _shape(path, said[SAID]) if SAID in said else None


def _shape(path: Path, settings: Any) -> DecoderSettings:
    try:
        return DecoderSettings(**settings)
    except TypeError as error:
        raise CheckpointError(f"{path} does not say what shape its decoder along time has ({error})") from None


def join_decoder(motion: Path, decoder: Path, out: Path) -> None:
    """Write a file of layers along time of a UNet with a decoder in it, which is loaded with them.

    Args:
        motion: a file of layers along time; a decoder that it has already is replaced.
        decoder: a file of `save_decoder`.
        out: the file to write; it is replaced when the new one is whole.

    Raises:
        CheckpointError: one of the files holds something else.
    """
    from segue.models.time_files import METADATA as LAYERS
    from segue.models.time_files import read_settings

    read_settings(motion)
    said = said_of(decoder, METADATA)
    if said is None:
        raise CheckpointError(f"{decoder} holds no decoder along time: expected a file of segue train time_decoder")
    with safe_open(motion, "pt") as file:
        stated: dict[str, Any] = json.loads((file.metadata() or {})[LAYERS])
    tensors = {name: value for name, value in load_file(motion).items() if not name.startswith(PREFIX)}
    part = out.with_name(out.name + ".part")
    save_file({**tensors, **load_file(decoder)}, part, {LAYERS: json.dumps({**stated, SAID: said["settings"]})})
    part.replace(out)
