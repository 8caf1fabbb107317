"""Keys that take after the first one: noise and statistics, each alone; at 0 nothing happens, at 1 all that can."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from segue.diffusion.envelope import Envelope
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import SOLVERS
from segue.errors import TaskError
from segue.temporal.alignment import Alignment
from segue.temporal.given import Givens, inverted
from segue.temporal.grow import Grower, grow
from segue.temporal.keys import Keys
from segue.temporal.mix import Mix
from segue.temporal.plan import Adaptive, Planner, Replay
from segue.temporal.ruler import Ruler
from segue.temporal.statistics import Statistics, Tuning, adain, moments
from segue.temporal.structure import Interpolation, Structure
from segue.temporal.trajectory import Trajectory
from segue.temporal.tree import Node, Tree
from segue.types import RowId
from toy import HashedText, RmsDistance, RowwiseDenoiser

STEPS = 10
SCHEDULE = Schedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, STEPS)
SHAPE = (4, 6, 6)
SEEDS = (1, 2, 3)
FULL = Structure(statistics=1.0, range=1.0)


def keys(seeds: tuple[int, ...] = SEEDS) -> Keys:
    text = HashedText()
    count = len(seeds)
    return Keys(text(["one", "two", "three"][:count]), text([""] * count), (3.0,) * count, seeds)


def grower(alignment: Alignment | None = None, seeds: tuple[int, ...] = SEEDS, batch: int = 8, **rest: Any) -> Grower:
    solver = SOLVERS[rest.pop("solver", "ddim")].solver
    settings: dict[str, Any] = {"alignment": alignment or Alignment(), "batch": batch, **rest}
    return Grower(RowwiseDenoiser(), SCHEDULE, solver, keys(seeds), SHAPE, torch.device("cpu"), **settings)


def run(work: Grower, planner: Planner | None = None) -> Tree:
    tree = Tree.of_keys(len(work.keys))
    for state in grow(work, planner or Adaptive(STEPS, 0.3, 7), Ruler(RmsDistance()), time.monotonic()):
        tree = state.tree
    return tree


def shown(work: Grower, tree: Tree) -> Tensor:
    return torch.stack([work.final(name) for name in tree.frames()])


def starts(noise: float, **rest: Any) -> Tensor:
    work = grower(Alignment(Structure(noise, statistics=1e-9)), **rest)
    run(work)
    return torch.stack([work.trajectories[key].at(0) for key in range(len(work.keys))])


def branch(work: Grower, tree: Tree, position: float, step: int) -> Tensor:
    longer = tree.with_nodes([Node(position, step, (0, 1), position, wave=99)])
    for _ in work.run(longer, [len(tree.nodes)], frozenset()):
        pass
    return work.trajectories.pop(len(tree.nodes)).at(STEPS)


@pytest.mark.parametrize("alignment", [Alignment(Structure(range=1.0)), Alignment(Structure(statistics=1.0, range=0))])
def test_nothing_happens_at_0(alignment: Alignment) -> None:
    plain, aligned = grower(), grower(alignment)
    tree = run(plain)
    run(aligned, Replay(tree))
    assert torch.equal(shown(plain, tree), shown(aligned, tree))


@pytest.mark.parametrize("structure", [Structure(noise=0.4), FULL, Structure(0.4, 0, 0.3, 0.5)])
@pytest.mark.parametrize("mix", ["channels", "linear"])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "euler_ancestral"])
def test_in_batches_as_one_by_one(structure: Structure, mix: Mix, solver: str) -> None:
    alignment = Alignment(structure, mix=mix)
    together, alone = grower(alignment, solver=solver), grower(alignment, solver=solver, batch=1)
    tree = run(together)
    run(alone, Replay(tree))
    assert torch.equal(shown(together, tree), shown(alone, tree))
    plain = grower(solver=solver)
    run(plain, Replay(tree))
    assert not torch.allclose(shown(plain, tree), shown(together, tree), atol=1e-3), "it does something"


def test_wholly_shared_noise_is_one_seed() -> None:
    shared, one = grower(Alignment(Structure(noise=1.0))), grower(seeds=(1, 1, 1))
    tree = run(one)
    run(shared, Replay(tree))
    assert torch.equal(shown(one, tree), shown(shared, tree))


@pytest.mark.parametrize("noise", [0.3, 0.7])
def test_shared_noise_brings_every_key_nearer_to_the_one_before_it(noise: float) -> None:
    own, shared = starts(0.0).flatten(1), starts(noise).flatten(1)
    assert torch.equal(own[0], shared[0])

    def likeness(x: Tensor) -> Tensor:
        return torch.cosine_similarity(x[1:], x[:-1])

    wanted = torch.cos(torch.tensor((1 - noise) * torch.pi / 2))
    assert torch.allclose(likeness(shared), wanted.expand(2), atol=0.1)
    assert bool((likeness(shared) > likeness(own) + 0.2).all())
    lengths = own.norm(dim=1)
    assert bool((shared.norm(dim=1) > 0.98 * lengths.min()).all() and (shared.norm(dim=1) < 1.02 * lengths.max()).all())


def test_the_noise_of_a_given_key_is_shared_too() -> None:
    picture = 0.5 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(9))
    told, solver = keys(), SOLVERS["ddim"].solver
    given = inverted(picture, RowwiseDenoiser(), SCHEDULE, told, 0)
    givens = Givens({0: given}, RowwiseDenoiser(), SCHEDULE, solver, told)
    work = grower(Alignment(Structure(noise=1.0, statistics=0.5)), givens=givens)
    run(work)
    assert torch.equal(work.trajectories[2].at(0), given.at(0))
    assert torch.equal(work.final(0), picture)


def test_statistics_of_keys_become_those_of_the_first() -> None:
    plain, tuned = grower(), grower(Alignment(FULL))
    run(plain)
    tree = run(tuned)
    assert torch.equal(plain.final(0), tuned.final(0))
    for wanted, found in zip(moments(tuned.final(0)), moments(tuned.final(2)), strict=True):
        assert torch.allclose(wanted, found, atol=1e-5)
    apart = moments(plain.final(0))[0] - moments(plain.final(2))[0]
    assert float(apart.abs().max()) > 0.01, "they would have differed"
    for name in tree.frames():
        assert torch.allclose(moments(tuned.final(name))[1], moments(tuned.final(0))[1], atol=1e-5)


def test_the_more_the_nearer() -> None:
    gaps: list[float] = []
    for weight in (0.0, 0.05, 0.2, 1.0):
        work = grower(Alignment(Structure(statistics=weight, range=1.0)))
        run(work)
        gaps.append(float((moments(work.final(0))[0] - moments(work.final(1))[0]).abs().sum()))
    assert gaps == sorted(gaps, reverse=True)


@pytest.mark.parametrize("given", [False, True])
def test_branches_arrive_at_tuned_keys(given: bool) -> None:
    """What acts on a key acts on the branches near it; else the last step would be a jump."""
    settings: dict[str, Any] = {}
    if given:
        told, solver = keys((1, 2)), SOLVERS["ddim"].solver
        picture = 0.5 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(9))
        trajectory = inverted(picture, RowwiseDenoiser(), SCHEDULE, told, 1)
        settings["givens"] = Givens({1: trajectory}, RowwiseDenoiser(), SCHEDULE, solver, told)
    work = grower(Alignment(Structure(statistics=0.4, range=1.0)), seeds=(1, 2), **settings)
    tree = run(work)
    for key, places in ((0, (0.1, 1e-2, 1e-4)), (1, (0.9, 0.99, 0.9999))):
        away = [float((branch(work, tree, place, 3) - work.final(key)).square().mean().sqrt()) for place in places]
        assert away[2] < 1e-3 < away[1] < away[0]


def test_a_loop_ends_at_its_first_key_and_so_do_its_branches() -> None:
    work = grower(Alignment(Structure(0.5, statistics=0.4, range=1.0)), same={2: 0})
    text = HashedText()
    work.keys = Keys(text(["one", "two", "one"]), text([""] * 3), (3.0,) * 3, (1, 2, 1))
    tree = run(work)
    assert torch.equal(work.final(2), work.final(0))
    longer = tree.with_nodes([Node(1.9999, 3, (1, 2), 0.9999, wave=99)])
    for _ in work.run(longer, [len(tree.nodes)], frozenset()):
        pass
    assert torch.allclose(work.final(len(tree.nodes)), work.final(0), atol=5e-3)


def test_adain_takes_over_what_it_is_given() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(SHAPE, generator=generator), 3 * torch.randn(SHAPE, generator=generator) + 1
    assert torch.equal(adain(x, *moments(y), 0.0), x)
    assert torch.allclose(adain(x, *moments(x), 0.7), x, atol=1e-6)
    for found, wanted in zip(moments(adain(x, *moments(y), 1.0)), moments(y), strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)
    half = moments(adain(x, *moments(y), 0.5))
    for found, a, b in zip(half, moments(x), moments(y), strict=True):
        assert torch.allclose(found, (a + b) / 2, atol=1e-5)
    flat = adain(torch.ones(SHAPE), *moments(y), 1.0)
    assert torch.allclose(flat, moments(y)[0].expand(SHAPE), atol=1e-5)


def test_statistics_act_in_their_range_on_their_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    x, guide = torch.randn(2, *SHAPE, generator=generator), 2 * torch.randn(SHAPE, generator=generator)
    rows = [RowId("key", 1), RowId("other")]
    anchor = Trajectory(dict.fromkeys(range(STEPS + 1), guide))
    operator = Statistics({rows[0]: Tuning(anchor, 1.0)}, Envelope(1.0, 0.0, 0.5))

    def after(step: int) -> Tensor:
        _, then = SCHEDULE.step(torch.full((2,), step), rows)
        return operator.on_stepped(x, x, then)

    for step in (0, 4):
        assert torch.allclose(moments(after(step)[0])[1], moments(guide)[1], atol=1e-5)
        assert torch.equal(after(step)[1], x[1])
    assert torch.equal(after(5), x)


@pytest.mark.parametrize("name", ["noise", "attention", "statistics", "range"])
def test_a_structure_is_made_of_shares(name: str) -> None:
    for value in (-0.1, 1.5):
        shares: dict[str, Any] = {name: value}
        with pytest.raises(TaskError, match=f"the {name} of a structure must be in"):
            Structure(**shares)


def test_an_interpolation_is_refused_that_is_none() -> None:
    wrong: Any = "both"
    with pytest.raises(TaskError, match="power"):
        Interpolation(power=2)
    with pytest.raises(TaskError, match="fusion must be"):
        Interpolation(fusion=wrong)
    with pytest.raises(ValueError, match="adapter"):
        Alignment(Structure(attention=0.5))
    with pytest.raises(ValueError, match="adapter"):
        Alignment(interpolation=Interpolation(0.5))
