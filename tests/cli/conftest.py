"""The command, called as a user calls it, with a tiny random model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from forked import SEGUE, python
from models.tiny import write_model
from segue.cli.main import main


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


SHORT = ["--seconds", "0.4", "--fps", "20"]
Run = Callable[..., Answer]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 64 pixels, of the layout of Stable Diffusion."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny", vae="tiny", length=24)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGUE_TRACEBACK", raising=False)

    def call(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return call


@pytest.fixture
def film(checkpoint: Path) -> list[str]:
    """A transition, all but its length and its name."""
    settings = "--steps 3 --seed 1 --seed 2 --max-branches 2"
    return ["transition", "a red apple", "a cat", "--model", str(checkpoint), *settings.split()]


def command() -> list[str]:
    """What runs the command in a process of its own."""
    return [python(), "-c", SEGUE]


def interrupted(words: list[str], folder: Path, stage: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that is interrupted when it says that a stage has begun."""
    process = subprocess.Popen(
        [*command(), *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # Where tests run in the background of a shell, SIGINT is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if line == f"segue: {stage}\n":
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    return process.returncode, out, "".join(lines) + err
