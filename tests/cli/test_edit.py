"""`segue edit`, as a user calls it: what arrives, what is written, what is refused, and pictures of all kinds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cyclopts import App
from PIL import Image

from cli.conftest import Run, command
from cli.test_bad_input import files, said
from cli.test_stylize import KILLED
from footage import moving
from forked import python
from models.tiny import write_model
from segue.cli.fields import flags, verb
from segue.media import Clip, TensorFrames, read
from segue.media.clip import levels_of
from segue.tasks.edit import Edit

# A value for every field, other than its default; and what else must be typed for it.
TYPED: dict[str, tuple[str, Any]] = {
    "method": ("--method cycle", "cycle"),
    "negative": ("--negative grey", "grey"),
    "seed": ("--seed 7", 7),
    "control": ("--control softedge=0.5 --control depth::maps", ("softedge=0.5", "depth::maps")),
    "change.strength": ("--strength 0.5", 0.5),
    "change.noise": ("--noise moved", "moved"),
    "change.source_prompt": ("--method ddib --source-prompt cat", "cat"),
    "change.source_guidance": ("--method cycle --source-guidance 2", 2.0),
    "change.eta": ("--method cycle --eta 0.5", 0.5),
    "change.rounds": ("--method ddib --rounds 3", 3),
    "change.exact": ("--method ddib --exact", True),
    "change.passes": ("--passes 2", 2),
    "change.strokes": ("--strokes 6", 6),
    "change.faithful": ("--faithful psnr=25", "psnr=25"),
    "change.picture_guidance": ("--method instruct --picture-guidance 1.2", 1.2),
    "change.candidates": ("--candidates 4 --ranked-by clip", 4),
    "change.ranked_by": ("--candidates 4 --ranked-by clip", "clip"),
    "change.latent": ("--method ddib --latent cat.safetensors", "cat.safetensors"),
    "change.source_model": ("--method ddib --source-model x", "x"),
    "area.mask": ("--mask 0=a.png --mask 4=b.png", ("0=a.png", "4=b.png")),
    "area.feather": ("--mask a.png --feather 4", 4.0),
    "area.still": ("--mask a.png --still", True),
    "agreement.attention": ("--attention first,self", "first, self"),
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
    "freeu": ("--freeu 1.2 1.4 0.9 0.2", (1.2, 1.4, 0.9, 0.2)),
}
REFUSED = {"agreement.bank", "agreement.bank_power"}
QUICK = ["--steps", "3", "--size", "64x48"]


def saved(path: Path, frames: int = 1, size: tuple[int, int] = (64, 48)) -> Path:
    return Clip(TensorFrames(moving(frames, size)), fps=5).save(path)


def a_mask(path: Path, size: tuple[int, int] = (64, 48), frames: int = 1) -> Path:
    white = torch.zeros(frames, 3, size[1], size[0], dtype=torch.uint8)
    white[..., : size[1] // 2, : size[0] // 2] = 255
    Clip(TensorFrames(white), fps=5).save(path)
    path.with_suffix(".json").unlink(missing_ok=True)
    return path


def at(values: Any, place: str) -> Any:
    for part in place.split("."):
        values = values[part]
    return values


def test_every_field_has_an_example_and_is_explained() -> None:
    every = flags(Edit, ())
    optional = {".".join(flag.place) for flag in every if not flag.is_positional and flag.place[0] != "sampling"}
    assert optional - REFUSED == TYPED.keys()
    assert [flag.name for flag in every if flag.is_positional] == ["input", "prompt"]


@pytest.mark.parametrize("place", TYPED)
def test_flag_arrives(place: str) -> None:
    seen: list[Edit] = []

    def capture(task: Edit) -> int:
        seen.append(task)
        return 0

    app = App(exit_on_error=False, print_error=False, result_action="return_value")
    app.default(verb(capture))
    typed, expected = TYPED[place]
    app(["in.png", "a cat"])
    app(["in.png", "a cat", *typed.split()])
    plain, given = (asdict(task) for task in seen)
    assert at(given, place) == expected != at(plain, place)


def test_a_picture_is_written_with_its_record_and_can_be_repeated(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    saved(tmp_path / "a.png")
    a_mask(tmp_path / "m.png")
    words = ["edit", "a.png", "a cat", "--mask", "m.png", "--feather", "0", "--model", checkpoint, *QUICK]
    answer = run(*words, "-o", "b.png", "--json")
    assert answer.code == 0, answer.err
    assert (answer.json["width"], answer.json["height"], answer.json["frames"]) == (64, 48, 1)
    assert "1 frame in 1 part of up to 64: 2 evaluations a frame, about 2 in all" in answer.err
    record = json.loads((tmp_path / "b.json").read_text("utf-8"))
    assert (record["task"], record["fields"]["change"]["strength"]) == ("edit", 0.6)
    before, after = (levels_of(read(tmp_path / name).frames, slice(None)) for name in ("a.png", "b.png"))
    assert torch.equal(before[..., 24:, :], after[..., 24:, :])
    assert not torch.equal(before[..., :24, :32], after[..., :24, :32])
    repeated = run("rerun", "b.json", "-o", "c.png")
    assert repeated.code == 0, repeated.err
    for suffix in ("png", "json"):
        assert (tmp_path / f"c.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert list(tmp_path.glob(".*")) == []
    a_mask(tmp_path / "m.png", (48, 36))
    assert "m.png is not what this was made with" in run("rerun", "b.json", "-o", "d.png").err


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    saved(tmp_path / "a.mp4", 5)
    a_mask(tmp_path / "m.png")
    words = ["edit", "a.mp4", "a cat", "--method", "cycle", "--source-prompt", "a dog", "--strength", "1", "--mask"]
    words += ["m.png", "--model", str(checkpoint), *QUICK, "--window", "3", "--overlap", "1", "--cuts", "none"]
    killed = subprocess.run(
        [python(), "-c", KILLED, *words, "-o", "x.mp4", "6"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed, whole = run(*words, "-o", "x.mp4"), run(*words, "-o", "whole.mp4")
    assert (resumed.code, whole.code) == (0, 0), resumed.err
    for suffix in ("mp4", "json"):
        assert (tmp_path / f"x.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert list(tmp_path.glob(".segue-*")) == []


BAD: dict[str, tuple[list[str], int, str]] = {
    "nothing": ([], 2, "INPUT is missing"),
    "no words": (["a.png"], 2, "PROMPT is missing"),
    "no file": (["no.png", "x"], 1, "there is no such file"),
    "itself": (["a.png", "x", "-o", "a.png"], 2, "is the input"),
    "the mask": (["a.png", "x", "--mask", "m.png", "-o", "m.png"], 2, "is the input"),
    "method": (["a.png", "x", "--method", "magic"], 2, "magic"),
    "strength": (["a.png", "x", "--strength", "1.5"], 2, "strength must be in [0, 1]"),
    "strength 0 of cycle": (
        ["a.png", "x", "--method", "cycle", "--strength", "0"],
        2,
        "above 0 and at most 1 for cycle",
    ),
    "eta 0": (["a.png", "x", "--method", "cycle", "--eta", "0"], 2, "with eta 0 there is none"),
    "eta of sdedit": (["a.png", "x", "--eta", "0.5"], 2, "sdedit has no use for eta, which is for cycle"),
    "euler for cycle": (["a.png", "x", "--method", "cycle", "--solver", "euler"], 2, "euler adds none"),
    "noise for ddib": (["a.png", "x", "--method", "ddib", "--solver", "lcm"], 2, "leave out solver lcm"),
    "no mask": (["a.png", "x", "--method", "inpaint"], 2, "inpaint fills in what a mask leaves open"),
    "feather": (["a.png", "x", "--feather", "4"], 2, "there is none: give that too (--mask PICTURE)"),
    "two masks": (["a.png", "x", "--mask", "m.png", "--mask", "1=m.png"], 2, "m.png says none"),
    "a bank": (["a.png", "x", "--bank", "b.safetensors"], 2, "leave out bank"),
    "freeu": (["a.png", "x", "--freeu", "1", "1", "0", "1"], 2, "s1 of freeu must be in (0, 4]"),
    "no noise": (["a.png", "x", "--save-latent", "a.safetensors"], 2, "sdedit has none"),
    "strokes": (["a.png", "x", "--strokes", "1"], 2, "strokes are of 2 to 256 colours, got 1"),
    "faithful": (["a.png", "x", "--faithful", "lpips=1"], 2, "faithful is psnr=DB or ssim=SHARE"),
    "faithful and strong": (["a.png", "x", "--faithful", "psnr=20", "--strength", "1"], 2, "leave out one"),
    "unranked": (["a.png", "x", "--candidates", "3"], 2, "candidates are ranked by somebody"),
    "curve": (["a.png", "(x:0s:1, 1s:2)"], 2, "is a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, run: Run, tmp_path: Path) -> None:
    saved(tmp_path / "a.png")
    a_mask(tmp_path / "m.png")
    before = files(tmp_path)
    arguments, code, expected = BAD[case]
    assert expected in said(run("edit", *arguments), code)
    assert files(tmp_path) == before


BAD_MASKS: dict[str, tuple[list[str], str]] = {
    "of another size": (["--mask", "wide.png"], "the mask wide.png has 64x64 pixels, and what it is for has 64x48"),
    "all black": (["--mask", "black.png"], "nothing in the mask black.png is white"),
    "with colours": (["--mask", "a.png"], "black and white and grey"),
    "of more frames": (["--mask", "film.apng"], "has 3 frames, and what it is for has 1"),
    "of no frame": (["--mask", "7=m.png"], "there is a mask for frame 7, and the frames are 0 to 0"),
    "that is none": (["--mask", "no.png"], "no.png"),
    "for a model of 4 channels": (["--method", "instruct"], "does not follow instructions"),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_bad_masks_and_models(case: str, run: Run, checkpoint: Path, tmp_path: Path) -> None:
    saved(tmp_path / "a.png")
    a_mask(tmp_path / "m.png")
    a_mask(tmp_path / "wide.png", (64, 64))
    a_mask(tmp_path / "film.apng", frames=3)
    Clip(TensorFrames(torch.zeros(1, 3, 48, 64, dtype=torch.uint8)), fps=5).save(tmp_path / "black.png")
    before = files(tmp_path)
    arguments, expected = BAD_MASKS[case]
    answer = run("edit", "a.png", "a cat", "--model", checkpoint, "-o", "x.png", *QUICK, *arguments)
    assert expected.replace("black and white and grey", "black, white and grey") in said(answer, answer.code)
    assert answer.code in (1, 2) and files(tmp_path) == before


def test_models_that_are_shown_more_take_their_own_method_alone(
    run: Run, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    saved(tmp_path / "a.png")
    a_mask(tmp_path / "m.png")
    for channels, own, expected in ((9, "inpaint", "is an inpainting model"), (8, "instruct", "is told what to do")):
        folder = write_model(tmp_path_factory.mktemp("models") / own, vae="tiny", length=24, in_channels=channels)
        words = ["edit", "a.png", "a cat", "--mask", "m.png", "--model", folder, *QUICK]
        for method in ("sdedit", "cycle", "ddib"):
            assert expected in said(run(*words, "--method", method, "-o", "x.png"), 2)
        answer = run(*words, "--method", own, "-o", f"{own}.png")
        assert answer.code == 0, answer.err


def test_pictures_of_all_kinds(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    """Transparent, of 16 bits, turned by its camera: what cannot be kept is told, and nothing is turned or clipped."""
    plain = np.asarray(Image.open(saved(tmp_path / "a.png")).convert("RGB"))
    alpha = np.full((48, 64, 1), 255, np.uint8)
    alpha[:8] = 0
    Image.fromarray(np.concatenate([plain, alpha], 2)).save(tmp_path / "clear.png")
    Image.fromarray(plain[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    turned = Image.fromarray(np.ascontiguousarray(plain[::-1, ::-1]))
    exif = turned.getexif()
    exif[0x0112] = 3
    turned.save(tmp_path / "turned.png", exif=exif)
    expected = {"clear": "is transparent in part", "deep": "has 16 bits a colour", "turned": ""}
    for name, note in expected.items():
        answer = run("edit", f"{name}.png", "x", "--strength", "0", "--model", checkpoint, *QUICK, "-o", "x.png")
        assert answer.code == 0 and note in answer.err, answer.err
        made = np.asarray(Image.open(tmp_path / "x.png"))
        wanted = {"clear": plain.copy(), "deep": plain[..., :1].repeat(3, 2), "turned": plain}[name]
        if name == "clear":
            wanted[:8] = 255
        assert np.array_equal(made, wanted)


def test_noise_goes_from_one_process_to_another(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    """The source's process has the source's model and words alone, the target's the file: the picture is that of both
    in one."""
    saved(tmp_path / "a.png")
    words = ["edit", "a.png", "a cat", "--method", "ddib", "--model", str(checkpoint)]
    told = ["--source-prompt", "a dog", "--exact", *QUICK]
    begin = [*words[:2], "a dog", *words[3:], *told, "--save-latent", "noise.safetensors", "-o", "dog.png"]
    source = subprocess.run([*command(), *begin], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert source.returncode == 0, source.stderr
    target = run(*words, "--latent", "noise.safetensors", "-o", "b.png")
    whole = run(*words, *told, "-o", "c.png")
    assert (target.code, whole.code) == (0, 0), target.err + whole.err
    assert "told 'a dog', exactly, in 3 of 3 steps" in target.err
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    assert (tmp_path / "b.png").read_bytes() != (tmp_path / "dog.png").read_bytes()
    before = files(tmp_path)
    for more, expected in (
        (["--latent", "dog.png"], "dog.png"),
        (["--latent", "noise.safetensors", "--steps", "4"], "a run of 3 steps, and this run has 4"),
        (["--save-latent", "noise.png"], "noise is written as safetensors: give a name such as noise.safetensors"),
        (["--latent", "noise.safetensors", "--save-latent", "x.safetensors"], "nothing goes into noise"),
    ):
        answer = run(*words, *more, "-o", "x.png")
        assert answer.code in (1, 2) and expected in said(answer, answer.code)
    assert files(tmp_path) == before
