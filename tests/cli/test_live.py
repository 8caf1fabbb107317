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
from typing import Any

import pytest
from torch import Tensor

from cli.conftest import Run, command
from segue.cli import live as module
from segue.errors import ExhaustedError
from segue.media import read
from segue.tasks.frames import Developer
from segue.tasks.live_stream import LiveStream

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


def test_ctrl_c_ends_it_with_a_whole_file(run: Run, words: list[str], tmp_path: Path) -> None:
    """As people use it: lines through a pipe that stays open, and then the signal."""
    process = subprocess.Popen(
        [*command(), *words, "-o", "x.mp4", "--play"],
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.mp4"]
    frames = len(read(tmp_path / "x.mp4"))
    assert f"stopped after {frames} pictures" in err and f", {frames} frames, " in out
    kept = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert (round(kept["fields"]["seconds"] * 50), kept["complete"]) == (frames, True)
    assert run("rerun", "x.json", "-o", "y.mp4", "--quiet").code == 0
    assert (tmp_path / "y.mp4").read_bytes() == (tmp_path / "x.mp4").read_bytes()


def silence(*_: Any) -> None:
    """Somebody who says nothing, and does not end it either."""


def stopped(monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
    """Let the codec fail at one of its pictures, and work again after it."""
    own, calls = Developer.__call__, list[int]()

    def develop(self: Developer, *asked: Any) -> Tensor:
        calls.append(1)
        if len(calls) == at:
            raise error
        return own(self, *asked)

    monkeypatch.setattr(Developer, "__call__", develop)


@pytest.mark.parametrize(
    ("error", "length", "code"),
    [
        (KeyboardInterrupt(), ["--seconds", "1"], 130),
        (KeyboardInterrupt(), [], 0),
        (ExhaustedError("out of memory while decoding"), ["--seconds", "1"], 1),
        (ExhaustedError("out of memory while decoding"), [], 1),
    ],
    ids=["cut", "ended", "exhausted", "exhausted without an end"],
)
def test_a_recording_that_is_stopped_says_what_it_has(
    error: BaseException,
    length: list[str],
    code: int,
    run: Run,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file, its record, what is said of both, and what the record makes again are of the same pictures."""
    monkeypatch.setattr(module, "_listen", silence)
    stopped(monkeypatch, 4, error)
    answer = run(*words, *length, "--say", "2=a cat", "--say", "9=a lemon", "-o", "x.mp4", "--json")
    assert answer.code == code, answer.err
    assert "Traceback" not in answer.err
    assert ("error: out of memory while decoding" in answer.err) == (code == 1)
    kept = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert len(read(tmp_path / "x.mp4")) == answer.json["frames"] == 3
    assert kept["fields"]["seconds"] * 50 == 3 and kept["fields"]["say"] == answer.json["say"] == ["2=a cat"]
    assert kept["complete"] == answer.json["complete"] == (code == 0)
    assert run("rerun", "x.json", "-o", "y.mp4").code == 0
    assert (tmp_path / "x.mp4").read_bytes() == (tmp_path / "y.mp4").read_bytes()


def test_a_part_does_not_replace_a_whole_recording(
    run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("", monkeypatch)
    (tmp_path / "x.mp4").write_bytes(b"that of yesterday")
    stopped(monkeypatch, 4, KeyboardInterrupt())
    assert run(*words, "--seconds", "1", "-o", "x.mp4", "--json").json["path"] == "x-partial.mp4"
    assert (tmp_path / "x.mp4").read_bytes() == b"that of yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-partial.json", "x-partial.mp4", "x.mp4"]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (ExhaustedError("out of memory"), 1)])
def test_before_the_first_picture_there_is_nothing_to_keep(
    error: BaseException, code: int, run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("", monkeypatch)
    stopped(monkeypatch, 1, error)
    assert run(*words, "--seconds", "1", "-o", "x.mp4").code == code
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_a_picture_is_written_waits_for_it(
    run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the file and what was counted are the same, even if the signal comes between the two."""
    from segue.media.sinks import VideoSink

    typed("", monkeypatch)
    own, calls = VideoSink.append, list[int]()

    def append(self: VideoSink, frame: Any) -> None:
        own(self, frame)
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(VideoSink, "append", append)
    # As in a terminal; where tests share a machine, their processes are told to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        answer = run(*words, "--seconds", "1", "-o", "x.mp4", "--json")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (answer.code, answer.json["frames"]) == (130, 3)
    assert len(read(tmp_path / "x.mp4")) == 3


def test_a_recording_that_is_full_ends_with_its_record(
    run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_listen", silence)
    monkeypatch.setattr(module, "MAX_FRAMES", 5)
    answer = run(*words, "-o", "x.mp4", "--json")
    assert (answer.code, answer.json["frames"], answer.json["complete"]) == (0, 5, True)
    assert "x.mp4 has 5 pictures and takes no more" in answer.err
    assert json.loads((tmp_path / "x.json").read_text("utf-8"))["fields"]["seconds"] == 0.1


@pytest.mark.parametrize(
    ("steps", "more", "most"),
    [
        # With and without a prompt: two branches and two keys, or eleven and two.
        ("3", [], 8),
        ("12", [], 26),
        ("12", ["--deterministic-batch"], 28),
        ("12", ["--max-batch", "3"], 3),
    ],
)
def test_a_tick_is_one_call_unless_it_is_said_otherwise(
    steps: str,
    more: list[str],
    most: int,
    run: Run,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed("", monkeypatch)
    words[words.index("--steps") + 1] = steps
    assert run(*words, "--depth", "0.1", "--seconds", "0.02", "-o", "x.mp4", *more).code == 0
    assert json.loads((tmp_path / "x.json").read_text("utf-8"))["execution"]["max_batch"] == most


def test_a_listener_that_fails_ends_an_endless_stream(
    run: Run, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("a cat\n", monkeypatch)

    def say(self: LiveStream, prompt: str) -> tuple[str, ...]:
        raise RuntimeError("the text encoder is gone")

    monkeypatch.setattr(LiveStream, "say", say)
    answer = run(*words, "-o", "x.mp4")
    assert answer.code == 0, answer.err
    assert "no more lines are heard (RuntimeError: the text encoder is gone)" in answer.err
