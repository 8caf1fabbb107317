"""Weights of words, and scales of LoRAs, that change over a film."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models.tiny import write_model
from segue.errors import TaskError
from segue.media.clip import Clip, TensorFrames
from segue.models.bundle import LatentDiffusion
from segue.tasks.branching import Branching
from segue.tasks.image import Image
from segue.tasks.likeness import Likeness
from segue.tasks.pace import Pace
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Sampling
from segue.tasks.transition import Transition
from segue.zoo.load import load
from shown import pixels
from toy import toy_model

TOY = Transition(("one", "two", "three"), seconds=1.0, fps=20, seeds=(1, 2, 3))
FILM = Transition(("a red apple", "a cat"), seconds=0.5, fps=12, seeds=(1, 2), sampling=Sampling(3, size=(32, 32)))


def test_words_weigh_at_a_key_what_their_curve_says_there() -> None:
    """The toy's text is a hash of the words that it is given, so that only these very numbers make these pictures."""
    model = toy_model()
    task = replace(TOY, prompts=("(one:0s:1, 1s:2)", "two", "(three:0s:0, 1s:1.5)"), negative=("(grey:1s:1.2)",))
    shown = pixels(task.run(model))
    last = Image("(three:1.500000)", "(grey:1.200000)", seed=3).run(model)
    first = Image("(one:1.000000)", "(grey:1.200000)", seed=1).run(model)
    assert torch.allclose(shown[0], pixels(first)[0], atol=1e-6)
    assert torch.allclose(shown[-1], pixels(last)[0], atol=1e-6)


def test_a_flat_curve_is_its_number() -> None:
    flat = replace(TOY, prompts=("(one:0s:1.3, 1s:1.3)", "two", "three")).run(toy_model())
    plain = replace(TOY, prompts=("(one:1.300000)", "two", "three")).run(toy_model())
    assert torch.equal(pixels(flat), pixels(plain))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tree": Branching(depth="auto")},
        {"pace": Pace(loop="pingpong")},
        {"likeness": Likeness(shared_statistics=0.5)},
        {"weights": "1,0,0; 1,1,1; 0,0,1"},
        {"key_image": ("2={photo}",)},
    ],
)
def test_films_with_them_differ_and_repeat(changes: dict[str, Any], tmp_path: Path) -> None:
    levels = torch.randint(0, 256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(3)).byte()
    Clip(TensorFrames(levels), 1).save(tmp_path / "photo.png")
    if "key_image" in changes:
        changes = {"key_image": (f"2={tmp_path / 'photo.png'}",)}
    task = replace(TOY, prompts=("one", "two (far:smooth 0f:1, 10f:3)", "three"), **changes)
    clip = task.run(toy_model())
    plain = replace(task, prompts=("one", "two (far:1.000000)", "three")).run(toy_model())
    assert not torch.equal(pixels(clip), pixels(plain))
    clip.save(tmp_path / "film.mp4")
    again = Rerun.read(tmp_path / "film.json").run(toy_model())
    assert torch.equal(pixels(again), pixels(clip))


def test_the_model_is_asked_about_words_alone() -> None:
    """Notes name unknown words; a curve is none."""
    model = replace(toy_model(), vocabulary=("apple",), words={"colours": ("red",)})
    clean = replace(TOY, prompts=("a (red:0s:1, 1s:2) apple", "red apple", "apple"))
    assert not any("0s" in note for note in clean.notes(model))


def test_curves_of_words_that_make_no_sense_are_refused() -> None:
    for make, expected in (
        (lambda: replace(TOY, prompts=("(one:1s:1, 0s:2)", "two")), "must increase"),
        (lambda: replace(TOY, negative=("(one:0s:1, 1s:5000)",)), "at all times"),
        (lambda: Image("a (red:0s:1, 1s:2) apple"), "since it has no time"),
        (lambda: Image("apple", "(red:0s:1, 1s:2)"), "since it has no time"),
        (lambda: replace(TOY, negative=("(one:0b:1, 4b:2)",)).run(toy_model()), "beat"),
    ):
        with pytest.raises(TaskError, match=expected):
            make()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny", vae="tiny", length=24)


@pytest.fixture(scope="module")
def style(folder: Path) -> Path:
    """A LoRA of a convolution and of the text encoder."""
    model, draw = load(str(folder)), torch.Generator().manual_seed(0)
    names = [name for name, _ in model.parts["text_encoder"].named_modules() if name.endswith("q_proj")]
    tensors: dict[str, torch.Tensor] = {}
    for part, name in (("unet", "conv_in"), *(("text_encoder", name) for name in names)):
        weight: Any = model.parts[part].get_submodule(name).weight
        tensors[f"{part}.{name}.lora_A.weight"] = torch.randn(2, *weight.shape[1:], generator=draw)
        up = torch.randn(weight.shape[0], 2, *(1,) * (weight.ndim - 2), generator=draw)
        tensors[f"{part}.{name}.lora_B.weight"] = 0.6 * up
    save_file(tensors, folder.parent / "style.safetensors")
    return folder.parent / "style.safetensors"


def model_with(folder: Path, style: Path, scale: float | str) -> LatentDiffusion:
    return load(str(folder), loras={style: scale})


def test_a_flat_scale_makes_the_film_that_the_merged_weights_make(folder: Path, style: Path) -> None:
    flat, merged = (FILM.run(model_with(folder, style, scale)) for scale in ("0s:0.8, 1s:0.8", 0.8))
    assert torch.allclose(pixels(flat), pixels(merged), atol=5e-4)
    assert (pixels(flat) - pixels(FILM.run(load(str(folder))))).abs().max() > 0.02


def test_a_key_is_drawn_with_the_scale_of_its_time(folder: Path, style: Path) -> None:
    shown = pixels(FILM.run(model_with(folder, style, "0s:0, 0.5s:1")))
    last = Image("a cat", seed=2, sampling=FILM.sampling).run(model_with(folder, style, 1.0))
    first = Image("a red apple", seed=1, sampling=FILM.sampling).run(load(str(folder)))
    assert torch.allclose(shown[0], pixels(first)[0], atol=5e-4)
    assert torch.allclose(shown[-1], pixels(last)[0], atol=5e-4)


def test_a_film_with_it_repeats_from_its_record(folder: Path, style: Path, tmp_path: Path) -> None:
    model = model_with(folder, style, "0s:0, 0.5s:1")
    clip = replace(FILM, tree=Branching(depth="auto")).run(model)
    clip.save(tmp_path / "film.mp4")
    again = Rerun.read(tmp_path / "film.json")
    assert again.record.model is not None
    assert again.record.model.loras == [(str(style), "0s:0, 0.5s:1")]
    assert torch.equal(pixels(again.run(model_with(folder, style, "0s:0, 0.5s:1"))), pixels(clip))


@pytest.mark.parametrize("name", ["shared_attention", "interpolation"])
def test_attention_follows_a_curve(folder: Path, name: str) -> None:
    model = load(str(folder))

    def film(value: float | str) -> torch.Tensor:
        return pixels(replace(FILM, likeness=replace(Likeness(), **{name: value})).run(model))

    assert torch.equal(film("0s:0.7, 1s:0.7"), film(0.7))
    varying = film("0s:0, 0.5s:0.9")
    assert not torch.equal(varying, film(0.0)) and not torch.equal(varying, film(0.9))


def test_scales_that_cannot_be_told_are_refused(folder: Path, style: Path) -> None:
    model = model_with(folder, style, "0s:0, 0.5s:1")
    with pytest.raises(TaskError, match="and this is none: give it one number"):
        Image("a cat", sampling=FILM.sampling).run(model)
    with pytest.raises(TaskError, match="leave them out, or give each LoRA one scale"):
        replace(FILM, likeness=Likeness(interpolation=0.5)).run(model)
    with pytest.raises(TaskError, match="beat"):
        FILM.run(model_with(folder, style, "0b:0, 2b:1"))
    with pytest.raises(TaskError, match="expected a number, or times and values"):
        FILM.run(model_with(folder, style, "strong"))
