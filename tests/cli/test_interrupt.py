"""Ctrl-C, sent as the signal that it is: what is finished stays, as a playable video, and the command says where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import SHORT, interrupted
from segue.media import read


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("rendering frames", ["--seconds", "20", "--fps", "60"]),
        ("writing", ["--seconds", "40", "--fps", "60", "--fill", "blend"]),
    ],
)
def test_what_is_finished_is_kept(stage: str, settings: list[str], film: list[str], tmp_path: Path) -> None:
    code, out, err = interrupted([*film, *settings, "-o", "x.mp4", "--json"], tmp_path, stage)
    assert code == 130, err
    assert "Traceback" not in err
    assert "interrupted" in err
    assert "x.mp4" in err
    result = json.loads(out)
    clip = read(tmp_path / "x.mp4")
    assert 2 <= len(clip) == result["frames"] < int(settings[1]) * 60
    assert clip.frames[0:2].shape == (2, 3, 64, 64)
    assert not result["complete"]
    assert not json.loads((tmp_path / "x.json").read_text("utf-8"))["complete"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.mp4"]


def test_nothing_to_keep(film: list[str], tmp_path: Path) -> None:
    code, out, err = interrupted([*film, *SHORT, "-o", "x.mp4"], tmp_path, "loading the model")
    assert (code, out) == (130, "")
    assert "Traceback" not in err
    assert "nothing was written" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stage", "settings"),
    [("rendering frames", ["--seconds", "20"]), ("writing", ["--seconds", "40", "--fill", "blend"])],
)
def test_a_part_does_not_replace_a_whole_film(stage: str, settings: list[str], film: list[str], tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"the film of yesterday")
    code, out, err = interrupted([*film, *settings, "--fps", "60", "-o", "x.mp4", "--json"], tmp_path, stage)
    assert code == 130, err
    assert (tmp_path / "x.mp4").read_bytes() == b"the film of yesterday"
    assert Path(json.loads(out)["path"]).name == "x-partial.mp4"
    assert len(read(tmp_path / "x-partial.mp4")) == json.loads(out)["frames"] >= 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-partial.json", "x-partial.mp4", "x.mp4"]
