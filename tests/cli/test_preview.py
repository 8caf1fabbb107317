# pyright: basic
"""A small decoder on the command line: what it draws, what it leaves alone, and where it would do nothing."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.conftest import SHORT, Run
from models.tiny import tiny_vae
from segue.media import read
from segue.media.clip import levels_of


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the latents of `checkpoint`, and of other weights."""
    torch.manual_seed(7)
    vae: Any = tiny_vae("tiny")
    vae.decoder.layers[-1].weight.data.mul_(30)
    folder = tmp_path_factory.mktemp("small")
    vae.save_pretrained(folder)
    return folder


def test_all_frames_by_it_and_the_same_again(run: Run, film: list[str], small: Path, tmp_path: Path) -> None:
    quick = ["--preview-decoder", small, "--preview-for", "frames"]
    assert run(*film, *SHORT, *quick, "-o", "x.mp4").code == 0
    assert run(*film, *SHORT, "-o", "plain.mp4").code == 0
    assert (tmp_path / "x.mp4").read_bytes() != (tmp_path / "plain.mp4").read_bytes()
    model = json.loads((tmp_path / "x.json").read_text("utf-8"))["model"]
    assert (model["preview_decoder"], model["preview_for"]) == (str(small), "frames")
    answer = run("rerun", "x.json", "-o", "y.mp4")
    assert answer.code == 0, answer.err
    for suffix in ("mp4", "json"):
        assert (tmp_path / f"y.{suffix}").read_bytes() == (tmp_path / f"x.{suffix}").read_bytes()
    (small / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    assert run("rerun", "x.json", "-o", "z.mp4").code == 1


def test_a_film_that_it_measured_is_made_again_without_it(
    run: Run, film: list[str], small: Path, tmp_path: Path
) -> None:
    answer = run(*film, *SHORT, "--preview-decoder", small, "--preview-for", "measured", "-o", "x.mp4")
    assert answer.code == 0, answer.err
    (small / "config.json").unlink()
    answer = run("rerun", "x.json", "-o", "y.mp4")
    assert answer.code == 0, answer.err
    for suffix in ("mp4", "json"):
        assert (tmp_path / f"y.{suffix}").read_bytes() == (tmp_path / f"x.{suffix}").read_bytes()
    assert json.loads((tmp_path / "y.json").read_text("utf-8"))["model"]["preview_for"] == "measured"


def test_a_rerun_by_another_small_decoder_names_the_option(
    run: Run, checkpoint: Path, small: Path, tmp_path: Path
) -> None:
    words = ["image", "a", "--model", checkpoint, "--steps", "1", "--preview-decoder", small, "--preview-for", "frames"]
    assert run(*words, "-o", "x.png").code == 0
    torch.manual_seed(8)
    tiny_vae("tiny").save_pretrained(tmp_path / "other")
    answer = run("rerun", "x.json", "-o", "y.png", "--preview-decoder", "other")
    assert (answer.code, "and --preview-decoder, where they differ" in answer.err) == (2, True), answer.err


@pytest.mark.parametrize("source", [".", "file.json", "/", "weights.safetensors"])
def test_what_is_no_small_decoder_is_said_to_be_none(source: str, run: Run, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text("{}", "utf-8")
    (tmp_path / "weights.safetensors").write_bytes(b"x" * 64)
    words = ["image", "a", "--model", checkpoint, "--steps", "1", "--preview-for", "frames"]
    answer = run(*words, "--preview-decoder", source)
    assert answer.code == 1
    assert f"there is no small decoder at {source}: expected a folder with config.json" in answer.err.splitlines()[-1]


def test_a_film_that_it_shows_is_the_film(run: Run, film: list[str], small: Path, tmp_path: Path) -> None:
    assert run(*film, *SHORT, "--play", "--preview-decoder", small, "-o", "x.mp4").code == 0
    assert run(*film, *SHORT, "-o", "y.mp4").code == 0
    for suffix in ("mp4", "json"):
        one, other = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "xy")
        assert one == other


def test_a_live_film_has_its_own_pictures_whoever_looks_on(
    run: Run, checkpoint: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["live", "a red apple", "--model", checkpoint, "--steps", "3", "--seconds", "0.2", "--fps", "50"]
    for name, more in (("x", ["--play", "--preview-decoder", small]), ("y", [])):
        monkeypatch.setattr("sys.stdin", StringIO(""))
        answer = run(*words, *more, "-o", f"{name}.apng")
        assert answer.code == 0, answer.err
    one, other = (read(tmp_path / f"{name}.apng") for name in "xy")
    assert len(one) == 10
    assert torch.equal(levels_of(one.frames, slice(0, 10)), levels_of(other.frames, slice(0, 10)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("image a --preview-decoder auto", "for pictures that are shown, and there are none here"),
        ("image a --preview-decoder auto --preview-for measured", "that are measured, and there are none here"),
        ("transition a b --preview-decoder auto", "where there is --play, look on"),
        (
            "transition a b --preview-decoder auto --preview-for measured --distance latents",
            "that are measured, and there are none here",
        ),
        ("live a -o x.mp4 --preview-decoder auto", "that are shown, and there are none here"),
        ("live a --preview-for frames", "name it with --preview-decoder, or auto"),
        ("doctor --model emoji --preview-decoder auto", "not read for a forecast"),
        ("doctor --preview-decoder auto --preview-for frames", "which is of the model's own decoder"),
        ("image a --preview-for frames --preview-decoder=", "--preview-decoder is empty"),
        ("upscale x.png --preview-decoder auto", "that are shown, and there are none here"),
    ],
)
def test_where_it_would_do_nothing_it_is_refused(run: Run, words: str, said: str) -> None:
    answer = run(*words.split())
    assert (answer.code, said in answer.err) == (2, True), answer.err
    assert answer.err.count("\n") == 1
