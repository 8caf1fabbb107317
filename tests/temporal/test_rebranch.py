"""Frames that are double exposures fork again, earlier, until they are none."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import ddim
from segue.temporal.grow import Grower, grow
from segue.temporal.keys import Keys
from segue.temporal.plan import Adaptive
from segue.temporal.rebranch import Rebranching
from segue.temporal.refine import FILMS
from segue.temporal.ruler import Ruler
from segue.temporal.tree import Tree
from toy import HashedText, RmsDistance, RowwiseDenoiser

STEPS = 10
SCHEDULE = Schedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, STEPS)


def grown() -> tuple[Grower, Tree]:
    text = HashedText()
    keys = Keys(text(["one", "two"]), text(["", ""]), (3.0, 3.0), (1, 2))
    work = Grower(RowwiseDenoiser(), SCHEDULE, ddim, keys, (4, 6, 6), torch.device("cpu"), whole=True)
    tree = Tree.of_keys(2)
    for state in grow(work, Adaptive(STEPS, 0.8, 7), Ruler(RmsDistance()), time.monotonic()):
        tree = state.tree
    return work, tree


def rebranched(late: int, limit: float = 0.5, branches: int | None = None) -> tuple[Rebranching, list[int]]:
    """Every branch right of the middle is a ghost as long as it forks at step `late` or later."""
    work, tree = grown()
    order = tree.frames()

    def scores(names: Sequence[int]) -> list[float]:
        nodes = [made.tree.nodes[name] for name in names]
        return [1.0 if not node.is_key and node.position > 0.5 and node.step >= late else 0.1 for node in nodes]

    made = Rebranching(work, tree, list(order), scores, limit, branches)
    for _ in made.run():
        pass
    return made, order


def test_ghosts_fork_again_earlier_at_the_same_places() -> None:
    made, before = rebranched(late=6)
    places = [made.tree.nodes[name].position for name in made.order]
    assert places == [made.tree.nodes[name].position for name in before]
    for old, new in zip(before, made.order, strict=True):
        node = made.tree.nodes[old]
        assert old == new if node.is_key else made.tree.nodes[new].step < 6 or node.position <= 0.5
    assert "is kept" in made.ended
    made.tree.check(STEPS)


def test_what_nothing_helps_stays_as_it_was() -> None:
    made, before = rebranched(late=0)
    assert made.order == before
    assert "is not kept" in made.ended and "1.00" in made.ended


def test_without_ghosts_nothing_is_run() -> None:
    made, before = rebranched(late=STEPS)
    assert made.order == before and made.spent == 0


def test_the_budget_bounds_it() -> None:
    made, before = rebranched(late=6, branches=2)
    assert made.spent <= 2 and made.order == before


def test_without_a_budget_it_costs_no_more_than_a_few_films() -> None:
    work, tree = grown()
    order = tree.frames()
    # Whatever is new is a little better, and never good enough.
    made = Rebranching(work, tree, list(order), lambda names: [1.0 - 0.001 * name for name in names], 0.5)
    made.branches = 10**6
    for _ in made.run():
        pass
    assert made.spent > FILMS * len(order)
    made = Rebranching(work, tree, list(order), made.scores, 0.5)
    for _ in made.run():
        pass
    assert 0 < made.spent <= FILMS * len(order)
