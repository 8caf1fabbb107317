"""Classifier-free guidance and its relatives, as weights of terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from segue.types import Condition, Conditioning, Guided

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


def instructed(
    wanted: Conditioning,
    unwanted: Conditioning,
    picture: Float[Tensor, "b c h w"],
    scale: float | Sequence[float] | Float[Tensor, " b"],
    picture_scale: float | Sequence[float] | Float[Tensor, " b"],
    rescale: float = 0.0,
    start: float = 0.0,
) -> Guided:
    """Guidance towards a picture, and from there towards what shall become of it (Brooks, Holynski & Efros 2023,
    arXiv:2211.09800, eq. 3).

    e(0, 0) + s_I (e(picture, 0) - e(0, 0)) + s_T (e(picture, text) - e(picture, 0)), as three terms whose weights are
    1 - s_I, s_I - s_T and s_T. One whose weight is 0 in all rows is not computed: with s_I = 1, the first.

    Args:
        wanted: the instruction, one row per row of the batch.
        unwanted: the empty prompt, or a negative one, likewise.
        picture: as `segue.models.instruction.shown` gives it, likewise.
        scale: s_T, how strongly the instruction is followed: usually 5 to 10; one number, or one per row.
        picture_scale: s_I, how much of the picture is kept: usually 1 to 1.5; likewise.
        rescale: in [0, 1]; see `Guided`.
        start: in [0, 1), a share of the run; see `Guided`.
    """
    text, shown = (torch.as_tensor(one, dtype=torch.float64).expand(len(wanted)) for one in (scale, picture_scale))
    terms = (
        replace(unwanted, concat=torch.zeros_like(picture)),
        replace(unwanted, concat=picture),
        replace(wanted, concat=picture),
    )
    return Guided(terms, torch.stack([1 - shown, shown - text, text]), rescale, start)


def in_context(told: Condition, untold: Condition, scale: float | Sequence[float] | Float[Tensor, " b"]) -> Guided:
    """Guidance towards what a model is told of a clip's known frames (Blattmann et al. 2023, arXiv:2304.08818, section
    3.2): f(untold) + s (f(told) - f(untold)).

    Each f may itself be guided, by words: the terms of both are then summed, and those whose weight is 0 in all rows,
    as are all of f(untold) at s = 1, are not computed.

    Args:
        told: of the known frames, one row per row of the batch.
        untold: the same without them, likewise.
        scale: s, from 1 on: how strongly the known frames are kept to; one number, or one per row.

    Raises:
        ValueError: one is guided in another form than the other.
    """
    seen, blind = (_as_guided(one) for one in (told, untold))
    if (seen.rescale, seen.start) != (blind.rescale, blind.start):
        raise ValueError("only guidance of the same form can be guided by its context")
    scales = torch.as_tensor(scale, dtype=torch.float64).expand(len(seen)).to(seen.weights.device)
    weights = torch.cat([(1 - scales) * blind.weights, scales * seen.weights])
    return Guided(blind.terms + seen.terms, weights, seen.rescale, seen.start)


def _as_guided(cond: Condition) -> Guided:
    """A condition as guidance, of one term if it has none."""
    if isinstance(cond, Guided):
        return cond
    return Guided((cond,), torch.ones(1, len(cond), dtype=torch.float64))
