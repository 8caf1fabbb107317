"""What a run leaves for another one, and what it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flickers import COUNT, flickering, made, saved, stopping, task, textured
from segue.errors import InterruptedRunError, TaskError
from segue.media.clip import ScratchFrames, levels_of


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
            task(film, **settings).run(progress=stopping(5), work=tmp_path)
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
