"""What raters said: read without trust, looked over, and counted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from segue.errors import RecordError, TaskError
from segue.evaluation.intervals import Interval
from segue.evaluation.preference import LEFT, RESAMPLES, RIGHT, TIE, Numbers, Ranking, ranking
from segue.evaluation.study import QUESTIONS, Key

CHOICES = ("left", "tie", "right")
MOST_BYTES = 4 * 2**20
"""Of a file of answers: those of ten thousand pairs."""
ENOUGH, MONOTONOUS, FAITHFUL = 12, 0.95, 0.5
"""A rater who gave so many answers, and this share of them alike, or who agrees with themselves on no more than this
share of the pairs that were shown twice, is taken for inattentive."""
ENOUGH_TWICE = 6
HASTY = 1.0
"""Seconds for a pair, in the median, below which nobody has looked."""
_RATER = re.compile(r"[0-9a-f]{1,32}")


@dataclass(frozen=True)
class Rater:
    """What one person answered.

    Args:
        name: drawn by their browser.
        study: the page.
        answers: left, tie or right, by trial and question.
        seconds: for each pair, until its first answer.
    """

    name: str
    study: str
    answers: dict[tuple[int, str], int]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Attention:
    """What speaks for and against a rater.

    Args:
        name: of them.
        answers: how many there are.
        left: the share of the answers that are no ties which chose the left side; None if there are none.
        agreed: the share of the questions about pairs that were shown twice which were answered alike; None if no pair
            was.
        seconds: for a pair, in the median; None without answers.
        doubts: why they are taken for inattentive; "" if they are not.
    """

    name: str
    answers: int
    left: float | None
    agreed: float | None
    seconds: float | None
    doubts: str


@dataclass(frozen=True)
class Result:
    """What a study found.

    Args:
        methods: in the order of the numbers.
        rankings: by question; only of those that somebody answered.
        counts: answers that were counted, by question: left, tie, right.
        raters: all of them, those in doubt included.
        left_out: the names of those whose answers were not counted.
    """

    methods: tuple[str, ...]
    rankings: dict[str, Ranking]
    counts: dict[str, tuple[int, int, int]]
    raters: tuple[Attention, ...]
    left_out: tuple[str, ...]


def read_answers(path: Path, keys: Sequence[Key]) -> Rater:
    """A rater's file. Nothing in it is believed: it must be of one of the pages, and answer what was asked there.

    Raises:
        RecordError: it cannot be read, or is not what a page saves.
        TaskError: it is of another page.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RecordError(f"{path} is too large for answers: {path.stat().st_size} bytes")
        said: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecordError(f"{path} cannot be read: {reason}; expected what a page saves as answers") from None
    try:
        page, rater, rows = (said[name] for name in ("study", "rater", "answers"))
        if not (isinstance(page, str) and isinstance(rater, str) and _RATER.fullmatch(rater)):
            raise ValueError("no name of a page, or of a rater")
        key = next((key for key in keys if key.id == page), None)
        if key is None:
            raise TaskError(
                f"{path} answers the page {page[:40]!r}, and the keys are of {', '.join(key.id for key in keys)}: give "
                "the key of that page"
            )
        answers: dict[tuple[int, str], int] = {}
        first: dict[int, float] = {}
        for row in rows:
            trial, question, choice, spent = (row[name] for name in ("trial", "question", "answer", "ms"))
            if type(trial) is not int or trial not in range(len(key.trials)):
                raise ValueError(f"no trial {trial!r}")
            if question not in key.asked[key.trials[trial].film] or (trial, question) in answers:
                raise ValueError(f"trial {trial} was not asked {question!r} once")
            if type(spent) not in (int, float) or not 0 <= spent < math.inf:
                raise ValueError(f"no time: {spent!r}")
            answers[trial, question] = CHOICES.index(choice)
            first[trial] = min(first.get(trial, math.inf), spent / 1000)
    except TaskError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path} is not what a page saves as answers ({str(error)[:200]})") from None
    return Rater(rater, key.id, answers, tuple(first.values()))


def attention(rater: Rater, key: Key) -> Attention:
    """How attentive a rater was."""
    choices = list(rater.answers.values())
    sides = [choice for choice in choices if choice != TIE]
    twice = [
        (rater.answers[number, question], rater.answers[trial.repeats, question])
        for number, trial in enumerate(key.trials)
        if trial.repeats is not None
        for question in QUESTIONS
        if (number, question) in rater.answers and (trial.repeats, question) in rater.answers
    ]
    agreed = sum(second == RIGHT - first for first, second in twice) / len(twice) if twice else None
    seconds = median(rater.seconds) if rater.seconds else None
    left = sides.count(LEFT) / len(sides) if sides else None
    doubts: list[str] = []
    if not choices:
        doubts.append("answered nothing")
    for choice, told in enumerate(("left", "no difference", "right")):
        if len(choices) >= ENOUGH and choices.count(choice) >= MONOTONOUS * len(choices):
            doubts.append(f'answered "{told}" {choices.count(choice)} times of {len(choices)}')
    if agreed is not None and len(twice) >= ENOUGH_TWICE and agreed <= FAITHFUL:
        doubts.append(f"agrees with themselves on {agreed:.0%} of {len(twice)} questions that were asked twice")
    if seconds is not None and seconds < HASTY:
        doubts.append(f"took {seconds:.1f} s for a pair")
    return Attention(rater.name, len(choices), left, agreed, seconds, "; ".join(doubts))


def counted(rater: Rater, key: Key, methods: Sequence[str], question: str) -> Numbers:
    """(n, n, 3): what a rater said of each pair of methods; pairs that were shown twice count once."""
    counts = np.zeros((len(methods), len(methods), 3))
    for (number, asked), choice in rater.answers.items():
        trial = key.trials[number]
        if asked == question and trial.repeats is None:
            left, right = (methods.index(key.methods[place]) for place in (trial.left, trial.right))
            counts[left, right, choice] += 1
    return counts


def result(
    raters: Sequence[Rater], keys: Sequence[Key], *, keep_all: bool = False, resamples: int = RESAMPLES, seed: int = 0
) -> Result:
    """What raters found, of one page or of several of the same methods.

    Args:
        raters: what was read.
        keys: of their pages.
        keep_all: count those, too, who seem inattentive.
        resamples: how often raters are drawn for the intervals.
        seed: of these draws.

    Raises:
        TaskError: nothing is left to count, or a rater is there twice.
    """
    by_id = {key.id: key for key in keys}
    names = [(rater.study, rater.name) for rater in raters]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise TaskError(
            f"the answers of rater {double[1]} to the page {double[0]} were given twice: give each file once"
        )
    found = [attention(rater, by_id[rater.study]) for rater in raters]
    trusted = [
        rater for rater, about in zip(raters, found, strict=True) if rater.answers and (keep_all or not about.doubts)
    ]
    left_out = tuple(about.name for rater, about in zip(raters, found, strict=True) if rater not in trusted)
    if not trusted:
        raise TaskError(
            f"none of the {len(raters)} raters is left: {found[0].name} {found[0].doubts}" if raters else "no answers"
        )
    methods = tuple(sorted({method for key in keys for method in key.methods}))
    people = sorted({rater.name for rater in trusted})
    rankings: dict[str, Ranking] = {}
    counts: dict[str, tuple[int, int, int]] = {}
    for question in QUESTIONS:
        # Someone who answered several pages is one person.
        tables = {name: np.zeros((len(methods), len(methods), 3)) for name in people}
        for rater in trusted:
            tables[rater.name] += counted(rater, by_id[rater.study], methods, question)
        told = np.stack([table for table in tables.values() if table.any()] or [np.zeros((1, 1, 3))])
        if told.any():
            rankings[question] = ranking(told, resamples=resamples, seed=seed)
            left, tie, right = told.sum((0, 1, 2)).astype(int).tolist()
            counts[question] = (left, tie, right)
    if not rankings:
        raise TaskError("there are no answers to count")
    return Result(methods, rankings, counts, tuple(found), left_out)


def as_dict(found: Result) -> dict[str, Any]:
    """Plain values, for JSON; a bound that is not known is None."""

    def told(interval: Interval) -> dict[str, float | None]:
        return {"value": interval.value, "half": None if math.isnan(interval.half) else interval.half}

    questions = {
        question: {
            "answers": dict(zip(CHOICES, found.counts[question], strict=True)),
            "left_log_odds": told(one.side),
            "raters": one.raters,
            "methods": {
                method: {
                    "strength": told(one.strengths[i]),
                    "share": told(one.shares[i]),
                    "below_best": told(one.against_best[i]),
                }
                for i, method in enumerate(found.methods)
            },
        }
        for question, one in found.rankings.items()
    }
    raters = [vars(rater) for rater in found.raters]
    return {"questions": questions, "raters": raters, "left_out": list(found.left_out)}
