"""Key points drawn as sticks, as OpenPose draws them and pose networks expect them."""

from __future__ import annotations

import colorsys
import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from segue.types.keypoints import BODY, FACE, LEFT_HAND, RIGHT_HAND

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.types import KeyPoints

_ARMS = ((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7))
_LEGS = ((1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13))
_HEAD = ((1, 0), (0, 14), (14, 16), (0, 15), (15, 17))
STICKS = (*_ARMS, *_LEGS, *_HEAD)
"""Which points of the body a stick connects; the number of a stick, and of a joint, is that of its colour."""

_FINGERS = tuple((0 if knuckle % 4 == 1 else knuckle - 1, knuckle) for knuckle in range(1, 21))
_WORK = 512  # the shorter side at which widths are stated; smaller pictures are drawn as large, and reduced
_STICK, _JOINT, _FINGER, _TIP, _DOT = 8.0, 4.0, 2.0, 3.0, 2.0  # widths and radii
_DIM = 0.6  # of a stick's colour, which OpenPose draws half transparent over black
_FRACTION = 4  # bits of a pixel that OpenCV is told of


def draw_skeleton(points: KeyPoints) -> Float[Tensor, "t 3 h w"]:
    """Sticks, hands and dots of faces on black, in [0, 1]; nothing where a point is absent.

    A picture of 128 pixels is that of 512 reduced: sticks keep their share of the picture.
    """
    width, height = points.size
    times = max(1, math.ceil(_WORK / min(width, height)))
    places = (points.places.double().cpu().numpy() + 0.5) * times - 0.5
    drawn = np.stack([_frame(persons, (width * times, height * times)) for persons in places]) if len(points) else None
    if drawn is None:
        return torch.zeros(0, 3, height, width)
    if times > 1:
        drawn = np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in drawn])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float().div(255).contiguous()


def _frame(persons: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One picture (h, w, 3), in [0, 255], float32."""
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    unit = min(size) / _WORK
    for person in persons:
        body = person[BODY]
        for number, (a, b) in enumerate(STICKS):
            colour = tuple(_DIM * part for part in _hue(number / len(body)))
            _line(canvas, body[a], body[b], colour, _STICK * unit)
        for number, joint in enumerate(body):
            _dot(canvas, joint, _hue(number / len(body)), _JOINT * unit)
        for hand in (person[RIGHT_HAND], person[LEFT_HAND]):
            for number, (a, b) in enumerate(_FINGERS):
                _line(canvas, hand[a], hand[b], _hue(number / len(_FINGERS)), _FINGER * unit)
            for joint in hand:
                _dot(canvas, joint, (0, 0, 255), _TIP * unit)
        for dot in person[FACE]:
            _dot(canvas, dot, (255, 255, 255), _DOT * unit)
    return canvas.astype(np.float32)


def _line(canvas: np.ndarray, a: np.ndarray, b: np.ndarray, colour: tuple[float, ...], width: float) -> None:
    if np.isfinite([a, b]).all() and _near(canvas, a) and _near(canvas, b):
        cv2.line(canvas, _fixed(a), _fixed(b), colour, max(1, round(width)), cv2.LINE_AA, _FRACTION)


def _dot(canvas: np.ndarray, at: np.ndarray, colour: tuple[float, ...], radius: float) -> None:
    if np.isfinite(at).all() and _near(canvas, at):
        cv2.circle(canvas, _fixed(at), max(1, round(radius * 2**_FRACTION)), colour, -1, cv2.LINE_AA, _FRACTION)


def _near(canvas: np.ndarray, at: np.ndarray) -> bool:
    """Whether OpenCV's 16 bits for a line's ends can hold it; what is farther away is not seen anyway."""
    return bool((np.abs(at) < 3 * max(canvas.shape)).all())


def _fixed(at: np.ndarray) -> tuple[int, int]:
    return round(float(at[0]) * 2**_FRACTION), round(float(at[1]) * 2**_FRACTION)


def _hue(share: float) -> tuple[float, float, float]:
    red, green, blue = colorsys.hsv_to_rgb(share, 1, 1)
    return 255 * red, 255 * green, 255 * blue
