"""An endless walk: its pictures are those of transitions, it turns when it says, and it keeps nothing."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import SOLVERS
from segue.temporal.grow import Grower
from segue.temporal.keys import Keys
from segue.temporal.plan import Fixed, Level
from segue.temporal.stream import FORGOTTEN, Place, Stream
from segue.temporal.tree import Tree
from segue.types import Denoiser, RowId
from toy import HashedText, RowwiseDenoiser, ShapedDenoiser

STEPS, FORK, FRAMES = 12, 5, 8
SCHEDULE = Schedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, STEPS)
SHAPE = (4, 6, 6)
TEXT = HashedText()
GUIDANCE = {"one": 3.0, "two": 2.0, "three": 4.0}
SEEDS = {"one": 1, "two": 2, "three": 3}


def place(prompt: str) -> Place:
    return Place(TEXT([prompt]), TEXT([""]), GUIDANCE.get(prompt, 2.0), {SEEDS.get(prompt, 4): 1.0})


def stream(
    *,
    solver: str = "ddim",
    denoiser: Denoiser | None = None,
    fork: int = FORK,
    frames: int = FRAMES,
    queue: bool = False,
    idle: Callable[[], Place | None] = lambda: None,
) -> Stream:
    made = denoiser or RowwiseDenoiser()
    cpu = torch.device("cpu")
    return Stream(made, SCHEDULE, SOLVERS[solver].solver, fork, frames, SHAPE, cpu, queue=queue, idle=idle)


Left = tuple[RowId, Tensor] | None


def walked(walk: Stream, ticks: int, asked: Mapping[int, str]) -> list[Left]:
    """What leaves at every tick, if keys are asked for before some of them."""
    left: list[Left] = []
    for tick in range(ticks):
        if tick in asked:
            walk.ask(place(asked[tick]))
        left.append(walk.tick())
    return left


def transition(prompts: tuple[str, str], solver: str, frames: int = FRAMES, fork: int = FORK) -> list[Tensor]:
    """The pictures of an ordinary tree whose branches all fork at one step, evenly, the keys at both ends."""
    told = Keys(
        TEXT(list(prompts)),
        TEXT(["", ""]),
        tuple(GUIDANCE[prompt] for prompt in prompts),
        tuple(SEEDS[prompt] for prompt in prompts),
        words="tokens",
    )
    grower = Grower(RowwiseDenoiser(), SCHEDULE, SOLVERS[solver].solver, told, SHAPE, torch.device("cpu"))
    tree = Fixed((Level(0, 2), Level(fork, frames + 1)), STEPS).resolve(2)
    for names in (range(2), range(2, len(tree.nodes))):
        for _ in grower.run(tree, list(names), frozenset({fork})):
            pass
    return [grower.final(name) for name in tree.frames()]


def same(a: Left, b: Left) -> bool:
    return (a is None) == (b is None) and (a is None or b is None or torch.equal(a[1], b[1]))


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_its_pictures_are_the_branches_of_a_transition(solver: str) -> None:
    """Bit for bit, though no two rows of a batch are ever at the same step."""
    left = walked(stream(solver=solver), 2 * STEPS + FRAMES, {0: "one", STEPS - FORK: "two"})
    pictures = [latents for _, latents in filter(None, left)]
    expected = transition(("one", "two"), solver)
    assert len(pictures) == len(expected) == FRAMES + 1
    assert all(torch.equal(a, b) for a, b in zip(pictures, expected, strict=True))
    assert not torch.equal(pictures[0], pictures[1])


def test_the_law_of_the_branches_can_fail() -> None:
    left = walked(stream(denoiser=ShapedDenoiser()), 2 * STEPS + FRAMES, {0: "one", STEPS - FORK: "two"})
    pictures = torch.stack([latents for _, latents in filter(None, left)])
    expected = torch.stack(transition(("one", "two"), "ddim"))
    assert not torch.equal(pictures, expected)
    assert torch.allclose(pictures, expected, atol=1e-3)


@pytest.mark.parametrize("wait", range(FRAMES + 2))
def test_a_key_that_is_asked_for_changes_the_picture_that_leaves_after_one_run(wait: int) -> None:
    """Wherever the stream is on its way, the answer is there after as many ticks as a run has steps."""
    ticks, said = 60, 21 + wait
    plain = walked(stream(), ticks, {0: "one", 16: "two"})
    turned = walked(stream(), ticks, {0: "one", 16: "two", said: "three"})
    changed = [tick for tick in range(ticks) if not same(plain[tick], turned[tick])]
    assert changed[0] == said + STEPS - 1
    arrival = turned[said + STEPS + FRAMES - 2]
    assert arrival is not None
    assert arrival[0] == RowId("key", 2)
    assert torch.equal(arrival[1], transition(("three", "one"), "ddim")[0])
    assert not any(turned[said + STEPS + FRAMES - 1 :])


def test_rows_are_one_for_each_step_after_the_fork_and_keys() -> None:
    drift = stream(idle=lambda: place("three"))
    drift.ask(place("one"))
    seen: list[int] = []
    for _ in range(80):
        drift.tick()
        seen.append(drift.rows)
    assert max(seen) <= STEPS - FORK + 1
    drift.ask(place("two"))
    for _ in range(40):
        drift.tick()
        seen.append(drift.rows)
    assert max(seen) <= STEPS - FORK + 2
    assert set(seen[2 * STEPS : 80]) == {STEPS - FORK - 1, STEPS - FORK}


def test_who_asks_again_too_soon_is_answered_with_what_was_asked_last() -> None:
    """A key that has begun is waited for, so that the stream turns however often one asks."""
    ticks = 60
    asked = {0: "one", 16: "two", 20: "lost", 21: "lost too", 22: "three"}
    left = [found[0] for found in walked(stream(frames=FRAMES), ticks, asked) if found is not None]
    assert [row.frame for row in left if row.trajectory == "key"] == [0, 4]
    quick = walked(stream(), ticks, {0: "one", 16: "two"})
    turned = walked(stream(), ticks, {0: "one", 16: "two", 20: "three"})
    first = next(tick for tick in range(ticks) if not same(quick[tick], turned[tick]))
    # "two" is ready before tick 21, in which "three" begins.
    assert first == 21 + STEPS - 1 <= 20 + STEPS - 1 + FORK - 1


def test_a_stream_never_starves() -> None:
    """Somebody asks at every tick: every key that begins is turned to."""
    walk, turned = stream(), 0
    for tick in range(100):
        walk.ask(place(("one", "two", "three")[tick % 3]))
        left = walk.tick()
        turned += left is not None
    # While the second key is on its way to the fork, nothing follows the first.
    assert turned == 100 - (STEPS - 1) - (FORK - 1)


def test_a_queue_is_reached_one_by_one() -> None:
    walk = stream(queue=True)
    for prompt in ("one", "two", "three"):
        walk.ask(place(prompt))
    left = [walk.tick() for _ in range(STEPS + 2 * FRAMES + 2 * FORK)]
    places = {
        row.frame: tick
        for tick, (row, _) in enumerate(found or (RowId(""), None) for found in left)
        if row.trajectory == "key"
    }
    assert places[0] == STEPS - 1
    # The second begins when the first has left its place ahead, and then there is no gap.
    assert places[1] == places[0] + FORK + FRAMES - 1
    assert places[2] == places[1] + FRAMES


@pytest.mark.parametrize("queue", [False, True])
@pytest.mark.parametrize("said", range(50, 50 + FRAMES))
def test_idling_has_no_gap_and_gives_way(said: int, queue: bool) -> None:
    """Nor has it one where it was about to arrive when somebody asked: the answer is neither later nor earlier."""
    left = walked(stream(idle=lambda: place("two"), queue=queue), 80, {0: "one", said: "three"})
    names = [None if found is None else found[0] for found in left]
    begun = STEPS - 1 + FORK
    assert all(name is not None for name in names[begun:])
    assert sum(name is not None and name.trajectory == "drift" for name in names) >= 3
    assert names[said + STEPS + FRAMES - 2] == RowId("key", 1)
    other = walked(stream(idle=lambda: place("two")), 80, {0: "one"})
    assert next(tick for tick in range(80) if not same(left[tick], other[tick])) == said + STEPS - 1


def test_without_a_wish_it_stands_still_and_asks_the_network_nothing() -> None:
    denoiser = ShapedDenoiser()
    walk = stream(denoiser=denoiser)
    walked(walk, 30, {0: "one"})
    assert len(denoiser.calls) == STEPS
    assert walk.rows == 0


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m_sde"])
def test_memory_does_not_grow(solver: str) -> None:
    """Tensors that are alive, and seeds that are remembered, after thirty turns on the way and after ninety."""
    walk = stream(solver=solver, fork=2)

    def alive() -> int:
        gc.collect()
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    counts: list[int] = []
    for turn in range(90):
        walk.ask(replace(place(("one", "two", "three")[turn % 3]), seeds={turn: 1.0}))
        for _ in range(3):
            walk.tick()
        if turn in (29, 89):
            counts.append(alive())
    assert abs(counts[1] - counts[0]) < 0.2 * counts[0]


def test_a_place_forgets_seeds_of_which_nothing_is_left() -> None:
    kept = replace(place("one"), seeds={1: 0.6, 2: 0.4 - FORGOTTEN / 2, 3: FORGOTTEN / 2}).forgetful()
    assert set(kept.seeds) == {1, 2}
    assert sum(kept.seeds.values()) == pytest.approx(1)


@pytest.mark.parametrize(("fork", "frames"), [(0, 8), (STEPS, 8), (5, 0)])
def test_what_cannot_be_is_refused(fork: int, frames: int) -> None:
    with pytest.raises(ValueError, match="must"):
        stream(fork=fork, frames=frames)


def test_a_tree_of_one_level_has_these_shares() -> None:
    """What the first law compares with is what it says."""
    tree: Tree = Fixed((Level(0, 2), Level(FORK, FRAMES + 1)), STEPS).resolve(2)
    assert [tree.nodes[name].position for name in tree.frames()] == [k / FRAMES for k in range(FRAMES + 1)]
