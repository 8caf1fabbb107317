"""Tensors in files that say what they are: safetensors, with a format and a JSON text in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.torch import save

from segue.errors import CheckpointError
from segue.media.disk import written_whole
from segue.models.weights import read_header

if TYPE_CHECKING:
    from torch import Tensor


def write_labelled(
    path: Path, tensors: Mapping[str, Tensor], *, kind: str, label: str, said: Mapping[str, Any]
) -> None:
    """Write a file, which is whole or not there.

    Args:
        path: of the file.
        tensors: what it holds.
        kind: the format, with its version.
        label: what `said` is called in the header.
        said: what it is; becomes JSON.

    Raises:
        DiskError: the file system refuses.
    """
    held = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    with written_whole(path.expanduser()) as part:
        part.write_bytes(_in_order(save(held, {"format": kind, label: json.dumps(said)})))


def _in_order(file: bytes) -> bytes:
    """The same file with its entries in the order of their names, which safetensors leaves to chance."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    label = dict(sorted(header.pop("__metadata__").items()))
    text = json.dumps({"__metadata__": label, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # Numbers begin where they can be mapped.
    return len(text).to_bytes(8, "little") + text + file[end:]


def read_labelled(path: Path, *, kind: str, label: str, wanted: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, and what it says of itself.

    Args:
        path: of the file.
        kind: the format that it must have.
        label: what the JSON is called in its header.
        wanted: where such files come from, for people.

    Raises:
        ModelNotFoundError: there is none.
        UnsafeFileError: it could run code.
        CheckpointError: it is damaged, or of another format.
    """
    path = path.expanduser()
    entries = read_header(path)
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        if header.get("format") != kind:
            raise CheckpointError(
                f"{path} is no {kind.rpartition(' ')[0].removeprefix('segue ')} of this version of Segue: {wanted}"
            )
        tensors = {name: file.get_tensor(name) for name in entries}
    try:
        said = json.loads(header[label])
        if not isinstance(said, dict):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise CheckpointError(f"{path} does not say what {label} it is of: {wanted}") from None
    return tensors, said
