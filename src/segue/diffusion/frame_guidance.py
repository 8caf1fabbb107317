"""Guidance that differs from frame to frame: a scale for each, as `classifier_free` takes them.

A model that is shown the first frame of a clip knows less of a frame the further away it lies, and needs more guidance
there (Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127, section 4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from segue.errors import TaskError

if TYPE_CHECKING:
    from jaxtyping import Float64
    from torch import Tensor

EDGE = 0.1
"""Share of a clip over which a trapezoid rises, and falls."""


def linear(frames: int, least: float, most: float) -> Float64[Tensor, " t"]:
    """From `least` at the first frame to `most` at the last, in even steps.

    Args:
        frames: of the clip, 1 or more; of one frame, `least`.
        least: the scale where the model is shown what to do; 1 is no guidance.
        most: the scale far from there.

    Raises:
        TaskError: no frames.
    """
    return least + (most - least) * _progress(frames)


def triangle(frames: int, least: float, most: float, periods: int = 1) -> Float64[Tensor, " t"]:
    """From `least` to `most` half-way and back: for clips that end as they begin, such as loops.

    Args:
        frames: of the clip.
        least: the scale at the ends.
        most: the scale in the middle.
        periods: how often it goes there and back.

    Raises:
        TaskError: no frames, or no periods.
    """
    if periods < 1:
        raise TaskError(f"periods must be 1 or more, got {periods}")
    turns = periods * _progress(frames)
    return least + (most - least) * 2 * (turns - (turns + 0.5).floor()).abs()


def trapezoid(frames: int, least: float, most: float, edge: float = EDGE) -> Float64[Tensor, " t"]:
    """`most` throughout, but for the ends, from which it rises, and to which it falls, in even steps.

    Args:
        frames: of the clip.
        least: the scale at the ends.
        most: the scale between them.
        edge: share of the clip, in (0, 0.5], that each slope takes.

    Raises:
        TaskError: no frames, or an edge outside of its range.
    """
    if not 0 < edge <= 0.5:
        raise TaskError(f"edge must be above 0 and at most 0.5, got {edge:g}")
    away = _progress(frames)
    return least + (most - least) * (torch.minimum(away, 1 - away) / edge).clamp(max=1)


def _progress(frames: int) -> Float64[Tensor, " t"]:
    if frames < 1:
        raise TaskError(f"a clip has one frame or more, got {frames}")
    return torch.linspace(0, 1, frames, dtype=torch.float64)


SHAPES: Mapping[str, Callable[[int, float, float], Tensor]] = {
    "linear": linear,
    "triangle": triangle,
    "trapezoid": trapezoid,
}
"""By name, from (frames, least, most)."""


def scales_over_frames(shape: str, frames: int, least: float, most: float) -> Float64[Tensor, " t"]:
    """The scales of a shape by name.

    Raises:
        TaskError: there is no such shape, or no frames.
    """
    if shape not in SHAPES:
        raise TaskError(f"guidance over frames must be one of {', '.join(SHAPES)}; got {shape!r}")
    return SHAPES[shape](frames, least, most)
