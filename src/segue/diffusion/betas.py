"""The noise levels that a model was trained on, from the beta settings of its scheduler config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from segue.diffusion.levels import Levels
from segue.errors import ScheduleError

if TYPE_CHECKING:
    from jaxtyping import Float32
    from torch import Tensor

MAX_BETA = 0.999


def training_levels(config: Mapping[str, Any]) -> Levels:
    """All trained levels of a variance-preserving model; level t is what the network knows as time t.

    The betas and their products are rounded to float32, as they were in training and are in every other program,
    and kept in float64 from there on.

    Raises:
        ScheduleError: for unknown beta schedules, trained betas of another number than trained times, and noise
            prediction with a last level that is pure noise (alpha 0; cosine betas leave 5e-5, which is enough).
    """
    betas = _betas(config)
    if config.get("rescale_betas_zero_snr"):
        betas = _zero_terminal_snr(betas)
    kept = torch.cumprod(1.0 - betas, dim=0).double()
    if float(kept[-1]) == 0 and config.get("prediction_type", "epsilon") == "epsilon":
        raise ScheduleError(
            "this model predicts noise (epsilon) but its last level is pure noise (zero terminal SNR), from which no "
            "picture can be derived; use a v_prediction model, or set rescale_betas_zero_snr to false"
        )
    return Levels(kept.sqrt(), (1 - kept).sqrt(), torch.arange(len(kept), dtype=torch.float64))


def _betas(config: Mapping[str, Any]) -> Float32[Tensor, " t"]:
    given = config.get("trained_betas")
    count = int(config.get("num_train_timesteps", 1000 if given is None else len(given)))
    if given is not None:
        if len(given) != count:
            raise ScheduleError(f"trained_betas has {len(given)} values, but num_train_timesteps is {count}")
        return torch.tensor(given, dtype=torch.float32)
    first, last = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if kind == "linear":
        return torch.linspace(first, last, count, dtype=torch.float32)
    if kind == "scaled_linear":
        return torch.linspace(first**0.5, last**0.5, count, dtype=torch.float32) ** 2
    if kind == "squaredcos_cap_v2":
        return _cosine(count)
    if kind == "sigmoid":
        return torch.sigmoid(torch.linspace(-6, 6, count)) * (last - first) + first
    raise ScheduleError(
        f'beta_schedule must be "linear", "scaled_linear", "squaredcos_cap_v2" or "sigmoid", got {kind!r}'
    )


def _cosine(count: int) -> Float32[Tensor, " t"]:
    """Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17, with betas capped at 0.999."""

    def kept(share: float) -> float:
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - kept((i + 1) / count) / kept(i / count), MAX_BETA) for i in range(count)]
    return torch.tensor(betas, dtype=torch.float32)


def _zero_terminal_snr(betas: Float32[Tensor, " t"]) -> Float32[Tensor, " t"]:
    """Lin et al. 2023, arXiv:2305.08891, algorithm 1: the last level becomes pure noise, the first stays."""
    alpha = torch.cumprod(1.0 - betas, dim=0).sqrt()
    first, last = alpha[0].clone(), alpha[-1].clone()
    alpha = (alpha - last) * (first / (first - last))
    kept = alpha**2
    return 1 - torch.cat([kept[:1], kept[1:] / kept[:-1]])
