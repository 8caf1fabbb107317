"""A long clip that is killed, and gone on with by two processes: the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from cli.conftest import Run

WORDS = ["animate", "a spinning red ball", "--steps", "3", "--seconds", "2", "--fps", "8", "--size", "64x48"]
LONG = ["--long", "keys", "--levels", "2,2", "--threads", "1"]

DYING = """
import os, signal, sys
from segue.tasks import animate_long
whole = animate_long.lay_down

def lay_down(path, tensors):
    if path.name == "gap-000002.safetensors":
        path.with_name(".gap-000002.safetensors.part").write_bytes(b"half a gap")
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path, tensors)

animate_long.lay_down = lay_down
from segue.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_clip_is_gone_on_with_by_two_processes(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    words = [*WORDS, "--model", str(checkpoint), *LONG]
    assert run(*words, "-o", "whole.mp4", "--json").json["frames"] == 16
    command = [sys.executable, "-c", DYING, *words, "-o", "killed.mp4"]
    died = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    (kept,) = Path().glob(".segue-animate-*")
    assert (kept / "gap-000001.safetensors").exists() and not Path("killed.mp4").exists()
    answer = run(*words, "--workers", "2", "-o", "killed.mp4")
    assert answer.code == 0, answer.err
    assert Path("killed.mp4").read_bytes() == Path("whole.mp4").read_bytes()
    assert not list(Path().glob(".segue-*"))
    assert run("rerun", "killed.json", "-o", "again.mp4").code == 0
    assert Path("again.mp4").read_bytes() == Path("whole.mp4").read_bytes()
