"""The Fréchet distance: closed forms, the textbook formula with a matrix root, and what must hold for any sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from segue.evaluation.frechet import frechet_by_group, frechet_distance

sqrtm: Any = linalg.sqrtm


def normal(count: int, seed: int, size: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.randn(count, size, generator=generator, dtype=torch.float64) @ mix


def textbook(a: Tensor, b: Tensor) -> float:
    """With the root of the product of the covariances, which only works while both are regular."""
    x, y = a.numpy(), b.numpy()
    one, other = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(sqrtm(one @ other))
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(one + other - 2 * root))


@pytest.mark.parametrize(("n", "m"), [(200, 300), (40, 7), (8, 8)])
def test_it_is_the_textbooks(n: int, m: int) -> None:
    a, b = normal(n, 1), normal(m, 2) + 1
    found = frechet_distance(a, b, "some")
    assert found.value == pytest.approx(textbook(a, b), rel=1e-6)
    assert found.value > 1


def test_a_shift_of_equal_sets_is_its_square() -> None:
    a = normal(50, 1)
    shift = torch.tensor([3.0, 0, 0, 4.0, 0, 0], dtype=torch.float64)
    assert frechet_distance(a, a + shift, "some").value == pytest.approx(25)
    assert frechet_distance(a, 3 * (a - a.mean(0)) + a.mean(0), "some").value == pytest.approx(
        4 * float(a.var(0).sum())
    )


def test_fewer_pictures_than_features_are_no_trouble() -> None:
    a, b = normal(5, 1, 40), normal(9, 2, 40)
    assert frechet_distance(a, a, "some").value == pytest.approx(0, abs=1e-8)
    forth, back = frechet_distance(a, b, "some"), frechet_distance(b, a, "some")
    assert forth.value == pytest.approx(back.value)
    assert forth.value > 1
    assert (forth.pictures, back.pictures) == ((5, 9), (9, 5))


def test_the_estimate_shrinks_with_the_number_of_pictures() -> None:
    """Why numbers are compared at equal numbers of pictures only."""

    def of_halves(n: int, seed: int) -> float:
        both = normal(2 * n, seed)
        return frechet_distance(both[:n], both[n:], "some").value

    means = [np.mean([of_halves(n, seed) for seed in range(8)]) for n in (10, 40, 160)]
    assert means[0] > 2 * means[1] > 4 * means[2] > 0


def test_it_is_told_with_its_features_and_never_called_fid() -> None:
    said = str(frechet_distance(normal(20, 1), normal(30, 2), "lite features"))
    assert "lite features" in said
    assert "20 and 30 pictures" in said
    assert "FID" not in said.upper()


def test_what_is_no_pair_of_sets_is_refused() -> None:
    for a, b in ((normal(1, 1), normal(5, 2)), (normal(5, 1), normal(5, 2, 7)), (normal(5, 1)[0], normal(5, 2))):
        with pytest.raises(ValueError, match="at least two feature vectors"):
            frechet_distance(a, b, "some")


@pytest.mark.parametrize("size", [6, 40])
def test_leaving_groups_out_is_the_same_as_not_having_them(size: int) -> None:
    groups, b = [normal(4, seed, size) for seed in range(5)], normal(30, 9, size) + 1
    whole, without = frechet_by_group(groups, b)
    assert whole == pytest.approx(frechet_distance(torch.cat(groups), b, "some").value, rel=1e-6)
    for out, found in enumerate(without):
        rest = torch.cat([group for number, group in enumerate(groups) if number != out])
        assert found == pytest.approx(frechet_distance(rest, b, "some").value, rel=1e-6)


def test_groups_of_different_features_are_refused() -> None:
    for groups, b in (([normal(3, 1)], normal(5, 2)), ([normal(3, 1), normal(3, 2, 7)], normal(5, 2))):
        with pytest.raises(ValueError, match="two groups or more"):
            frechet_by_group(groups, b)
