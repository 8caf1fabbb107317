"""Diversity: nothing where seeds do not matter, one where they matter as much as prompts."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from segue.evaluation.diversity import diversity


class Level:
    """The difference of mean brightness."""

    name = "level"
    domain: Literal["frames"] = "frames"
    calls = 0

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        self.calls += len(a)
        return (a.flatten(1).mean(1) - b.flatten(1).mean(1)).abs()


def groups(levels: list[list[float]]) -> list[Tensor]:
    return [torch.tensor(row).view(-1, 1, 1, 1).expand(-1, 3, 4, 4) for row in levels]


def test_it_counts_every_pair_once() -> None:
    distance = Level()
    found = diversity(groups([[0.0, 0.1, 0.3], [0.5, 0.5, 0.5]]), distance, batch=2)
    assert found.within == pytest.approx((0.1 + 0.3 + 0.2 + 0 + 0 + 0) / 6)
    assert found.between == pytest.approx((0.5 + 0.4 + 0.2) / 3)
    assert found.relative == pytest.approx(found.within / found.between)
    assert found.distance == "level"
    assert distance.calls == 2 * 3 + 3


def test_equal_pictures_have_none() -> None:
    assert diversity(groups([[0.1, 0.1], [0.9, 0.9]]), Level()).relative == 0
    assert diversity(groups([[0.1, 0.1], [0.1, 0.1]]), Level()).relative == 0


@pytest.mark.parametrize("levels", [[[0.1, 0.2]], [[0.1], [0.2]], [[0.1, 0.2], [0.3, 0.4, 0.5]]])
def test_too_little_to_compare_is_refused(levels: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least two prompts"):
        diversity(groups(levels), Level())
