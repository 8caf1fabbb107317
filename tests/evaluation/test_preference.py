"""Bradley-Terry with ties: closed forms, scipy's optimum, raters whose strengths are known, and honest intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize

from segue.evaluation.preference import LEFT, RIDGE, RIGHT, TIE, preference, ranking

minimize: Any = optimize.minimize
Numbers = NDArray[np.float64]
TRUE = np.array([1.0, 0.3, 0.0, -1.3])


def answered(
    rng: np.random.Generator, strengths: Numbers, raters: int, each: int, tie: float = -0.5, side: float = 0.0
) -> Numbers:
    """What so many raters say of `each` films, all pairs of methods of each."""
    n = len(strengths)
    counts = np.zeros((raters, n, n, 3))
    for rater in counts:
        for _ in range(each):
            for a in range(n):
                for b in range(a + 1, n):
                    left, right = (a, b) if rng.random() < 0.5 else (b, a)
                    odds = np.exp([strengths[left] + side, tie + (strengths[left] + strengths[right]) / 2,
                                   strengths[right]])  # fmt: skip
                    rater[left, right, rng.choice(3, p=odds / odds.sum())] += 1
    return counts


def test_of_two_the_odds_are_those_of_wins() -> None:
    counts = np.zeros((2, 2, 3))
    counts[0, 1] = 300, 0, 100
    counts[1, 0] = 100, 0, 300
    found = preference(counts)
    assert found.strengths[0] - found.strengths[1] == pytest.approx(math.log(3), abs=2e-3)
    assert found.side == pytest.approx(0, abs=5e-3)
    assert found.shares == pytest.approx([0.75, 0.25], abs=1e-3)


def test_sides_and_ties_are_told_apart_from_strength() -> None:
    """Equal ones; the left wins twice as often as the right, a tie as often as their geometric mean."""
    counts = np.zeros((2, 2, 3))
    counts[0, 1, [LEFT, TIE, RIGHT]] = counts[1, 0, [LEFT, TIE, RIGHT]] = 2000, 1000 * 2**0.5, 1000
    found = preference(counts)
    assert found.strengths == pytest.approx([0, 0], abs=1e-9)
    assert found.side == pytest.approx(math.log(2), abs=2e-3)
    assert found.tie == pytest.approx(math.log(2) / 2, abs=2e-3)


def test_it_is_the_optimum_that_scipy_finds() -> None:
    counts = answered(np.random.default_rng(3), TRUE, 6, 5, side=0.4).sum(0)

    def loss(beta: Numbers) -> float:
        strengths, tie, side = beta[:4], beta[4], beta[5]
        total = RIDGE / 2 * float(beta @ beta)
        for left in range(4):
            for right in range(4):
                odds = np.array(
                    [strengths[left] + side, tie + (strengths[left] + strengths[right]) / 2, strengths[right]]
                )
                total -= float(counts[left, right] @ (odds - np.log(np.exp(odds).sum())))
        return total

    expected = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-7}).x
    found = preference(counts)
    assert found.strengths == pytest.approx(expected[:4] - expected[:4].mean(), abs=1e-4)
    assert (found.tie, found.side) == pytest.approx(tuple(expected[4:]), abs=1e-4)


def test_who_wins_everything_is_first_and_not_infinite() -> None:
    counts = np.zeros((3, 3, 3))
    counts[0, 1, LEFT] = counts[2, 0, RIGHT] = counts[1, 2, LEFT] = 1000
    found = preference(counts)
    assert np.isfinite(found.strengths).all()
    assert found.strengths[0] > found.strengths[1] + 2 > found.strengths[2] + 4
    assert found.shares[0] > 0.99


def test_only_ties_make_all_equal() -> None:
    counts = np.zeros((3, 3, 3))
    counts[0, 1, TIE] = counts[1, 2, TIE] = counts[1, 0, TIE] = counts[2, 1, TIE] = 50
    found = preference(counts)
    assert found.strengths == pytest.approx([0, 0, 0], abs=1e-9)


def test_names_do_not_matter() -> None:
    counts = answered(np.random.default_rng(5), TRUE, 4, 4).sum(0)
    order = [2, 0, 3, 1]
    assert preference(counts[np.ix_(order, order)]).strengths == pytest.approx(preference(counts).strengths[order])


def test_the_order_of_simulated_raters_is_recovered() -> None:
    """Those of a study of four methods and eight films."""
    found = ranking(answered(np.random.default_rng(0), TRUE, 20, 8, side=0.3), resamples=200)
    values = [one.value for one in found.strengths]
    assert np.argsort(values)[::-1].tolist() == [0, 1, 2, 3]
    assert values == pytest.approx(TRUE.tolist(), abs=0.25)
    assert found.against_best[0].value == 0
    assert [one.sign for one in found.against_best] == [0, -1, -1, -1]
    assert found.side.sign == 1
    assert sum(one.value for one in found.shares) == pytest.approx(2)


@pytest.mark.parametrize("raters", [5, 20])
def test_intervals_cover_what_they_should(raters: int) -> None:
    """95 % of them, also with few raters: of 4 strengths in 60 studies, 3 in 4 of the misses are expected by chance."""
    rng, centred = np.random.default_rng(raters), TRUE - TRUE.mean()
    hits = wide = 0.0
    for study in range(60):
        found = ranking(answered(rng, TRUE, raters, 3), resamples=200, seed=study)
        hits += sum(abs(one.value - true) <= one.half for one, true in zip(found.strengths, centred, strict=True))
        wide += sum(one.half for one in found.strengths) / 4
    assert 0.91 <= hits / 240 <= 0.985
    assert wide / 60 < {5: 1.0, 20: 0.4}[raters]  # an interval that is wide enough covers everything


def test_raters_who_differ_make_intervals_wider() -> None:
    """As many answers; the tastes of one kind of rater differ."""
    rng = np.random.default_rng(1)
    alike = answered(rng, TRUE, 12, 6)
    unlike = np.concatenate([answered(rng, TRUE + rng.normal(0, 1.2, 4), 1, 6) for _ in range(12)])
    narrow, wide = (sum(one.half for one in ranking(each, resamples=200).strengths) for each in (alike, unlike))
    assert wide > 1.4 * narrow


def test_one_rater_has_no_interval() -> None:
    found = ranking(answered(np.random.default_rng(2), TRUE, 1, 6))
    assert all(math.isnan(one.half) for one in (*found.strengths, *found.shares, found.side))
    assert found.raters == 1


def test_what_is_no_table_is_refused() -> None:
    for wrong in (np.zeros((2, 2, 3)), np.ones((1, 1, 3)), np.ones((2, 3, 3)), -np.ones((2, 2, 3)), np.ones((2, 2, 2))):
        with pytest.raises(ValueError, match="expected counts"):
            preference(wrong)
