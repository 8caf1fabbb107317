"""Previews of branches: how like they are to the branches that they stand for, what they cost, what is chosen."""

from __future__ import annotations

import time

import pytest
import torch

from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import SOLVERS
from segue.temporal.alignment import Alignment
from segue.temporal.feed import Feed
from segue.temporal.given import Givens
from segue.temporal.grow import Grower, grow
from segue.temporal.keys import Keys
from segue.temporal.plan import Adaptive
from segue.temporal.preview import Chosen, Previews, stride_of
from segue.temporal.ruler import Ruler
from segue.temporal.structure import Structure
from segue.temporal.tree import Tree
from toy import HashedText, RmsDistance, RowwiseDenoiser, ShapedDenoiser

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def grower(steps: int, *, solver: str = "ddim", denoiser: ShapedDenoiser | None = None) -> Grower:
    """With the latents of three keys at all steps."""
    text = HashedText()
    keys = Keys(text(["one", "two", "three"]), text([""] * 3), (3.0,) * 3, (1, 2, 3))
    schedule = Schedule.from_config(CONFIG, steps)
    return Grower(
        denoiser or RowwiseDenoiser(), schedule, SOLVERS[solver].solver, keys, (4, 6, 6), torch.device("cpu"), batch=8
    )


def with_keys(grown: Grower) -> Grower:
    for _ in grown.run(Tree.of_keys(3), range(3), frozenset(range(1, len(grown.schedule)))):
        pass
    return grown


def branch(grown: Grower, pair: int, fork: int) -> torch.Tensor:
    """The branch that a preview stands for."""
    tree = Tree.of_keys(3)
    tree = tree.with_nodes(tree.fork([pair + 0.5], fork, 1))
    for _ in grown.run(tree, [3], frozenset()):
        pass
    return grown.trajectories.pop(3).at(len(grown.schedule))


def test_previews_of_a_short_run_are_its_branches() -> None:
    grown = with_keys(grower(10, solver="dpmpp_2m"))
    previews = Previews(grown, [2, 5])
    assert stride_of(10) == 1
    assert sum(previews.run()) == previews.row_steps() == 2 * (8 + 5)
    for pair, fork in previews.names:
        assert torch.equal(previews.final(pair, fork), branch(grown, pair, fork))


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
def test_previews_of_a_long_run_are_much_like_its_branches_and_cost_less(solver: str) -> None:
    grown = with_keys(grower(48, solver=solver))
    previews = Previews(grown, [12, 24])
    assert sum(previews.run()) == 2 * (6 + 4)
    for pair in (0, 1):
        apart = (grown.final(pair) - grown.final(pair + 1)).square().mean()
        for fork in (12, 24):
            assert (previews.final(pair, fork) - branch(grown, pair, fork)).square().mean() < 0.25 * apart


def test_those_of_one_step_share_a_batch() -> None:
    toy = ShapedDenoiser()
    grown = with_keys(grower(16, denoiser=toy))
    before = len(toy.calls)
    assert sum(Previews(grown, [4, 8]).run()) == 20
    assert toy.calls[before:] == [2] * 6 + [2] * 4


def test_the_run_itself_does_not_know_of_them() -> None:
    grown = with_keys(grower(48))
    before = {name: dict(run.latents) for name, run in grown.trajectories.items()}
    spent = grown.row_steps
    for _ in Previews(grown, [12]).run():
        pass
    assert grown.row_steps == spent
    assert {name: set(run.latents) for name, run in grown.trajectories.items()} == {
        name: set(latents) for name, latents in before.items()
    }


def test_steps_that_the_coarser_schedule_has_not_are_refused() -> None:
    grown = with_keys(grower(48))
    for fork in (0, 7, 48):
        with pytest.raises(ValueError, match="fork at multiples of 6 inside the run"):
            Previews(grown, [fork])


def test_crossfeed_alignment_and_given_keys_act_on_previews() -> None:
    """Settings that change branches change previews, too."""
    plain = with_keys(grower(48))
    found: list[torch.Tensor] = []
    for change in range(4):
        grown = with_keys(grower(48))
        grown.trajectories = plain.trajectories
        if change == 1:
            grown.from_parents = Feed(0.5)
        if change == 2:
            grown.alignment = Alignment(Structure(statistics=0.8))
        if change == 3:
            given = {1: plain.trajectories[0]}
            grown.givens = Givens(given, grown.denoiser, grown.schedule, grown.solver, grown.keys)
        previews = Previews(grown, [24])
        for _ in previews.run():
            pass
        found.append(previews.final(0, 24))
    assert all(not torch.equal(found[0], other) for other in found[1:])


def test_depths_are_asked_for_once_and_hold_for_their_pair() -> None:
    asked: list[int] = []
    grown = grower(20)

    def choose() -> list[float]:
        asked.append(len(grown.trajectories))
        assert set(range(1, 20)) <= grown.trajectories[0].latents.keys()
        return [0.3, 0.6]

    planner = Chosen(Adaptive(20, 0.4, 8), choose)
    assert planner.first(0.5) == 8
    tree = Tree.of_keys(3)
    for state in grow(grown, planner, Ruler(RmsDistance()), time.monotonic()):
        tree = state.tree
    assert asked == [3]
    first = {int(node.position): node.step for node in tree.nodes if node.wave == 1}
    assert first == {0: 6, 1: 12}
    assert all(node.step >= first[int(node.position)] for node in tree.nodes if not node.is_key)
    assert {node.step for node in planner.fill(tree, [0.3])} <= planner.forks(tree)


def test_the_choice_counts_in_a_budget_of_seconds() -> None:
    def choose() -> list[float]:
        time.sleep(0.05)
        return [0.3, 0.3]

    tree = Tree.of_keys(3)
    for state in grow(grower(20), Chosen(Adaptive(20, 0.4, 8, 0.05), choose), Ruler(RmsDistance()), time.monotonic()):
        tree = state.tree
    assert len(tree.nodes) == 3
