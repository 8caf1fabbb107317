"""How sure a number is that was measured on some cases only: 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value, and how far from it the true one may lie.

    Args:
        value: as it was measured.
        half: half of the width of the interval; NaN if nothing can be said.
    """

    value: float
    half: float

    @property
    def sign(self) -> int:
        """1 or -1 if all of the interval is above or below 0; 0 if it is not known."""
        if math.isnan(self.half) or abs(self.value) <= self.half:
            return 0
        return 1 if self.value > 0 else -1


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of independent cases, with Student's interval; for a comparison, give the differences case by case.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("expected the values of one case or more, got none")
    if len(values) == 1:
        return Interval(values[0], math.nan)
    return Interval(fmean(values), student(len(values)) * stdev(values) / len(values) ** 0.5)


@dataclass(frozen=True)
class Bounds:
    """A value, and between which bounds the true one may lie.

    Args:
        value: as it was measured.
        low, high: the bounds; NaN if nothing can be said.
    """

    value: float
    low: float
    high: float


def bootstrapped(
    values: Sequence[float], groups: Sequence[str] | None = None, *, resamples: int = 10_000, seed: int = 0
) -> Bounds:
    """The mean of cases, with the percentiles of the means of cases that are drawn anew (Efron 1979).

    For a comparison, give the differences case by case. Of few cases the bounds are somewhat narrow.

    Args:
        values: of the cases.
        groups: to which each belongs, such as its clip: groups are then drawn, and cases within each that was drawn,
            as those of one group are no independent ones. Left out, each case is independent.
        resamples: how often as many are drawn with replacement.
        seed: of the draws.

    Raises:
        ValueError: there are none, or not as many groups.
    """
    import numpy as np

    if not values:
        raise ValueError("expected the values of one case or more, got none")
    if len(values) == 1:
        return Bounds(values[0], math.nan, math.nan)
    rng, owners = np.random.default_rng(seed), groups or [str(i) for i in range(len(values))]
    members = [
        np.array([value for value, owner in zip(values, owners, strict=True) if owner == group], np.float64)
        for group in dict.fromkeys(owners)
    ]
    total, count = np.zeros(resamples), np.zeros(resamples)
    for _ in members:
        chosen = rng.integers(0, len(members), resamples)
        for number, cases in enumerate(members):
            here = chosen == number
            total[here] += rng.choice(cases, (int(here.sum()), len(cases))).sum(1)
            count[here] += len(cases)
    low, high = np.quantile(total / count, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Bounds(fmean(values), float(low), float(high))


def jackknife(whole: float, without: Sequence[float]) -> Interval:
    """The interval of a statistic that is no mean, from what it is with each case left out (Tukey 1958).

    Unlike a bootstrap, no case is there twice, which a distance between sets would take for a lack of variety.

    Args:
        whole: the statistic of all cases.
        without: the same, with each of the cases left out in turn.

    Raises:
        ValueError: there are no cases.
    """
    if not without:
        raise ValueError("expected the statistic without each of one case or more, got none")
    if len(without) == 1:
        return Interval(whole, math.nan)
    mean, count = fmean(without), len(without)
    deviation = ((count - 1) / count * sum((one - mean) ** 2 for one in without)) ** 0.5
    return Interval(whole, student(count) * deviation)


def student(count: int) -> float:
    """By how many standard errors of so many cases' mean the interval reaches to each side."""
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, (1 + LEVEL) / 2))
