"""From time stamps to a constant rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

DEFAULT_RATE = Fraction(24)
"""Of what has no rate: a picture, or a folder of pictures that does not say."""

_STANDARD = (
    *(Fraction(rate) for rate in (*range(1, 31), 48, 50, 60, 90, 100, 120, 144, 240)),
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)),
    Fraction(15, 2),
    Fraction(25, 2),
)


@dataclass(frozen=True)
class Timing:
    """Which frame of a file is shown in each frame of a clip of constant rate.

    Args:
        fps: the clip's rate.
        shown: for each frame of the clip, the index of a frame of the file.
        constant: whether the file itself has this rate, so that each of its frames is shown once.
    """

    fps: Fraction
    shown: Sequence[int]
    constant: bool


def timing(
    ticks: Sequence[int],
    end: int,
    tick: Fraction,
    *,
    declared: Sequence[Fraction] = (),
    fps: Fraction | None = None,
) -> Timing:
    """Lay frames that have time stamps on a grid of constant rate.

    A file whose frames each lie within half a frame of the grid has a constant rate, and every frame counts once.
    Any other, and every file for which another rate is asked, is sampled: each frame of the clip is what a player
    shows at that time. A variable file gets the rate of its most usual (median) interval.

    Args:
        ticks: when each frame is first shown, rising, in units of `tick` seconds.
        end: when the last frame ends.
        declared: what the file says about its rate, best first.
        fps: the rate that is wanted; by default the file's own.
    """
    times = (np.asarray(ticks, np.float64) - ticks[0]) * float(tick)
    span = (end - ticks[0]) * tick
    own = _constant_rate(times, span, float(tick), declared)
    if own is not None and fps in (None, own):
        return Timing(own, range(len(ticks)), True)
    rate = fps or own or _usual_rate(times)
    count = max(1, round(span * rate))
    # A hair late, so that a time stamp that was rounded up still counts as reached.
    moments = np.arange(count) / float(rate) + min(float(tick), 0.25 / float(rate))
    return Timing(rate, (np.searchsorted(times, moments, side="right") - 1).tolist(), False)


def _constant_rate(times: np.ndarray, span: Fraction, tick: float, declared: Sequence[Fraction]) -> Fraction | None:
    numbers = np.arange(len(times))

    def error(rate: Fraction) -> float:
        return float(np.abs(times - numbers / float(rate)).max())

    if len(times) == 1:
        return next(iter(declared), 1 / span if span > 0 else DEFAULT_RATE)
    measured = len(times) / span
    if error(measured) < 1e-9:
        return measured
    # Whole rates first: short clips with coarse time stamps fit 24 and 23.976 alike.
    usual = sorted(_STANDARD, key=lambda rate: (rate.denominator, abs(rate - measured)))
    for rate in (*declared, *usual):
        if error(rate) <= 1.01 * tick and abs(rate / measured - 1) < 0.1:
            return rate
    near = (rate for rate in usual if abs(rate / measured - 1) < 0.02)
    return next((rate for rate in (*declared, *near, measured) if error(rate) < 0.5 / rate), None)


def _usual_rate(times: np.ndarray) -> Fraction:
    interval = float(np.median(np.diff(times)))
    near = min(_STANDARD, key=lambda rate: abs(float(rate) * interval - 1))
    if abs(float(near) * interval - 1) < 0.02:
        return near
    return Fraction(1 / interval).limit_denominator(1000)


def gathered(
    numbers: Sequence[int], size: tuple[int, int], frame: Callable[[int], UInt8[np.ndarray, "h w 3"]]
) -> UInt8[Tensor, "t 3 h w"]:
    """Frames of a file by their numbers, fetched in the order of the file, which decoders like best.

    Args:
        numbers: of the frames that are wanted, in the order in which they are wanted.
        size: (width, height) of all frames.
        frame: fetches one of them.
    """
    pixels = np.empty((len(numbers), *size[::-1], 3), np.uint8)
    for row in np.argsort(numbers, kind="stable"):
        pixels[row] = frame(numbers[row])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
