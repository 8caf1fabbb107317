"""What an upscaled result may be called, and where it may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from footage import moving
from segue.errors import TaskError
from segue.media import Clip, TensorFrames
from segue.tasks.on_file import check_result, result_name


def saved(path: Path, frames: int) -> Path:
    return Clip(TensorFrames(moving(frames, (24, 16))), fps=5).save(path)


def test_names_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {("a.png", 1): "a-large.png", ("a.bmp", 1): "a-large.png", ("a.webm", 9): "a-large.webm"}
    names |= {("a.avi", 9): "a-large.mp4", ("a.gif", 9): "a-large.gif", ("folder", 9): "folder-large"}
    (tmp_path / "folder").mkdir()
    for (name, frames), expected in names.items():
        assert result_name(tmp_path / name, frames) == expected
    monkeypatch.chdir(tmp_path / "folder")
    assert result_name(Path(), 9) == "folder-large"


def test_neither_the_input_nor_its_record_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "link.png").symlink_to("a.png")
    source, film = saved(tmp_path / "a.png", 1), saved(tmp_path / "b.gif", 3)
    check_result(source, tmp_path / "a.webp")
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    for path, name, said in (
        (source, "a.png", "is the input"),
        (source, "other/../a.png", "is the input"),
        (tmp_path / "link.png", "a.png", "is the input"),
        (source, "a.webp", "how a.png was made"),
        (source, "other/../a.webp", "how a.png was made"),
        (film, "b.mp4", "how b.gif was made"),
    ):
        with pytest.raises(TaskError, match=said):
            check_result(path, tmp_path / name)
    for name in ("other/a.png", "c.webp"):
        check_result(source, tmp_path / name)


def test_nothing_is_written_into_a_folder_that_is_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More pictures in it would be more frames of the next film, and another input for a rerun."""
    folder = saved(tmp_path / "frames", 2)
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for source, name in (
        (folder, "frames/large.png"),
        (folder, "frames/deeper/film.mp4"),
        (folder, "link/large.png"),
        (tmp_path / "link", "frames/large"),
    ):
        with pytest.raises(TaskError, match=r"lies in .*, which is the input.*another folder"):
            check_result(source, tmp_path / name)
    check_result(folder, tmp_path / "frames-large")
    check_result(folder, tmp_path / "large.mp4")
    monkeypatch.chdir(folder)
    with pytest.raises(TaskError, match="lies in"):
        check_result(Path(), Path("large.mp4"))
    check_result(Path(), Path("../large.mp4"))
