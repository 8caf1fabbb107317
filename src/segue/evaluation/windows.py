"""Frames a few at a time, and no larger than a measure needs them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate

from segue.types import Frames

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_LENGTH = 8


def windows(
    frames: Frames, area: int, *, shared: int = 0, length: int = _LENGTH
) -> Iterator[tuple[int, Float[Tensor, "t 3 h w"]]]:
    """The number of the first picture, and the pictures, of one window after the other; reduced to `area`.

    Args:
        frames: all of them.
        area: pixels that a picture has at most.
        shared: how many pictures a window has in common with the one before it.
        length: how many pictures each one brings besides these.
    """
    for start in range(0, max(1, len(frames) - shared), length):
        numbers = range(start, min(start + length + shared, len(frames)))
        # One by one: of a large film, not many whole pictures fit into memory as floats.
        yield start, torch.cat([reduced(frames[i : i + 1], area) for i in numbers])


def reduced_size(size: tuple[int, int], area: int) -> tuple[int, int]:
    """The (width, height) of at most about `area` pixels that is most like `size`; smaller ones stay as they are."""
    scale = min(1.0, (area / (size[0] * size[1])) ** 0.5)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def reduced(pictures: Float[Tensor, "b c h w"], area: int) -> Float[Tensor, "b c H W"]:
    """Pictures of at most about `area` pixels, antialiased; smaller ones come back as they are."""
    width, height = reduced_size((pictures.shape[3], pictures.shape[2]), area)
    if pictures.shape[2:] == (height, width):
        return pictures
    return interpolate(pictures, (height, width), mode="bilinear", antialias=True)
