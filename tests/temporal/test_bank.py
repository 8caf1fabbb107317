"""Banks: a second clip looks at the anchors of the first, as if both had been one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.starts import from_latents
from segue.errors import TaskError
from segue.models.attended import model_sites
from segue.models.bundle import LatentDiffusion
from segue.models.loading import load_model
from segue.temporal.bank import Bank, Recording, Watch, bank_bytes, tuned
from segue.temporal.bank_parts import conditioning_of, joined, parted
from segue.temporal.frame_attention import Pattern, frame_attention
from segue.temporal.passengers import Noised, Passenger, parts_of
from segue.types import Condition, RowId

STEPS = 4
ONE, TWO = (tuple(RowId("clip", frame) for frame in frames) for frames in (range(4), range(4, 7)))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model(written: Path) -> LatentDiffusion:
    return load_model(written, device="cpu")


def schedule(model: LatentDiffusion) -> Schedule:
    return model.schedule(STEPS, (64, 64))


def told(model: LatentDiffusion, rows: tuple[RowId, ...], guided: bool = True) -> Condition:
    texts = model.text(["a red apple", "a cat", ""])
    one = texts[[int(row in TWO) for row in rows]]
    return classifier_free(one, texts[[2] * len(rows)], 3.0) if guided else one


def run(
    model: LatentDiffusion, pattern: str | Pattern, rows: tuple[RowId, ...], strength: float = 1.0, **how: Any
) -> Tensor:
    """A clip's final latents; guidance sets in half-way, so that the number of terms changes."""
    x0, shared = torch.zeros(len(rows), 4, 8, 8), noise(0, "start", 0, RowId("all"), (4, 8, 8))
    apart = how.pop("apart", 0.3)
    own = torch.stack([shared + apart * noise(0, "frame", 0, row, (4, 8, 8)) for row in rows])
    cond = how.pop("cond", None) or replace(told(model, rows), start=0.5)
    levels = schedule(model)
    operators = how.pop("operators", ())
    with frame_attention(model.denoiser, model_sites(model), pattern, rows, **how) as denoiser:
        start = from_latents(x0, own, levels, strength, rows)
        return collect(denoise(denoiser, start, levels, cond, operators=operators), levels)


def recorded(model: LatentDiffusion, pattern: str, rows: tuple[RowId, ...] = ONE, **how: Any) -> Bank:
    recording = Recording()
    run(model, pattern, rows, recording=recording, **how)
    return recording.bank()


@pytest.mark.parametrize("pattern", ["first, self", "first, previous, self", "first"])
def test_a_second_clip_attends_to_the_first_clips_anchors(model: LatentDiffusion, pattern: str) -> None:
    """As in one film of both; only that the frame before its own first is not there."""
    both = run(model, pattern, ONE + TWO)[len(ONE) :]
    bank = recorded(model, pattern)
    assert [anchor.name for anchor in bank.anchors] == [ONE[0]]
    second = run(model, str(Pattern.parse(pattern).continued()), TWO, bank=bank)
    if "previous" not in pattern:
        assert (second - both).abs().max() < 1e-5
    alone = run(model, pattern, TWO)
    away = (alone - both).square().mean().sqrt()
    assert (second - both).square().mean().sqrt() < 0.7 * away
    assert away > 1e-3


def test_anchors_that_look_at_each_other_are_replayed_so(model: LatentDiffusion) -> None:
    """A film cut after its anchors: the rest sees in the bank what it saw in the film."""
    pattern = "anchors, self"
    whole = run(model, pattern, ONE + TWO, anchors=(0, 2, 3))[len(ONE) :]
    bank = recorded(model, pattern, anchors=(0, 2, 3))
    assert [anchor.sees for anchor in bank.anchors] == [(), (0,), (0, 1)]
    assert (run(model, "bank, self", TWO, bank=bank) - whole).abs().max() < 1e-5
    loose = replace(bank, anchors=tuple(replace(anchor, sees=()) for anchor in bank.anchors))
    assert (run(model, "bank, self", TWO, bank=loose) - whole).abs().max() > 1e-4, "and would not without"


def test_a_bank_of_a_bank_and_references(model: LatentDiffusion) -> None:
    """What anchors looked at is kept with them."""
    levels = schedule(model)
    picture = Passenger(Noised(torch.ones(4, 8, 8), torch.zeros(4, 8, 8), levels), told(model, ONE[:1]))
    first = recorded(model, "first, reference, self", references=[picture])
    assert [(anchor.name.trajectory, anchor.sees) for anchor in first.anchors] == [("reference", ()), ("clip", (0,))]
    pattern = "bank 1, self"
    whole = run(model, "first, reference, self", ONE + TWO, references=[picture])[len(ONE) :]
    both = run(model, "bank, self", TWO, bank=first)
    assert (both - whole).abs().max() < 1e-5
    one = run(model, pattern, TWO, bank=first)
    assert (one - both).abs().max() > 1e-4
    second = recorded(model, "bank, self", TWO, bank=first, anchors=(5,))
    assert [anchor.sees for anchor in second.anchors] == [(), (0,), (0, 1)]


def test_anchors_of_a_later_part_see_the_bank_as_its_other_frames_do(model: LatentDiffusion) -> None:
    """Frames that are alike stay alike, also those that go ahead of the others; and a bank of the part replays them."""
    bank, anchors = recorded(model, "first, self"), [row.frame for row in TWO[1:3]]
    pattern, recording = Pattern.parse("anchors, self").continued(anchors=True), Recording()
    made = run(model, pattern, TWO, apart=0.0, bank=bank, anchors=anchors, recording=recording)
    assert (made - made[:1]).abs().max() < 1e-5
    uneven = run(model, replace(pattern, even=False), TWO, apart=0.0, bank=bank, anchors=anchors)
    assert (uneven - uneven[:1]).abs().max() > 1e-4
    assert [anchor.own for anchor in recording.bank().anchors] == [1, 3, 2]
    later = run(model, "bank, self", TWO[:1], apart=0.0, bank=joined(*parted(recording.bank())))
    assert (later - made[:1]).abs().max() < 1e-5


def test_recording_changes_nothing_and_needs_no_look(model: LatentDiffusion) -> None:
    recording = Recording()
    plain = run(model, "self", ONE)
    assert torch.equal(run(model, "self", ONE, anchors=(0,), recording=recording), plain)
    assert [anchor.name for anchor in recording.bank().anchors] == [ONE[0]]
    # Frames that go ahead change their places in a call.
    assert (run(model, "self", ONE, anchors=(2,), recording=Recording()) - plain).abs().max() < 1e-5
    with pytest.raises(TaskError, match="no anchors to keep"):
        recorded(model, "previous, self")
    with pytest.raises(TaskError, match="frame 3 of 'clip' is no anchor"):
        recording.bank([ONE[3]])
    del recording.latents[ONE[0]][1]
    with pytest.raises(TaskError, match="not recorded at step 1"):
        recording.bank()


def test_a_bank_comes_back_from_its_parts(model: LatentDiffusion) -> None:
    bank = recorded(model, "anchors, self", anchors=(0, 2))
    tensors, said = parted(bank)
    again = joined(tensors, said)
    assert run(model, "bank, self", TWO, bank=again).equal(run(model, "bank, self", TWO, bank=bank))
    assert sum(name.startswith("told.") for name in tensors) == 2, "two texts, each of them once"
    most = bank_bytes(2, STEPS, (4, 8, 8), told(model, ONE[:1]))
    held = sum(tensor.nbytes for tensor in tensors.values())
    assert 0.5 * most < held <= most
    rows = said["anchors"]
    for wrong in ([{**rows[0], "sees": [1]}, rows[1]], rows[:1]):
        with pytest.raises(ValueError, match=r"looks at what comes after|not those of 1 rows"):
            joined(tensors, {**said, "anchors": wrong})
    with pytest.raises(ValueError, match="do not end at"):
        joined(tensors, {**said, "first": 1})


def test_a_bank_fits_its_own_noise_levels(model: LatentDiffusion) -> None:
    bank = recorded(model, "first, self", strength=0.5)
    assert (bank.first, bank.count) == (2, STEPS)
    every = schedule(model).step(torch.arange(STEPS))[0]
    bank.check(every, 2)
    with pytest.raises(TaskError, match="from step 2 of 4 on, and this run begins at step 0"):
        bank.check(every, 0)
    with pytest.raises(TaskError, match="in 4 steps, and this run has 5"):
        bank.check(model.schedule(5, (64, 64)).step(torch.arange(5))[0], 2)
    other = replace(every, alpha=every.alpha * 0.99)
    with pytest.raises(TaskError, match="other levels of noise"):
        bank.check(other, 2)
    with pytest.raises(TaskError, match="recorded from step 2 to 3, and this run is at step 0"):
        run(model, "bank, self", TWO, bank=bank)


def test_a_clip_takes_the_colours_of_a_bank(model: LatentDiffusion) -> None:
    """More than attention alone gives it; at power 0 it is as without."""
    bank = recorded(model, "first, self")
    first = bank.anchors[0].latents[-1].mean((1, 2))

    def away(power: float) -> float:
        stepped = run(model, "bank, self", TWO, bank=bank, operators=[tuned(bank, TWO, power)])
        return float((stepped.mean((2, 3)) - first).abs().mean())

    assert run(model, "bank, self", TWO, bank=bank, operators=[tuned(bank, TWO, 0.0)]).equal(
        run(model, "bank, self", TWO, bank=bank)
    )
    assert away(1.0) < away(0.5) < away(0.0)


def test_conditionings_are_taken_apart_and_put_together(model: LatentDiffusion) -> None:
    cond = replace(model.text(["a cat"]), pooled=torch.ones(1, 3), residual_inputs={"depth": torch.ones(1, 3, 8, 8)})
    assert set(parts_of(cond)) == {"text", "pooled", "residual_inputs.depth"}
    again = conditioning_of(parts_of(cond))
    assert again.residual_inputs["depth"].shape == (1, 3, 8, 8)
    assert again.label is None


def test_who_looks_at_nobody_looks_at_nobody() -> None:
    assert Watch().looks(0, 4) == ()
    assert Watch(own=False).looks(0, 4) == ()
