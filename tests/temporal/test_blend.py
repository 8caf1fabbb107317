"""Mixes of any number of keys: corners are exact, two are mixed as ever, order does not matter, branches arrive."""

from __future__ import annotations

import math
import time
from itertools import permutations
from typing import get_args

import pytest
import torch
from torch import Tensor

from segue.diffusion.noise import Ancestry, InheritedNoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import SOLVERS
from segue.temporal.blend import Blends, blended, spherical_mean
from segue.temporal.feed import Feed
from segue.temporal.grow import Grower, grow
from segue.temporal.keys import ANY_KEY, Keys
from segue.temporal.mix import Mix, mixed
from segue.temporal.plan import Adaptive, Replay
from segue.temporal.ruler import Ruler
from segue.temporal.simplex import Route
from segue.temporal.tree import Node, Tree
from segue.types import RowId
from toy import HashedText, RmsDistance, RowwiseDenoiser

MIXES: tuple[Mix, ...] = get_args(Mix)
STEPS = 10
SCHEDULE = Schedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, STEPS)
SHAPE = (4, 6, 6)
PATH = Route.of("1,0,0; 1,1,1; 0,0,1", 3)


def latents(count: int = 3, alike: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((count, *SHAPE), generator=generator)
    return alike * x[:1] + (1 - alike) * x


@pytest.mark.parametrize("mix", MIXES)
def test_corners_are_exact(mix: Mix) -> None:
    x = latents()
    for key in range(3):
        assert torch.equal(blended(x, [float(key == other) for other in range(3)], mix), x[key])


@pytest.mark.parametrize("mix", MIXES)
def test_two_are_mixed_as_branches_mix_their_parents(mix: Mix) -> None:
    x = latents()
    told = mixed(x[:1], x[2:], torch.tensor([0.3], dtype=torch.float64), mix)[0]
    assert torch.equal(blended(x, [0.7, 0, 0.3], mix), told)
    nearly = blended(x, [0.7, 1e-12, 0.3], mix)
    assert torch.allclose(nearly, told, atol=1e-6), "and three of them come to that as one of them goes"


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("alike", [0.0, 0.6])
def test_the_order_does_not_matter(mix: Mix, alike: float) -> None:
    x, weights = latents(4, alike), (0.1, 0.2, 0.3, 0.4)
    every = [blended(x[list(order)], [weights[place] for place in order], mix) for order in permutations(range(4))]
    assert all(torch.allclose(found, every[0], atol=1e-6) for found in every)


@pytest.mark.parametrize("mix", MIXES)
def test_no_length_is_lost_and_equals_stay(mix: Mix) -> None:
    x = latents(5)
    lengths = x.flatten(1).norm(dim=1)
    found = blended(x, [0.2] * 5, mix)
    assert float(lengths.min()) * 0.97 < float(found.norm()) < float(lengths.max()) * 1.03
    assert float(x.mean(0).norm()) < 0.6 * float(lengths.min()), "as a plain mean would"
    assert torch.allclose(blended(x[:1].expand(3, *SHAPE), [0.2, 0.3, 0.5], mix), x[0], atol=1e-6)
    assert torch.equal(blended(0 * x, [0.2] * 5, mix), 0 * x[0])


def test_the_mean_on_the_sphere_is_balanced() -> None:
    """The pulls w_i log_q(u_i) of all directions cancel at it."""
    u = torch.nn.functional.normalize(latents(4, 0.4).double().flatten(1), dim=1)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    q = spherical_mean(u @ u.T, weights) @ u
    assert float(q.norm()) == pytest.approx(1, abs=1e-12)
    angles = (u @ q).acos()
    pulls = (weights * angles / angles.sin())[:, None] * (u - angles.cos()[:, None] * q)
    assert float(pulls.sum(0).norm()) < 1e-10
    assert bool(spherical_mean(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double(), weights[[0, 0]]).isfinite().all())


def base(
    weights: Route, solver: str = "ddim", order: tuple[int, ...] = (0, 1, 2), parents: Feed | None = None
) -> Grower:
    text, words = HashedText(), ["one", "two", "three"]
    positive = text([words[key] for key in order])
    scales, seeds = tuple((2.0, 3.0, 4.0)[key] for key in order), tuple((1, 2, 3)[key] for key in order)
    keys = Keys(positive, text([""] * 3), scales, seeds)
    stepping, cpu = SOLVERS[solver].solver, torch.device("cpu")
    parts = Grower(RowwiseDenoiser(), SCHEDULE, stepping, keys, SHAPE, cpu)
    blends = Blends(parts, weights, dict.fromkeys(weights.blends, 3))
    return Grower(
        RowwiseDenoiser(), SCHEDULE, stepping, keys.along(weights), SHAPE, cpu, blends=blends, same=weights.same,
        from_parents=parents or Feed(),
    )  # fmt: skip


def grown(work: Grower, branches: int = 7) -> Tree:
    tree = work.keys_alone
    for state in grow(work, Adaptive(STEPS, 0.3, branches), Ruler(RmsDistance()), time.monotonic()):
        tree = state.tree
    return tree


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "euler_ancestral"])
def test_corners_of_a_path_are_the_keys_themselves(solver: str) -> None:
    work = base(PATH, solver)
    tree = grown(work)
    plain = base(PATH, solver).blends
    assert plain is not None
    for _ in plain.run(frozenset()):
        pass
    assert torch.equal(work.final(0), plain.keys.final(0))
    assert torch.equal(work.final(2), plain.keys.final(2))
    tree.check(STEPS)
    assert tree.nodes[1] == Node(1.0, step=3)


@pytest.mark.parametrize("solver", ["ddim", "euler_ancestral"])
def test_equal_shares_do_not_see_the_order_of_the_prompts(solver: str) -> None:
    works = [base(Route.of(((1, 0, 0), (1, 1, 1), (0, 1, 1)), 3), solver, order) for order in permutations(range(3))]
    for work in works:
        grown(work, 0)
    assert all(torch.allclose(work.final(1), works[0].final(1), atol=1e-5) for work in works)
    assert float((works[0].final(1) - works[0].final(0)).abs().max()) > 0.1


@pytest.mark.parametrize("parents", [Feed(), Feed(0.5)])
@pytest.mark.parametrize("solver", ["ddim", "euler_ancestral"])
def test_branches_arrive_at_a_blend(solver: str, parents: Feed) -> None:
    work = base(PATH, solver, parents=parents)
    tree = grown(work)
    goal = work.final(1)
    aways: list[float] = []
    for near in (0.1, 0.01, 1e-5):
        name = len(tree.nodes)
        longer = tree.with_nodes(tree.fork([1 - near], 3, 99, [0, 1]))
        for _ in work.run(longer, [name], frozenset()):
            pass
        aways.append(float((work.trajectories.pop(name).at(STEPS) - goal).square().mean().sqrt()))
    assert aways[0] > aways[1] > aways[2]
    assert aways[2] < 1e-3


def test_a_stored_tree_is_run_again_bit_for_bit() -> None:
    work, again = base(PATH.closed()), base(PATH.closed())
    tree = grown(work)
    for _ in grow(again, Replay(tree), Ruler(RmsDistance()), time.monotonic()):
        pass
    assert all(torch.equal(work.final(name), again.final(name)) for name in tree.frames())
    assert torch.equal(work.final(3), work.final(0))


def test_keys_along_a_path_are_told_shares_of_all() -> None:
    work = base(PATH)
    assert work.blends is not None
    parts = work.blends.keys.keys
    middle, own = work.keys.at([1.0]), parts.at([0.0, 1.0, 2.0])
    assert torch.allclose(middle.terms[1].text[0], own.terms[1].text.mean(0), atol=1e-6)
    assert middle.weights[1].tolist() == [3.0]
    assert work.keys.ancestry(0.0).shares == (1, 0, 0)
    assert work.keys.ancestry(1.5).shares == pytest.approx((1 / 6, 1 / 6, 2 / 3))


def test_noise_of_many_is_standard_and_of_one_seed_is_its_own() -> None:
    rows = (RowId("many"), RowId("one"), RowId("two"))
    kin = {
        rows[0]: Ancestry((1, 2, 3), (ANY_KEY,) * 3, (0.2, 0.3, 0.5)),
        rows[1]: Ancestry((1, 1, 1), (ANY_KEY,) * 3, (0.2, 0.3, 0.5)),
        rows[2]: Ancestry((1, 2, 3), (ANY_KEY,) * 3, (0.75, 0.25, 0.0)),
    }
    now, then = SCHEDULE.step(torch.zeros(3, dtype=torch.int64), rows)
    drawn = InheritedNoise(kin)(torch.zeros(3, 4, 64, 64), now, then, torch.ones(3, dtype=torch.float64))
    assert drawn.flatten(1).std(dim=1).tolist() == pytest.approx([1] * 3, abs=0.03)
    alone = InheritedNoise({row: Ancestry((seed,), (ANY_KEY,), (1.0,)) for seed, row in enumerate(rows, start=1)})
    ends = alone(torch.zeros(3, 4, 64, 64), now, then, torch.ones(3, dtype=torch.float64))
    assert torch.equal(drawn[1], ends[0])
    angle = math.pi / 8
    assert torch.allclose(drawn[2], math.cos(angle) * ends[0] + math.sin(angle) * ends[1], atol=1e-6)
