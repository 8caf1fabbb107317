"""The live command: lines in, pictures out, a file that can be made again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from io import StringIO
from pathlib import Path
from time import sleep

import pytest

from cli.conftest import COMMAND, Run
from segue.media import read

SETTINGS = "--steps 3 --between 4 --fps 50"


@pytest.fixture
def words(checkpoint: Path) -> list[str]:
    return ["live", "a red apple", "--model", str(checkpoint), *SETTINGS.split()]


def typed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(text))


def test_what_is_typed_is_reached_and_recorded(
    run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("a cat\n\n  a lemon  \n", monkeypatch)
    answer = run(*words, "--queue", "-o", "x.mp4", "--json")
    assert answer.code == 0, answer.err
    assert [line.split("=")[1] for line in answer.json["say"]] == ["a cat", "a lemon"]
    clip = read(tmp_path / "x.mp4")
    assert len(clip) == answer.json["frames"] >= 1 + 2 * 4
    again = run("rerun", "x.json", "-o", "y.mp4")
    assert again.code == 0, again.err
    for suffix in (".mp4", ".json"):
        assert (tmp_path / f"x{suffix}").read_bytes() == (tmp_path / f"y{suffix}").read_bytes()


def test_a_script_needs_nobody_who_types(
    run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("", monkeypatch)
    answer = run(*words, "--say", "2=a cat", "--seconds", "0.4", "-o", "x.apng")
    assert (answer.code, answer.out) == (0, "x.apng  64x64, 20 frames, 0.4 s; 1 prompts were said\n")
    assert json.loads((tmp_path / "x.json").read_text("utf-8"))["fields"]["say"] == ["2=a cat"]


def test_without_a_file_it_is_shown(
    run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("", monkeypatch)
    answer = run(*words, "--seconds", "0.1")
    assert answer.code == 0
    assert re.search(r"watch it at http://127\.0\.0\.1:\d+/", answer.err)
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_cannot_be_is_told_and_no_end(run: Run, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    typed("a (cat:0s:1, 1s:2)\n", monkeypatch)
    answer = run(*words, "--seconds", "0.2", "-o", "x.mp4")
    assert answer.code == 0
    assert "a weight in a prompt of a stream is a number" in answer.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--crf", "20"], "give its name with -o"),
        (["--json"], "give its name with -o"),
        (["-o", "x.png"], "x.png holds one picture"),
        (["--open"], "--open opens the page of --play"),
        (["--say", "cat"], "say must be PICTURES=PROMPT"),
    ],
)
def test_what_cannot_be_is_refused(more: list[str], said: str, run: Run, words: list[str]) -> None:
    answer = run(*words, *more)
    assert answer.code in (1, 2)
    assert said in answer.err


def test_ctrl_c_ends_it_with_a_whole_file(words: list[str], tmp_path: Path) -> None:
    """As people use it: lines through a pipe that stays open, and then the signal."""
    process = subprocess.Popen(
        [*COMMAND, *words, "-o", "x.mp4", "--play"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None and process.stdin is not None
    process.stdin.write("a cat\n")
    process.stdin.flush()
    for line in process.stderr:
        if "watch it at" in line:
            break
    sleep(3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err and "Fatal" not in err
    assert re.search(r"stopped after \d+ pictures", err)
    assert out.startswith("x.mp4  64x64, ")
    assert len(read(tmp_path / "x.mp4")) >= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.mp4"]
