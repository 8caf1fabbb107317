"""Weight files: only safetensors, looked over before anything is loaded, and read into a network that they must fit."""

from __future__ import annotations

import json
import struct
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from segue.errors import CheckpointError, ModelError, ModelNotFoundError, UnsafeFileError

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
MISFITS = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, StrictDataclassError)
"""What diffusers and transformers raise when a configuration is damaged, or weights do not fit it."""

_ALIGNMENT = 64
_LARGEST_HEADER = 100_000_000
_SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


@dataclass(frozen=True)
class Entry:
    """One tensor of a safetensors file, as its header describes it."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors that a safetensors file says it holds, without reading them; the sizes are checked.

    Raises:
        ModelNotFoundError: there is no such file.
        UnsafeFileError: the file is of a kind that can run code.
        CheckpointError: it is cut short, or no safetensors file.
    """
    refuse_pickle(path)
    if not path.is_file():
        raise ModelNotFoundError(f"there is no file {path}")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 and start[8:] == b"{" else 0
        if not 2 <= length <= _LARGEST_HEADER:
            if start[:2] == b"PK" or start[:1] == b"\x80":
                raise UnsafeFileError(_pickle_message(path, "is a pickle under the name of a safetensors file"))
            raise CheckpointError(f"{path} is not a safetensors file: it does not begin with a header. {_AGAIN}")
        text = b"{" + file.read(length - 1)
    if len(text) < length:
        raise CheckpointError(f"{path} is cut short: its header alone is {length} bytes, the file {size}. {_AGAIN}")
    try:
        fields: dict[str, Any] = json.loads(text)
        fields.pop("__metadata__", None)
        end = max((int(field["data_offsets"][1]) for field in fields.values()), default=0)
        entries = {name: Entry(field["dtype"], tuple(field["shape"])) for name, field in fields.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise CheckpointError(f"{path} is damaged: its header is not readable. {_AGAIN}") from None
    if size != 8 + length + end:
        raise CheckpointError(
            f"{path} is damaged: its header describes {8 + length + end} bytes, the file has {size}. {_AGAIN}"
        )
    return entries


_AGAIN = "Download or copy it again"


def refuse_pickle(path: Path) -> None:
    """Raise UnsafeFileError if the file's name is that of a pickle."""
    if path.suffix in PICKLES:
        raise UnsafeFileError(_pickle_message(path, "is a pickle"))


def _pickle_message(path: Path, what: str) -> str:
    return (
        f"{path} {what}, and loading a pickle can run any code; Segue reads safetensors only. Look for a .safetensors "
        "version of it, or convert it on a machine where you trust it (diffusers: from_single_file or from_pretrained, "
        "then save_pretrained)"
    )


def weight_files(folder: Path, stem: str, dtype: torch.dtype | None = None) -> tuple[str | None, tuple[Path, ...]]:
    """The safetensors files of one part of a diffusers folder, and their variant ("fp16", or None for the plain ones).

    Sharded files are followed through their index. Half-precision variants are taken where there is nothing else, or
    where `dtype` is half precision.

    Raises:
        ModelNotFoundError: the folder has no weights.
        UnsafeFileError: it has pickles only.
        CheckpointError: a shard is missing or damaged.
    """
    variants = (None, "fp16") if dtype is None or dtype.itemsize > 2 else ("fp16", None)
    for variant in variants:
        middle = f".{variant}" if variant else ""
        single = folder / f"{stem}{middle}.safetensors"
        if single.is_file():
            read_header(single)
            return variant, (single,)
        index = folder / f"{stem}.safetensors.index{middle}.json"
        if index.is_file():
            return variant, _shards(index)
    pickles = sorted(path for path in folder.glob("*") if path.suffix in PICKLES)
    if pickles:
        raise UnsafeFileError(_pickle_message(pickles[0], "has no safetensors beside it: it is a pickle"))
    raise ModelNotFoundError(f"{folder} holds no weights: expected {stem}.safetensors there")


def _shards(index: Path) -> tuple[Path, ...]:
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    paths = tuple(index.parent / name for name in names)
    for path in paths:
        if path.parent != index.parent or not path.is_file():
            raise CheckpointError(f"{index} names a file that is not beside it: {path.name}. {_AGAIN}")
        read_header(path)
    return paths


def read_json(path: Path) -> dict[str, Any]:
    """A configuration file.

    Raises:
        ModelNotFoundError: no such file.
        CheckpointError: not the JSON of an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path} is missing; a model folder of the diffusers layout has one") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}). {_AGAIN}") from None
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path} should hold a JSON object. {_AGAIN}")
    return dict(value)


def read_network(
    kind: type[Any], folder: Path, stem: str, device: torch.device, dtype: torch.dtype
) -> tuple[Any, tuple[Path, ...]]:
    """A frozen network in eval mode, and the files that it came from.

    Args:
        kind: a model class of diffusers or transformers.
        folder: where its config.json and weights are.
        stem: what its weight file is called, without .safetensors.
        device: where it shall live.
        dtype: what it shall compute in.

    Raises:
        CheckpointError: the weights do not fit the configuration.
    """
    read_json(folder / "config.json")
    variant, files = weight_files(folder, stem, dtype)
    options = {"variant": variant} if variant else {}
    # In its own precision from the first: by way of float32, half precision would take twice the memory.
    try:
        with quiet():
            network, report = kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                torch_dtype=dtype,
                **options,
            )
    except MISFITS as error:
        raise CheckpointError(_misfit(folder, kind, str(error))) from error
    missing = sorted(str(key) for key in report["missing_keys"])
    if missing:
        raise CheckpointError(_misfit(folder, kind, f"{len(missing)} tensors are missing, such as {missing[0]}"))
    freeze(network, device, dtype)
    return network, files


def freeze(network: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Put a network on its device, in eval mode, without gradients.

    Weights that were mapped from a file lie at any multiple of 8 bytes, and sums round differently with the alignment.
    They are moved to aligned memory, so that the same numbers from another file give the same bits. In half precision,
    and on CPUs, convolutions want their channels last: several times faster on CPUs with matrix units.

    Raises:
        ModelError: the device has not enough memory.
    """
    try:
        with quiet():
            network.to(device=device, dtype=dtype).eval().requires_grad_(False)
            if dtype.itemsize == 2 or device.type == "cpu":
                _channels_last(network)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"the model does not fit into the memory of {device}; try dtype float16, or device cpu"
        ) from error
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()


def _misfit(folder: Path, kind: type[Any], why: str) -> str:
    first = " ".join(why.split())
    return (
        f"{folder} does not hold the {kind.__name__} that its config.json describes: {first[:300]}. "
        "The weights belong to another architecture, or the folder is incomplete"
    )


def _channels_last(network: Any) -> None:
    """Only weights of convolutions over pictures: those over time have five axes, which this order does not know."""
    for tensor in network.parameters():
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


@contextmanager
def quiet() -> Generator[None]:
    """Keep the libraries' loading bars and advice off the terminal, and put their settings back afterwards."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    rooms = [diffusers_logging, transformers_logging]
    levels = [room.get_verbosity() for room in rooms]
    bars = [room.is_progress_bar_enabled() for room in rooms]
    for room in rooms:
        room.set_verbosity(room.CRITICAL)
        room.disable_progress_bar()
    try:
        yield
    finally:
        for room, level, bar in zip(rooms, levels, bars, strict=True):
            room.set_verbosity(level)
            if bar:
                room.enable_progress_bar()
