"""Masks: what is kept is the source's bit for bit, what changes is untouched, and edges rise inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from torch import Tensor

from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import SOLVERS
from segue.temporal.given import Givens, inverted
from segue.temporal.grow import Grower
from segue.temporal.keys import Keys
from segue.temporal.mask import Outside, feathered, pooled
from segue.temporal.tree import Node, Tree
from segue.types import Operator
from toy import HashedText, RowwiseDenoiser

STEPS = 10
SCHEDULE = Schedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, STEPS)
SHAPE = (4, 6, 6)
TREE = Tree.of_keys(3).with_nodes(
    [Node(0.5, 3, (0, 1), 0.5, wave=1), Node(1.25, 3, (1, 2), 0.25, wave=1), Node(0.75, 6, (3, 1), 0.5, wave=2)]
)
HALF = torch.cat([torch.zeros(6, 3), torch.ones(6, 3)], dim=1)


@dataclass
class Masked(Grower):
    """Grows under a mask, whose operator comes after all others."""

    mask: Tensor | None = None

    def _operators(self, tree: Tree, names: Sequence[int]) -> list[Operator]:
        last = [] if self.mask is None else [Outside(self.mask, self.trajectories)]
        return [*super()._operators(tree, names), *last]


def films(mask: Tensor | None, solver: str = "ddim", batch: int = 8, given: bool = False) -> list[Tensor]:
    """The latents of all nodes after every step, keys first."""
    text, stepping = HashedText(), SOLVERS[solver].solver
    keys = Keys(text(["one", "two", "three"]), text(["", "", ""]), (3.0,) * 3, (1, 2, 3))
    givens = None
    if given:
        source = inverted(torch.full(SHAPE, 0.4), RowwiseDenoiser(), SCHEDULE, keys, 0)
        givens = Givens({0: source}, RowwiseDenoiser(), SCHEDULE, stepping, keys)
    fixed = (RowwiseDenoiser(), SCHEDULE, stepping, keys, SHAPE, torch.device("cpu"))
    work = Masked(*fixed, batch=batch, givens=givens, mask=mask)
    every = frozenset(range(STEPS))
    for names in ([0, 1, 2], [3, 4], [5]):
        for _ in work.run(TREE, names, every):
            pass
    first = [max(1, node.step + 1) for node in TREE.nodes]
    return [
        torch.stack([work.trajectories[name].at(step) for step in range(first[name], STEPS + 1)])
        for name in range(len(TREE.nodes))
    ]


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "euler_ancestral"])
def test_a_white_mask_changes_nothing(solver: str) -> None:
    plain, masked = films(None, solver), films(torch.ones(6, 6), solver)
    assert all(torch.equal(a, b) for a, b in zip(plain, masked, strict=True))


@pytest.mark.parametrize(("solver", "given"), [*product(["ddim", "dpmpp_2m", "euler_ancestral"], [False, True])])
def test_what_is_black_is_the_source_at_every_step(solver: str, given: bool) -> None:
    source, *others = films(HALF, solver, given=given)
    for film in others:
        assert torch.equal(film[..., :3], source[-len(film) :, ..., :3])
        assert not torch.equal(film[-1, ..., 3:], source[-1, ..., 3:])
    for film in films(torch.zeros(6, 6), solver, given=given)[1:]:
        assert torch.equal(film, source[-len(film) :])


def test_what_is_white_is_left_to_the_model() -> None:
    """The model here sees each number by itself, so that nothing outside the mask can reach what lies inside."""
    for plain, masked in zip(films(None)[:3], films(HALF)[:3], strict=True):
        assert torch.equal(plain[..., 3:], masked[..., 3:])


def test_a_mask_does_not_depend_on_batches() -> None:
    """The source runs in the batch of the other keys, or before it."""
    assert all(torch.equal(a, b) for a, b in zip(films(HALF), films(HALF, batch=1), strict=True))


def test_grey_is_the_source_until_its_share_of_the_run_is_over() -> None:
    """So a branch is the freer the whiter, and nothing is a mix of two noisy latents."""
    mask = torch.full((6, 6), 0.3)
    source, other = films(mask)[:2]
    same = [torch.equal(a, b) for a, b in zip(source, other, strict=True)]
    assert same == [True] * 6 + [False] * 4  # after step 7, 0.3 of the run is left
    away = [float((film[1][-1] - film[0][-1]).abs().mean()) for film in (films(mask * k) for k in (0, 1, 2, 3))]
    assert away == sorted(away)
    assert away[0] == 0 < away[1]


def test_pooling_is_exact_where_the_mask_is() -> None:
    mask = torch.zeros(8, 12)
    mask[:4, :5] = 1
    assert torch.equal(pooled(mask, 4), torch.tensor([[1.0, 0.25, 0.0], [0.0, 0.0, 0.0]]))
    assert torch.equal(pooled(torch.ones(24, 24), 8), torch.ones(3, 3))


def disk(side: int = 40) -> Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((x - 22) ** 2 + (y - 17) ** 2 < 150).float()


@pytest.mark.parametrize("pixels", [0.5, 1.0, 4.0, 7.5, 100.0])
def test_a_feather_lies_inside(pixels: float) -> None:
    mask = disk()
    soft = feathered(mask, pixels)
    assert torch.equal(soft == 0, mask == 0)
    assert float(soft.max()) <= 1
    assert bool((soft <= mask).all())


def test_a_feather_is_as_wide_as_it_is_said_to_be() -> None:
    mask = torch.zeros(3, 30)
    mask[:, 10:] = 1
    row = feathered(mask, 4.0)[1]
    assert int(((row > 0) & (row < 1)).sum()) == 4
    assert bool((row[1:] >= row[:-1]).all())
    assert float(row[12]) == pytest.approx(3 * 0.6**2 - 2 * 0.6**3)


def test_a_feather_follows_the_true_distance() -> None:
    """Not that along rows and columns: of a disk, equal distances from the edge have nearly equal values."""
    kept = torch.nonzero(disk() == 0).float()
    inside = torch.nonzero(disk() == 1)
    distance = torch.cdist(inside.float(), kept).min(1).values
    share = (distance / 7).clamp(max=1)
    soft = feathered(disk(), 6.0)[inside[:, 0], inside[:, 1]]
    assert torch.allclose(soft, share**2 * (3 - 2 * share), atol=1e-6)


def test_no_feather_and_no_edge_change_nothing() -> None:
    mask = torch.rand(9, 9, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    assert torch.equal(feathered(mask, 0.0), mask)
    assert torch.equal(feathered(torch.ones(9, 9), 5.0), torch.ones(9, 9))


def test_a_source_can_be_another_key() -> None:
    work = Outside(torch.zeros(6, 6), {}, source=1)
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    at, _ = SCHEDULE.step(torch.full((3,), 4), [TREE.row(name) for name in range(3)])
    assert torch.equal(work.on_latents(x, at), x[[1, 1, 1]])
    start, _ = SCHEDULE.step(torch.zeros(3, dtype=torch.int64), [TREE.row(name) for name in range(3)])
    assert torch.equal(work.on_latents(x, start), x)
