"""Whether a bank brings a second clip nearer: what the benchmark draws, keeps and tells."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from attending import attending_model
from flickers import textured
from footage import moving
from segue.evaluation.distances import PixelDistance
from segue.media import Clip, TensorFrames
from segue.models.bundle import LatentDiffusion

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
EDITS = """
[first]
source = "cat"
prompts = ["a cat"]

[second]
source = "apple"
prompts = ["cat"]
"""


class Means:
    """Mean colours, which need no weights."""

    name = "means"

    @staticmethod
    def load() -> Means:
        return Means()

    def __call__(self, pictures: Tensor, /) -> Tensor:
        return pictures.mean((2, 3))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = importlib.import_module("banks")
    monkeypatch.setattr(found, "EfficientNetFeatures", Means)
    monkeypatch.setattr(found, "best_distance", PixelDistance)
    model = attending_model(tmp_path / "model")

    def load(name: str) -> LatentDiffusion:
        return model

    monkeypatch.setattr(found.segue, "load", load)
    yield found
    sys.modules.pop("banks", None)


def test_second_films_are_drawn_with_and_without_the_bank_of_the_first(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips").mkdir()
    for name, frames in (("first", moving(8, (80, 64))), ("second", textured(4, (80, 64), seed=9))):
        Clip(TensorFrames(frames), 10).save(tmp_path / "clips" / f"{name}.mp4", crf=10)
    (tmp_path / "edits.toml").write_text(EDITS)
    words = [str(tmp_path / "clips"), str(tmp_path / "edits.toml"), "-o", str(tmp_path / "out"), "--sheets"]
    words += ["--frames", "4", "--steps", "3", "--strength", "1", "--seeds", "1", "2", "--area", "1024"]
    pair = ["--pair", "first", "second", "a cat"]
    bench.main([*words, *pair])
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if line.startswith("|")}
    assert list(rows) == ["2 films", "---", *bench.WAYS]
    alone, none, half, whole = (dict(zip(bench.COLUMNS, rows[way], strict=True)) for way in bench.WAYS)
    assert alone["nearer"].strip() == "0.0 (0.0 to 0.0)" and alone["sharpness"].strip() == "100 (100 to 100)"
    assert len({each["changed"] for each in (alone, none, half, whole)}) == 4, "each way is another film"
    assert len([*(tmp_path / "out").glob("sheet-*.png")]) == 1
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "films").iterdir()}
    assert len(made) == 2 * (1 + 2 * len(bench.WAYS)) + 1, "films with their records, and a bank"
    bench.main([*words, *pair])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "films").iterdir()} == made
    capsys.readouterr()
    with pytest.raises(SystemExit, match="does not say how third is cut"):
        bench.main([*words, "--pair", "first", "third", "a cat"])
