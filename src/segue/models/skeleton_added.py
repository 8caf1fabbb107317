"""What is added to a model, without weights: layers along time in its UNet and its decoder, an adapter beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segue.errors import CheckpointError
from segue.models.instruct_adapter import InstructAdapter
from segue.models.instruct_files import read_layout
from segue.models.skeleton import CODEC, INSTRUCT, META
from segue.models.time_decoder import with_time_decoder
from segue.models.time_decoder_files import read_shape
from segue.models.time_files import read_settings
from segue.models.time_inserted import time_into

if TYPE_CHECKING:
    from segue.models.skeleton import Skeleton

UNET = "unet"


def with_instruct_added(model: Skeleton, path: Path) -> Skeleton:
    """The networks with the adapter of a file beside the UNet; its header is read, and no weights.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: damaged, or no adapter.
    """
    layout = read_layout(path)
    with META:
        adapter = InstructAdapter(layout)
    adapter.to(META, model.dtype).eval().requires_grad_(False)
    return replace(model, parts={**model.parts, INSTRUCT: adapter})


def with_time_added(model: Skeleton, path: Path) -> Skeleton:
    """The networks with the layers along time of a file; its header is read, and no weights.

    They are counted as weights of the UNet and of the decoder, and take no part in the making of single pictures.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: damaged, no such layers, or the model has no UNet.
    """
    settings, shape = read_settings(path), read_shape(path)
    if UNET not in model.parts:
        raise CheckpointError(f"{path} holds layers along time for a UNet, and {model.name} has none")
    parts = dict(model.parts)
    with META:
        parts[UNET], layers = time_into(model.parts[UNET], settings, model.codec.channels)
        if shape is not None:
            parts[CODEC] = with_time_decoder(model.codec, shape).vae
    layers.requires_grad_(False)
    return replace(model, parts=parts)
