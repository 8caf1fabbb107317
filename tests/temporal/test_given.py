"""Keys that are pictures: rows near them arrive at them exactly, and nothing jumps."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import SOLVERS
from segue.temporal.given import Givens, inverted, residuals
from segue.temporal.grow import Grower, grow
from segue.temporal.keys import Keys
from segue.temporal.plan import Adaptive
from segue.temporal.ruler import Ruler
from segue.temporal.trajectory import Trajectory
from segue.temporal.tree import Node, Tree
from toy import HashedText, RmsDistance, RowwiseDenoiser

STEPS = 10
SCHEDULE = Schedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, STEPS)
SHAPE = (4, 6, 6)
PICTURE = 0.5 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(9))


def keys() -> Keys:
    text = HashedText()
    return Keys(text(["one", "two"]), text(["", ""]), (3.0, 3.0), (1, 2))


def trajectory() -> Trajectory:
    return inverted(PICTURE, RowwiseDenoiser(), SCHEDULE, keys(), 0)


def grower(given: Trajectory, solver: str = "ddim") -> Grower:
    stepping, told = SOLVERS[solver].solver, keys()
    givens = Givens({0: given}, RowwiseDenoiser(), SCHEDULE, stepping, told)
    return Grower(RowwiseDenoiser(), SCHEDULE, stepping, told, SHAPE, torch.device("cpu"), batch=4, givens=givens)


def grown(work: Grower, branches: int = 7) -> Tree:
    tree = Tree.of_keys(2)
    for state in grow(work, Adaptive(STEPS, 0.3, branches), Ruler(RmsDistance()), time.monotonic()):
        tree = state.tree
    return tree


def branch(work: Grower, tree: Tree, position: float, step: int) -> Tensor:
    name = len(tree.nodes)
    longer = tree.with_nodes([Node(position, step, (0, 1), position, wave=99)])
    for _ in work.run(longer, [name], frozenset()):
        pass
    return work.trajectories.pop(name).at(STEPS)


def test_a_given_key_is_the_picture_bit_for_bit() -> None:
    work = grower(trajectory())
    grown(work)
    assert torch.equal(work.final(0), PICTURE)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "euler_ancestral"])
@pytest.mark.parametrize("step", [3, 6])
def test_branches_arrive_at_it_as_they_come_near(solver: str, step: int) -> None:
    """The nearer, the smaller the distance, down to nothing; without the correction it would stay."""
    work = grower(trajectory(), solver)
    tree = grown(work)
    far, near, nearest = (
        float((branch(work, tree, position, step) - PICTURE).square().mean().sqrt()) for position in (0.1, 0.01, 1e-4)
    )
    assert nearest < 1e-3 < near < far
    work.givens = None
    assert float((branch(work, tree, 1e-4, step) - PICTURE).square().mean().sqrt()) > 0.02


def test_the_step_from_the_picture_is_no_larger_than_others() -> None:
    work = grower(trajectory())
    tree = grown(work, 15)
    shown = torch.stack([work.final(name) for name in tree.frames()])
    gaps = (shown[1:] - shown[:-1]).square().mean((1, 2, 3)).sqrt()
    places = torch.tensor([tree.nodes[name].position for name in tree.frames()], dtype=torch.float64)
    speed = gaps / (places[1:] - places[:-1])
    assert float(speed[0]) < 3 * float(speed.median())


def test_what_the_model_makes_itself_needs_no_correction() -> None:
    plain = replace(grower(trajectory()), givens=None)
    plain.trajectories.clear()
    for _ in plain.run(Tree.of_keys(2), [0, 1], frozenset(range(STEPS))):
        pass
    own = residuals(plain.trajectories[0], 3, 0, RowwiseDenoiser(), SCHEDULE, plain.solver, keys())
    other = residuals(trajectory(), 3, 0, RowwiseDenoiser(), SCHEDULE, plain.solver, keys())
    assert max(float(error.abs().max()) for error in own.values()) < 1e-5
    assert max(float(error.abs().max()) for error in other.values()) > 0.01
    assert sorted(own) == list(range(4, STEPS + 1))
