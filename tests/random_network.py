"""A denoiser with random weights, in any precision: what holds of it owes nothing to training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segue.types import Condition, Guided, Point, over_rows


class RandomNetwork:
    """A few convolutions that are told the time and the text, read as a prediction of the noise or of v."""

    group = 1

    def __init__(self, dtype: torch.dtype, kind: str = "epsilon", channels: int = 4, seed: int = 3) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.told = nn.Linear(4, 16)
            self.layers = nn.ModuleList([nn.Conv2d(channels, 16, 3, padding=1), nn.Conv2d(16, channels, 3, padding=1)])
        self.dtype, self.kind = dtype, kind
        for part in (self.told, self.layers):
            part.to(dtype)

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        if isinstance(cond, Guided):
            answers = [self._raw(x, at, term.text) * over_rows(cond.weights[k], x) for k, term in enumerate(cond.terms)]
            raw = torch.stack(answers).sum(0)
        else:
            raw = self._raw(x, at, cond.text)
        alpha, sigma = over_rows(at.alpha, x), over_rows(at.sigma, x)
        if self.kind == "v_prediction":
            return alpha * x - sigma * raw
        return (x - sigma * raw) / (alpha if self.kind == "epsilon" else alpha + sigma)

    def _raw(self, x: Tensor, at: Point, text: Tensor) -> Tensor:
        words = text.mean(1).to(self.dtype)
        told = self.told(torch.cat([words, (at.time / 1000)[:, None].to(self.dtype)], 1))
        hidden = torch.tanh(self.layers[0](x) + told[:, :, None, None])
        return self.layers[1](hidden)
