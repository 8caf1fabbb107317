"""Clips by a model of single pictures: where things go, noise that stays white, and the paper's own start."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.text_to_video_synthesis import pipeline_text_to_video_zero as reference

from random_network import RandomNetwork
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import start_noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import ddim
from segue.errors import TaskError
from segue.tasks import animate_settings
from segue.temporal.moved_noise import shared
from segue.temporal.rivals.text2video_zero import shifted
from segue.temporal.zero_shot import Moved
from segue.temporal.zero_shot_motion import (
    SLIDE,
    SWAYING,
    WAYS,
    Course,
    Way,
    carried,
    placed_along,
    way_of,
    without_way,
)
from segue.types import RowId, State
from toy import text_of

SD = {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ROWS = tuple(RowId("clip", frame) for frame in range(4))
SHAPE = (4, 16, 16)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def slid(by: float, count: int = 4) -> torch.Tensor:
    """Maps of a slide to the right, by a share of the height for each frame."""
    maps = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
    maps[:, 0, 2] = by * torch.arange(count)
    return maps


@pytest.mark.parametrize(
    ("way", "side", "sign"), [("right", 0, 1), ("left", 0, -1), ("down", 1, 1), ("up", 1, -1), ("bounce", 1, -1)]
)
def test_a_dot_goes_where_the_word_says(way: Way, side: int, sign: int) -> None:
    dot = torch.zeros(1, 1, 32, 48)
    dot[..., 14:18, 22:26] = 1
    moved = carried(dot, Course(way).maps(4, 8))
    for frame in range(1, 4):
        weights = moved[frame, 0] / moved[frame, 0].sum()
        row, column = ((weights.sum(1 - axis) * torch.arange(size)).sum() for axis, size in ((0, 32), (1, 48)))
        away = float(column - 23.5), float(row - 15.5)
        assert sign * away[side] > 0.7 * frame and abs(away[1 - side]) < 0.01
    assert torch.equal(moved[:1], dot)


@pytest.mark.parametrize("way", WAYS)
def test_strength_may_change_over_the_clip(way: Way) -> None:
    """As much at all times is one number. At 0, what went on stays where it has come, and what sways returns."""
    count, fps = 9, 8.0
    level = Course(way, (1.5,) * count).maps(count, fps)
    assert torch.allclose(level, Course(way, 1.5).maps(count, fps), atol=1e-12)
    late = Course(way, (0.0,) * 4 + (1.0,) * 5).maps(count, fps)
    assert torch.equal(late[:4], torch.eye(3, dtype=torch.float64).expand(4, 3, 3))
    ended = Course(way, (1.0,) * 3 + (0.0,) * 6).maps(count, fps)
    assert torch.allclose(ended[4:], ended[4].expand(5, 3, 3), atol=1e-12)
    assert torch.allclose(ended[4], torch.eye(3, dtype=torch.float64)) == (way in (*SWAYING, "still"))
    if way == "right":
        speeds = Course(way, (0.0, 1.0, 2.0, 3.0)).maps(4, fps)[:, 0, 2] / (SLIDE / fps)
        assert torch.allclose(speeds, torch.tensor([0.0, 0.5, 2.0, 4.5], dtype=torch.float64))


def test_a_loop_has_one_strength() -> None:
    with pytest.raises(TaskError, match="give one number"):
        Course("spin", (0.0, 1.0), loop=True)


def test_a_slide_is_as_wide_as_it_is_said_to_be() -> None:
    """12 of 512 pixels from frame to frame, at eight frames a second, as in the paper; strength multiplies it."""
    assert Course("right").maps(2, 8)[1, 0, 2] == pytest.approx(12 / 512)
    assert Course("up", 3.0).maps(2, 16)[1, 1, 2] == pytest.approx(-3 * 12 / 512 / 2)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_moves_as_much_as_it_is_told_and_closes_in_a_loop(way: Way) -> None:
    maps = Course(way).maps(16, 8)
    assert torch.equal(maps[0], torch.eye(3, dtype=torch.float64))
    assert bool((maps[1:] != maps[0]).any()) == (way != "still")
    assert torch.equal(Course(way, 0.0).maps(16, 8), maps[:1].expand(16, -1, -1))
    looped = Course(way, loop=True).maps(16, 8)
    steps = (looped - looped.roll(1, 0)).flatten(1).norm(dim=1)
    assert float(steps[0]) <= 1.05 * float(steps[1:].max())
    turned = torch.linalg.det(maps[:, :2, :2])
    assert bool((turned.log().abs() < 1e-9).all()) == (way not in ("grow", "shrink"))


def test_the_fields_of_the_task_name_the_same_ways() -> None:
    assert get_args(animate_settings.Way) == WAYS
    with pytest.raises(TaskError, match="a clip moves right, left"):
        Course("away")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("caption", "way", "still"),
    [
        ("a bouncing red ball", "bounce", "a red ball"),
        ("a red car slides to the left", "left", "a red car"),
        ("a star that is spinning", "spin", "a star"),
        ("an orange turning counterclockwise", "spin-left", "an orange"),
        ("a balloon rising up", "up", "a balloon"),
        ("a growing mushroom", "grow", "a mushroom"),
        ("a bell swings", "swing", "a bell"),
        ("a wobbling jelly, flat style", "wobble", "a jelly, flat style"),
        ("a cat", None, "a cat"),
        ("spinning", "spin", "spinning"),
    ],
)
def test_words_say_how_it_moves_and_a_model_of_pictures_is_not_told(caption: str, way: str | None, still: str) -> None:
    assert (way_of(caption), without_way(caption)) == (way, still)


def test_pictures_are_carried_by_whole_pixels_exactly() -> None:
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    moved = carried(picture, slid(2 / 16), "reflection")
    for frame in range(4):
        # Ours mirrors between pixels, theirs at the last one: only what was in sight is compared.
        assert torch.allclose(moved[frame, ..., 2 * frame :], shifted(picture, (2 * frame, 0))[0, ..., 2 * frame :])
    edge = carried(picture, slid(4 / 16), "border")[1, ..., :4]
    assert torch.allclose(edge, picture[0, ..., :1].expand_as(edge))


@pytest.mark.parametrize("way", WAYS)
def test_noise_is_placed_and_stays_white(way: Way) -> None:
    placed = placed_along(Course(way, 2.0).maps(8, 8), (24, 16))
    for birth, cell in zip(placed.birth, placed.cell, strict=True):
        taken = set(zip(birth.flatten().tolist(), cell.flatten().tolist(), strict=True))
        assert len(taken) == 24 * 16  # no number is in a frame twice
    drawn = placed.start(3, 4)
    assert torch.equal(drawn[0], start_noise(3, (4, 16, 24)))
    assert abs(float(drawn.std()) - 1) < 0.05
    near = (drawn[-1][:, :, 1:] * drawn[-1][:, :, :-1]).mean()
    assert abs(float(near)) < 0.1
    assert bool((placed.birth == 0).float().mean() > 0.3)


def test_what_stays_still_has_one_noise() -> None:
    placed, same = placed_along(Course("still").maps(3, 8), (6, 4)), shared(3, (6, 4))
    assert torch.equal(placed.birth, same.birth.int()) and torch.equal(placed.cell, same.cell)
    along = placed_along(slid(1 / 16), (16, 16)).start(0, 1)
    assert torch.equal(along[1, :, :, 1:], along[0, :, :, :-1])


def begun(maps: torch.Tensor, **settings: Any) -> tuple[State, torch.Tensor]:
    """Where frames begin, and the whole run of the first one alone."""
    schedule, network = Schedule.from_config(SD, 10), RandomNetwork(torch.float32)
    cond = classifier_free(text_of(*[0.5] * 4), text_of(*[0.0] * 4), 2.0)
    moved = Moved(schedule, ddim, seed=2, **settings)
    state = moved.begun(network, cond, maps, ROWS, SHAPE, torch.device("cpu"))
    start = State(start_noise(2, SHAPE)[None] * schedule.start_scale, torch.zeros(1, dtype=torch.int64), ROWS[:1])
    return state, collect(denoise(network, start, schedule, cond[[0]], solver=ddim), schedule)


def test_the_first_frame_is_as_it_would_be_alone() -> None:
    state, alone = begun(slid(1 / 16), until=0.4, back=0.2)
    schedule, network = Schedule.from_config(SD, 10), RandomNetwork(torch.float32)
    cond = classifier_free(text_of(0.5), text_of(0.0), 2.0)
    assert state.step.tolist() == [2] * 4
    assert torch.allclose(collect(denoise(network, state.fork([0]), schedule, cond), schedule), alone, atol=1e-5)


def test_without_a_way_back_frames_are_the_first_one_moved() -> None:
    state, _ = begun(slid(1 / 16), until=0.3, back=0.3)
    for frame in range(1, 4):
        assert torch.allclose(state.x[frame, :, :, frame:], state.x[0, :, :, :-frame], atol=1e-5)
    still, _ = begun(slid(0.0), until=0.3, back=0.3)
    assert torch.allclose(still.x, still.x[:1].expand_as(still.x), atol=1e-5)


def test_noising_back_is_that_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deprecated pipeline's own forward_loop, given our numbers, makes our frames of the moved latents."""
    back, _ = begun(slid(0.0), until=0.4, back=0.2, fresh=True)
    moved, _ = begun(slid(0.0), until=0.4, back=0.4)
    from segue.diffusion.noise import noise

    own = noise(2, "zero-shot", 2, RowId("added", 3), SHAPE)
    schedule = Schedule.from_config(SD, 10)
    times = [int(schedule.step(torch.tensor([step]))[0].time[0]) for step in (4, 2)]
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2

    class Theirs:
        device = "cpu"
        scheduler = type("Of", (), {"alphas": torch.from_numpy(1 - betas)})()

    def drawn(*size: Any, **named: Any) -> torch.Tensor:
        return own[None]

    monkeypatch.setattr(torch, "randn", drawn)
    theirs = reference.TextToVideoZeroPipeline.forward_loop(Theirs(), moved.x[3:4], times[0] + 1, times[1] + 1, None)  # type: ignore[arg-type]
    assert torch.allclose(theirs.float(), back.x[3:4], atol=1e-5)


def test_slides_are_those_of_the_paper() -> None:
    """By whole latents, the deprecated pipeline's warp is ours, but that its motion points the other way."""
    x = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.meshgrid, as they call it
        theirs = reference.create_motion_field_and_warp_latents(-8, 0, [0, 1, 2, 3], x.repeat(4, 1, 1, 1))
    ours = carried(x, slid(1 / 64), "reflection")
    assert torch.allclose(theirs[..., 4:], ours[..., 4:], atol=1e-4)


def test_there_is_no_way_back_to_a_later_step() -> None:
    with pytest.raises(ValueError, match="way back"):
        Moved(Schedule.from_config(SD, 10), ddim, until=0.1, back=0.2)
