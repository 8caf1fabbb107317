"""`segue upscale`, as a user calls it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App
from tiny_upscaler import write_upscaler

from cli.conftest import Run, interrupted
from cli.test_bad_input import files, said
from footage import moving
from segue.cli.fields import described, flags, verb
from segue.cli.options import ModelChoice, Output
from segue.media import Clip, TensorFrames, read
from segue.models.loading import load_model
from segue.models.time_files import save_time
from segue.models.time_inserted import TimeSettings, with_time
from segue.tasks.sampling import Execution
from segue.tasks.upscale import Coherence, Tiling, Upscale

# A value for every field, other than its default; those of `Sampling` are in `test_fields`.
TYPED: dict[str, tuple[str, Any]] = {
    "prompt": ("--prompt boat --prompt tree", ("boat", "tree")),
    "negative": ("--negative fog", "fog"),
    "seed": ("--seed 7", 7),
    "method": ("--method same-model", "same-model"),
    "scale": ("--scale 4", 4),
    "noise_level": ("--noise-level 3", 3),
    "strength": ("--method same-model --strength 0.5", 0.5),
    "colours": ("--colours model", "model"),
    "tiling.window": ("--window 256", 256),
    "tiling.overlap": ("--overlap 0.5", 0.5),
    "coherence.every": ("--every 2", 2),
    "coherence.depth": ("--depth 0.5", 0.5),
    "coherence.together": ("--together 4", 4),
    "coherence.motion": ("--motion 0.5", 0.5),
}


@pytest.fixture(scope="session")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_upscaler(tmp_path_factory.mktemp("models") / "x4", vae="tiny")


def saved(path: Path, frames: int = 1) -> Path:
    return Clip(TensorFrames(moving(frames, (20, 16))), fps=5).save(path)


def test_every_field_has_an_example_and_is_explained() -> None:
    every = flags(Upscale, ())
    optional = {".".join(flag.place) for flag in every if not flag.is_positional and flag.place[0] != "sampling"}
    assert optional == set(TYPED)
    assert [flag.name for flag in every if flag.is_positional] == ["input"]
    for kind in (Upscale, Tiling, Coherence):
        assert described(kind).keys() == {field.name for field in fields(kind)}


@pytest.mark.parametrize("place", TYPED)
def test_flag_arrives(place: str) -> None:
    seen: list[Upscale] = []

    def capture(task: Upscale, model: ModelChoice, execution: Execution, output: Output) -> int:
        seen.append(task)
        return 0

    app = App(exit_on_error=False, print_error=False, result_action="return_value")
    app.default(verb(capture))
    typed, expected = TYPED[place]
    for line in ([], typed.split()):
        app(["in.png", *line])
    plain, given = (asdict(task) for task in seen)
    for part in place.split("."):
        plain, given = plain[part], given[part]
    assert given == expected
    assert plain != expected


@pytest.mark.parametrize(("name", "out", "frames"), [("a.png", "b.png", 1), ("a.mp4", "b.webm", 3), ("a", "b", 2)])
def test_it_is_written_with_its_record_and_can_be_repeated(
    name: str, out: str, frames: int, run: Run, tmp_path: Path, upscaler: Path
) -> None:
    saved(tmp_path / name, frames)
    answer = run("upscale", name, "-o", out, "--steps", "2", "--prompt", "a boat", "--model", upscaler, "--json")
    assert answer.code == 0, answer.err
    assert (answer.json["width"], answer.json["height"], answer.json["frames"]) == (80, 64, frames)
    assert read(tmp_path / out).size == (80, 64)
    assert json.loads((tmp_path / "b.json").read_text("utf-8"))["task"] == "upscale"
    again = Path(out).with_stem("again") if Path(out).suffix else Path("again")
    assert run("rerun", "b.json", "-o", again).code == 0
    if (tmp_path / out).is_file():
        assert (tmp_path / again).read_bytes() == (tmp_path / out).read_bytes()


def test_a_rerun_does_not_replace_the_input(run: Run, tmp_path: Path, upscaler: Path) -> None:
    saved(tmp_path / "a.png")
    assert run("upscale", "a.png", "-o", "b.png", "--steps", "1", "--model", upscaler).code == 0
    before = (tmp_path / "a.png").read_bytes()
    assert "is the input" in said(run("rerun", "b.json", "-o", "../" + tmp_path.name + "/a.png"), 2)
    assert (tmp_path / "a.png").read_bytes() == before


def test_it_finds_a_name_by_itself(run: Run, tmp_path: Path, upscaler: Path) -> None:
    saved(tmp_path / "a.png")
    answer = run("upscale", "a.png", "--steps", "1", "--model", upscaler)
    assert answer.code == 0
    assert "a-large.png" in answer.out
    assert "nothing says what a.png shows" in answer.err


BAD: dict[str, tuple[list[str], int, str]] = {
    "nothing": ([], 2, "INPUT is missing"),
    "no file": (["no.png"], 1, "there is no such file"),
    "no picture": (["text.png"], 1, "text.png"),
    "itself": (["a.png", "-o", "a.png"], 2, "is the input"),
    "inside": (["frames", "-o", "frames/x.webm"], 2, "lies in frames, which is the input"),
    "depth": (["film.apng", "--every", "1", "--depth", "0.5"], 2, "leave out depth 0.5"),
    "one picture": (["film.apng", "-o", "x.png"], 1, "holds one picture"),
    "scale": (["a.png", "--scale", "3"], 2, "enlarges 4 times, got scale 3"),
    "noise": (["a.png", "--noise-level", "400"], 2, "between 0 and 350"),
    "window": (["a.png", "--window", "100"], 2, "multiple of 32 pixels"),
    "size": (["a.png", "--size", "64x64"], 2, "size follows from the input"),
    "method": (["a.png", "--method", "same-model"], 2, "is an upscaler"),
    "strength": (["a.png", "--strength", "0.5"], 2, "strength is for"),
    "together": (["film.apng", "--together", "4"], 2, "leave out together 4, or give it layers along time"),
    "motion": (["a.png", "--method", "same-model", "--motion", "0"], 2, "leave this out"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, run: Run, tmp_path: Path, upscaler: Path) -> None:
    saved(tmp_path / "a.png")
    saved(tmp_path / "film.apng", 3)
    saved(tmp_path / "frames", 2)
    (tmp_path / "text.png").write_text("not a picture", encoding="utf-8")
    before = files(tmp_path)
    arguments, code, expected = BAD[case]
    assert expected in said(run("upscale", *arguments, "--model", upscaler), code)
    assert files(tmp_path) == before


def test_other_models_are_refused_by_name(run: Run, tmp_path: Path, checkpoint: Path, upscaler: Path) -> None:
    saved(tmp_path / "a.png")
    assert "is no upscaler" in said(run("upscale", "a.png", "--model", checkpoint), 2)
    assert "is an upscaler" in said(run("image", "a cat", "--model", upscaler), 2)
    assert run("upscale", "a.png", "--method", "same-model", "--scale", "2", "--model", checkpoint).code == 0
    assert read(tmp_path / "a-large.png").size == (40, 32)


def test_layers_along_time_come_in_a_file_and_a_rerun_finds_them(run: Run, tmp_path: Path, upscaler: Path) -> None:
    settings = TimeSettings(inner=4, heads=2, head_width=4, vector=8, queries=2, context=0, frames=4, shared_noise=1.0)
    save_time(tmp_path / "time.safetensors", with_time(load_model(upscaler, device="cpu"), settings))
    saved(tmp_path / "a.apng", 5)
    words = ["upscale", "a.apng", "-o", "b.apng", "--steps", "1", "--prompt", "a boat", "--model", upscaler, "--json"]
    answer = run(*words, "--motion-adapter", "time.safetensors")
    assert answer.code == 0, answer.err
    assert answer.json["scores"] == {"frames": 5, "windows": 2, "window": 4, "row_steps": 8}
    assert run("rerun", "b.json", "-o", "again.apng").code == 0
    assert (tmp_path / "again.apng").read_bytes() == (tmp_path / "b.apng").read_bytes()
    refused = run(*words, "--motion-adapter", "time.safetensors", "--every", "4")
    assert "leave out every 4" in said(refused, 2)


def test_what_is_finished_is_kept(tmp_path: Path, upscaler: Path) -> None:
    saved(tmp_path / "a.mp4", 60)
    words = ["upscale", "a.mp4", "--steps", "3", "--model", str(upscaler), "-o", "x.mp4", "--json"]
    code, out, err = interrupted(words, tmp_path, "writing")
    assert code == 130, err
    assert "Traceback" not in err
    assert 1 <= len(read(tmp_path / "x.mp4")) == json.loads(out)["frames"] < 60
    assert not json.loads((tmp_path / "x.json").read_text("utf-8"))["complete"]
