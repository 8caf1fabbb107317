"""Reaching a smoothness, on a film whose pictures are points on a line of known length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from segue.temporal.grow import Grower
from segue.temporal.plan import Adaptive
from segue.temporal.refine import FILMS, IN_VAIN, Refinement, Target
from segue.temporal.ruler import Ruler
from segue.temporal.timeline import even_positions
from segue.temporal.trajectory import Trajectory
from segue.temporal.tree import Node, Tree
from toy import RmsDistance

STEPS = 10


@dataclass
class Line(Grower):
    """A grower without a network: what a node shows is `bend(position)`."""

    runs: list[int] = field(default_factory=list[int])

    def run(self, tree: Tree, names: Sequence[int], keep: frozenset[int]) -> Iterator[int]:
        for name in names:
            self.trajectories[name] = shown(tree.nodes[name])
        self.runs.append(len(names))
        yield len(names)


def shown(node: Node) -> Trajectory:
    return Trajectory({STEPS: torch.full((1, 2, 2), bend(node.position))})


def bend(position: float) -> float:
    """Nearly all of the way is gone in a tenth of the line, which a first placement does not know of."""
    return position + 8 / (1 + math.exp(-60 * (position - 0.5)))


class Cut(RmsDistance):
    """Pictures of either half are alike, and those of different halves worlds apart."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        middle = bend(0.5)
        return 9.0 * ((a.mean((1, 2, 3)) < middle) != (b.mean((1, 2, 3)) < middle)).float()


def film(frames: int, **target: Any) -> tuple[Refinement, Line]:
    places = [k / (frames - 1) for k in range(frames)]
    tree = Tree.of_keys(2).with_nodes(
        Node(place, 3, (0, 1), place, wave=1 + (k % 2)) for k, place in enumerate(places[1:-1])
    )
    none: Any = None
    steps: Any = range(STEPS)
    line = Line(none, steps, none, none, (1, 2, 2), torch.device("cpu"))
    line.trajectories.update({name: shown(node) for name, node in enumerate(tree.nodes)})
    order = [0, *range(2, frames), 1]

    def place(known: Sequence[float], gaps: Sequence[float]) -> Sequence[float]:
        return even_positions(known, gaps, [0.0, 1.0], frames)

    work = Refinement(line, Adaptive(STEPS, 0.3, 99), Ruler(RmsDistance()), tree, order, Target(**target), place)
    return work, line


def steps(work: Refinement) -> list[float]:
    places = [work.tree.nodes[name].position for name in work.order]
    assert places == sorted(places)
    return [bend(b) - bend(a) for a, b in pairwise(places)]


def run(work: Refinement) -> None:
    for _ in work.run():
        pass


def test_a_target_that_can_be_reached_is_reached_with_the_same_number_of_frames() -> None:
    work, line = film(25, smoothness=0.6)
    assert max(steps(work)) > 1.4
    run(work)
    assert len(work.order) == 25
    assert work.order[0] == 0 and work.order[-1] == 1
    assert max(steps(work)) <= 0.6
    assert "is reached" in work.ended
    assert work.spent == sum(line.runs) <= 16


def test_what_holds_from_the_start_costs_nothing() -> None:
    work, line = film(25, smoothness=6.0)
    before = list(work.order)
    run(work)
    assert line.runs == [] and "is reached" in work.ended
    assert work.order == before


def test_a_target_beyond_so_many_frames_is_told_with_the_number_it_would_take() -> None:
    work, _ = film(25, smoothness=0.1)
    before = max(steps(work))
    run(work)
    assert len(work.order) == 25
    assert "is not reached" in work.ended and "needs about 9" in work.ended  # 9 units in steps of .1: 91 frames
    assert max(steps(work)) < 0.5 * before


def test_without_a_limit_it_costs_no_more_than_a_few_films() -> None:
    work, line = film(25, smoothness=1e-3)
    run(work)
    assert work.spent == sum(line.runs) <= FILMS * 25


def test_what_it_says_is_of_the_film_as_it_is() -> None:
    work, _ = film(25, smoothness=0.6)
    run(work)
    assert "is reached" in work.ended
    del work.order[12]
    assert "is not reached" in work.ended


def test_what_no_branch_can_lower_ends_it() -> None:
    work, line = film(25, smoothness=0.6)
    work.ruler = Ruler(Cut())
    run(work)
    assert "as even as they get" in work.ended
    assert len(line.runs) <= IN_VAIN + 1


@pytest.mark.parametrize("limit", [{"branches": 2}, {"deadline": 0.0}])
def test_the_budget_ends_it_and_is_named(limit: dict[str, float]) -> None:
    work, _ = film(25, smoothness=0.45, **limit)
    run(work)
    assert work.spent <= limit.get("branches", 0)
    assert "the budget was used" in work.ended
