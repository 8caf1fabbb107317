"""A run's whole state in one safetensors file, so that a run that is cut goes on as if it had not been."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from segue.errors import TrainingError
from segue.training.ema import Ema
from segue.training.tally import Tally

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What Adam remembers of a parameter."""
RIVAL = "rival."


@dataclass(frozen=True)
class Learner:
    """A network and what moves its weights."""

    model: nn.Module
    optimizer: torch.optim.Optimizer


@dataclass(frozen=True)
class Run:
    """What is trained, and what a checkpoint must hold.

    Args:
        model: the network.
        optimizer: of its parameters, or of some.
        ema: their average.
        rival: the discriminator of an adversarial loss.
        tally: what was measured since the last line of the log, which a run that goes on must know to write the next.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema
    rival: Learner | None = None
    tally: Tally = field(default_factory=Tally)

    def tensors(self) -> dict[str, Tensor]:
        """Everything by a flat name: model.*, ema.*, and <name of the moment>.* for each parameter that is trained.

        Those of the rival come once more below rival.*
        """
        found = _learned(self.model, self.optimizer)
        found |= {f"ema.{name}": value for name, value in self.ema.state().items()}
        if self.rival is not None:
            of_rival = _learned(self.rival.model, self.rival.optimizer)
            found |= {f"{RIVAL}{name}": value for name, value in of_rival.items()}
        return {name: value.detach().contiguous() for name, value in found.items()}


def save(path: Path, run: Run, step: int, seconds: float, config: dict[str, Any]) -> None:
    """Write the state after `step` steps; the old file stays until the new one is whole."""
    part = path.with_name(path.name + ".part")
    facts = {"step": str(step), "seconds": str(seconds), "config": json.dumps(config, default=str)}
    facts["tally"] = json.dumps(run.tally.state())
    save_file(run.tensors(), part, metadata=facts)
    part.replace(path)


def read_config(path: Path) -> dict[str, Any]:
    """The configuration that a checkpoint was written with; empty if there is none, or if it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})["config"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return {}  # what is wrong, `resume` will say


def resume(path: Path, run: Run) -> tuple[int, float]:
    """Load the state from `path` into the run and return (steps done, seconds spent); (0, 0.0) if there is no file.

    Raises:
        TrainingError: the file belongs to another architecture or is damaged.
    """
    if not path.exists():
        return 0, 0.0
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        _load(run.model, run.optimizer, tensors)
        run.ema.load(_below(tensors, "ema."))
        of_rival = _below(tensors, RIVAL)
        if run.rival is not None:
            _load(run.rival.model, run.rival.optimizer, of_rival)
        elif of_rival:
            raise RuntimeError("it has a discriminator, and this run has none")
        run.tally.load(json.loads(facts.get("tally", "{}")))  # the first checkpoints have none
        return int(facts["step"]), float(facts["seconds"])
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise TrainingError(f"{path} does not fit this run ({reason}); use another folder or delete it") from error


def _learned(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        moments = optimizer.state.get(parameter, {})
        found |= {f"{moment}.{name}": value for moment, value in moments.items()}
    return found


def _load(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    model.load_state_dict(_below(tensors, "model."))
    for name, parameter in model.named_parameters():
        moments = {moment: tensors[f"{moment}.{name}"] for moment in MOMENTS if f"{moment}.{name}" in tensors}
        if moments:
            optimizer.state[parameter] = {k: _laid_out_like(parameter, value) for k, value in moments.items()}


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """The fused optimizer walks parameter and moments in memory order, so their strides must agree (channels last)."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value.to(parameter.device)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
