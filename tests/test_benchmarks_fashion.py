"""The table of figures in others' poses: what a perfect film and a copied one get, without any model."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from segue.errors import TaskError
from segue.evaluation.distances import PixelDistance
from segue.media import TensorFrames, read

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SIZE, FRAMES = (64, 64), 3


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    module = importlib.import_module("fashion")
    model = SimpleNamespace(name="none", fingerprint="f", defaults=SimpleNamespace(size=SIZE))

    def load(name: str) -> Any:
        return model

    monkeypatch.setattr(module.segue, "load", load)

    def no_networks(controls: Any, model: Any) -> list[str]:
        return []

    monkeypatch.setattr(module, "control_digests", no_networks)
    monkeypatch.setattr(module, "best_distance", PixelDistance)
    monkeypatch.setattr(module, "usual_features", Coarse)
    yield module
    sys.path.remove(str(BENCHMARKS))


class Coarse:
    name = "coarse pixels"

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pictures, 12).flatten(1)


def words(out: Path) -> list[str]:
    return ["-o", str(out), "--sources", "2", "--targets", "1", "--frames", str(FRAMES)]


def told(out: str) -> dict[str, list[str]]:
    rows = [line.split("|") for line in out.splitlines() if line.startswith("|")]
    return {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in rows}


def test_a_perfect_film_and_a_copy_of_the_target_are_told_apart(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours returns the source in the motion, frame by frame the film as it was."""
    tasks: list[Any] = []

    def drawn(model: Any, task: Any, count: int) -> tuple[TensorFrames, dict[str, Any]]:
        tasks.append(task)
        folder = Path(task.input)
        frames = read(folder).frames[0:count]
        if task.agreement.attention != "reference, self":
            source, target, motion, _ = folder.parent.name.split("-")
            assert int(target) >= bench.OTHERS
            truth = bench.figure_clip(int(source), motion, size=SIZE, frames=count, ground=bench.GROUND)
            frames = truth.frames[0:count]
        return TensorFrames.rounded(frames), {"seconds": 1.0, "rows": 1.0}

    def known(pictures: torch.Tensor, like: Any) -> Any:
        return SimpleNamespace(key_points=like.key_points)

    monkeypatch.setattr(bench, "drawn", drawn)
    monkeypatch.setattr(bench, "nearest_postures", known)
    bench.main([*words(tmp_path / "out"), "--sheets"])
    said = capsys.readouterr().out
    rows, names = told(said), list(bench.MEASURES)
    ours, copied = (dict(zip(names, rows[method], strict=True)) for method in (bench.OURS, bench.ALONE))
    assert float(ours["changed"].split()[0]) == 0 < float(copied["changed"].split()[0])
    assert float(copied["overlap"].split()[0]) > float(ours["overlap"].split()[0])  # bodies differ
    pose = {method: float(rows[method][0].split()[0]) for method in (bench.OURS, "what should come out")}
    assert pose[bench.OURS] == pose["what should come out"] < 0.05  # bodies differ
    distances = {line.split(":")[0]: line for line in said.splitlines() if "to the sources" in line}
    assert "0.00 to the sources" in distances[bench.OURS]
    assert "0.00 to the targets" in distances[bench.ALONE]
    assert len(tasks) == 4 and {task.preset for task in tasks} == {"fashion"}
    assert len([*(tmp_path / "out").glob("sheet-*.png")]) == 2
    sticks = read(Path(tasks[0].input).parent / "sticks")
    assert len(sticks) == FRAMES and sticks.frames.size == SIZE
    bench.main(words(tmp_path / "out"))
    assert len(tasks) == 4  # kept


def test_poses_that_are_found_are_held_against_those_that_were_given(bench: Any, tmp_path: Path) -> None:
    case = bench.cases(SimpleNamespace(targets=1, sources=1, frames=FRAMES, out=tmp_path), SIZE)[0]
    points = case.target.key_points
    nobody = TaskError("no person was found")

    def sure(_: TensorFrames, like: Any) -> Any:
        return points

    def blind(_: TensorFrames, like: Any) -> Any:
        raise nobody

    assert bench.posed(case.frames, case.target, points, sure) == (0, 0)
    value, missing = bench.posed(case.frames, case.target, points, blind)
    assert value != value and missing == 1
