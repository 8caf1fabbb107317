"""Several edits of one picture, of which the best is kept: editing is a lottery, and CycleDiffusion is drawn 540 times.

Wu & De la Torre 2022 (arXiv:2210.05559, section 5.2) try all of a few strengths, guidance scales and seeds, and rank
what comes of them by directional similarity.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, product
from typing import Generic, TypeVar

from segue.errors import TaskError

T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """The knobs of one try.

    Args:
        seed: of the noise.
        strength: in (0, 1].
        eta: in (0, 1].
        guidance: the scale of the way out.
    """

    seed: int = 0
    strength: float = 0.8
    eta: float = 0.1
    guidance: float = 3.0


def candidates(
    seeds: Sequence[int], strengths: Sequence[float], etas: Sequence[float], guidances: Sequence[float]
) -> tuple[Candidate, ...]:
    """All combinations, the seed changing slowest.

    Raises:
        TaskError: there are none.
    """
    found = tuple(Candidate(*knobs) for knobs in product(seeds, strengths, etas, guidances))
    if not found:
        raise TaskError("expected one or more seeds, strengths, etas and guidance scales; one of these has none")
    return found


@dataclass(frozen=True)
class Scored(Generic[T]):
    """What came of a candidate.

    Args:
        candidate: its knobs.
        made: the edit.
        score: the higher, the better.
    """

    candidate: Candidate
    made: T
    score: float


def ranked(made: Iterable[tuple[Candidate, T]], score: Callable[[T], float], keep: int = 1) -> tuple[Scored[T], ...]:
    """The best of many, the best first; of equals the earlier. No more than `keep` are held at once.

    A score that is not a number is the worst.

    Raises:
        TaskError: nothing was made, or nothing is to be kept.
    """
    if keep < 1:
        raise TaskError(f"expected to keep 1 or more candidates, got {keep}")
    held: list[tuple[float, int, Scored[T]]] = []
    for number, one in zip(count(), _scored(made, score), strict=False):
        rank = one.score if one.score == one.score else float("-inf")
        entry = (rank, -number, one)
        if len(held) < keep:
            heapq.heappush(held, entry)
        else:
            heapq.heappushpop(held, entry)
    if not held:
        raise TaskError("there are no candidates to choose from")
    return tuple(one for _, _, one in sorted(held, key=lambda entry: entry[:2], reverse=True))


def _scored(made: Iterable[tuple[Candidate, T]], score: Callable[[T], float]) -> Iterator[Scored[T]]:
    for candidate, edit in made:
        yield Scored(candidate, edit, float(score(edit)))
