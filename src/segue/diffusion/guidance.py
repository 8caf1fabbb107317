"""Classifier-free guidance and its relatives, as weights of terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from segue.types import Conditioning, Guided

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def classifier_free(
    positive: Conditioning,
    negative: Conditioning,
    scale: float | Sequence[float] | Float[Tensor, " b"],
    rescale: float = 0.0,
    start: float = 0.0,
) -> Guided:
    """Guidance towards `positive` and away from `negative` (Ho & Salimans 2022, arXiv:2207.12598).

    Args:
        positive: what is wanted, one row per row of the batch.
        negative: what is not wanted, likewise.
        scale: 1 is no guidance; one number, or one per row.
        rescale: in [0, 1]; see `Guided`.
        start: in [0, 1), a share of the run; see `Guided`.
    """
    scales = torch.as_tensor(scale, dtype=torch.float64).expand(len(positive))
    return Guided((negative, positive), torch.stack([1 - scales, scales]), rescale, start)
