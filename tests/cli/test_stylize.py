"""`segue stylize`, as a user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from cli.conftest import Run
from cli.test_bad_input import files, said
from footage import moving
from forked import python
from segue.cli.fields import described, flags, verb
from segue.cli.stylize import Banking
from segue.media import Clip, TensorFrames
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_settings import PRESETS

# A value for every field, other than its default.
TYPED: dict[str, tuple[str, Any]] = {
    "preset": ("--preset restore", "restore"),
    "negative": ("--negative grey", "grey"),
    "seed": ("--seed 7", 7),
    "method": ("--method pix2video", "pix2video"),
    "control": ("--control softedge+mine=0.5 --control depth::maps", ("softedge+mine=0.5", "depth::maps")),
    "references.reference": ("--reference a.png --reference b.png", ("a.png", "b.png")),
    "references.ip_adapter": ("--reference a.png --ip-adapter x", "x"),
    "references.image_scale": ("--reference a.png --ip-adapter x --image-scale 0.5", 0.5),
    "beginning.strength": ("--strength 0.5", 0.5),
    "beginning.start": ("--start inverted", "inverted"),
    "beginning.noise": ("--noise moved", "moved"),
    "beginning.detail": ("--detail 0.5", 0.5),
    "beginning.source_prompt": ("--start inverted --source-prompt cat", "cat"),
    "agreement.attention": ("--attention first,self", "first, self"),
    "agreement.bank": ("--bank look.safetensors", "look.safetensors"),
    "agreement.bank_power": ("--bank look.safetensors --bank-power 0.5", 0.5),
    "agreement.deflicker": ("--deflicker 2", 2),
    "agreement.around": ("--around 3", 3),
    "agreement.blend": ("--blend 0.5", 0.5),
    "agreement.grain": ("--grain 0.5", 0.5),
    "shape.fit": ("--fit crop", "crop"),
    "shape.own_size": ("--own-size", True),
    "shape.model_size": ("--model-size", True),
    "shape.window": ("--window 12", 12),
    "shape.overlap": ("--overlap 3", 3),
    "shape.cuts": ("--cuts 48,12", "12,48"),
}
QUICK = ["--steps", "3", "--cuts", "none", "--around", "2", "--deflicker", "1"]


def saved(path: Path, frames: int = 4, size: tuple[int, int] = (64, 48)) -> Path:
    return Clip(TensorFrames(moving(frames, size)), fps=5).save(path)


def test_every_field_has_an_example_and_is_explained() -> None:
    every = flags(Stylize, ())
    optional = {".".join(flag.place) for flag in every if not flag.is_positional and flag.place[0] != "sampling"}
    assert optional == set(TYPED)
    assert [flag.name for flag in every if flag.is_positional] == ["input", "prompt"]
    assert described(Banking).keys() == {"save_bank"}


def at(values: Any, place: str) -> Any:
    for part in place.split("."):
        values = values[part]
    return values


@pytest.mark.parametrize("place", TYPED)
def test_flag_arrives(place: str) -> None:
    seen: list[Stylize] = []

    def capture(task: Stylize) -> int:
        seen.append(task)
        return 0

    app = App(exit_on_error=False, print_error=False, result_action="return_value")
    app.default(verb(capture))
    typed, expected = TYPED[place]
    app(["in.mp4"])
    app(["in.mp4", "a cat", *typed.split()])
    plain, given = (asdict(task) for task in seen)
    assert (plain["prompt"], given["prompt"]) == (None, "a cat")
    assert at(given, place) == expected != at(plain, place)


def test_it_is_written_with_its_record_and_can_be_repeated(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    saved(tmp_path / "a.mp4")
    answer = run(
        "stylize", "a.mp4", "a cat", "--model", checkpoint, "-o", "b.mp4", "--json", *QUICK, "--max-batch", "2"
    )
    assert answer.code == 0, answer.err
    assert (answer.json["width"], answer.json["height"], answer.json["frames"]) == (64, 48, 4)
    assert answer.json["scores"]["evaluations"] == 4 * 2
    assert "4 frames in 1 part of up to 64: 2 evaluations a frame, about 8 in all" in answer.err
    assert "of memory in every step" in answer.err
    record = json.loads((tmp_path / "b.json").read_text("utf-8"))
    assert record["fields"]["agreement"]["attention"] == "anchors, self"
    repeated = run("rerun", "b.json", "-o", "c.mp4")
    assert repeated.code == 0, repeated.err
    for suffix in ("mp4", "json"):
        assert (tmp_path / f"c.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert list(tmp_path.glob(".*")) == []


KILLED = """
import os, signal, sys
from segue.tasks import stylize_draw
from segue.cli.main import main

pause, left = stylize_draw.pause, [int(sys.argv.pop())]

def pause_and_die(*given):
    pause(*given)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

stylize_draw.pause = pause_and_die
sys.exit(main())
"""


@pytest.mark.parametrize("at_step", [2, 7])
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(
    at_step: int, run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    saved(tmp_path / "a.mp4", 6)
    words = ["stylize", "a.mp4", "a cat", "--model", str(checkpoint), *QUICK, "--window", "4", "--overlap", "1"]
    words += ["--strength", "1"]
    killed = subprocess.run(
        [python(), "-c", KILLED, *words, "-o", "x.mp4", str(at_step)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (hidden,) = tmp_path.glob(".segue-*")
    assert list(hidden.glob("part-*"))
    # Half of a frame was written when it died.
    if (hidden / "drawn" / "frames.rgb").exists():
        with (hidden / "drawn" / "frames.rgb").open("ab") as file:
            file.write(b"half a frame")
    resumed, whole = run(*words, "-o", "x.mp4"), run(*words, "-o", "whole.mp4")
    assert (resumed.code, whole.code) == (0, 0), resumed.err
    for suffix in ("mp4", "json"):
        assert (tmp_path / f"x.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert list(tmp_path.glob(".segue-*")) == []


BAD: dict[str, tuple[list[str], int, str]] = {
    "nothing": ([], 2, "INPUT is missing"),
    "no words": (["a.mp4"], 2, "PROMPT is missing"),
    "no file": (["no.mp4", "x"], 1, "there is no such file"),
    "itself": (["a.mp4", "x", "-o", "a.mp4"], 2, "is the input"),
    "one picture": (["a.mp4", "x", "-o", "x.png"], 1, "holds one picture"),
    "preset": (["a.mp4", "x", "--preset", "nice"], 2, "preset"),
    "control": (["a.mp4", "x", "--control", "magic"], 2, "its kind one of softedge"),
    "interval": (["a.mp4", "x", "--control", "softedge@0.8-0.2"], 2, "a part of the run"),
    "strength": (["a.mp4", "x", "--strength", "0"], 2, "strength must be in (0, 1]"),
    "noise and strength": (["a.mp4", "x", "--strength", "0.5", "--start", "noise"], 2, "leave out strength"),
    "attention": (["a.mp4", "x", "--attention", "all"], 2, "attention is made of"),
    "no reference": (["a.mp4", "x", "--attention", "reference, self"], 2, "goes by reference pictures"),
    "method": (["a.mp4", "x", "--method", "magic"], 2, "method must be one of"),
    "method and agreement": (["a.mp4", "x", "--method", "pix2video", "--blend", "1"], 2, "a way of its own"),
    "overlap": (["a.mp4", "x", "--window", "4", "--overlap", "3"], 2, "at most a third of window"),
    "bank": (["a.mp4", "x", "--save-bank", "x.txt"], 2, "written as safetensors"),
    "two scales": (["a.mp4", "x", "--guidance", "2", "--guidance", "3"], 2, "one number for the whole film"),
    "source prompt": (["a.mp4", "x", "--source-prompt", "y"], 2, "take start inverted"),
    "image scale": (["a.mp4", "x", "--image-scale", "1"], 2, "there are none"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, run: Run, tmp_path: Path) -> None:
    saved(tmp_path / "a.mp4")
    before = files(tmp_path)
    arguments, code, expected = BAD[case]
    assert expected in said(run("stylize", *arguments), code)
    assert files(tmp_path) == before


BAD_INPUTS: dict[str, tuple[list[str], int, str]] = {
    "size": (["--size", "63x48"], 2, "size must be a multiple of"),
    "control of another length": (
        ["--control", "softedge:few.mp4"],
        2,
        "few.mp4, which has 2 frames, and the film has",
    ),
    "no bank": (["--bank", "no.safetensors"], 1, "no.safetensors: there is no such file"),
    "a film as reference": (["--reference", "few.mp4"], 2, "a reference is one picture"),
    "cuts beyond": (["--cuts", "99"], 2, "no shot begins at 99"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_inputs_of_a_model(case: str, run: Run, checkpoint: Path, tmp_path: Path) -> None:
    saved(tmp_path / "a.mp4")
    saved(tmp_path / "few.mp4", 2)
    before = files(tmp_path)
    arguments, code, expected = BAD_INPUTS[case]
    words = ["stylize", "a.mp4", "a cat", "--model", checkpoint, "-o", "x.mp4", "--steps", "2"]
    assert expected in said(run(*words, *arguments), code)
    assert files(tmp_path) == before


def test_there_is_a_preset_for_each_name() -> None:
    from segue.tasks.stylize_settings import FOLDER

    assert {path.stem for path in FOLDER.glob("*.toml")} == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_fill_in_what_was_left_out(preset: Any) -> None:
    from segue.tasks.stylize import References

    pictures = References(("a.png",))
    task = Stylize("a.mp4", "words", preset, references=pictures if preset in ("image", "fashion") else References())
    filled = task.filled_in()
    assert filled.preset is None and filled.prompt == "words"
    assert filled.controls or preset == "restore"
    assert Stylize("a.mp4", "words", preset, control=("canny",), references=task.references).filled_in().controls[
        0
    ].kind == ("canny")
    assert not Stylize("a.mp4", "words", preset, control=("off",), references=task.references).filled_in().controls
