"""A run that may be broken off at any moment: its state after every step, in a file that is whole or not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from segue.media.disk import written_whole
from segue.types import RowId, State

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_X, _STEP, _HISTORY, _MORE = "x", "step", "history.", "more."


def pause(path: Path, state: State, more: Mapping[str, Tensor] | None = None) -> None:
    """Write a state, and whatever else belongs to it; bit for bit what `resumed` reads.

    Raises:
        DiskError: the file system refuses.
    """
    tensors = {_X: state.x, _STEP: state.step}
    tensors |= {f"{_HISTORY}{number}": part for number, part in enumerate(state.history)}
    tensors |= {f"{_MORE}{name}": part for name, part in (more or {}).items()}
    with written_whole(path) as part:
        part.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def resumed(
    path: Path, ids: Sequence[RowId], shape: Sequence[int], device: torch.device
) -> tuple[State, dict[str, Tensor]] | None:
    """What was written there; None if nothing was, or it is damaged, or of other rows.

    Args:
        path: of the file.
        ids: who the rows are.
        shape: (channels, height, width) of the latents.
        device: where the run goes on.
    """
    with suppress(OSError, SafetensorError, KeyError, ValueError):
        tensors = load(path.read_bytes())
        x, step = tensors[_X], tensors[_STEP]
        history = [
            tensors[f"{_HISTORY}{number}"] for number in range(sum(name.startswith(_HISTORY) for name in tensors))
        ]
        if tuple(x.shape) != (len(ids), *shape) or step.dtype != torch.int64 or not bool(x.isfinite().all()):
            return None
        state = State(x.to(device), step, tuple(ids), tuple(part.to(device) for part in history))
        more = {name.removeprefix(_MORE): part for name, part in tensors.items() if name.startswith(_MORE)}
        return state, more
    return None


def lay_down(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by their names; the file is whole or not there.

    Raises:
        DiskError: the file system refuses.
    """
    with written_whole(path) as part:
        part.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def taken_up(path: Path) -> dict[str, Tensor] | None:
    """What was laid down there; None if nothing was, or it is damaged."""
    with suppress(OSError, SafetensorError, ValueError):
        return load(path.read_bytes())
    return None
