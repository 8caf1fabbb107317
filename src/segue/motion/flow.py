"""Dense optical flow: where every pixel of one picture is found in another."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

SMALLEST = 16
"""Pixels along a side, below which the patches of the search do not fit."""

_LUMA = (0.299, 0.587, 0.114)


def flow(a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 2 h w"]:
    """The motion from `a` to `b` in pixels, x then y: what lies in `a` at (x, y) lies in `b` at (x + u, y + v).

    Dense inverse search (Kroeger et al. 2016, arXiv:1603.03590) with variational refinement, OpenCV's, at its medium
    preset, on the brightness at 256 levels. Where nothing fits, as between different pictures, the answer is still
    smooth and means nothing: `segue.motion.occlusion.followed` tells where to believe it.

    Args:
        a: pictures in [0, 1], sides of 16 pixels or more.
        b: as many, of the same size.

    Raises:
        ValueError: the shapes differ, or are none of pictures.
    """
    if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or min(a.shape[-2:]) < SMALLEST:
        raise ValueError(
            f"flow goes between pictures of one shape (b, 3, h, w) with sides of {SMALLEST} pixels or more; "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    with _one_thread():
        pairs = zip(_brightness(a), _brightness(b), strict=True)
        found = [_between(one, other) for one, other in pairs]
    if not found:
        return a.new_empty(0, 2, *a.shape[-2:])
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(a)


def luma(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
    """The brightness of pictures in [0, 1] (BT.601)."""
    return (pictures * pictures.new_tensor(_LUMA).view(3, 1, 1)).sum(1)


def _between(a: UInt8[np.ndarray, "h w"], b: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 2"]:
    # A search of its own for each pair: nothing of one may reach the next.
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return search.calc(a, b, np.zeros((*a.shape, 2), np.float32))


def _brightness(pictures: Tensor) -> UInt8[np.ndarray, "b h w"]:
    grey = luma(pictures.detach().float().cpu())
    return grey.clamp(0, 1).mul(255).round().byte().numpy()


@contextmanager
def _one_thread() -> Generator[None]:
    """The search splits its work by threads, which must not decide the answer."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
