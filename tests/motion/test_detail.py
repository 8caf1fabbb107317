"""Bands of pictures: the mean is what it says, and the same bits wherever and with whatever it is made."""

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from segue.motion.detail import high, low

SIZES = [(17, 16), (31, 33), (40, 59), (96, 61), (3, 40)]
"""(height, width); the last is smaller than what is averaged, two have no full vectors at the end of a row."""


def pictures(height: int, width: int, count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height * width))


@pytest.mark.parametrize("sigma", [1.0, 1.5, 4.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_is_the_gaussian_mean(size: tuple[int, int], sigma: float) -> None:
    many = pictures(*size)
    radius = round(3 * sigma)
    mode = "mirror" if radius < min(size) else "nearest"
    due = gaussian_filter(many.double().numpy(), (0, 0, sigma, sigma), mode=mode, radius=(0, 0, radius, radius))
    assert np.abs(low(many, sigma).numpy() - due).max() < 1e-6


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_other_precisions_and_gradients_mean_the_same(size: tuple[int, int]) -> None:
    many = pictures(*size)
    assert torch.allclose(low(many.double()).float(), low(many), atol=1e-6)
    told = many.clone().requires_grad_()
    low(told).square().sum().backward()
    assert torch.allclose(low(told).detach(), low(many), atol=1e-6)
    assert told.grad is not None
    assert bool(told.grad.abs().sum() > 0)


@pytest.mark.parametrize("sigma", [1.0, 1.5, 4.0])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bits_depend_on_nothing_but_what_is_around(size: tuple[int, int], sigma: float) -> None:
    many = pictures(*size)
    found = low(many, sigma)
    assert torch.equal(low(many[1:, 2:], sigma), found[1:, 2:])
    assert torch.equal(low(many.flip(0), sigma).flip(0), found)
    for axis in (2, 3):
        assert torch.equal(low(many.flip(axis), sigma).flip(axis), found)
    assert low(torch.full((1, 1, *size), 0.3), sigma).unique().numel() == 1
    before = cv2.getNumThreads(), torch.get_num_threads()
    try:
        cv2.setNumThreads(2)
        torch.set_num_threads(2)
        assert torch.equal(low(many, sigma), found)
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


@pytest.mark.parametrize("sigma", [1.0, 1.5, 4.0])
def test_bits_stay_where_a_picture_is_cut(sigma: float) -> None:
    many, reach = pictures(90, 107, 1), round(3 * sigma)
    found = low(many, sigma)
    for top, left, height, width in ((0, 0, 80, 100), (3, 5, 66, 81), (9, 30, 77, 59)):
        part = low(many[..., top : top + height, left : left + width], sigma)
        inner = (..., slice(reach, height - reach), slice(reach, width - reach))
        assert torch.equal(part[inner], found[..., top : top + height, left : left + width][inner])


def test_what_is_given_stays_as_it_is_and_nothing_may_be_empty_of_pictures() -> None:
    many = pictures(20, 21)
    copy = many.clone()
    high(many)
    assert torch.equal(many, copy)
    assert low(many[:0]).shape == (0, 3, 20, 21)
