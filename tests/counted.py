"""Control networks that tell in which steps of a run they were run, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from segue.models.bundle import LatentDiffusion
from segue.models.control import ControlNetwork, Residuals
from segue.tasks import stylize_prepare
from segue.types import Call, Conditioning
from segue.zoo.load import load_control

Counts = dict[str, list[int]]


@dataclass(frozen=True)
class Counted:
    """A control network; the step of each row that it is given."""

    network: ControlNetwork
    steps: list[int] = field(default_factory=list[int])

    @property
    def module(self) -> nn.Module:
        return self.network.module

    @property
    def pooled(self) -> bool:
        return self.network.pooled

    @property
    def weights(self) -> tuple[Path, ...]:
        return self.network.weights

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.network.settings

    def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, picture: Tensor, call: Call) -> Residuals:
        self.steps.extend(call.at.index.tolist())
        return self.network(x, time, cond, picture, call)


def counting(patch: pytest.MonkeyPatch) -> Counts:
    """From now on, the steps in which each kind of network is run in a film; a kind that is never run has none."""
    found: Counts = {}

    def counted(source: str, model: LatentDiffusion, kind: str) -> Counted:
        return Counted(load_control(source, model, kind), found.setdefault(kind, []))

    patch.setattr(stylize_prepare, "load_control", counted)
    return found
