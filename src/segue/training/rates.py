"""Learning rates over steps."""

from __future__ import annotations

import torch


def trapezoid(step: int, steps: int, warmup: int, decay: int) -> float:
    """Factor of the rate at `step` (from 0): up over `warmup` steps, flat, then linearly to 0 over the last `decay`.

    The flat part does not know where it ends, so a run can be lengthened, or brought home early, when it is resumed.
    """
    up = (step + 1) / max(warmup, 1)
    down = (steps - step) / max(decay, 1)
    return max(0.0, min(1.0, up, down))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let all parameters of an optimizer learn at `rate` from now on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
