"""What a run leaves for another one, and what it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from flickers import COUNT, SIZE, flickering, keyed, made, painted, saved, stopping, task, textured
from segue.errors import DiskError, InterruptedRunError, TaskError
from segue.media.clip import ScratchFrames, levels_of
from segue.tasks import deflicker_run
from segue.tasks.unfinished import Passed


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path / "film.apng", flickering(textured()))


def test_what_is_finished_is_kept_and_gone_on_with(film: str, tmp_path: Path) -> None:
    whole = task(film).run()
    whole.save(tmp_path / "whole.apng")
    with pytest.raises(InterruptedRunError, match="the same command goes on") as caught:
        task(film).run(progress=stopping(14), work=tmp_path)
    partial = caught.value.partial
    assert partial is not None
    count = len(partial)
    assert 1 <= count < COUNT
    assert torch.equal(levels_of(partial.frames, slice(None)), levels_of(whole.frames, slice(0, count)))
    partial.save(tmp_path / "part.apng")
    assert not json.loads((tmp_path / "part.json").read_text())["complete"]
    (hidden,) = tmp_path.glob(".segue-*")
    with pytest.raises(TaskError, match="another process is making the same film"):
        task(film).run(work=tmp_path)
    del partial, caught
    said: list[float] = []
    finished = task(film).run(progress=lambda what, done, total: said.append(done), work=tmp_path)
    assert (hidden / "frames").is_dir()
    finished.save(tmp_path / "finished.apng")
    for suffix in ("apng", "json"):
        assert (tmp_path / f"finished.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert isinstance(finished.frames, ScratchFrames)
    finished.frames.discard()
    assert not hidden.exists()


def test_nothing_is_left_without_a_folder_for_it(film: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import tempfile

    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(place))
    clip = task(film).run()
    assert len(list(place.iterdir())) == 1
    del clip
    assert list(place.iterdir()) == []


def test_other_settings_do_not_go_on_where_these_were(film: str, tmp_path: Path) -> None:
    for settings in ({}, {"grain": 0.5}):
        with pytest.raises(InterruptedRunError):
            task(film, **settings).run(progress=stopping(14), work=tmp_path)
    assert len(list(tmp_path.glob(".segue-deflicker-*"))) == 2


def test_other_shots_do_not_go_on_where_these_were(film: str, tmp_path: Path) -> None:
    several = task(film, cuts="auto")
    plan = several.contents("cpu")
    with pytest.raises(InterruptedRunError):
        several.run(progress=stopping(14), work=tmp_path)
    planned = replace(plan, shots=[0, 4])
    assert torch.equal(made(several, plan=planned, work=tmp_path), made(several, plan=planned))


@pytest.mark.parametrize("damaged", ["", "\0" * 30, "[0, 99]", "{}", "[0, 1.5]"])
@pytest.mark.parametrize("name", ["shots.json", "measured.jsonl"])
def test_what_was_damaged_is_found_again(name: str, damaged: str, film: str, tmp_path: Path) -> None:
    several = task(film, cuts="auto")
    whole = several.run()
    with pytest.raises(InterruptedRunError):
        several.run(progress=stopping(14), work=tmp_path)
    (hidden,) = tmp_path.glob(".segue-*")
    (hidden / name).write_text(damaged + "\n" * (name == "measured.jsonl"), encoding="utf-8")
    again = several.run(work=tmp_path)
    assert torch.equal(levels_of(again.frames, slice(None)), levels_of(whole.frames, slice(None)))
    assert again.provenance == whole.provenance


def test_a_damaged_header_starts_over_and_says_so(film: str, tmp_path: Path) -> None:
    whole = made(task(film))
    with pytest.raises(InterruptedRunError):
        task(film).run(progress=stopping(14), work=tmp_path)
    (hidden,) = tmp_path.glob(".segue-*")
    (hidden / "frames" / "header.json").write_bytes(b"\xff\0\0")
    said: set[str] = set()

    def hear(what: str, done: float, total: float) -> None:
        said.add(what)

    again = made(task(film), work=tmp_path, progress=hear)
    assert torch.equal(again, whole)
    assert any("starting over" in what for what in said)


def test_nothing_is_left_of_a_run_without_a_finished_frame(film: str, tmp_path: Path) -> None:
    folder = painted(tmp_path / "k", textured(), (1,))
    with pytest.raises(TaskError, match="has no key picture"):
        keyed(film, folder, cuts="5").run(work=tmp_path)

    def stop(what: str, done: float, total: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match=r"interrupted; 0 of 9 frames are finished$") as caught:
        task(film, cuts="auto").run(progress=stop, work=tmp_path)
    assert caught.value.partial is None
    assert list(tmp_path.glob(".segue-*")) == []


def leave(amount: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many bytes on every disk."""

    def usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=amount)

    monkeypatch.setattr(deflicker_run.shutil, "disk_usage", usage)


def test_a_full_disk_takes_nothing_that_is_finished(film: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InterruptedRunError):
        task(film).run(progress=stopping(14), work=tmp_path)
    leave(0, monkeypatch)
    with pytest.raises(DiskError, match="free some space"):
        task(film).run(work=tmp_path)
    with pytest.raises(DiskError, match="free some space"):
        task(film, grain=0.5).run(work=tmp_path)
    assert len(list(tmp_path.glob(".segue-*"))) == 1


@pytest.mark.parametrize(
    "settings",
    [{"window": 1}, {"window": 3}, {"window": 3, "mode": "accurate"}, {"coarse": 2}, {"keys": (0,)}],
    ids=str,
)
def test_what_lies_on_disk_is_what_the_check_asks_for(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its most, beside the finished frames; and no more than a third is asked for in vain."""
    film = saved(tmp_path / "film.apng", textured(24))
    settings = dict(settings)
    if "keys" in settings:
        settings = {"keys": painted(tmp_path / "k", textured(24), settings["keys"]), "window": None}
    most, forget = 0, Passed.forget

    def measure(passed: Passed, number: int) -> None:
        nonlocal most
        # What is of no pixel: the names and sizes in each file.
        most = max(most, sum(file.stat().st_size - 500 for file in passed.folder.iterdir()))
        forget(passed, number)

    monkeypatch.setattr(Passed, "forget", measure)
    task(film, **settings).run()
    frames = 3 * SIZE[0] * SIZE[1] * 24

    leave(frames + most - 1000, monkeypatch)
    with pytest.raises(DiskError):
        task(film, **settings).run(work=tmp_path)
    leave(frames + most * 4 // 3, monkeypatch)
    with pytest.raises(InterruptedRunError):
        task(film, **settings).run(progress=stopping(0), work=tmp_path)
