"""A run's whole state in one safetensors file, so that a run that is cut goes on as if it had not been."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from segue.errors import TrainingError
from segue.training.ema import Ema

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What Adam remembers of a parameter."""


@dataclass(frozen=True)
class Run:
    """What is trained, and what a checkpoint must hold."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema

    def tensors(self) -> dict[str, Tensor]:
        """Everything by a flat name: model.*, ema.*, and <name of the moment>.* for each parameter that is trained."""
        found = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        found |= {f"ema.{name}": value for name, value in self.ema.state().items()}
        for name, parameter in self.model.named_parameters():
            moments = self.optimizer.state.get(parameter, {})
            found |= {f"{moment}.{name}": value for moment, value in moments.items()}
        return {name: value.detach().contiguous() for name, value in found.items()}


def save(path: Path, run: Run, step: int, seconds: float, config: dict[str, Any]) -> None:
    """Write the state after `step` steps; the old file stays until the new one is whole."""
    part = path.with_name(path.name + ".part")
    facts = {"step": str(step), "seconds": str(seconds), "config": json.dumps(config, default=str)}
    save_file(run.tensors(), part, metadata=facts)
    part.replace(path)


def resume(path: Path, run: Run) -> tuple[int, float]:
    """Load the state from `path` into the run and return (steps done, seconds spent); (0, 0.0) if there is no file.

    Raises TrainingError when the file belongs to another architecture or is damaged.
    """
    if not path.exists():
        return 0, 0.0
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata()
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        run.model.load_state_dict(_below(tensors, "model."))
        run.ema.load(_below(tensors, "ema."))
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise TrainingError(f"{path} does not fit this run ({error}); use another folder or delete it") from error
    for name, parameter in run.model.named_parameters():
        moments = {moment: tensors[f"{moment}.{name}"] for moment in MOMENTS if f"{moment}.{name}" in tensors}
        if moments:
            run.optimizer.state[parameter] = {k: _laid_out_like(parameter, value) for k, value in moments.items()}
    return int(facts["step"]), float(facts["seconds"])


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """The fused optimizer walks parameter and moments in memory order, so their strides must agree (channels last)."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
