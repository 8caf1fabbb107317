"""A restyled film whose run is killed wherever it writes something: the same command goes on to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from cli.conftest import Run
from flickers import saved, textured
from forked import python

SIZE = (64, 64)
QUICK = ["--cuts", "2", "--steps", "3", "--size", "64x64"]

DYING = '''
import os, signal, sys
from pathlib import Path

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def spool(name, number):
    """Half-way through a frame of a spool."""
    from segue.media.spool import Spool
    whole = Spool.append

    def append(self, frames):
        if self.folder.name == name and len(self) + len(frames) > number:
            for frame in frames[: number - len(self)]:
                whole(self, frame[None])
            with (self.folder / "frames.rgb").open("ab") as file:
                file.write(b"half a frame")
            die()
        whole(self, frames)

    Spool.append = append

def measured(number):
    """Half-way through what is found out about a frame."""
    from segue.tasks.deflicker_known import Measured
    whole = Measured.add

    def add(self, row):
        if self.count == number:
            with self.path.open("a") as file:
                file.write("[0.1, ")
            die()
        whole(self, row)

    Measured.add = add

def bank():
    """When all frames are finished, and half of their bank is written."""
    from segue.media import disk
    moved = Path.replace

    def replace(self, other):
        if Path(other).name == "look.safetensors":
            die()
        return moved(self, other)

    Path.replace = replace

def part(number):
    """Half-way through what is kept of a step."""
    from segue.tasks import stylize_draw, stylize_rival
    whole, left = stylize_draw.pause, [number]

    def pause(path, *given):
        left[0] -= 1
        if left[0] == 0:
            path.with_name(path.name + ".part").write_bytes(b"half a step")
            die()
        whole(path, *given)

    stylize_draw.pause = stylize_rival.pause = pause

exec(sys.argv.pop())
from segue.cli.main import main
sys.exit(main())
'''


@dataclass(frozen=True)
class Case:
    """Where a run dies, what it is, and what of it must be there then."""

    at: str
    words: str
    kept: str


LOOKS = "--bank bank.safetensors --attention bank,first,self --blend 0.5"
CASES = {
    "frames after a control": Case("spool('drawn', 3)", "--control softedge", "drawn/frames.rgb"),
    "what a bank did": Case("measured(1)", LOOKS, "frames/frames.rgb"),
    "a bank": Case("bank()", "--save-bank look.safetensors --attention anchors,self", "frames/frames.rgb"),
    "a shot of another method": Case("part(2)", "--method text2video-zero", "part-0000.safetensors"),
}


def bank(path: Path) -> dict[str, Any]:
    """What is in a bank: the order in which a file has it is nobody's promise."""
    if not path.exists():
        return {}
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).tolist() for name in file.offset_keys()} | dict(file.metadata())


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_was_killed_while_it_wrote(name: str, run: Run, tmp_path: Path) -> None:
    case, frames = CASES[name], torch.cat([textured(2, SIZE), textured(2, SIZE, seed=7)])
    saved(tmp_path / "a.apng", frames)
    usual = ["--model", "emoji-fast", *QUICK]
    if "--bank" in case.words.split():
        made = run("stylize", "a.apng", "a cat", *usual, "--save-bank", "bank.safetensors", "-o", "b.apng")
        assert made.code == 0, made.err
    words = ["stylize", "a.apng", "a fox", *usual, *case.words.split()]
    killed = subprocess.run(
        [python(), "-c", DYING, *words, "-o", "x.apng", case.at],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (hidden,) = tmp_path.glob(".segue-*")
    assert (hidden / case.kept).stat().st_size and not (tmp_path / "look.safetensors").exists()
    resumed = run(*words, "-o", "x.apng")
    assert resumed.code == 0, resumed.err
    assert not hidden.exists()
    looks = bank(tmp_path / "look.safetensors")
    whole = run(*words, "-o", "whole.apng")
    assert whole.code == 0, whole.err
    assert bool(looks) == ("--save-bank" in words)
    for suffix in ("apng", "json"):
        assert (tmp_path / f"x.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert looks == bank(tmp_path / "look.safetensors")
