"""A run may be cut at any moment and goes on as if it had not been: its log is that of one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from segue.cli.main import main
from segue.errors import TrainingError
from segue.training import checkpoint
from segue.training.journal import Journal
from segue.training.recipes import codec, t2i

STEPS = 36


def fields(corpus: Path, out: Path) -> dict[str, Any]:
    """Logged every 4 steps and saved every 3, so that most checkpoints lie between two lines of the log."""
    small = {"width": 8, "encoder_blocks": (0, 1, 1, 1), "decoder_blocks": (1, 1, 1, 1), "validation_every": 8}
    times = {"steps": STEPS, "batch": 2, "warmup": 1, "decay": 9, "log_every": 4, "save_every": 3}
    return {"corpus": corpus, "out": out, "adversarial": 0.5, "discriminator_width": 8, **small, **times}


def command(corpus: Path, out: Path) -> list[str]:
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in fields(corpus, out).items()}
    return ["train", "codec", *(f"{name}={value}" for name, value in values.items())]


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was left alone."""
    out = tmp_path_factory.mktemp("whole")
    codec.main(codec.Config(**fields(corpus, out)))
    return out


def lines(folder: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def assert_alike(folder: Path, whole: Path) -> None:
    assert lines(folder) == lines(whole)
    found, expected = (load_file(one / "checkpoint.safetensors") for one in (folder, whole))
    assert found.keys() == expected.keys()
    assert [key for key in expected if not expected[key].equal(found[key])] == []


def kill(arguments: list[str], out: Path, lines_first: int) -> None:
    """Run a command in a process of its own, and kill -9 it when its log has so many lines."""
    log = out / "log.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", "from segue.cli.main import main; main()", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_bytes().count(b"\n") < lines_first:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()


def test_a_codec_killed_between_two_checkpoints(corpus: Path, whole: Path, tmp_path: Path) -> None:
    """The fourth line is that of step 8; the checkpoint then is that of step 6."""
    kill(command(corpus, tmp_path), tmp_path, 4)
    assert len(lines(tmp_path)) < len(lines(whole)), "it was killed before its end"
    codec.main(codec.Config(**fields(corpus, tmp_path)))
    assert_alike(tmp_path, whole)


def test_text_to_picture_killed_between_two_checkpoints(corpus: Path, whole: Path, tmp_path: Path) -> None:
    parts: dict[str, Any] = {"widths": (32, 32), "text_width": 32, "text_layers": 1, "vocabulary": 560, "positions": 8}
    times: dict[str, Any] = {
        "steps": 14,
        "batch": 2,
        "warmup": 1,
        "decay": 4,
        "log_every": 1,
        "save_every": 4,
        "sheet_every": 99,
    }
    seen: dict[str, Any] = {"sheet_steps": 1, "sheet_prompts": ("an apple",)}
    configs = [
        t2i.Config(corpus=corpus, codec=whole / "vae", out=tmp_path / name, **parts, **times, **seen)
        for name in ("alone", "killed")
    ]
    killed = configs[1].out
    given = {name: value for name, value in asdict(configs[1]).items() if value is not None}
    listed = {name: json.dumps(value) if isinstance(value, tuple) else value for name, value in given.items()}
    kill(["train", "t2i", *(f"{name}={value}" for name, value in listed.items())], killed, 6)
    assert (killed / "checkpoint.safetensors").exists() and not (killed / "model").exists()
    for config in configs:
        t2i.main(config)
    assert_alike(killed, configs[0].out)
    models = [load_file(c.out / "model" / "unet" / "diffusion_pytorch_model.safetensors") for c in configs]
    assert [key for key in models[0] if not models[0][key].equal(models[1][key])] == []


def test_killed_while_a_checkpoint_is_written(
    corpus: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = checkpoint.save_file

    def until(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        plain(dict(tensors), path, metadata)
        if metadata["step"] == "21":
            path.write_bytes(path.read_bytes()[:999])
            raise KeyboardInterrupt  # stands for kill -9: nothing that the recipe says comes after it

    config = codec.Config(**fields(corpus, tmp_path))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_file", until)
        codec.main(config)
    assert max(line["step"] for line in lines(tmp_path)) == 21
    codec.main(config)
    assert_alike(tmp_path, whole)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_asked_to_stop_it_writes_a_checkpoint_and_says_how_to_go_on(
    name: str, corpus: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    plain, handler = Journal.step, signal.getsignal(signal.SIGINT)

    def ask(self: Journal, step: int, **values: Any) -> None:
        if step == 17:
            signal.raise_signal(signal.Signals[name])
        plain(self, step, **values)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "step", ask)
        assert main(command(corpus, tmp_path)) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("segue: stopped after step 17 of 36; run the same command to go on")
    assert signal.getsignal(signal.SIGINT) is handler
    assert checkpoint.safe_open(tmp_path / "checkpoint.safetensors", "pt").metadata()["step"] == "17"
    assert main(command(corpus, tmp_path)) == 0
    assert_alike(tmp_path, whole)


def test_asked_twice_it_does_not_wait_for_the_step(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(self: Journal, step: int, **values: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Journal, "step", ask)
    with pytest.raises(KeyboardInterrupt):
        codec.main(codec.Config(**fields(corpus, tmp_path)))


def test_a_finished_run_is_not_run_again(corpus: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "learn", None)
    before = lines(whole)
    assert codec.main(codec.Config(**fields(corpus, whole))) == whole / "vae"
    assert lines(whole) == before


def test_a_damaged_checkpoint_is_named(corpus: Path, whole: Path, tmp_path: Path) -> None:
    data = (whole / "checkpoint.safetensors").read_bytes()
    for damaged in (b"", data[:1000], b"\0" * 100):
        (tmp_path / "checkpoint.safetensors").write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"checkpoint\.safetensors does not fit this run"):
            codec.main(codec.Config(**fields(corpus, tmp_path)))
