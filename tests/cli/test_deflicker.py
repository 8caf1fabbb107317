"""`segue deflicker`, as a user calls it."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cyclopts import App

from cli.conftest import Run, command, interrupted
from cli.test_bad_input import files, said
from footage import moving
from forked import python
from segue.cli.deflicker import Machine
from segue.cli.fields import described, flags, verb
from segue.media import Clip, TensorFrames, read, writer
from segue.tasks.deflicker import Deflicker
from segue.tasks.deflicker_known import Measured

# A value for every field, other than its default.
TYPED: dict[str, tuple[str, Any]] = {
    "guide": ("--guide source.mp4", "source.mp4"),
    "keys": ("--keys painted", "painted"),
    "window": ("--window 3", 3),
    "mode": ("--mode accurate", "accurate"),
    "matching": ("--matching patchmatch", "patchmatch"),
    "grain": ("--grain 0.5", 0.5),
    "detail": ("--detail own", "own"),
    "strength": ("--strength 0.5", 0.5),
    "contrast": ("--contrast 1.1", 1.1),
    "sharpness": ("--sharpness 1.5", 1.5),
    "cuts": ("--cuts 48,12", "12,48"),
    "coarse": ("--coarse 2", 2),
}
QUICK = ["--matching", "flow", "--window", "2", "--cuts", "none"]


def saved(path: Path, frames: int = 5, size: tuple[int, int] = (32, 24)) -> Path:
    return Clip(TensorFrames(moving(frames, size)), fps=5).save(path)


def test_every_field_has_an_example_and_is_explained() -> None:
    every = flags(Deflicker, ())
    assert {".".join(flag.place) for flag in every if not flag.is_positional} == set(TYPED)
    assert [flag.name for flag in every if flag.is_positional] == ["input"]
    for kind in (Deflicker, Machine):
        assert described(kind).keys() == {field.name for field in fields(kind)}


@pytest.mark.parametrize("place", TYPED)
def test_flag_arrives(place: str) -> None:
    seen: list[Deflicker] = []

    def capture(task: Deflicker) -> int:
        seen.append(task)
        return 0

    app = App(exit_on_error=False, print_error=False, result_action="return_value")
    app.default(verb(capture))
    typed, expected = TYPED[place]
    for line in ([], typed.split()):
        app(["in.mp4", *line])
    plain, given = (asdict(task) for task in seen)
    assert given[place] == expected != plain[place]


@pytest.mark.parametrize(("name", "out"), [("a.mp4", "b.webm"), ("a.gif", "b.gif"), ("a", "b"), ("a.apng", "b")])
def test_it_is_written_with_its_record_and_can_be_repeated(name: str, out: str, run: Run, tmp_path: Path) -> None:
    saved(tmp_path / name)
    answer = run("deflicker", name, "-o", out, "--json", *QUICK)
    assert answer.code == 0, answer.err
    assert (answer.json["width"], answer.json["height"], answer.json["frames"]) == (32, 24, 5)
    assert {"change_before", "change", "sharpness_kept", "shots"} == answer.json["scores"].keys()
    assert len(read(tmp_path / out)) == 5
    assert json.loads((tmp_path / "b.json").read_text("utf-8"))["model"] is None
    again = Path(out).with_stem("again") if Path(out).suffix else Path("again")
    repeated = run("rerun", "b.json", "-o", again)
    assert repeated.code == 0, repeated.err
    assert "loading the model" not in answer.err + repeated.err
    if (tmp_path / out).is_file():
        assert (tmp_path / again).read_bytes() == (tmp_path / out).read_bytes()
    assert list(tmp_path.glob(".*")) == []


def test_it_finds_a_name_by_itself_and_says_what_changed(run: Run, tmp_path: Path) -> None:
    saved(tmp_path / "a.mp4")
    answer = run("deflicker", "a.mp4", *QUICK)
    assert answer.code == 0
    assert "a-steady.mp4  32x24, 5 frames" in answer.out
    assert "sharpness kept" in answer.out


BAD: dict[str, tuple[list[str], int, str]] = {
    "nothing": ([], 2, "INPUT is missing"),
    "no file": (["no.mp4"], 1, "there is no such file"),
    "no video": (["text.mp4"], 1, "text.mp4"),
    "sound alone": (["sound.wav"], 1, "there is no video in it"),
    "cut short": (["short.mp4"], 1, "short.mp4"),
    "a picture": (["one.png"], 2, "one.png has one frame, which nothing flickers in"),
    "empty folder": (["empty"], 1, "there are no pictures in this folder"),
    "itself": (["a.mp4", "-o", "a.mp4"], 2, "is the input"),
    "its guide": (["a.mp4", "--guide", "b.mp4", "-o", "b.mp4"], 2, "is the input"),
    "one picture": (["a.mp4", "-o", "x.png"], 1, "holds one picture"),
    "no guide": (["a.mp4", "--guide", "no.mp4"], 1, "there is no such file"),
    "shorter guide": (["a.mp4", "--guide", "few.mp4"], 2, "a.mp4 has 5 frames, and few.mp4 has 3"),
    "window": (["a.mp4", "--window", "0"], 2, "window must be"),
    "mode": (["a.mp4", "--mode", "slow"], 2, "fast"),
    "device": (["a.mp4", "--device", "warp"], 1, '"cpu" always can'),
    "threads": (["a.mp4", "--threads", "0"], 2, "threads must be 1 or more"),
    "model": (["a.mp4", "--model", "emoji"], 2, "--model"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, run: Run, tmp_path: Path) -> None:
    for name, count in (("a.mp4", 5), ("b.mp4", 5), ("few.mp4", 3), ("one.png", 1)):
        saved(tmp_path / name, count)
    (tmp_path / "text.mp4").write_text("no film", encoding="utf-8")
    (tmp_path / "short.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:1500])
    (tmp_path / "empty").mkdir()
    write_sound(tmp_path / "sound.wav")
    before = files(tmp_path)
    arguments, code, expected = BAD[case]
    assert expected in said(run("deflicker", *arguments), code)
    assert files(tmp_path) == before


def write_sound(path: Path) -> None:
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def test_a_disk_that_is_too_small_is_told_before(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segue.tasks import deflicker_run

    saved(tmp_path / "a.mp4")

    def nearly_full(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=1000)

    monkeypatch.setattr(deflicker_run.shutil, "disk_usage", nearly_full)
    assert "GB are free: free some space" in said(run("deflicker", "a.mp4", "-o", "x.mp4", *QUICK), 1)
    assert list(tmp_path.glob(".*")) == []


def test_memory_that_may_not_be_enough_is_said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segue.models import capacity

    def little(device: Any) -> capacity.Memory:
        return capacity.Memory(1 << 30, 1_000_000, 0)

    saved(tmp_path / "a.mp4")
    assert "of memory" not in run("deflicker", "a.mp4", "-o", "x.mp4", *QUICK).err
    monkeypatch.setattr(capacity, "memory_of", little)
    assert "GB are free: a smaller --window takes less" in run("deflicker", "a.mp4", "-o", "x.mp4", *QUICK).err


def test_a_rerun_takes_no_model(run: Run, tmp_path: Path) -> None:
    saved(tmp_path / "a.apng")
    assert run("deflicker", "a.apng", "-o", "b.apng", *QUICK).code == 0
    assert "uses no model" in said(run("rerun", "b.json", "--model", "emoji"), 2)
    assert "is the input" in said(run("rerun", "b.json", "-o", "a.apng"), 2)
    assert run("rerun", "b.json", "-o", "c.apng", "--device", "cpu").code == 0


def test_what_is_finished_is_kept_and_gone_on_with(tmp_path: Path) -> None:
    saved(tmp_path / "a.mp4", 24)
    words = ["deflicker", "a.mp4", *QUICK, "-o", "x.mp4"]
    code, _, err = interrupted([*words, "--json"], tmp_path, "making frames agree")
    assert code == 130, err
    assert "Traceback" not in err
    # It may have been too early for a frame, and then there is nothing to go on with.
    assert len(list(tmp_path.glob(".segue-deflicker-*"))) == (tmp_path / "x.mp4").exists()
    if (tmp_path / "x.mp4").exists():
        assert 1 <= len(read(tmp_path / "x.mp4")) < 24
        assert "the same command goes on from there" in err
    done = subprocess.run([*command(), *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "x.mp4")) == 24
    assert list(tmp_path.glob(".segue-*")) == []


KILLED = """
import os, signal, sys
from segue.tasks import deflicker_run
from segue.cli.main import main

add = deflicker_run.Measured.add

def add_or_die(self, row):
    if self.count == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, row)

deflicker_run.Measured.add = add_or_die
sys.exit(main())
"""


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(run: Run, tmp_path: Path) -> None:
    saved(tmp_path / "a.mp4", 12)
    words = ["deflicker", "a.mp4", *QUICK]
    killed = subprocess.run(
        [python(), "-c", KILLED, *words, "-o", "x.mp4"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (hidden,) = tmp_path.glob(".segue-*")
    assert not (tmp_path / "x.mp4").exists()
    # A frame was finished, and half of what was measured of it written, when it died.
    with (hidden / "measured.jsonl").open("a", encoding="utf-8") as file:
        file.write("[0.1, ")
    with (hidden / "frames" / "frames.rgb").open("ab") as file:
        file.write(b"half a frame")
    resumed, whole = run(*words, "-o", "x.mp4"), run(*words, "-o", "whole.mp4")
    assert (resumed.code, whole.code) == (0, 0), resumed.err
    for suffix in ("mp4", "json"):
        assert (tmp_path / f"x.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert list(tmp_path.glob(".segue-*")) == []


@pytest.mark.parametrize("during", ["making", "writing"])
def test_without_a_name_the_same_command_takes_the_same_name(
    during: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "a.mp4", 12)
    monkeypatch.setattr(writer, "FIRST_FRAMES", 5)
    with monkeypatch.context() as patch:
        whole = Measured.add if during == "making" else writer.Writer.append
        times = 0

        def stop(self: Any, what: Any) -> None:
            nonlocal times
            times += 1
            if times == 2:
                raise KeyboardInterrupt
            whole(self, what)

        patch.setattr(*((Measured, "add") if during == "making" else (writer.Writer, "append")), stop)
        assert run("deflicker", "a.mp4", *QUICK).code == 130
    assert len(read(tmp_path / "a-steady-partial.mp4")) == (2 if during == "making" else 5)
    record = json.loads((tmp_path / "a-steady-partial.json").read_text("utf-8"))
    assert (record["complete"], record["notes"]) == (False, [])
    assert not (tmp_path / "a-steady.mp4").exists()
    assert not (tmp_path / "a-steady.json").exists()
    assert run("deflicker", "a.mp4", *QUICK).code == 0
    assert len(read(tmp_path / "a-steady.mp4")) == 12
    assert list(tmp_path.glob(".segue-*")) == []


def test_a_wrong_guide_is_told_at_the_end(run: Run, tmp_path: Path) -> None:
    frames = moving(5, (32, 24))
    saved(tmp_path / "a.apng")
    Clip(TensorFrames(frames.flip(0).contiguous()), fps=5).save(tmp_path / "wrong.apng")
    answer = run("deflicker", "a.apng", "--guide", "wrong.apng", "-o", "x.apng", *QUICK)
    assert answer.code == 0
    assert "along the movement of the guide" in answer.err
