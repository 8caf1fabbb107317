# pyright: basic
"""Known frames that are set in motion: of each frame, the nearest that is known, and how long ago that was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write_model
from torch import Tensor, nn

from segue.errors import ModelError
from segue.models.clip_rows import DIAL, nearest_known
from segue.models.control import Control, controlled
from segue.models.control_adapter import ControlAdapter, Layout, control_from, save_adapter
from segue.models.families.videoldm import context_of
from segue.models.loading import load_model
from segue.models.time_carried import Course
from segue.models.time_files import read_settings, save_time, with_time_file
from segue.models.time_inserted import CONTEXT, FPS, TimeSettings, time_layers, with_motion, with_time

SETTINGS = TimeSettings(
    blocks=None, transformers=None, vector=16, context=4, frames=4, attention="clip", moves=(16, 16), shared_noise=0.9
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(write_model(tmp_path_factory.mktemp("model") / "tiny"), device="cpu")


def moving_model(image: Any) -> Any:
    torch.manual_seed(2)
    model = with_time(image, SETTINGS)
    moves: Any = time_layers(model).moves
    for parameter in [*moves.taps.parameters(), *moves.travel.way[-1].parameters()]:
        nn.init.normal_(parameter.requires_grad_(False), std=0.1)
    return model


def told(model: Any, known: dict[int, Tensor], caption: str = "a cat rises", fps: float = 8.0, frames: int = 4) -> Any:
    words = model.text([caption] * frames)
    context = context_of(known, frames, (4, 8, 8))
    return replace(words, extra={**words.extra, CONTEXT: context, FPS: torch.full((frames,), fps)})


def drawn(model: Any, cond: Any, frames: int = 4) -> Tensor:
    x = torch.randn(len(cond), 4, 8, 8, generator=torch.Generator().manual_seed(1))
    now, _ = model.schedule(5, (64, 64)).step(torch.zeros(len(cond), dtype=torch.int64))
    return (model.over(frames) if model.moving else model).denoiser(x, now, cond)


def test_the_nearest_known_frame_is_found() -> None:
    known = torch.tensor([[1, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()
    rows, later = nearest_known(known)
    assert rows.tolist() == [0, 0, 0, 4, 4, 7, 7, 7, 7, 7, 10, 11, 12, 13, 14]
    assert later.tolist() == [0, 1, 2, -1, 0, -2, -1, 0, 1, 2, 0, 0, 0, 0, 0]


def test_frames_are_what_becomes_of_the_known_one(image: Any) -> None:
    model = moving_model(image)
    picture = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3))
    plain = drawn(image, image.text(["a cat rises"] * 4), 1)
    found = drawn(model, told(model, {0: picture}))
    apart = (found - drawn(model, told(model, {}))).flatten(1).abs().amax(1)
    assert bool((apart > 1e-4).all())
    other = drawn(model, told(model, {0: picture}, "a cat falls"))
    assert bool(((found - other).flatten(1).abs().amax(1) > 1e-5).all())
    slower = drawn(model, told(model, {0: picture}, fps=4.0))
    assert not torch.allclose(found[1:], slower[1:], atol=1e-5), "the same in half the time"
    assert torch.equal(drawn(with_motion(model, 0), told(model, {0: picture})), plain)
    cond = told(model, {0: picture})
    some = drawn(model, replace(cond, extra={**cond.extra, DIAL: torch.tensor([0.0, 1.0, 0.5, 0.0])}))
    assert torch.equal(some[[0, 3]], plain[[0, 3]]), "frames at 0 are those of the image model, beside others that move"
    assert bool(((some - plain).flatten(1).abs().amax(1) > 1e-4)[1:3].all())


def test_a_picture_is_carried_as_words_seconds_and_dials_say(image: Any) -> None:
    model = moving_model(image)
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(3))
    words, seconds = model.text(["a cat rises"] * 4), [0.0, 0.1, 0.2, 0.3]
    course = Course.of(model, words, picture, seconds)
    found = course.carried(course.numbers)
    assert found.shape == (4, 3, 64, 64) and torch.equal(found[0], picture)
    assert bool(((found - picture).flatten(1).abs().amax(1) > 1e-3)[1:].all())
    less = course.carried(course.numbers * torch.tensor([1.0, 1.0, 1.0, 0.5])[:, None])
    assert torch.allclose(less[:3], found[:3], atol=1e-6) and not torch.allclose(less[3], found[3], atol=1e-4)
    slower = Course.of(model, words, picture, [2 * at for at in seconds])
    assert not torch.allclose(slower.numbers, course.numbers, atol=1e-5)
    other = Course.of(model, model.text(["a cat falls"] * 4), picture, seconds)
    assert not torch.allclose(other.numbers, course.numbers, atol=1e-6)
    before = Course.of(model, words, picture, [-at for at in reversed(seconds)])
    assert not before.numbers[-1].any() and before.numbers[:-1].any()
    with pytest.raises(ModelError, match="carries no known frames"):
        Course.of(with_time(image, replace(SETTINGS, moves=())), words, picture, seconds)


def test_it_adds_beside_controls(image: Any, tmp_path: Path) -> None:
    model = moving_model(image)
    edges = ControlAdapter(Layout.of(image.parts["unet"], 8, widths=(16, 16), blocks=(1, 1)))
    for tap in edges.taps.parameters():
        nn.init.normal_(tap, std=0.1)
    save_adapter(tmp_path / "edges.safetensors", edges)
    both = controlled(model, [Control("edges", control_from(tmp_path / "edges.safetensors", "canny", model))])
    cond = replace(told(model, {0: torch.randn(4, 8, 8)}), residual_inputs={"edges": torch.rand(4, 3, 64, 64)})
    assert not torch.allclose(drawn(both, cond), drawn(model, replace(cond, residual_inputs={})), atol=1e-4)
    unmoved = replace(told(model, {}), residual_inputs=cond.residual_inputs)
    assert not torch.allclose(drawn(both, cond), drawn(both, unmoved), atol=1e-4)


def test_it_stays_in_the_file(image: Any, tmp_path: Path) -> None:
    model = moving_model(image)
    save_time(tmp_path / "motion.safetensors", model)
    assert read_settings(tmp_path / "motion.safetensors") == SETTINGS
    read = with_time_file(image, tmp_path / "motion.safetensors")
    cond = told(model, {0: torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3))})
    assert float((drawn(read, cond) - drawn(model, cond)).abs().mean()) < 0.05


def test_it_needs_known_frames(image: Any) -> None:
    with pytest.raises(ModelError, match="needs known frames"):
        with_time(image, replace(SETTINGS, context=0))
