"""Running a tree: what is shared, what is exact, what crossfeed does."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from segue.diffusion.loop import collect, denoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import SOLVERS
from segue.diffusion.starts import from_seeds
from segue.errors import TaskError
from segue.temporal.crossfeed import Crossfeed, Pull
from segue.temporal.feed import Feed
from segue.temporal.grow import Grower, grow
from segue.temporal.keys import Keys
from segue.temporal.mix import slerp
from segue.temporal.plan import PRESETS, Adaptive, Fixed, Level, Planner, Replay, preset_levels
from segue.temporal.ruler import Ruler
from segue.temporal.tree import Tree
from segue.types import Denoiser, Point, RowId
from toy import HashedText, RmsDistance, RowwiseDenoiser, ShapedDenoiser

STEPS = 12
SCHEDULE = Schedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, STEPS)
SHAPE = (4, 6, 6)
LEVELS = (Level(0, 2), Level(3, 3), Level(6, 7), Level(9, 10))


def grower(
    keys: int = 2,
    *,
    batch: int = 8,
    denoiser: Denoiser | None = None,
    solver: str = "ddim",
    parents: Feed | None = None,
    first: Feed | None = None,
    seeds: tuple[int, ...] = (1, 2, 3),
) -> Grower:
    text = HashedText()
    return Grower(
        denoiser or RowwiseDenoiser(),
        SCHEDULE,
        SOLVERS[solver].solver,
        Keys(text(["one", "two", "three"][:keys]), text([""] * keys), (3.0,) * keys, seeds[:keys]),
        SHAPE,
        torch.device("cpu"),
        batch=batch,
        from_parents=parents or Feed(),
        from_first=first or Feed(),
    )


def run(grown: Grower, planner: Planner) -> Tree:
    tree = Tree.of_keys(len(grown.keys))
    for state in grow(grown, planner, Ruler(RmsDistance()), time.monotonic()):
        tree = state.tree
    return tree


def latents(grown: Grower, tree: Tree) -> Tensor:
    return torch.stack([grown.final(name) for name in tree.frames()])


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "euler_ancestral"])
@pytest.mark.parametrize("planner", [Fixed(LEVELS, STEPS), Adaptive(STEPS, 0.3, 9)])
def test_batched_levels_equal_branches_one_by_one(solver: str, planner: Planner) -> None:
    together, alone = grower(3, solver=solver), grower(3, solver=solver, batch=1)
    tree = run(together, planner)
    again = run(alone, planner)
    assert tree == again
    assert torch.equal(latents(together, tree), latents(alone, again))


def test_the_batching_law_can_fail() -> None:
    together, alone = grower(denoiser=ShapedDenoiser()), grower(denoiser=ShapedDenoiser(), batch=1)
    tree = run(together, Fixed(LEVELS, STEPS))
    run(alone, Replay(tree))
    assert not torch.equal(latents(together, tree), latents(alone, tree))
    assert torch.allclose(latents(together, tree), latents(alone, tree), atol=1e-4)


def test_a_tree_shares_the_steps_before_its_forks() -> None:
    toy = ShapedDenoiser()
    grown = grower(denoiser=toy, batch=16)
    tree = run(grown, Fixed(LEVELS, STEPS))
    rows = sum((STEPS if node.stop is None else node.stop) - node.step for node in tree.nodes)
    assert sum(toy.calls) == grown.row_steps == rows
    assert rows < 0.6 * STEPS * len(tree.frames())
    # The keys take 12 calls. Each level takes one per step: of the four that begin at step 6, two leave at step 9.
    assert toy.calls == [2] * 12 + [1] * 6 + [4] * 3 + [2] * 3 + [6] * 3


def test_keys_are_plain_text_to_image() -> None:
    grown = grower()
    tree = run(grown, Adaptive(STEPS, 0.3, 3))
    state = from_seeds([2], [RowId("any")], SCHEDULE, SHAPE, torch.device("cpu"))
    alone = collect(denoise(RowwiseDenoiser(), state, SCHEDULE, grown.keys.at([1.0])), SCHEDULE)
    assert torch.equal(grown.final(1), alone[0])
    assert tree.nodes[1].position == 1


def test_a_branch_between_equal_keys_is_that_key() -> None:
    """Same prompt and seed at both ends: whatever is inserted shows the same picture."""
    text = HashedText()
    same = grower(seeds=(5, 5))
    same.keys = Keys(text(["one", "one"]), text(["", ""]), (3.0, 3.0), (5, 5))
    tree = run(same, Adaptive(STEPS, 0.3, 7))
    shown = latents(same, tree)
    assert torch.allclose(shown, shown[:1].expand_as(shown), atol=1e-5)


def test_crossfeed_of_power_zero_is_the_identity() -> None:
    plain, fed = grower(), grower(parents=Feed(0.0, 1.0, 1.0), first=Feed(0.0))
    tree = run(plain, Adaptive(STEPS, 0.3, 7))
    run(fed, Replay(tree))
    assert torch.equal(latents(plain, tree), latents(fed, tree))


def test_crossfeed_of_power_one_is_the_parents() -> None:
    fed = grower(parents=Feed(1.0, 1.0, 1.0))
    tree = run(fed, Adaptive(STEPS, 0.3, 1))
    left, right = fed.trajectories[0], fed.trajectories[1]
    half = torch.tensor([0.5], dtype=torch.float64)
    last = slerp(left.at(STEPS - 1)[None], right.at(STEPS - 1)[None], half)
    now, _ = SCHEDULE.step(torch.tensor([STEPS - 1]), [RowId("branch", 2)])
    x0 = RowwiseDenoiser()(last, now, fed.keys.at([0.5]))
    assert torch.allclose(fed.final(2), x0[0], atol=1e-6), "the last step is all that is its own"
    assert tree.frames() == [0, 2, 1]


def test_crossfeed_from_the_first_key() -> None:
    plain = grower(3)
    fed = grower(3, first=Feed(1.0, 0.5, 1.0))
    tree = run(plain, Fixed((Level(0, 2), Level(6, 3)), STEPS))
    run(fed, Replay(tree))
    assert torch.equal(plain.final(0), fed.final(0))
    assert not torch.equal(plain.final(1), fed.final(1))
    distance = RmsDistance()
    near = float(distance(fed.final(0)[None], fed.final(1)[None]))
    assert near < float(distance(plain.final(0)[None], plain.final(1)[None]))


@pytest.mark.parametrize("power", [0.2, 0.7])
def test_crossfeed_pulls_by_its_power_within_its_range(power: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, guide = (torch.randn(1, *SHAPE, generator=generator) for _ in range(2))

    class Still:
        def at(self, step: int) -> Tensor:
            return guide[0]

    row = RowId("branch", 1)
    feed = Crossfeed({row: Pull(Still(), Feed(power, 0.5, 0.5).envelope(4, STEPS))})

    def at(step: int) -> Point:
        return SCHEDULE.step(torch.tensor([step]), [row])[0]

    assert torch.equal(feed.on_latents(x, at(4)), slerp(x, guide, torch.tensor([power])))
    late = feed.on_latents(x, at(7))
    assert torch.allclose(late, slerp(x, guide, torch.tensor([power / 2])), atol=1e-6)
    assert torch.equal(feed.on_latents(x, at(8)), x)
    assert torch.equal(feed.on_latents(x, at(3)), x)


@pytest.mark.parametrize("reach", [0.3, 1.0])
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_crossfeed_on_fixed_trees(name: str, reach: float) -> None:
    """Inner branches end early, but not before those that are pulled towards them."""
    feed = Feed(0.3, reach, 0.9)
    levels = preset_levels(name, STEPS, 0.3)
    plain, fed = grower(3), grower(3, parents=feed)
    tree, pulled = run(plain, Fixed(levels, STEPS)), run(fed, Fixed(levels, STEPS, feed))
    assert [node.position for node in tree.nodes] == [node.position for node in pulled.nodes]
    apart = RmsDistance()(latents(plain, tree), latents(fed, pulled))
    assert bool((apart[[0, -1]] == 0).all())
    assert float(apart.max()) > 1e-3
    filled = pulled.with_nodes(Fixed(levels, STEPS, feed).fill(pulled, [0.4, 1.7]))
    list(fed.run(filled, range(len(pulled.nodes), len(filled.nodes)), frozenset()))
    assert bool(fed.final(len(filled.nodes) - 1).isfinite().all())


def test_frames_that_nothing_forks_from_keep_only_their_end() -> None:
    fed = grower(parents=Feed(0.5))
    planner = Adaptive(STEPS, 0.3, 3)
    tree = run(fed, planner)
    filled = tree.with_nodes(planner.fill(tree, [0.1]))
    list(fed.run(filled, [len(tree.nodes)], frozenset()))
    assert set(fed.trajectories[len(tree.nodes)].latents) == {STEPS}
    replayed = grower()
    run(replayed, Replay(filled))
    assert set(replayed.trajectories[len(tree.nodes)].latents) == {STEPS}


def test_slerp_keeps_length_and_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, *SHAPE, generator=generator) for _ in range(2))
    zero, one, half = (torch.full((3,), share, dtype=torch.float64) for share in (0.0, 1.0, 0.5))
    assert torch.equal(slerp(a, b, zero), a)
    assert torch.equal(slerp(a, b, one), b)
    middle = slerp(a, b, half)
    assert torch.allclose(middle, slerp(b, a, half), atol=1e-6)
    norms = [part.flatten(1).norm(dim=1) for part in (a, middle, b)]
    assert bool((norms[1] > torch.minimum(norms[0], norms[2]) * 0.95).all()), "a lerp would lose three tenths"
    assert torch.allclose(slerp(a, a, half), a, atol=1e-6)
    assert torch.equal(slerp(a, b, half)[[1]], slerp(a[[1]], b[[1]], half[[1]])), "rows do not see each other"


def test_guidance_is_damped_by_the_factor_that_was_asked_for() -> None:
    text = HashedText()
    keys = Keys(text(["a", "b", "c"]), text(["", "", ""]), (4.0, 6.0, 6.0), (0, 0, 0), damper=0.5)
    assert keys.guidance_at([0.0, 0.5, 1.0, 1.5, 2.0]).tolist() == [4.0, 2.5, 6.0, 3.0, 6.0]
    raised = Keys(text(["a", "b"]), text(["", ""]), (4.0, 4.0), (0, 0), damper=1.5)
    assert raised.guidance_at([0.0, 0.25, 0.5, 1.0]).tolist() == [4.0, 5.0, 6.0, 4.0]
    constant = Keys(text(["a", "b"]), text(["", ""]), (4.0, 4.0), (0, 0))
    assert constant.guidance_at([0.0, 0.3, 0.5]).tolist() == pytest.approx([4.0] * 3)
    with pytest.raises(TaskError, match="damper"):
        Keys(text(["a"]), text([""]), (4.0,), (0,), damper=0.0)


def test_text_is_mixed_between_the_two_nearest_keys() -> None:
    text = HashedText()
    rows = text(["a", "b", "c"])
    keys = Keys(rows, text(["", "", ""]), (4.0,) * 3, (0, 0, 0))
    mixed = keys.at([1.25]).terms[1].text
    assert torch.allclose(mixed[0], rows.text[1] * 0.75 + rows.text[2] * 0.25, atol=1e-6)
    assert torch.equal(keys.at([2.0]).terms[1].text[0], rows.text[2])


def test_feeds_refuse_what_is_no_share() -> None:
    with pytest.raises(TaskError, match="power"):
        Feed(power=1.5)


def test_memory_holds_only_what_later_branches_need() -> None:
    grown = grower()
    run(grown, Fixed(LEVELS, STEPS))
    kept = {step for trajectory in grown.trajectories.values() for step in trajectory.latents}
    assert kept == {3, 6, 9, STEPS}
