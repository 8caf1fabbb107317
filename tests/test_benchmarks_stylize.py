"""The table of drawn films: what it keeps, what it makes anew, and what its numbers are of."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from footage import moving
from models.perceptual.tiny_clip import write_clip
from models.tiny import write_model
from segue.evaluation.study import find_films
from segue.media import Clip, TensorFrames

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MEASURES = [
    "Pixel-MSE", "warp", "at 8", "sharpness", "shared", "prompt", "fits", "likeness", "changed", "PSNR", "s/frame",
    "rows",
]  # fmt: skip
EDITS = """
[first]
source = "cat"
prompts = ["a red apple", "a cat"]

[second]
start = 0.2
source = "apple"
prompts = ["cat"]
"""


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("stylize")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two clips, their edits, a random model and a random CLIP."""
    root = tmp_path_factory.mktemp("stylize")
    write_model(root / "model", vae="tiny", length=24)
    write_clip(root / "clip")
    for name, count in (("first", 8), ("second", 12)):
        (root / "clips").mkdir(exist_ok=True)
        Clip(TensorFrames(moving(count, (80, 64))), 10).save(root / "clips" / f"{name}.mp4", crf=10)
    (root / "edits.toml").write_text(EDITS)
    words = [root / "clips", root / "edits.toml", "--model", root / "model", "--clip-model", root / "clip"]
    return [*map(str, words), "--frames", "5", "--steps", "3"]


def films(out: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    records = [json.loads(path.read_text()) for path in (out / "films").glob("*.json")]
    return {(each["clip"], each["asked"], each["method"]): each for each in records}


def test_rows_are_kept_and_told(
    bench: Any, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--methods", "frame by frame", "+ shared noise"]
    out = ["-o", str(tmp_path / "out")]
    bench.main([*given, *out, *few, "--sheets", "--study", str(tmp_path / "blind")])
    first = capsys.readouterr().out
    assert first.count(" s a frame") == 6
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if line.startswith("|")}
    assert set(rows) == {"3 cases", "---", "frame by frame", "+ shared noise"}
    assert [name.strip() for name in rows["3 cases"]] == [*MEASURES, "cost"]
    alone = dict(zip(MEASURES, rows["frame by frame"], strict=False))
    assert alone["sharpness"].strip() == "100 (100 to 100)" and alone["shared"].strip() == "100 (100 to 100)"
    assert float(alone["rows"]) == float(dict(zip(MEASURES, rows["+ shared noise"], strict=False))["rows"])
    assert "CLIP score, CLIP clip (" in "\n".join(lines)
    assert len([*(tmp_path / "out").glob("sheet-*.png")]) == 3
    assert [sorted(film.methods) for film in find_films(tmp_path / "blind")] == [sorted(few[1:])] * 3

    drawn = films(tmp_path / "out")
    assert all(each["rows"] > 0 and each["measured"][0] == bench.MEASURED for each in drawn.values())
    lost = next((tmp_path / "out" / "films").glob("*.npy"))
    lost.unlink()
    bench.main([*given, *out, *few])
    again = capsys.readouterr().out
    assert again.count(" s a frame") == 1  # what is there is not made again
    monkeypatch.setattr(bench, "MEASURED", 99)
    bench.main([*given, *out, *few])
    assert " s a frame" not in capsys.readouterr().out
    assert {each["measured"][0] for each in films(tmp_path / "out").values()} == {99}
    bench.main([*given, *out, *few, "--seed", "1", "--seconds", "1000"])
    assert capsys.readouterr().out.count(" s a frame") == 6  # other settings, other films


def test_clips_are_cut_where_the_table_says(bench: Any, given: list[str], tmp_path: Path) -> None:
    words = bench.arguments([*given, "-o", str(tmp_path)])
    model = bench.segue.load(words.model)
    one, same, other = bench.edits(words.clips, words.edits, model, words)
    assert one.digest == same.digest != other.digest
    assert (len(one.frames), one.frames.size) == (5, (64, 64)) or one.frames.size[0] % 8 == 0
    assert torch.equal(bench.read(one.folder).frames[:], one.frames[:])
    words.frames = None
    whole = bench.edits(words.clips, words.edits, model, words)
    assert [len(edit.frames) for edit in whole] == [8, 8, 10]  # 4 s would be 40


def test_few_frames_of_a_second_are_taken(bench: Any, given: list[str], tmp_path: Path) -> None:
    root = Path(given[0]).parent
    (tmp_path / "edits.toml").write_text('[second]\nsource = "apple"\nstart = 0.2\nstop = 1\nprompts = ["cat"]\n')
    said = [given[0], str(tmp_path / "edits.toml"), "--model", str(root / "model"), "-o", str(tmp_path)]
    words = bench.arguments([*said, "--rate", "4", "--length", "3"])
    model = bench.segue.load(words.model)
    (edit,) = bench.edits(words.clips, words.edits, model, words)
    whole = bench.read(root / "clips" / "second.mp4").frames
    wanted = bench.cut(whole, [2, 4, 7], None, model, None)  # at 0.2, 0.45 and 0.7 s; 0.95 s is frame 10, past the stop
    assert torch.equal(edit.frames[:], wanted[:])
    assert bench.read(edit.folder).fps == 4
    words.rate = 20
    with pytest.raises(SystemExit, match="2 times that of the clip"):
        bench.edits(words.clips, words.edits, model, words)


def test_a_method_that_fails_is_told_and_the_rest_goes_on(
    bench: Any, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench.METHODS, "pix2video", {"method": "no such method"})
    bench.main([*given, "-o", str(tmp_path), "--methods", "frame by frame", "pix2video"])
    said = capsys.readouterr()
    assert said.err.count("pix2video: ") == 3
    assert "| frame by frame |" in said.out and "| pix2video |" not in said.out


def test_the_verdict_compares_case_by_case(bench: Any, tmp_path: Path) -> None:
    edit = bench.Edit("clip", TensorFrames(moving(3)), tmp_path, "", "x", "")
    other = bench.Edit("clip", TensorFrames(moving(3)), tmp_path, "", "y", "")
    values = {"Pixel-MSE": 1.0, "at 8": 1.0, "shared": 90.0, "likeness": 0.9, "PSNR": 20.0, "s/frame": 1.0, "rows": 9.0}
    made: list[Any] = []
    for number, (case, method, warp, sharp) in enumerate(
        [(edit, "frame by frame", 10, 100), (other, "frame by frame", 20, 100), (edit, "ours", 4, 97),
         (other, "ours", 14, 95), (edit, "codec", 1, 60), (other, "codec", 1, 70)]
    ):  # fmt: skip
        film = bench.Film(case, method, tmp_path / f"{number}")
        film.note(values | {"warp": warp, "sharpness": sharp, "prompt": 0.5, "fits": 1.0, "changed": 0.3})
        made.append(film)
    said = bench.verdict(bench.by_method(made))
    assert said[0] == "warp: ours less frame by frame: -6.000 (-6.000 to -6.000)"
    assert said[1].endswith("no lower: held") and said[-1] == "cost of ours 1.00, at most 1.25: held"
    assert said[-2] == "lowest warp error of those that keep 95 % of the sharpness: ours (9.00)"
    assert "| ours | 1.00 (1.00 to 1.00) | 9.00 (4.00 to 14.00) |" in bench.table(bench.by_method(made))[3]
