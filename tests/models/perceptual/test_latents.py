# pyright: basic
"""The weight-free distance: a metric, row by row, that grows with what is seen."""

from __future__ import annotations

import pytest
import torch

from segue.models.perceptual import LatentDistance

DISTANCE = LatentDistance()


def latents(seed: int, rows: int = 6, side: int = 16) -> torch.Tensor:
    return torch.randn(rows, 4, side, side, generator=torch.Generator().manual_seed(seed))


def test_it_is_a_metric():
    a, b, c = latents(1), latents(2), latents(3)
    assert torch.equal(DISTANCE(a, a), torch.zeros(6))
    assert torch.equal(DISTANCE(a, b), DISTANCE(b, a))
    assert (DISTANCE(a, b) > 0.1).all()
    assert (DISTANCE(a, c) <= DISTANCE(a, b) + DISTANCE(b, c) + 1e-6).all()


def test_rows_are_independent_bit_by_bit():
    a, b = latents(1), latents(2)
    together = DISTANCE(a, b)
    assert together.dtype == torch.float32
    for rows in ([3], [5, 0], [2, 4, 1]):
        assert torch.equal(DISTANCE(a[rows], b[rows]), together[rows])


def test_it_grows_along_a_straight_way():
    a, b = latents(1), latents(2)
    shares = torch.linspace(0, 1, 9)
    ways = torch.stack([DISTANCE(a, torch.lerp(a, b, share)) for share in shares])
    assert (ways.diff(dim=0) > 0).all()


def test_a_change_of_structure_counts_more_than_noise_of_the_same_size():
    a = latents(1, 1, 32)
    coarse = torch.nn.functional.interpolate(latents(2, 1, 4), scale_factor=8)
    fine = latents(3, 1, 32)
    coarse, fine = (change / change.std() * 0.3 for change in (coarse, fine))
    assert DISTANCE(a, a + coarse) > 1.2 * DISTANCE(a, a + fine)


def test_small_and_odd_latents_are_compared_too():
    for side in (1, 2, 3, 5, 9):
        a, b = latents(1, 2, side), latents(2, 2, side)
        assert DISTANCE(a, b).isfinite().all()


def test_it_says_what_it_is_and_refuses_what_it_cannot_compare():
    assert DISTANCE.domain == "latents"
    assert "lpips" not in DISTANCE.name.lower()
    with pytest.raises(ValueError, match="one shape"):
        DISTANCE(latents(1), latents(1, side=8))
