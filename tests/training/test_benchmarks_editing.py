"""The hundred edits: right answers are right, sources are not, and the table says what was measured."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from segue.evaluation.colour import object_colours, object_pixels
from segue.evaluation.distances import PixelDistance
from segue.evaluation.recognition import Verdict

from .conftest import Sources

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("editing")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def every(bench: Any, sources: Sources) -> list[Any]:
    found = importlib.import_module("editing_cases")
    return found.cases(found.known_emoji(sources.folder, sources.packages, sources.concepts))


class Sure:
    """A judge that always says the same."""

    def __init__(self, *nouns: str, style: str = "shaded") -> None:
        self.said = Verdict(nouns, style)

    def __call__(self, pictures: torch.Tensor) -> list[Verdict]:
        return [self.said] * len(pictures)


def bench_with(bench: Any, judge: Any, tmp_path: Path) -> Any:
    return bench.Bench({}, tmp_path, None, judge, PixelDistance())


def test_a_recoloured_answer_has_the_colour_and_the_ground(every: list[Any]) -> None:
    recoloured = [case for case in every if case.kind == "recolour"]
    assert recoloured
    for case in recoloured:
        assert object_colours(case.right[None])[0].word == case.colour, case.prompt
        assert f" {case.colour} " in f" {case.prompt} " and case.instruction == f"make it {case.colour}"
        ground = ~object_pixels(case.source[None])[0] & ~object_pixels(case.right[None])[0]
        assert float((case.source - case.right).abs().amax(0)[ground].max()) < 0.13


def test_a_restyled_answer_is_asked_for_in_its_style(every: list[Any]) -> None:
    restyled = [case for case in every if case.kind == "style"]
    assert restyled and all(("flat icon" if case.style == "flat" else "line art") in case.prompt for case in restyled)
    assert all(not torch.equal(case.source, case.right) for case in restyled)


def test_draws_are_the_same_again(bench: Any, every: list[Any], sources: Sources) -> None:
    found = importlib.import_module("editing_cases")
    again = found.cases(found.known_emoji(sources.folder, sources.packages, sources.concepts))
    assert [case.prompt for case in again] == [case.prompt for case in every]


def test_the_right_answer_is_right_and_the_source_is_not(bench: Any, every: list[Any], tmp_path: Path) -> None:
    for case in every:
        judged = bench_with(bench, Sure(case.noun, style=case.style), tmp_path)
        assert judged.right(case, case.right[None]), case.prompt
        if case.kind == "recolour":
            assert not judged.right(case, case.source[None])
        else:
            assert not bench_with(bench, Sure("spoon", style="other"), tmp_path).right(case, case.right[None])


def test_measures_tell_the_source_and_the_answer_apart(bench: Any, every: list[Any], tmp_path: Path) -> None:
    case = next(case for case in every if case.kind == "recolour")
    judged = bench_with(bench, Sure(case.noun), tmp_path)
    same, right = (judged.measured(case, picture[None]) for picture in (case.source, case.right))
    assert same["PSNR"] == 60 and same["SSIM"] == pytest.approx(1) and same["ground"] == 0
    assert right["from right"] == 0 and same["from right"] > 0 and right["PSNR"] < 40
    wet = case.source.clone()
    wet[:, :8] += 0.1
    assert judged.measured(case, wet[None].clamp(0, 1))["ground"] > 0.5


def test_an_edit_is_made_once(bench: Any, every: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SimpleNamespace(fingerprint="f", denoiser=None)
    judged = bench.Bench({"sdedit": model}, tmp_path, None, Sure("apple"), PixelDistance())
    runs: list[Any] = []

    def run(self: Any, model: Any) -> Any:
        runs.append(self)
        return SimpleNamespace(frames=every[0].right[None])

    monkeypatch.setattr(bench.Edit, "run", run)

    def counting(timed: bool) -> Any:
        return SimpleNamespace(rows=7, watching=same)

    def same(value: Any, **_: Any) -> Any:
        return value

    monkeypatch.setattr(bench, "replace", same)
    monkeypatch.setattr(bench, "Tally", counting)
    setting = bench.Setting("sdedit", 0.6)
    rows = [judged.row(0, every[0], setting) for _ in range(2)]
    assert rows[0] == rows[1] and len(runs) == 1 and runs[0].change.strength == 0.6
    judged.row(0, every[0], bench.Setting("sdedit", 0.7))
    assert len(runs) == 2


def test_the_table_and_the_curves_have_every_setting(bench: Any, tmp_path: Path) -> None:
    measures = {"right": 1.0, "PSNR": 20.0, "SSIM": 0.5, "ground": 3.0, "from right": 0.1, "rows": 40}
    rows = [
        {"method": method, "value": value, "kind": kind, **measures, "right": float(kind == "style")}
        for method, value in (("sdedit", 0.3), ("sdedit", 0.6), ("cycle", 0.8))
        for kind in ("recolour", "style")
    ]
    perfect = [{"kind": kind, **measures} for kind in ("recolour", "style")]
    lines = bench.table(rows, perfect, bench.KNOBS)
    assert len(lines) == 2 + 3 + 1
    assert lines[2].startswith("| sdedit | strength 0.3 | 0.50 ") and lines[2].endswith("| 0.00 | 1.00 |")
    bench.plot(rows, perfect, tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text()
    assert drawn.count("<polyline") == 2 and drawn.count("<circle") == 3
