# pyright: basic
"""A clip whose run is killed while it writes something: the same command goes on to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from cli.conftest import Run
from forked import python
from models.test_time_inserted import SMALL, taught
from segue.models.loading import load_model
from segue.models.time_files import save_time

DYING = """
import os, signal, sys

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def step(number):
    '''Half-way through what is kept of a step.'''
    from segue.tasks import animate_zero_shot
    whole, left = animate_zero_shot.pause, [number]

    def pause(path, *given):
        left[0] -= 1
        if left[0] == 0:
            path.with_name(path.name + ".part").write_bytes(b"half a step")
            die()
        whole(path, *given)

    animate_zero_shot.pause = pause

def frame(number):
    '''Half-way through a finished frame.'''
    from segue.media.spool import Spool
    whole = Spool.append

    def append(self, frames):
        if len(self) + len(frames) > number:
            with (self.folder / "frames.rgb").open("ab") as file:
                file.write(b"half a frame")
            die()
        whole(self, frames)

    Spool.append = append

exec(sys.argv.pop())
from segue.cli.main import main
sys.exit(main())
"""
QUICK = ["--steps", "3", "--seconds", "0.5", "--fps", "8"]


@pytest.mark.parametrize(
    ("engine", "at", "kept"),
    [
        ("a picture that moves", "step(6)", "first.safetensors"),
        ("Video LDM", "step(3)", "frames.safetensors"),
        ("Video LDM", "frame(2)", "frames/frames.rgb"),
    ],
)
def test_a_killed_run_is_gone_on_with(
    engine: str, at: str, kept: str, run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    words = ["animate", "a spinning red ball", "--model", str(checkpoint), *QUICK]
    if engine == "Video LDM":
        with torch.no_grad():
            save_time(tmp_path / "motion.safetensors", taught(load_model(checkpoint, device="cpu"), SMALL), whole=True)
        words += ["--motion-adapter", "motion.safetensors"]
    killed = subprocess.run(
        [python(), "-c", DYING, *words, "-o", "x.apng", at],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert engine in killed.stderr
    (hidden,) = tmp_path.glob(".segue-*")
    assert (hidden / kept).stat().st_size
    for name in ("x", "whole"):
        answer = run(*words, "-o", f"{name}.apng")
        assert answer.code == 0, answer.err
        assert not hidden.exists()
    for suffix in ("apng", "json"):
        assert (tmp_path / f"x.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
