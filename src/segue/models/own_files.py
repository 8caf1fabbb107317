"""Files of small networks of Segue's own: weights in 8 bits, and what they are the weights of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from segue.errors import CheckpointError
from segue.models.eight_bits import packed, unpacked
from segue.models.weights import read_header

if TYPE_CHECKING:
    from torch import Tensor


def write_own(
    path: Path, kind: str, said: Mapping[str, Any], weights: Mapping[str, Tensor], *, whole: bool = False
) -> None:
    """Write a network: matrices in 8 bits, with a scale for each output of a layer, and the rest in half precision.

    The file is replaced when the new one is whole.

    Args:
        path: of the file.
        kind: of networks, under which the file keeps what is said of it.
        said: what JSON can hold.
        weights: of any precision.
        whole: store all in float32 instead.
    """
    made = path.with_name(path.name + ".part")
    floats = {name: value.detach().float().cpu().contiguous() for name, value in weights.items()}
    # One entry of the header, since safetensors leaves the order of several to chance.
    save_file(floats if whole else packed(floats), made, {kind: json.dumps(said)})
    made.replace(path)


def said_of(path: Path, kind: str) -> dict[str, Any] | None:
    """What a file says of its network; None if it holds no network of this kind.

    Raises:
        UnsafeFileError: a pickle.
        ModelNotFoundError: no such file.
        CheckpointError: no safetensors file, or damaged.
    """
    read_header(path)
    try:
        with safe_open(path, "pt") as file:
            stated = (file.metadata() or {}).get(kind)
        said = None if stated is None else json.loads(stated)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    return said if said is None or isinstance(said, dict) else {}


def weights_of(path: Path) -> dict[str, Tensor]:
    """The weights of a file, in float32.

    Raises:
        CheckpointError: damaged, or a weight is not finite.
    """
    try:
        weights = unpacked(load_file(path))
    except (SafetensorError, LookupError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if odd := [name for name, value in weights.items() if not bool(value.isfinite().all())]:
        raise CheckpointError(f"{path} is damaged: {min(odd)} has values that are not finite")
    return weights
