"""An exponential moving average of weights: what is sampled from and shipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema:
    """Average of a module's parameters, a = d a + (1 - d) w, where d grows up to `decay` as (1 + n) / (10 + n)."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone().float() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after step number `step`, counted from 1."""
        now = [value.detach().float() for value in module.parameters()]
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(list(self.weights.values()), now, step)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Put the average into a module of the same shape."""
        for name, value in module.named_parameters():
            value.copy_(self.weights[name])

    def state(self) -> dict[str, Tensor]:
        return self.weights

    def load(self, state: dict[str, Tensor]) -> None:
        for name, value in self.weights.items():
            value.copy_(state[name])
