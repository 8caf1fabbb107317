"""Bad input: one line that names what was expected, a failing exit code, no traceback, and nothing left behind."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import SHORT, Answer, Run


def said(answer: Answer, code: int) -> str:
    """The line of the error. All other lines are notes of what was done before."""
    assert answer.code == code
    assert answer.out == ""
    assert "Traceback" not in answer.err
    *notes, error = answer.err.splitlines()
    assert all(line.startswith("segue: ") and "error" not in line for line in notes)
    assert error.startswith("segue: error: ")
    return error


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


USAGE: dict[str, tuple[list[str], str]] = {
    "no prompts": ([], "two or more prompts, got 0"),
    "one prompt": (["a"], "two or more prompts, got 1"),
    "empty prompt": (["a", " "], "prompt 2 must be words"),
    "depth": (["a", "b", "--depth", "1.5"], "depth must be in [0, 1), or auto; got 1.5"),
    "crossfeed": (["a", "b", "--crossfeed", "1.5", "0.5", "0.5"], "in [0, 1]"),
    "crossfeed of two": (["a", "b", "--crossfeed", "1", "0.5"], "requires 3"),
    "damper": (["a", "b", "--damper", "0"], "damper must be above 0"),
    "seed": (["a", "b", "--seed", "-1"], "whole number from 0"),
    "seed of letters": (["a", "b", "--seed", "x"], 'for --seed: expected a whole number in digits, such as 5; got "x"'),
    "three seeds": (["a", "b", "--seed", "1", "--seed", "2", "--seed", "3"], "once per key picture (2)"),
    "steps": (["a", "b", "--steps", "0"], "steps must be 1 or more"),
    "fps": (["a", "b", "--fps", "0"], "fps must be above 0"),
    "seconds": (["a", "b", "--seconds", "-2"], "seconds must be above 0"),
    "size of letters": (["a", "b", "--size", "big"], "WIDTHxHEIGHT in pixels, such as 512x384"),
    "size of nothing": (["a", "b", "--size", "0x64"], "width and height in pixels"),
    "half a tree": (["a", "b", "--branches", "2", "3"], "both branches and at"),
    "two trees": (["a", "b", "--preset", "low", "--max-branches", "3"], "for trees that grow"),
    "fill": (["a", "b", "--fill", "fade"], 'Choose from: "branches", "blend"'),
    "threads": (["a", "b", "--threads", "0"], "threads must be 1 or more"),
    "batch": (["a", "b", "--max-batch", "0"], "max_batch must be 1 or more"),
    "unknown flag": (["a", "b", "--frobnicate"], "unknown option: --frobnicate"),
    "missing value": (["a", "b", "--fps"], "--fps"),
    "tree that is no drawing": (["a", "b", "--tree", "tree.pdf"], "such as tree.svg"),
    "a curve of steps": (["a", "b", "--steps", "0s:3, 1s:5"], "it is the same for the whole film"),
    "lora scale": (["a", "b", "--lora", "x.safetensors=strong"], "FILE=SCALE"),
}
DISK: dict[str, tuple[list[str], str]] = {
    "under a file": (["-o", "a-file/x.mp4"], "a part of this path is a file"),
    "missing folder": (["-o", "no/such/x.mp4"], "does not exist"),
    "suffix": (["-o", "x.xyz"], "use one of .mp4"),
    "one picture": (["-o", "x.png"], "x.png holds one picture"),
    "a folder": (["-o", "a-folder.mp4"], "is a directory"),
    "foreign folder": (["-o", "a-folder.mp4/.."], "holds other things"),
    "crf range": (["-o", "x.mp4", "--crf", "99"], "crf must be between 0 and 51"),
    "crf of gif": (["-o", "x.gif", "--crf", "20"], "crf is for H.264"),
    "foreign record": (["-o", "mine.mp4"], "mine.json would be replaced"),
    "tree under a file": (["--tree", "a-file/tree.svg"], "a part of this path is a file"),
    "model name": (["--model", "nope"], 'no embedded model "nope"'),
    "model path": (["--model", "/no/such/folder"], "there is no model at /no/such/folder"),
    "device": (["--device", "warp"], '"cpu" always can'),
    "dtype": (["--dtype", "float8"], "float32, float16, bfloat16"),
    "solver": (["--solver", "magic"], "solver must be one of ddim"),
    "lora file": (["--lora", "no.safetensors"], "no.safetensors"),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage(case: str, run: Run, tmp_path: Path, checkpoint: Path) -> None:
    arguments, expected = USAGE[case]
    assert expected in said(run("transition", *arguments, "--model", checkpoint), 2)
    assert files(tmp_path) == []


@pytest.mark.parametrize("case", DISK)
def test_disk_and_model(case: str, run: Run, tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "a-folder.mp4").mkdir()
    (tmp_path / "mine.json").write_text('{"precious": true}', encoding="utf-8")
    before = files(tmp_path)
    arguments, expected = DISK[case]
    answer = run("transition", "a", "b", *([] if "--model" in arguments else ["--model", checkpoint]), *arguments)
    assert expected in said(answer, 1)
    assert files(tmp_path) == before
    if arguments[0] in ("-o", "--tree"):
        assert "loading the model" not in answer.err


def test_size_that_does_not_divide(run: Run, tmp_path: Path, checkpoint: Path) -> None:
    line = said(run("image", "a cat", "--size", "100x64", "--model", checkpoint), 2)
    assert "multiple of 8" in line
    assert "96x64" in line
    assert files(tmp_path) == []


def test_image_without_a_prompt(run: Run) -> None:
    assert "PROMPT is missing" in said(run("image"), 2)
    assert "must be words" in said(run("image", ""), 2)


def test_unknown_verb(run: Run) -> None:
    assert "transition" in said(run("transmogrify"), 2)


def test_file_size_limit(run: Run, film: list[str], tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "x.mp4").write_bytes(b"an older film")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        answer = run(*film, "-o", "x.mp4", "--seconds", "2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "file-size limit was hit: raise it (ulimit -f)" in said(answer, 1)
    assert files(tmp_path) == ["x.mp4"]
    assert (tmp_path / "x.mp4").read_bytes() == b"an older film"


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def garbled(file: Path) -> None:
    file.write_bytes(b"\xff" * 5000)


def pickled(file: Path) -> None:
    file.unlink()
    file.with_suffix(".bin").write_bytes(pickle.dumps({"weights": 1}))


@pytest.mark.parametrize("damage", [truncated, garbled, pickled])
def test_damaged_checkpoint(damage: Callable[[Path], None], run: Run, checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    damage(broken / "unet" / "diffusion_pytorch_model.safetensors")
    before = files(tmp_path)
    line = said(run("image", "a cat", "--model", broken), 1)
    assert ("pickle" in line) == (damage is pickled)
    assert "unet" in line
    assert files(tmp_path) == before


def test_pickled_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(pickle.dumps({"weights": 1}))
    assert "pickle" in said(run("image", "a cat", "--model", "model.ckpt"), 1)


def with_format(record: dict[str, Any]) -> None:
    record["format"] = 99


def with_more(record: dict[str, Any]) -> None:
    record["surprise"] = 1


def without_plan(record: dict[str, Any]) -> None:
    del record["plan"]


def with_bad_field(record: dict[str, Any]) -> None:
    record["fields"]["fps"] = -3


def with_bad_tree(record: dict[str, Any]) -> None:
    record["plan"]["nodes"] = record["plan"]["nodes"][:1]


def of_other_weights(record: dict[str, Any]) -> None:
    record["model"]["sha256"] = "0" * 64


def interrupted(record: dict[str, Any]) -> None:
    record["complete"] = False


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (with_format, "record format 99"),
        (with_more, "surprise"),
        (without_plan, "plan"),
        (with_bad_field, "fps must be above 0"),
        (with_bad_tree, "plan"),
        (of_other_weights, "pass the original with --model"),
        (interrupted, "was interrupted"),
    ],
)
def test_record_that_cannot_be_repeated(
    change: Callable[[dict[str, Any]], None], expected: str, run: Run, film: list[str], tmp_path: Path
) -> None:
    assert run(*film, *SHORT, "-o", "x.mp4").code == 0
    record = json.loads((tmp_path / "x.json").read_text("utf-8"))
    change(record)
    (tmp_path / "x.json").write_text(json.dumps(record), encoding="utf-8")
    before = files(tmp_path)
    assert expected in said(run("rerun", "x.json", "-o", "y.mp4"), 2)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[1, 2]", "not a record"),
        (b'{"a": 1}', "not a record"),
    ],
)
def test_file_that_is_no_record(content: bytes | None, expected: str, run: Run, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    before = files(tmp_path)
    assert expected.lower() in said(run("rerun", "x.json"), 2).lower()
    assert files(tmp_path) == before


def test_rerun_of_a_picture_has_no_tree(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    assert run("image", "a cat", "-o", "x.png", "--steps", "1", "--model", checkpoint).code == 0
    before = files(tmp_path)
    assert "only a transition has a tree" in said(run("rerun", "x.json", "-o", "y.png", "--tree", "t.svg"), 2)
    assert files(tmp_path) == before


def test_train_refuses_what_it_does_not_know(run: Run) -> None:
    for arguments in ([], ["nothing"], ["t2i", "steps"], ["t2i", "colour=3"], ["t2i", "--config", "no.toml"]):
        said(run("train", *arguments), 1)
