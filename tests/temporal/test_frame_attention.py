"""Attention across the frames of a clip: who looks at whom, and that calls may be cut anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import noise
from segue.errors import TaskError
from segue.models.attended import attended_bytes, model_sites
from segue.models.attention import Plain, Site, attached
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.models.loading import load_model
from segue.temporal.bank import Watch
from segue.temporal.frame_attention import Pattern, frame_attention, most_held
from segue.temporal.passengers import Noised, Passenger, WithPassengers, ordered
from segue.types import Call, Condition, Point, RowId, State

COUNT, STEPS = 7, 3
FRAMES = tuple(RowId("clip", frame) for frame in range(COUNT))
PATTERNS = (
    "first, self",
    "first, previous, self",
    "previous, self",
    "every 3, self",
    "anchors, previous, self",
    "first",
    "first, previous",
    "anchors, every 2, first, previous, self",
)
ANCHORS = (5, 2)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model(written: Path) -> LatentDiffusion:
    return load_model(written, device="cpu")


def sources(pattern: str, frame: int, count: int = COUNT, anchors: tuple[int, ...] = ()) -> list[int]:
    frames = FRAMES[:count]
    return sorted(row.frame for row in Pattern.parse(pattern).watching(frames, anchors)[frames[frame]].sees)


def test_who_looks_at_whom() -> None:
    assert [sources("first, previous, self", frame) for frame in range(4)] == [[], [0], [0, 1], [0, 2]]
    assert [sources("previous", frame) for frame in range(3)] == [[], [0], [1]]
    assert [sources("every 3", frame) for frame in range(7)] == [[], [0, 3], [0, 3], [0], [3, 6], [3, 6], [3]]
    assert [sources("every 3, previous", frame) for frame in (3, 4, 5)] == [[0], [3, 6], [3, 4, 6]]
    chosen = [sources("anchors", frame, anchors=(2, 5)) for frame in range(7)]
    assert chosen == [[2, 5], [2, 5], [], [2, 5], [2, 5], [2], [2, 5]], "those that go ahead look back alone"
    watching = Pattern.parse("first, self, next").watching(FRAMES)
    assert [[row.frame for row in watching[row].near] for row in FRAMES] == [[], [2], [3], [4], [5], [6], []]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("first, last", "'last'"),
        ("", "made of self"),
        ("every", "'every'"),
        ("every 0", "'every 0'"),
        ("every 2, every 3", "'every 3'"),
        ("self, self", "twice"),
        ("bank 1, bank", "all of bank"),
        ("reference, reference 1", "all of reference"),
    ],
)
def test_a_pattern_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        Pattern.parse(text)


def test_patterns_are_spelled_as_they_are_parsed() -> None:
    for text in (*PATTERNS, "reference 1, reference 0, bank, self, next", "SELF,  every   12"):
        pattern = Pattern.parse(text)
        assert Pattern.parse(str(pattern)) == pattern
    assert str(Pattern.parse("first, every 4, previous, self").continued()) == "bank, previous, self"
    assert str(Pattern.parse("previous, self").continued()) == "previous, self"


def test_what_is_named_must_be_there_and_what_is_there_named(model: LatentDiffusion) -> None:
    rows = tuple(RowId("reference", number) for number in range(2))
    for text, said in (
        ("reference", "at least one"),
        ("reference 1", "there are 0"),
        ("bank", "at least one"),
        ("anchors", "needs some"),
    ):
        with pytest.raises(TaskError, match=said):
            Pattern.parse(text).watching(FRAMES)
    with pytest.raises(TaskError, match="looks at none"):
        Pattern.parse("first").watching(FRAMES, references=rows)
    wrong: dict[str, dict[str, Any]] = {"looks at none": {"anchors": (1,)}, "1 or more": {"chunk": 0}}
    for said, settings in wrong.items():
        with pytest.raises(TaskError, match=said), frame_attention(model.denoiser, (), "first", FRAMES, **settings):
            pass
    with (
        pytest.raises(TaskError, match="none of the frames 0 to 6"),
        frame_attention(model.denoiser, (), "anchors", FRAMES, anchors=(9,)),
    ):
        pass
    groups = replace(model.denoiser, group=2)
    with pytest.raises(TaskError, match="denoises 2 frames at once"), frame_attention(groups, (), "first", FRAMES):
        pass


def latents(count: int = COUNT, seed: int = 0) -> Tensor:
    """Frames that have much in common."""
    shared = noise(seed, "clip", 0, RowId("all"), (4, 8, 8))
    return torch.stack([shared + 0.5 * noise(seed, "clip", 0, row, (4, 8, 8)) for row in FRAMES[:count]])


def told(model: LatentDiffusion, count: int = COUNT, guided: bool = True) -> Condition:
    texts = model.text([*(["a red apple"] * count), ""])
    one, empty = texts[list(range(count))], texts[[count] * count]
    return classifier_free(one, empty, 3.0) if guided else one


def point(model: LatentDiffusion, step: int = 1, rows: tuple[RowId, ...] = FRAMES) -> Point:
    return model.schedule(STEPS, (64, 64)).step(torch.full((len(rows),), step), rows)[0]


def asked(
    model: LatentDiffusion, pattern: str, count: int = COUNT, *, chunk: int | None = None, guided: bool = True
) -> Tensor:
    """x0 of frames that look at each other."""
    frames, cond = FRAMES[:count], told(model, count, guided)
    anchors = ANCHORS if "anchors" in pattern else ()
    with frame_attention(model.denoiser, model_sites(model), pattern, frames, anchors=anchors, chunk=chunk) as denoiser:
        return denoiser(latents(count), point(model, rows=frames), cond)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_calls_may_be_cut_anywhere(model: LatentDiffusion, pattern: str) -> None:
    """What later calls look at waits in the bank: "previous" across calls, and anchors of all calls before."""
    whole = asked(model.batched(64), pattern)
    for most in (1, 3):
        assert (asked(model.batched(most), pattern) - whole).abs().max() < 1e-5
    assert (asked(model.batched(4), pattern, chunk=2) - whole).abs().max() < 1e-5
    assert (asked(model.batched(8, deterministic=True), pattern) - whole).abs().max() < 1e-5
    plain = model.denoiser(latents(), point(model), told(model))
    assert (whole - plain).abs().amax((1, 2, 3))[1 if pattern != "anchors, previous, self" else 0] > 1e-3


@pytest.mark.parametrize("pattern", [*PATTERNS[:4], "self", "first, previous, self, next"])
def test_one_frame_is_plain_attention_bit_for_bit(model: LatentDiffusion, pattern: str) -> None:
    plain = model.denoiser(latents(1), point(model, rows=FRAMES[:1]), told(model, 1))
    assert torch.equal(asked(model, pattern, 1), plain)


def test_the_frames_behind_a_frame_do_not_change_it(model: LatentDiffusion) -> None:
    for pattern in ("first, previous, self", "previous, self", "first"):
        assert (asked(model, pattern, 3) - asked(model, pattern)[:3]).abs().max() < 1e-5


def test_next_is_seen_within_a_call_alone(model: LatentDiffusion) -> None:
    with_next, without = asked(model.batched(64), "self, next"), asked(model, "self")
    assert (with_next[:-1] - without[:-1]).abs().amax((1, 2, 3)).min() > 1e-3
    assert (with_next[-1] - without[-1]).abs().max() < 1e-5, "behind the last there is none"
    cut = asked(model.batched(4), "self, next", chunk=2)
    alone = (cut - without).abs().amax((1, 2, 3)) < 1e-5
    assert alone.tolist() == [False, True, False, True, False, True, True]


@dataclass
class Naive:
    """Attention across frames restated: all frames in one call, every context put together anew."""

    watching: dict[RowId, Watch]

    def __call__(self, plain: Plain, hidden: Tensor, context: Tensor | None, call: Call, site: Site) -> Tensor:
        if site.kind != "self":
            return plain(hidden, context)
        answers: list[Tensor] = []
        for place, row in enumerate(call.rows):
            watch = self.watching[row]
            mates = [p for p, other in enumerate(call.rows) if other in watch.sees and call.term[p] == call.term[place]]
            mates += [place] if watch.own or not mates else []
            answers.append(plain(hidden[[place]], hidden[mates].flatten(0, 1)[None]))
        return torch.cat(answers)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_frames_attend_to_what_the_pattern_says(model: LatentDiffusion, pattern: str) -> None:
    anchors = ANCHORS if "anchors" in pattern else ()
    naive = Naive(Pattern.parse(pattern).watching(FRAMES, anchors))
    with attached(model_sites(model), naive):
        wanted = model.batched(64).denoiser(latents(), point(model), told(model))
    assert (asked(model, pattern) - wanted).abs().max() < 1e-5


def test_each_frame_is_evaluated_once_a_step(model: LatentDiffusion) -> None:
    tally = Tally(timed=False)
    watched = tally.watching(model.batched(5).denoiser)
    schedule, cond = model.schedule(STEPS, (64, 64)), told(model)
    start = State(latents(), torch.zeros(COUNT, dtype=torch.int64), FRAMES)
    pattern = "anchors, every 2, first, previous, self, next"
    with frame_attention(watched, model_sites(model), pattern, FRAMES, anchors=ANCHORS, chunk=3) as denoiser:
        collect(denoise(denoiser, start, schedule, cond), schedule)
    assert tally.rows == STEPS * COUNT * 2, "two terms, and nobody twice"
    tally.rows = 0
    picture = Passenger(Noised(latents()[0], latents(seed=1)[0], schedule), cond[[0]])
    with frame_attention(watched, model_sites(model), "reference, self", FRAMES, references=[picture]) as denoiser:
        collect(denoise(denoiser, start, schedule, cond), schedule)
    assert tally.rows == STEPS * (COUNT + 1) * 2, "a passenger costs as much as a frame"


@pytest.mark.parametrize(("most", "chunk"), [(64, None), (3, None), (4, 2), (1, None)])
@pytest.mark.parametrize("pattern", PATTERNS[1::4])
def test_what_the_bank_will_take_is_known_before(
    model: LatentDiffusion, pattern: str, most: int, chunk: int | None
) -> None:
    frames, anchors = FRAMES, ANCHORS if "anchors" in pattern else ()
    with frame_attention(
        model.batched(most).denoiser, model_sites(model), pattern, frames, anchors=anchors, chunk=chunk
    ) as denoiser:
        denoiser(latents(), point(model), told(model))
    assert isinstance(denoiser, WithPassengers)
    watching = Pattern.parse(pattern).watching(frames, anchors)
    rows = most_held(watching, frames, most, terms=2, chunk=chunk)
    assert denoiser.sharing.most_held == rows * attended_bytes(model, (64, 64))
    assert denoiser.sharing.held == 0
    assert rows == 0 if most == 64 else 0 < rows <= 2 * (1 + len(frames))


def test_previous_alone_keeps_one_frame(model: LatentDiffusion) -> None:
    watching = Pattern.parse("first, previous, self").watching(FRAMES)
    assert [most_held(watching, FRAMES, most) for most in (1, 2, 3, 8)] == [2, 2, 2, 0]


def test_rows_come_after_those_they_look_at() -> None:
    sees = {5: [2], 0: [5], 1: [0], 2: [], 3: [], 4: []}

    def seen(one: tuple[RowId, int]) -> list[tuple[RowId, int]]:
        return [(RowId("a", other), 0) for other in sees[one[0].frame]]

    order = ordered([(RowId("a", frame), 0) for frame in range(6)], seen)
    assert [row.frame for row, _ in order] == [2, 5, 0, 1, 3, 4]
    sees[2] = [1]
    with pytest.raises(ValueError, match="looked at by somebody whom it looks at"):
        ordered([(RowId("a", 0), 0)], seen)


def test_a_long_clip_in_any_order_is_no_deep_recursion(model: LatentDiffusion) -> None:
    frames = [RowId("a", frame) for frame in range(5000)]
    sees = {row: [(before, 0)] for before, row in pairwise(frames)}
    order = ordered([(frames[-1], 0)], lambda one: sees.get(one[0], []))
    assert [row for row, _ in order] == frames


def test_who_is_not_there_cannot_be_looked_at(model: LatentDiffusion) -> None:
    with frame_attention(model.denoiser, model_sites(model), "first, self", FRAMES) as denoiser:
        rows = FRAMES[1:3]
        with pytest.raises(ValueError, match="neither there nor a passenger"):
            denoiser(latents()[1:3], point(model, rows=rows), told(model, 2))
