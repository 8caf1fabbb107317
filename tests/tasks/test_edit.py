"""Edits: what is changed, what is kept, and that a method is the mathematics that it says and nothing else."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flickers import saved, textured
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import start_noise
from segue.diffusion.starts import from_latents, renoise
from segue.errors import InterruptedRunError, TaskError
from segue.evaluation.fidelity import psnr, ssim
from segue.media import Clip, read
from segue.media.clip import ScratchFrames, levels_of, to_uint8
from segue.media.strokes import strokes
from segue.tasks.edit import Edit
from segue.tasks.edit_settings import METHODS, TAKEN, USUAL, Change, EditArea, Method
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Sampling
from segue.tasks.stylize_settings import Agreement, Shape
from segue.temporal.inversion import inverted
from segue.types import RowId, State
from shown import record
from toy import toy_model

SIZE = (48, 32)
ALONE = Agreement("self", deflicker=0, blend=0.0)
UNGUIDED = Sampling(size=SIZE, guidance_scale=(1.0,))


def pixels(clip: Clip) -> Tensor:
    return levels_of(clip.frames, slice(None))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    return saved(tmp_path / "picture.png", textured(1, SIZE))


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path / "film.apng", textured(6, SIZE))


@pytest.fixture
def mask(tmp_path: Path) -> tuple[str, ...]:
    return (saved(tmp_path / "mask.png", square(1)),)


def square(count: int, left: int = 16) -> Tensor:
    """White from column `left` on, 24 wide, and 8 rows from the top, 16 tall."""
    frames = torch.zeros(count, 3, SIZE[1], SIZE[0], dtype=torch.uint8)
    frames[:, :, 8:24, left : left + 24] = 255
    return frames


def quick(source: str, method: Method = "sdedit", **changes: Any) -> Edit:
    """In the size of the picture; told what it shows, where that is of use."""
    said = Change(source_prompt="two") if method in ("cycle", "ddib") else Change()
    usual: dict[str, Any] = {"change": said, "agreement": ALONE, "sampling": Sampling(size=SIZE)}
    return Edit(source, "one", method, **{**usual, **changes})


def test_sdedit_is_the_loop_and_nothing_else(picture: str) -> None:
    model = toy_model()
    clip = quick(picture, negative="two", seed=3, change=Change(strength=0.5)).run(model)
    schedule, texts = model.schedule(10, SIZE), model.text(["one", "two"])
    rows = [RowId("clip", 0)]
    state = from_latents(
        model.codec.encode(read(picture).frames[:]), start_noise(3, (12, 16, 24))[None], schedule, 0.5, rows
    )
    cond = classifier_free(texts[[0]], texts[[1]], 2.0)
    drawn = model.codec.decode(collect(denoise(model.denoiser, state, schedule, cond), schedule))
    assert torch.equal(pixels(clip), to_uint8(drawn))
    assert (clip.size, len(clip)) == (SIZE, 1)


def test_two_passes_are_two_runs(picture: str) -> None:
    model = toy_model()
    clip = quick(picture, change=Change(strength=0.5, passes=2)).run(model)
    schedule, texts = model.schedule(10, SIZE), model.text(["one", ""])
    rows, cond = (RowId("clip", 0),), classifier_free(texts[[0]], texts[[1]], 2.0)
    first, second = (start_noise(seed, (12, 16, 24))[None] for seed in (0, 1))
    state = from_latents(model.codec.encode(read(picture).frames[:]), first, schedule, 0.5, rows)
    once = collect(denoise(model.denoiser, state, schedule, cond), schedule)
    again = renoise(State(once, torch.tensor([10]), rows), schedule, 5, second)
    drawn = collect(denoise(model.denoiser, again, schedule, cond), schedule)
    assert torch.equal(pixels(clip), to_uint8(model.codec.decode(drawn)))
    assert record(clip)["scores"]["evaluations"] == 2 * 2 * 5


def test_a_strength_is_found_that_keeps_the_picture_as_near_as_is_asked_for(picture: str, tmp_path: Path) -> None:
    before = read(picture).frames[:]
    for faithful, measure in (("psnr=9", psnr), ("ssim=0.05", ssim)):
        clip = quick(picture, change=Change(faithful=faithful)).run(toy_model())
        strength, allowed = record(clip)["plan"]["strength"], float(faithful.partition("=")[2])
        known = quick(picture, change=Change(strength)).run(toy_model())
        assert torch.equal(pixels(known), pixels(clip)) and float(measure(before, clip.frames[:])) >= allowed
        further = quick(picture, change=Change(round(strength + 0.1, 3))).run(toy_model())
        assert float(measure(before, further.frames[:])) < allowed
        clip.save(tmp_path / "a.png")
        again = Rerun.read(tmp_path / "a.json").run(toy_model())
        assert torch.equal(pixels(again), pixels(clip)) and record(again) == record(clip)
    with pytest.raises(TaskError, match="one step of 10, does not keep the picture as near as psnr=60"):
        quick(picture, change=Change(faithful="psnr=60")).run(toy_model())


def test_of_a_film_each_tried_frame_is_kept_as_near(film: str) -> None:
    """The frame that differs most decides: here the last one, which is black and white."""
    pictures = pixels(read(film))
    pictures[5] = 255 * (pictures[5] > 128)
    unlike = saved(Path(film).with_name("unlike.apng"), pictures)
    before, apart = read(unlike).frames[:], dict[float, Tensor]()
    clip = quick(unlike, change=Change(faithful="psnr=8")).run(toy_model())
    strength = record(clip)["plan"]["strength"]
    for one in (strength, round(strength + 0.1, 3)):
        apart[one] = psnr(before, quick(unlike, change=Change(one)).run(toy_model()).frames[:])
    kept, further = apart.values()
    assert float(kept[[0, 3, 5]].min()) >= 8 > float(further[5])
    assert float(further[3]) > 8  # by the middle one alone it would go further


def test_strokes_are_where_sdedit_begins(picture: str, mask: tuple[str, ...]) -> None:
    model, said = toy_model(), Change(strength=0.5, strokes=3)
    clip = quick(picture, change=said, seed=3).run(model)
    schedule, texts, rows = model.schedule(10, SIZE), model.text(["one", ""]), [RowId("clip", 0)]
    painted = strokes(read(picture).frames[:][0], colours=3)
    assert len(painted.flatten(1).T.unique(dim=0)) <= 3
    state = from_latents(model.codec.encode(painted[None]), start_noise(3, (12, 16, 24))[None], schedule, 0.5, rows)
    drawn = collect(denoise(model.denoiser, state, schedule, classifier_free(texts[[0]], texts[[1]], 2.0)), schedule)
    assert torch.equal(pixels(clip), to_uint8(model.codec.decode(drawn)))
    # Around a mask nothing is painted: neither what is shown nor what the drawing goes by.
    masked = quick(picture, change=said, seed=3, area=EditArea(mask, 0)).run(model)
    inside = square(1)[0, 0] > 0
    assert torch.equal(pixels(masked)[..., inside], pixels(clip)[..., inside])
    assert torch.equal(pixels(masked)[..., ~inside], pixels(read(picture))[..., ~inside])


@pytest.mark.parametrize("size", [SIZE, (53, 37)])
def test_sdedit_at_strength_0_returns_the_input(size: tuple[int, int], tmp_path: Path) -> None:
    source = saved(tmp_path / "picture.png", textured(1, size))
    clip = quick(source, change=Change(strength=0)).run(toy_model())
    assert torch.equal(pixels(clip), pixels(read(source)))
    assert "with a strength of 0 nothing changes" in record(clip)["notes"]
    assert record(clip)["scores"]["evaluations"] == 0


@pytest.mark.parametrize("kind", ["picture", "film"])
def test_cycle_with_equal_words_returns_the_input(kind: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(kind)
    for eta in (1.0, 0.01):
        task = quick(source, "cycle", change=Change(source_prompt="one", eta=eta), sampling=UNGUIDED)
        assert torch.equal(pixels(task.run(toy_model())), pixels(read(source)))
    other = quick(source, "cycle", change=Change(source_prompt="two"), sampling=UNGUIDED).run(toy_model())
    assert not torch.equal(pixels(other), pixels(read(source)))


def test_frames_of_cycle_have_the_same_noise(film: str) -> None:
    """Frame 3 of a film is what it is alone: the posterior's noise is that of the film, not of the frame."""
    whole = quick(film, "cycle").run(toy_model())
    one = saved(Path(film).with_name("one.png"), pixels(read(film))[3:4])
    assert torch.equal(pixels(quick(one, "cycle").run(toy_model())), pixels(whole)[3:4])
    apart = quick(film, "cycle", change=Change(source_prompt="two", noise="independent", eta=1.0)).run(toy_model())
    assert not torch.equal(
        pixels(apart)[3:4], pixels(quick(one, "cycle", change=Change(source_prompt="two", eta=1.0)).run(toy_model()))
    )


def test_ddib_is_there_and_back(picture: str) -> None:
    model = toy_model()
    clip = quick(picture, "ddib", change=Change(source_prompt="two", rounds=2, strength=0.8)).run(model)
    schedule, texts, rows = model.schedule(10, SIZE, solver="ddim"), model.text(["two", "one", ""]), [RowId("clip", 0)]
    x0 = model.codec.encode(read(picture).frames[:])
    back = inverted(model.denoiser, x0, schedule, texts[[0]], rows, strength=0.8, rounds=2)
    cond = classifier_free(texts[[1]], texts[[2]], 2.0)
    drawn = collect(denoise(model.denoiser, back.state, schedule, cond), schedule)
    assert torch.equal(pixels(clip), to_uint8(model.codec.decode(drawn)))


def test_ddib_comes_back_exactly_if_it_is_asked_to(picture: str) -> None:
    for exact in (False, True):
        change = Change(source_prompt="one", exact=exact)
        clip = quick(picture, "ddib", change=change, sampling=UNGUIDED).run(toy_model())
        apart = int((pixels(clip).int() - pixels(read(picture)).int()).abs().max())
        assert apart == 0 if exact else apart > 1


@pytest.mark.parametrize("method", ["sdedit", "cycle", "ddib", "inpaint"])
@pytest.mark.parametrize("feather", [0.0, 3.0])
def test_what_is_black_in_the_mask_is_kept_to_the_bit(
    method: Method, feather: float, picture: str, mask: tuple[str, ...]
) -> None:
    clip = quick(picture, method, area=EditArea(mask, feather)).run(toy_model())
    inside = square(1)[0, 0] > 0
    before, after = pixels(read(picture)), pixels(clip)
    assert torch.equal(after[..., ~inside], before[..., ~inside])
    changed = (after.int() - before.int()).abs().amax(1)[0]
    assert changed[inside].float().mean() > 3
    edge, middle = changed[8, 16:40].float().mean(), changed[15:17, 26:30].float().mean()
    assert (edge < middle / 4) if feather else edge > 0


def test_a_mask_holds_latents_too(picture: str, mask: tuple[str, ...]) -> None:
    """What is drawn beside the kept area knows of it: pasting alone would leave another picture inside."""
    masked = quick(picture, area=EditArea(mask, 0)).run(toy_model())
    inside = square(1)[0, 0] > 0
    free = quick(picture).run(toy_model())
    # The toy computes pixel by pixel, so that inside nothing is different; outside all is.
    assert torch.equal(pixels(masked)[..., inside], pixels(free)[..., inside])
    assert not torch.equal(pixels(masked)[..., ~inside], pixels(free)[..., ~inside])


def test_masks_of_a_film(film: str, mask: tuple[str, ...], tmp_path: Path) -> None:
    """One that is still, one for each frame, and one that follows what moves: two pixels a frame to the right."""
    before = pixels(read(film))
    still = pixels(quick(film, area=EditArea(mask, 0, still=True)).run(toy_model()))
    outside = square(1)[0, 0] == 0
    assert torch.equal(still[..., outside], before[..., outside])
    each = torch.cat([square(1, 16 - 2 * number) for number in range(6)])
    clip = quick(film, area=EditArea((saved(tmp_path / "masks.apng", each),), 0)).run(toy_model())
    for number in range(6):
        outside = each[number, 0] == 0
        assert torch.equal(pixels(clip)[number][:, outside], before[number][:, outside])
        assert not torch.equal(pixels(clip)[number], before[number])


def test_a_mask_follows_what_moves(tmp_path: Path) -> None:
    size, count = (96, 64), 5
    film = saved(tmp_path / "wide.apng", textured(count, size))
    white = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    white[:, :, 16:48, 24:56] = 255
    area = EditArea((saved(tmp_path / "mask.png", white),), 0)
    task = Edit(film, "one", area=area, agreement=ALONE, shape=Shape(cuts="none"), sampling=Sampling(size=size))
    clip = task.run(toy_model())
    changed = (pixels(clip).int() - pixels(read(film)).int()).abs().amax((1, 2)) > 8
    for number in range(count):
        columns = changed[number].nonzero()[:, 0]
        assert abs(int(columns.min()) - (24 + 2 * number)) <= 3
        assert abs(int(columns.max()) - (55 + 2 * number)) <= 3
    assert any("follows what moves" in note for note in record(clip)["notes"])


@pytest.mark.parametrize("method", ["sdedit", "cycle", "ddib", "inpaint"])
def test_a_rerun_makes_the_same(method: Method, picture: str, mask: tuple[str, ...], tmp_path: Path) -> None:
    clip = quick(picture, method, area=EditArea(mask)).run(toy_model())
    clip.save(tmp_path / "a.png")
    again = Rerun.read(tmp_path / "a.json").run(toy_model())
    assert torch.equal(pixels(again), pixels(clip))
    assert record(again) == record(clip)
    assert record(clip)["task"] == "edit"
    said = record(clip)["fields"]["change"]
    assert all(said[name] is not None for name in USUAL[method])


@pytest.mark.parametrize("method", ["sdedit", "cycle", "ddib", "inpaint"])
@pytest.mark.parametrize("at", [2, 9])
def test_what_is_made_is_gone_on_with(
    method: Method, at: int, film: str, mask: tuple[str, ...], tmp_path: Path
) -> None:
    change = Change(passes=2) if method == "sdedit" else Change()
    task = quick(
        film, method, change=change, area=EditArea(mask, still=True), shape=Shape(cuts="none", window=4, overlap=1)
    )
    whole, calls = task.run(toy_model()), 0

    def stop(what: str, done: float, total: float) -> None:
        nonlocal calls
        assert 0 <= done <= total
        calls += what == "drawing frames"
        if calls == at:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match=r"interrupted; \d of 6 frames are finished; the same"):
        task.run(toy_model(), progress=stop, work=tmp_path)
    resumed = task.run(toy_model(), work=tmp_path)
    assert torch.equal(pixels(resumed), pixels(whole))
    assert record(resumed) == record(whole)
    assert isinstance(resumed.frames, ScratchFrames)
    resumed.frames.discard()
    assert list(tmp_path.glob(".segue-*")) == []


CHANGES: dict[str, tuple[Method, Any]] = {
    "prompt": ("sdedit", "four"),
    "method": ("sdedit", "inpaint"),
    "negative": ("cycle", "five"),
    "seed": ("cycle", 7),
    "change.strength": ("sdedit", 0.3),
    "change.noise": ("sdedit", "independent"),
    "change.source_prompt": ("ddib", "six"),
    "change.source_guidance": ("cycle", 3.0),
    "change.eta": ("cycle", 0.9),
    "change.rounds": ("ddib", 3),
    "change.exact": ("ddib", True),
    "change.passes": ("sdedit", 2),
    "change.strokes": ("sdedit", 3),
    "change.faithful": ("sdedit", "psnr=9"),
    "area.mask": ("sdedit", ()),
    "area.feather": ("sdedit", 5.0),
    "area.still": ("sdedit", True),
    "agreement.deflicker": ("sdedit", 2),
    "agreement.blend": ("sdedit", 1.0),
    "shape.model_size": ("sdedit", True),
    "shape.fit": ("sdedit", "crop"),
    "shape.cuts": ("sdedit", "3"),
    "sampling.steps": ("ddib", 9),
    "sampling.guidance_scale": ("ddib", (3.0,)),
    "sampling.guidance_start": ("cycle", 0.8),
    "sampling.solver": ("cycle", "euler_ancestral"),
    "sampling.size": ("sdedit", (40, 32)),
}
ELSEWHERE = {
    *(
        "control",
        "change.picture_guidance",
        "change.source_model",
        "change.latent",
        "change.candidates",
        "change.ranked_by",
        "freeu",
    ),
    *("agreement.attention", "agreement.bank", "agreement.around", "agreement.grain", "agreement.bank_power"),
    *("shape.window", "shape.overlap", "shape.own_size"),
}


def test_every_field_is_tried() -> None:
    parts = {"change": Change, "area": EditArea, "agreement": Agreement, "shape": Shape, "sampling": Sampling}
    names = {item.name for item in fields(Edit)} - {"input", *parts}
    names |= {f"{name}.{item.name}" for name, kind in parts.items() for item in fields(kind)}
    assert names - ELSEWHERE == CHANGES.keys() and ELSEWHERE - names <= {"agreement.bank_power"}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_changes_the_film(name: str, film: str, mask: tuple[str, ...]) -> None:
    method, value = CHANGES[name]
    start = quick(film, method, area=EditArea(mask, 1.0, still=name != "area.still"), shape=Shape(cuts="none"))
    if name == "shape.cuts":
        start = replace(start, agreement=Agreement("self", deflicker=2, around=2))
    if name in ("shape.fit", "shape.model_size"):
        start = replace(start, sampling=Sampling(size=(32, 32)))
    if name == "area.mask":
        after = replace(start, area=EditArea())
    else:
        head, _, tail = name.partition(".")
        part = getattr(start, head)
        after = replace(start, **{head: replace(part, **{tail: value}) if tail else value})
    one, other = start.run(toy_model()), after.run(toy_model())
    assert one.size != other.size or not torch.equal(pixels(one), pixels(other))


VALUES: dict[str, Any] = {
    "strength": 0.5, "noise": "moved", "source_prompt": "x", "source_guidance": 2.0, "eta": 0.5, "rounds": 2,
    "exact": True, "passes": 2, "faithful": "ssim=0.8", "picture_guidance": 2.0, "source_model": "x",
    "candidates": 3, "ranked_by": "clip", "latent": "noise.safetensors", "strokes": 4,
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_method_refuses_by_name_what_it_cannot_take(method: Method) -> None:
    assert VALUES.keys() == {item.name for item in fields(Change)}
    area = EditArea(("mask.png",)) if method == "inpaint" else EditArea()
    for name, value in VALUES.items():
        pair = {key: VALUES[key] for key in ("candidates", "ranked_by")} if name in ("candidates", "ranked_by") else {}
        change = Change(**{name: value, **pair})
        if name in TAKEN[method]:
            assert getattr(Edit("a.png", "x", method, change=change, area=area).change, name) == value
        else:
            with pytest.raises(TaskError, match=f"{method} has no use for {next(iter(pair), name)}, which is for "):
                Edit("a.png", "x", method, change=change, area=area)
