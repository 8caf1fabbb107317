"""A run may be cut at any moment and goes on as if it had not been: its log is that of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from segue.cli.main import main
from segue.errors import TrainingError
from segue.training import checkpoint
from segue.training.journal import Journal
from segue.training.recipes import codec

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


def test_killed_at_a_random_step(corpus: Path, whole: Path, tmp_path: Path) -> None:
    log, wanted = tmp_path / "log.jsonl", random.randrange(2, 12)
    process = subprocess.Popen(
        [sys.executable, "-c", "from segue.cli.main import main; main()", *command(corpus, tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_bytes().count(b"\n") < wanted:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert len(lines(tmp_path)) < len(lines(whole)), "it was killed before its end"
    codec.main(codec.Config(**fields(corpus, tmp_path)))
    assert_alike(tmp_path, whole)


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
