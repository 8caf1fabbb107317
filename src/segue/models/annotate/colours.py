"""What keeps a picture's colours and not its drawing: tile, palette and shuffle. By OpenCV and no weights."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

TILE = 64
"""Pixels of the shorter side that the tile annotator keeps: those of the pictures that ControlNet's tile network grew
from."""

PALETTE = 8
"""Patches along the shorter side: those of T2I-Adapter's colour condition, 64 of 512 pixels each."""

_BENDS = 4  # of shuffle's warp, along the shorter side


def tile(picture: np.ndarray) -> np.ndarray:
    """The picture with no more detail than 64 pixels along its shorter side hold; smaller ones are as they are."""
    return _through(picture, TILE, cv2.INTER_CUBIC)


def palette(picture: np.ndarray) -> np.ndarray:
    """Eight patches of mean colour along the shorter side, as many as are square along the other."""
    return _through(picture, PALETTE, cv2.INTER_NEAREST)


def shuffle(picture: np.ndarray, name: str = "shuffle") -> np.ndarray:
    """The picture's colours and textures, its drawing stirred by a smooth random warp (ControlNet's ContentShuffle).

    Args:
        picture: (h, w, 3) in [0, 1].
        name: of the warp: the same for the same name and shape, whatever the size.
    """
    height, width = picture.shape[:2]
    seed = hashlib.sha256(name.encode()).digest()[:8]
    rng = np.random.default_rng(int.from_bytes(seed, "little"))
    short = min(height, width)
    bends = [max(2, round(_BENDS * side / short)) + 1 for side in (height, width)]
    x, y = (_wave(rng.random(bends, np.float32), (width, height)) * (side - 1) for side in (width, height))
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _wave(coarse: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Noise made smooth, in [0, 1] from end to end, so that the whole picture is seen."""
    wave = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    low, high = wave.min(), wave.max()
    return (wave - low) / max(high - low, 1e-6)


def _through(picture: np.ndarray, short: int, back: int) -> np.ndarray:
    """A picture reduced to a shorter side, and enlarged again."""
    height, width = picture.shape[:2]
    factor = short / min(height, width)
    if factor >= 1:
        return picture.copy()
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    reduced = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    return np.clip(cv2.resize(reduced, (width, height), interpolation=back), 0, 1)
