"""Intervals: what textbooks have, and that they hold the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from segue.evaluation.intervals import Interval, bootstrapped, jackknife, mean_interval


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.random.default_rng(1).normal(3, 2, 12)
    found = mean_interval(values.tolist())
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.value - found.half, found.value + found.half) == pytest.approx((low, high))


def test_the_jackknife_of_a_mean_is_its_interval() -> None:
    values = np.random.default_rng(2).normal(3, 2, 12)
    without = [float(np.delete(values, i).mean()) for i in range(12)]
    found, known = jackknife(float(values.mean()), without), mean_interval(values.tolist())
    assert (found.value, found.half) == pytest.approx((known.value, known.half))


def test_the_truth_lies_inside_about_as_often_as_promised() -> None:
    rng = np.random.default_rng(3)
    trials = [mean_interval(rng.normal(5, 1, 8).tolist()) for _ in range(2000)]
    assert np.mean([abs(one.value - 5) <= one.half for one in trials]) == pytest.approx(0.95, abs=0.015)


def test_a_sign_is_told_where_the_interval_is_on_one_side() -> None:
    assert [Interval(value, 0.5).sign for value in (1.0, 0.4, -0.4, -1.0)] == [1, 0, 0, -1]
    assert Interval(7.0, math.nan).sign == 0


def test_one_case_says_nothing_about_others() -> None:
    assert math.isnan(mean_interval([4.0]).half)
    assert math.isnan(jackknife(4.0, [3.0]).half)


def test_no_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="one case or more"):
        mean_interval([])
    with pytest.raises(ValueError, match="one case or more"):
        jackknife(1.0, [])


def test_bootstrapped_bounds_are_those_of_the_mean() -> None:
    """Of normal cases they are near Student's; the same values give the same bounds, and one case has none."""
    values: list[float] = (3 + np.random.default_rng(0).standard_normal(60)).tolist()
    found, students = bootstrapped(values), mean_interval(values)
    assert found.value == students.value
    assert (found.high - found.low) / 2 == pytest.approx(students.half, rel=0.1)
    assert found == bootstrapped(values)
    assert math.isnan(bootstrapped([2.0]).low)
    skewed = bootstrapped([0.0] * 9 + [10.0])
    assert skewed.low == 0 and skewed.high > 2
    with pytest.raises(ValueError, match="one case or more"):
        bootstrapped([])


def test_cases_of_one_group_are_drawn_together() -> None:
    """Four clips that differ, and prompts that do not: there are four cases, not twelve."""
    values, clips = [float(i // 3) for i in range(12)], [f"clip {i // 3}" for i in range(12)]
    apart, together = bootstrapped(values), bootstrapped(values, clips)
    assert together.value == apart.value == 1.5
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
    same = bootstrapped([1.0, 2.0, 3.0], ["a", "b", "c"])
    assert same == bootstrapped([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="zip"):
        bootstrapped([1.0, 2.0], ["a"])
