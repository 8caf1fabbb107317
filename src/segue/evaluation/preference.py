"""Who is preferred, from comparisons of two: Bradley & Terry's model with ties, and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.evaluation.intervals import Interval, student

Numbers = NDArray[np.float64]

LEFT, TIE, RIGHT = range(3)
RIDGE = 0.05
"""Weight of half the squared strengths in what is minimised: about the pull of a fifth of one comparison towards equal.
Without it, who wins every comparison would be infinitely strong."""
RESAMPLES = 1000
_STEPS, _FAR, _CLOSE = 100, 2.0, 1e-9


@dataclass(frozen=True)
class Preference:
    """How strong each is.

    Args:
        strengths: natural logarithms of the odds, with a mean of 0: of two, the difference is the log-odds of the one
            being preferred where it is no tie.
        tie: the log of Davidson's nu: how much likelier a tie is than the geometric mean of both wins.
        side: the log-odds by which what stands on the left is preferred for standing there.
    """

    strengths: Numbers
    tie: float
    side: float

    @property
    def shares(self) -> Numbers:
        """How often each is expected to be preferred to the others, a tie counting half: 0 to 1, with a mean of 0.5."""
        return _shares(self.strengths[None], np.array([self.tie]))[0]


@dataclass(frozen=True)
class Ranking:
    """Strengths with 95 % intervals.

    Args:
        fitted: to all answers.
        strengths: with their intervals.
        shares: how often each is preferred to the others, with their intervals.
        against_best: of each, how far it is below the strongest one.
        side: the log-odds for standing on the left.
        raters: how many there were.
    """

    fitted: Preference
    strengths: tuple[Interval, ...]
    shares: tuple[Interval, ...]
    against_best: tuple[Interval, ...]
    side: Interval
    raters: int


def preference(counts: Numbers) -> Preference:
    """The likeliest strengths.

    The model is Bradley & Terry 1952's with the ties of Davidson 1970 and the order effect of Davidson & Beaver 1977:
    left wins, a tie and right wins have odds e^(l + s), e^(t + (l + r) / 2) and e^r for strengths l and r. It is a
    multinomial logit, whose likelihood is concave, and is maximised by Newton's method with a slight ridge.

    Args:
        counts: (n, n, 3), of each pair (left, right): how often left won, nobody did, and right won.

    Raises:
        ValueError: it has another shape, or there is nothing to count.
    """
    return _fitted(np.asarray(counts, np.float64)[None])[0]


def ranking(counts: Numbers, *, resamples: int = RESAMPLES, seed: int = 0) -> Ranking:
    """Strengths, and how sure they are of other raters of the same kind.

    Raters are drawn anew with replacement, all answers of one staying together, as they are no independent ones. The
    intervals are Student's with the deviation over these draws: their percentiles are too narrow for a few raters.

    Args:
        counts: (raters, n, n, 3); see `preference`.
        resamples: how often raters are drawn.
        seed: of the draws.

    Raises:
        ValueError: another shape, or nothing to count.
    """
    counts = np.asarray(counts, np.float64)
    raters = len(counts)
    fitted = _fitted(counts.sum(0)[None])[0]
    if raters < 2:
        nothing = tuple(Interval(float(value), math.nan) for value in fitted.strengths)
        shares = tuple(Interval(float(value), math.nan) for value in fitted.shares)
        best = float(fitted.strengths.max())
        below = tuple(Interval(one.value - best, math.nan) for one in nothing)
        return Ranking(fitted, nothing, shares, below, Interval(fitted.side, math.nan), raters)
    draws = np.random.default_rng(seed).multinomial(raters, [1 / raters] * raters, resamples).astype(np.float64)
    found = _fitted(np.einsum("kr,r...->k...", draws, counts))
    strengths = np.stack([one.strengths for one in found])
    shares = np.stack([one.shares for one in found])
    best = int(fitted.strengths.argmax())
    wide = student(raters) * (raters / (raters - 1)) ** 0.5

    def told(values: Numbers, drawn: Numbers) -> tuple[Interval, ...]:
        return tuple(Interval(float(v), wide * float(d)) for v, d in zip(values, drawn.std(0), strict=True))

    return Ranking(
        fitted,
        told(fitted.strengths, strengths),
        told(fitted.shares, shares),
        told(fitted.strengths - fitted.strengths[best], strengths - strengths[:, [best]]),
        told(np.array([fitted.side]), np.array([[one.side] for one in found]))[0],
        raters,
    )


def _fitted(counts: Numbers) -> list[Preference]:
    """Of several tables of counts at once, each by itself."""
    if counts.ndim != 4 or counts.shape[1] != counts.shape[2] or counts.shape[3] != 3 or counts.shape[1] < 2:
        raise ValueError(f"expected counts of (tables, n, n, 3) of two or more; got {counts.shape}")
    if not np.isfinite(counts).all() or counts.min() < 0 or not counts.sum((1, 2, 3)).all():
        raise ValueError("expected counts of 0 and more, and some in every table")
    n = counts.shape[1]
    design, seen = _design(n), counts.reshape(len(counts), n * n, 3)
    beta = np.zeros((len(counts), n + 2))
    for _ in range(_STEPS):
        step = _newton(beta, design, seen)
        beta += step * np.minimum(1.0, _FAR / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-12))
        if np.abs(step).max() < _CLOSE:
            break
    return [Preference(row[:n] - row[:n].mean(), float(row[n]), float(row[n + 1])) for row in beta]


def _newton(beta: Numbers, design: Numbers, seen: Numbers) -> Numbers:
    """The step of Newton's method, (tables, n + 2)."""
    odds = np.einsum("pcj,kj->kpc", design, beta)
    odds -= odds.max(2, keepdims=True)
    chance = np.exp(odds)
    chance /= chance.sum(2, keepdims=True)
    total = seen.sum(2)
    expected = np.einsum("kpc,pcj->kpj", chance, design)
    slope = np.einsum("kpc,pcj->kj", seen, design) - np.einsum("kp,kpj->kj", total, expected) - RIDGE * beta
    bend = np.einsum("kp,kpc,pci,pcj->kij", total, chance, design, design, optimize=True)
    bend -= np.einsum("kp,kpi,kpj->kij", total, expected, expected, optimize=True)
    bend += RIDGE * np.eye(beta.shape[1])
    return np.linalg.solve(bend, slope[..., None])[..., 0]


def _design(n: int) -> Numbers:
    """(pairs, outcomes, parameters): what each parameter adds to the log-odds of each outcome."""
    design: Any = np.zeros((n, n, 3, n + 2))
    for left in range(n):
        for right in range(n):
            design[left, right, LEFT, left] += 1
            design[left, right, LEFT, n + 1] += 1
            design[left, right, RIGHT, right] += 1
            design[left, right, TIE, left] += 0.5
            design[left, right, TIE, right] += 0.5
            design[left, right, TIE, n] += 1
    return design.reshape(n * n, 3, n + 2)


def _shares(strengths: Numbers, tie: Numbers) -> Numbers:
    """(tables, n) of strengths (tables, n), where neither stands on a better side."""
    n = strengths.shape[1]
    apart = strengths[:, :, None] - strengths[:, None, :]
    # All three odds over that of the geometric mean, so that nothing overflows early.
    wins, ties = np.exp(apart / 2), np.exp(tie)[:, None, None]
    chance = (wins + ties / 2) / (wins + 1 / wins + ties)
    return (chance.sum(2) - 0.5) / (n - 1)
