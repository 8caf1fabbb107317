"""Canny, soft edges and line art, by OpenCV and no weights.

All of them measure the contrast of edges in Lab at scales that are shares of the picture's shorter side, so that a
picture of 128 pixels and the same of 1024 give the same drawing, as finely as their pixels can show it. Nothing is
normalised by the picture's own extremes: what is as strong in the next frame is drawn as strongly there.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

WORK = 512
"""Pixels of the shorter side at which scales are stated, and to which larger pictures are reduced: ControlNet's own."""

_FLOOR = 0.7  # The least sigma in pixels: finer, what pixels alias would be taken for edges.
_FINE = 1.2  # sigma of canny and line art, at WORK
_SOFT = (2.0, 4.0, 8.0)  # sigmas of soft edges, at WORK
_CANNY = (0.08, 0.18)  # contrasts from which on an edge goes on, and from which on it begins
_STROKE = 2.2  # width of line art's strokes, at WORK
_PIXEL = 5 / 12  # Variance that a pixel's own area (1/12) and central differences (1/3) add to a Gaussian's.


def canny(picture: np.ndarray) -> np.ndarray:
    """White edges, one pixel thin, on black (Canny 1986, by OpenCV), in the picture's strongest contrast of colour."""
    work = _reduced(picture)
    magnitude, across = _contrast(_lab(work), _sigma(_FINE, work))
    # Canny wants whole numbers; its own magnitude is |dx| + |dy| unless it is asked for L2.
    gradient = [np.round(magnitude * turn * 8192).astype(np.int16) for turn in across]
    low, high = (contrast * 8192 for contrast in _CANNY)
    edges = cv2.Canny(gradient[0], gradient[1], low, high, L2gradient=True)
    drawn = _enlarged(edges.astype(np.float32) / 255, picture)
    return _grey((drawn >= 0.5).astype(np.float32))


def softedge(picture: np.ndarray) -> np.ndarray:
    """Soft thick white strokes on black, in the manner of HED (Xie and Tu 2015): outlines strong, texture faint.

    An edge is drawn as far as it stands at all of three scales, which fur, noise and blocks do not.
    """
    work = _reduced(picture)
    lab = _lab(work)
    scales = [_contrast(lab, _sigma(sigma, work))[0] for sigma in _SOFT]
    stands = np.exp(np.mean([np.log(scale + 1e-4) for scale in scales], axis=0))
    return _grey(_enlarged(1 - np.exp(-((np.maximum(stands - 0.01, 0) / 0.16) ** 2)), picture))


def lineart(picture: np.ndarray) -> np.ndarray:
    """White antialiased strokes on black along the edges, stronger where the contrast is."""
    work = _reduced(picture)
    lab = _lab(work)
    sigma = _sigma(_FINE, work)
    magnitude, across = _contrast(lab, sigma)
    coarse, _ = _contrast(lab, 3 * sigma)
    strength = np.sqrt(magnitude * np.minimum(coarse, magnitude))
    shown = np.clip((strength - 0.03) / 0.17, 0, 1)
    width = max(_STROKE * min(work.shape[:2]) / WORK, 1.2)
    stroke = np.clip(width / 2 + 0.5 - _off_ridge(magnitude, across, max(1.0, width / 2)), 0, 1)
    return _grey(_enlarged(shown * stroke, picture))


def _off_ridge(height: np.ndarray, across: tuple[np.ndarray, np.ndarray], reach: float) -> np.ndarray:
    """How many pixels away the ridge is: the top of a parabola through three heights across it."""
    y, x = np.mgrid[: height.shape[0], : height.shape[1]].astype(np.float32)

    def beside(way: float) -> np.ndarray:
        there = x + way * across[0], y + way * across[1]
        return cv2.remap(height, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    before, after = beside(-reach), beside(reach)
    bend = before - 2 * height + after
    off = reach * 0.5 * np.abs(before - after) / np.maximum(-bend, 1e-6)
    return np.where(bend < 0, off, np.inf)


def _contrast(lab: np.ndarray, sigma: float) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The contrast of the edge at each pixel, 1 for black against white, and the unit vector across it.

    Di Zenzo's gradient of a picture of several channels (1986), times what makes it 1 for a step of 1 at this sigma.
    """
    smooth = cv2.GaussianBlur(lab, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    dx, dy = (
        cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
        for order in ((1, 0), (0, 1))
    )
    xx, yy, xy = ((a * b).sum(-1) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    greatest = 0.5 * (xx + yy + np.sqrt((xx - yy) ** 2 + 4 * xy**2))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    return np.sqrt(greatest * (2 * math.pi * (sigma**2 + _PIXEL))), (np.cos(angle), np.sin(angle))


def _lab(picture: np.ndarray) -> np.ndarray:
    """Lab in shares of its lightness from black to white."""
    return cv2.cvtColor(np.clip(picture, 0, 1), cv2.COLOR_RGB2LAB) / 100


def _sigma(at_work: float, work: np.ndarray) -> float:
    return max(at_work * min(work.shape[:2]) / WORK, _FLOOR)


def _reduced(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    factor = WORK / min(height, width)
    if factor >= 1:
        return picture
    return cv2.resize(picture, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)


def _enlarged(drawn: np.ndarray, like: np.ndarray) -> np.ndarray:
    height, width = like.shape[:2]
    if drawn.shape == (height, width):
        return drawn
    return cv2.resize(drawn, (width, height), interpolation=cv2.INTER_LINEAR)


def _grey(drawn: np.ndarray) -> np.ndarray:
    return np.repeat(drawn[..., None], 3, axis=2).astype(np.float32)
