"""Which windows of footage are learned from, and why others are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from segue.training.bounds import Amount, Share
from segue.types import Frames

Fault = Literal["static", "lettering", "blurred", "dark"]

SIDE = 256
"""Pixels of the shorter side at which pictures are judged; smaller ones stay as they are."""


@dataclass(frozen=True)
class Limits:
    """What a window must have.

    Args:
        motion: the least movement, in widths of the picture per second (see `segue.evaluation.footage`).
        lettering: the largest share of the picture that looks like lines of letters.
        sharpness: the least that the clearest hundredth of its pixels differs from its neighbours, in shares of the
            full range.
        light: the least that the lightest twentieth of its pixels shows.
    """

    motion: Amount = 0.01
    lettering: Share = 0.07
    sharpness: Amount = 0.03
    light: Share = 0.15


@dataclass(frozen=True)
class Quality:
    """What was measured of a window."""

    motion: float
    lettering: float
    sharpness: float
    light: float

    def faults(self, limits: Limits) -> list[Fault]:
        """Why the window is not to be learned from; none if it is."""
        found: list[Fault] = []
        if self.motion < limits.motion:
            found.append("static")
        if self.lettering > limits.lettering:
            found.append("lettering")
        if self.sharpness < limits.sharpness:
            found.append("blurred")
        if self.light < limits.light:
            found.append("dark")
        return found


def quality(frames: Frames, fps: float) -> Quality:
    """Measure a window: its movement throughout, and the rest on the picture in its middle."""
    from segue.evaluation.footage import motion_score

    middle = len(frames) // 2
    grey = _grey(frames[middle : middle + 1])
    return Quality(motion_score(frames, fps), lettering(grey), sharpness(grey), float(np.quantile(grey, 0.95)) / 255)


def lettering(grey: NDArray[np.uint8]) -> float:
    """The share of a picture (h, w) that looks like lines of letters.

    No letter is read: strokes stand close to each other and have hard edges, so where these are joined sideways, lines
    of letters become solid, wide and low boxes. Fences and blinds may be taken for them, and large single letters not.
    """
    import cv2

    edges = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    _, strong = cv2.threshold(edges, 60, 255, cv2.THRESH_BINARY)
    height = len(grey)
    joined = cv2.morphologyEx(strong, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_RECT, (9, 1)))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(joined)
    covered = 0
    for number in range(1, len(boxes)):
        left, top, wide, high, area = (int(value) for value in boxes[number])
        if not (5 <= high <= height / 5 and wide > 2.5 * high and area > 0.5 * wide * high):
            continue
        inside = (slice(top, top + high), slice(left, left + wide))
        strokes = int(((strong[inside] > 0) & (labels[inside] == number)).sum())
        # A bar is all edge above and below; letters have edges all over, and gaps between them.
        crossings = np.abs(np.diff((strong[inside] > 0).astype(np.int8), axis=1)).sum() / high
        if strokes > 0.3 * wide * high and crossings > 0.08 * wide:
            covered += wide * high
    return covered / grey.size


def sharpness(grey: NDArray[np.uint8]) -> float:
    """By how much the clearest hundredth of the pixels of a picture (h, w) differs from the mean of its neighbours."""
    import cv2

    values = grey.astype(np.float32) / 255
    around = cv2.blur(values, (3, 3), borderType=cv2.BORDER_REFLECT_101)
    return float(np.quantile(np.abs(values - around), 0.99))


def _grey(picture: Float[Tensor, "1 3 h w"]) -> NDArray[np.uint8]:
    """Brightness in 256 levels, its shorter side at most SIDE."""
    import cv2

    light = (picture[0] * picture.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    grey = np.asarray((light.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    scale = SIDE / min(grey.shape)
    if scale >= 1:
        return grey
    size = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
