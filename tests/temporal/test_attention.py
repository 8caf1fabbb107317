"""Shared attention: what is looked at, by whom and how much; on plain softmax attention, and on a small UNet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segue.diffusion.envelope import Envelope
from segue.diffusion.solvers import SOLVERS
from segue.models.attention import attached, sites
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import PADDING, Tally
from segue.models.loading import load_model
from segue.temporal.alignment import Alignment
from segue.temporal.attention import Attending, Look, SharedAttention
from segue.temporal.grow import Grower, grow
from segue.temporal.keys import Keys
from segue.temporal.passengers import Passenger, WithPassengers
from segue.temporal.plan import Fixed, Level, Planner, Replay
from segue.temporal.ruler import Ruler
from segue.temporal.structure import Interpolation, Structure
from segue.temporal.trajectory import Trajectory
from segue.temporal.tree import Node, Tree
from segue.types import Call, Point, RowId
from toy import RmsDistance

STEPS = 6
LEVELS = (Level(0, 2), Level(1, 3), Level(2, 5))
OUTER = Interpolation(1.0, 1.0)
ALIGNMENTS = {
    "structure": (Structure(attention=0.6), Interpolation()),
    "outer": (Structure(), Interpolation(1.0)),
    "inner": (Structure(), Interpolation(0.7, 1.0, "inner")),
    "texts": (Structure(), Interpolation(0.7, 1.0, "outer", cross=True)),
    "all": (Structure(0.2, 0.5, 0.3, 1.0), Interpolation(0.8, 1.0)),
}
ROWS = (RowId("key", 0), RowId("key", 1), RowId("branch", 2))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model(written: Path) -> LatentDiffusion:
    return load_model(written, device="cpu")


@dataclass(frozen=True)
class Spot:
    """A site by name alone."""

    name: str = "attn1"
    kind: str = "self"


@dataclass
class Softmax:
    """Attention of one head that can be read: softmax(q k) v."""

    sizes: list[tuple[int, int]]

    def __call__(self, hidden: Tensor, context: Tensor | None = None) -> Tensor:
        source = hidden if context is None else context
        self.sizes.append((len(hidden), source.shape[1]))
        return (hidden @ source.transpose(1, 2)).softmax(2) @ torch.tanh(source)


def points(steps: tuple[int, ...], rows: tuple[RowId, ...]) -> Point:
    level = torch.full((len(rows),), 0.7, dtype=torch.float64)
    return Point(torch.tensor(steps), STEPS, level, level, 100 * level, rows)


def seen(looks: tuple[Look, ...], hidden: Tensor, kind: str = "self", context: Tensor | None = None) -> Tensor:
    """The answers to two keys that are banked first, and a branch that looks at them."""
    adapter, site = SharedAttention(), Spot(kind=kind)
    with adapter.step({(ROWS[2], 3): looks}):
        for part in ([0, 1], [2]):
            call = Call(points((3,) * len(part), tuple(ROWS[i] for i in part)), tuple(ROWS[i] for i in part), (1, 1, 1))
            call = replace(call, term=(1,) * len(part))
            told = None if context is None else context[part]
            answer = adapter(Softmax([]), hidden[part], told, call, site)
    return answer


def hidden(seed: int = 0) -> Tensor:
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(seed))


def test_outer_fusion_mixes_answers() -> None:
    x, plain = hidden(), Softmax([])
    looks = Attending(ROWS[0], Envelope(0), ((ROWS[0], 0.7), (ROWS[1], 0.3)), Envelope(0.8)).looks(3, STEPS)
    left, right = (plain(x[2:], torch.cat([x[2:], x[[key]]], 1)) for key in (0, 1))
    wanted = 0.2 * plain(x[2:]) + 0.8 * (0.7 * left + 0.3 * right)
    assert torch.allclose(seen(looks, x), wanted, atol=1e-6)


def test_inner_fusion_mixes_keys_and_values() -> None:
    x, plain = hidden(), Softmax([])
    looks = Attending(ROWS[0], Envelope(0), ((ROWS[0], 0.7), (ROWS[1], 0.3)), Envelope(1.0), "inner").looks(3, STEPS)
    wanted = plain(x[2:], torch.cat([x[2:], 0.7 * x[:1] + 0.3 * x[1:2]], 1))
    assert torch.allclose(seen(looks, x), wanted, atol=1e-6)


def test_the_first_key_comes_on_top() -> None:
    x, plain = hidden(), Softmax([])
    looks = Attending(ROWS[0], Envelope(0.5), ((ROWS[1], 1.0),), Envelope(0.4)).looks(3, STEPS)
    first, side = (plain(x[2:], torch.cat([x[2:], x[[key]]], 1)) for key in (0, 1))
    wanted = 0.5 * (0.6 * plain(x[2:]) + 0.4 * side) + 0.5 * first
    assert torch.allclose(seen(looks, x), wanted, atol=1e-6)


def test_texts_are_looked_at_only_where_that_is_asked_for() -> None:
    x, context, plain = hidden(), hidden(1)[:, :3], Softmax([])
    sides = ((ROWS[0], 0.5), (ROWS[1], 0.5))
    closed, opened = (
        Attending(ROWS[0], Envelope(0.5), sides, Envelope(1.0), cross=cross).looks(3, STEPS) for cross in (False, True)
    )
    assert torch.equal(seen(closed, x, "cross", context), plain(x[2:], context[2:]))
    texts = sum(0.25 * plain(x[2:], torch.cat([context[2:], context[[key]]], 1)) for key in (0, 1))
    wanted = 0.5 * plain(x[2:], context[2:]) + texts
    assert torch.allclose(seen(opened, x, "cross", context), wanted, atol=1e-6), (
        "the first key's text is not for others"
    )


def test_looking_at_equals_changes_nothing() -> None:
    x = hidden()[:1].expand(3, -1, -1)
    looks = Attending(ROWS[0], Envelope(0.3), ((ROWS[0], 0.2), (ROWS[1], 0.8)), Envelope(1.0)).looks(3, STEPS)
    assert torch.allclose(seen(looks, x), Softmax([])(x[2:]), atol=1e-6)


def test_a_row_that_looks_at_nobody_keeps_its_bits_beside_one_that_does() -> None:
    x, adapter = hidden(), SharedAttention()
    rows = (ROWS[0], RowId("other"), ROWS[2])
    with adapter.step({(ROWS[2], 3): (Look(0.5, (((ROWS[0], 1.0),),)),)}):
        answer = adapter(Softmax([]), x, None, Call(points((3, 3, 3), rows), rows, (0, 0, 0)), Spot())
    assert torch.equal(answer[:2], Softmax([])(x)[:2])
    assert not torch.allclose(answer[2], Softmax([])(x)[2])


def test_plain_attention_is_left_out_where_it_counts_nothing() -> None:
    x, adapter, plain = hidden(), SharedAttention(), Softmax([])
    with adapter.step({(ROWS[2], 3): (Look(0.5, (((ROWS[0], 1.0),),)), Look(0.5, (((ROWS[1], 1.0),),)))}):
        for part in ([0, 1], [2]):
            rows = tuple(ROWS[i] for i in part)
            adapter(plain, x[part], None, Call(points((3,) * len(part), rows), rows, (0,) * len(part)), Spot())
    assert plain.sizes == [(2, 5), (1, 10), (1, 10)]


def test_terms_and_steps_are_kept_apart_and_padding_counts_for_nothing() -> None:
    """What one term of a key attends to is not what the other term of a branch sees."""
    x, adapter = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(3)), SharedAttention()
    key, reader = ROWS[0], ROWS[2]
    looks = (Look(1.0, (((key, 1.0),),)),)
    rows = (key, key, key, reader, reader, reader)
    call = Call(points((3, 3, 4, 3, 4, 3), rows), rows, (0, 1, 0, 1, 0, PADDING))
    with adapter.step({(reader, 3): looks, (reader, 4): looks}):
        answer = adapter(Softmax([]), x, None, call, Spot())
    plain = Softmax([])
    for place, source in ((3, 1), (4, 2)):
        wanted = plain(x[[place]], torch.cat([x[[place]], x[[source]]], 1))
        assert torch.allclose(answer[[place]], wanted, atol=1e-6)
    assert torch.equal(answer[[5]], plain(x)[[5]])


def test_a_row_that_is_twice_in_a_call_cannot_be_looked_at() -> None:
    """As the windows of one picture are: nobody could tell which of them to see."""
    adapter, rows = SharedAttention(), (ROWS[0], ROWS[0], ROWS[2])
    call = Call(points((3, 3, 3), rows), rows, (0, 0, 0))
    with adapter.step({(ROWS[2], 3): (Look(1.0, (((ROWS[0], 1.0),),)),)}), pytest.raises(ValueError, match="twice"):
        adapter(Softmax([]), hidden(), None, call, Spot())


def grower(
    model: LatentDiffusion,
    how: tuple[Structure, Interpolation] | None = None,
    *,
    sharing: SharedAttention | None = None,
    prompts: tuple[str, str] = ("a red apple", "a cat"),
    seeds: tuple[int, int] = (1, 2),
    scales: tuple[float, float] = (3.0, 3.0),
    batch: int = 8,
) -> Grower:
    texts = model.text([*prompts, "", ""])
    alignment = Alignment(*how, sharing=sharing) if how else Alignment()
    return Grower(
        model.denoiser,
        model.schedule(STEPS, (64, 64)),
        SOLVERS["ddim"].solver,
        Keys(texts[[0, 1]], texts[[2, 3]], scales, seeds),
        (4, 8, 8),
        model.device,
        batch=batch,
        alignment=alignment,
    )


def run(work: Grower, planner: Planner | None = None) -> tuple[Tree, Tensor]:
    """The tree and its pictures, the adapter attached if there is one."""
    tree = Tree.of_keys(len(work.keys))
    for state in grow(work, planner or Fixed(LEVELS, STEPS), Ruler(RmsDistance()), time.monotonic()):
        tree = state.tree
    return tree, torch.stack([work.final(name) for name in tree.frames()])


def sharing_in(model: LatentDiffusion, sharing: SharedAttention | None) -> AbstractContextManager[None]:
    return attached(sites(model.parts["unet"]), sharing) if sharing else nullcontext()


def made(model: LatentDiffusion, name: str, planner: Planner | None = None, **settings: Any) -> tuple[Tree, Tensor]:
    sharing = SharedAttention()
    with sharing_in(model, sharing):
        return run(grower(model, ALIGNMENTS[name], sharing=sharing, **settings), planner)


def test_at_weight_0_and_after_its_end_every_bit_is_as_it_was(model: LatentDiffusion) -> None:
    tree, before = run(grower(model))
    sharing = SharedAttention()
    with sharing_in(model, sharing):
        idle_ones = (Structure(), Interpolation()), (Structure(attention=1.0, range=0.0), Interpolation(1.0, 0.0))
        for how in idle_ones:
            _, idle = run(grower(model, how, sharing=sharing), Replay(tree))
            assert torch.equal(before, idle)
        run(grower(model, ALIGNMENTS["all"], sharing=sharing), Replay(tree))
        assert torch.equal(run(grower(model), Replay(tree))[1], before), "a tree without it does not notice it"
    assert torch.equal(run(grower(model), Replay(tree))[1], before)


@pytest.mark.parametrize(("name", "scales"), [*((name, (3.0, 3.0)) for name in ALIGNMENTS), ("all", (1.0, 3.0))])
def test_however_rows_are_grouped(model: LatentDiffusion, name: str, scales: tuple[float, float]) -> None:
    """Passengers go first, so that neither the batch nor max_batch parts rows from what they look at."""
    tree, together = made(model, name, scales=scales)
    small = model.batched(4, deterministic=True) if name == "outer" else model.batched(3)
    _, again = made(small, name, Replay(tree), scales=scales, batch=1 if name == "inner" else 3)
    assert torch.allclose(together, again, atol=1e-5)
    _, plain = run(grower(model, scales=scales), Replay(tree))
    assert torch.allclose(plain[0], together[0], atol=1e-5), "the first key is as it was"
    assert float((plain - together)[1:-1].abs().max()) > 1e-3


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_a_branch_between_equal_keys_is_that_key(model: LatentDiffusion, name: str) -> None:
    """Looking at oneself once more is attending as before."""
    _, shown = made(model, name, prompts=("a cat", "a cat"), seeds=(5, 5))
    assert torch.allclose(shown, shown[:1].expand_as(shown), atol=1e-4)


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_branches_arrive_at_both_keys(model: LatentDiffusion, name: str) -> None:
    """A key that looks at the first is arrived at by branches that do, by the time that they are there."""
    sharing = SharedAttention()
    with sharing_in(model, sharing):
        work = grower(model, ALIGNMENTS[name], sharing=sharing)
        for _ in work.run(Tree.of_keys(2), [0, 1], frozenset({1})):
            pass
        for key, places in ((0, (0.2, 1e-4)), (1, (0.8, 1 - 1e-4))):
            away: list[float] = []
            for place in places:
                tree = Tree.of_keys(2).with_nodes([Node(place, 1, (0, 1), place, wave=1)])
                for _ in work.run(tree, [2], frozenset()):
                    pass
                away.append(float((work.trajectories.pop(2).at(STEPS) - work.final(key)).square().mean().sqrt()))
            assert away[1] < 2e-3 < away[0]


def test_the_first_key_is_looked_at_by_the_others_alone(model: LatentDiffusion) -> None:
    _, plain = run(grower(model, batch=1), Fixed(LEVELS[:1], STEPS))
    _, shared = made(model, "structure", Fixed(LEVELS[:1], STEPS))
    assert torch.equal(plain[0], shared[0])
    assert float((plain[1] - shared[1]).abs().max()) > 1e-3


def test_passengers_ride_only_while_somebody_looks(model: LatentDiffusion) -> None:
    tally, sharing = Tally(), SharedAttention()
    watched = replace(model, denoiser=tally.watching(model.denoiser))
    with sharing_in(model, sharing):
        work = grower(watched, (Structure(), Interpolation(1.0, 0.5)), sharing=sharing)
        for _ in work.run(Tree.of_keys(2), [0, 1], frozenset({1})):
            pass
        assert tally.sizes == [4] * STEPS
        tree = Tree.of_keys(2).with_nodes([Node(0.5, 1, (0, 1), 0.5, wave=1)])
        for _ in work.run(tree, [2], frozenset()):
            pass
    assert tally.sizes[STEPS:] == [4, 2, 4, 2, 2, 2, 2], "two of the steps lie in the first half of the run"


def test_passengers_are_told_the_terms_of_the_rows_and_leave_nothing_behind(model: LatentDiffusion) -> None:
    """Also where they themselves would be unguided; and their answers are nobody's."""
    texts, sharing = model.text(["a cat", "a red apple", ""]), SharedAttention()
    keys = Keys(texts[[0, 1]], texts[[2, 2]], (1.0, 3.0), (1, 2))
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    schedule = model.schedule(STEPS, (64, 64))
    now, _ = schedule.step(torch.tensor([2]), [ROWS[2]])
    wrapped = WithPassengers(
        model.denoiser,
        sharing,
        {ROWS[2]: Attending(ROWS[0], Envelope(0), ((ROWS[0], 0.5), (ROWS[1], 0.5)), Envelope(1.0))},
        {ROWS[key]: Passenger(Trajectory({2: x[0] * (key - 0.5)}), keys.at([float(key)])) for key in (0, 1)},
    )
    plain = model.denoiser(x, now, keys.at([0.5]))
    with sharing_in(model, sharing):
        answer, unguided = wrapped(x, now, keys.at([0.5])), wrapped(x, now, keys.positive[[0]])
        assert torch.equal(model.denoiser(x, now, keys.at([0.5])), plain)
    assert answer.shape == unguided.shape == x.shape
    assert not torch.allclose(answer, plain, atol=1e-4)
    untold = {row: replace(one, cond=keys.positive[[0]]) for row, one in wrapped.passengers.items()}
    with pytest.raises(ValueError, match="same terms"):
        replace(wrapped, passengers=untold)(x, now, keys.at([0.5]))
