"""The bench of presets, without a model: solids whose movement is known, damages, and tables of known films."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from flickers import saved, textured
from segue.evaluation.distances import PixelDistance
from segue.evaluation.fidelity import psnr
from segue.evaluation.warp_error import change
from segue.media import TensorFrames, read

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SIZE = (64, 64)


@pytest.fixture
def modules() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def bench(modules: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = modules("presets")
    model = SimpleNamespace(name="none", fingerprint="f", defaults=SimpleNamespace(size=SIZE), grid=8)

    def load(name: str) -> Any:
        return model

    def no_networks(controls: Any, model: Any) -> list[str]:
        return []

    monkeypatch.setattr(module.segue, "load", load)
    monkeypatch.setattr(module, "control_digests", no_networks)
    monkeypatch.setattr(module, "best_distance", PixelDistance)
    return module


@pytest.mark.parametrize("name", ["snowman", "mushroom", "doughnut", "die"])
def test_pixels_of_a_solid_are_where_its_movement_says(name: str, modules: Any) -> None:
    solids = modules("solids")
    turning = solids.Turning(solids.SOLIDS[name], SIZE, 4, period=8)
    still = turning.back(1, 1)
    assert still.way.abs().max() < 0.05 and still.confidence.mean() > 0.99
    # What is shown at a pixel is a place of the solid; from both frames it is the same place.
    there, own = turning.back(2, 1), turning.covers(2)
    assert 0.05 < own.float().mean() < 0.7
    hits, places, _ = turning._all[1]  # pyright: ignore[reportPrivateUsage]
    brought = there.remap(torch.from_numpy(places).permute(2, 0, 1)[None].float())[0]
    due = torch.from_numpy(turning._all[2][1]).permute(2, 0, 1).float()  # pyright: ignore[reportPrivateUsage]
    known = (there.confidence[0] > 0) & own
    # Bicubic mixes places over rims; inside they agree to less than a pixel's width.
    assert (brought - due).norm(dim=0)[known].median() < 0.01 and hits.any()
    assert there.way[0][:, ~own].abs().max() == 0


def test_depth_of_a_solid_is_nearer_in_its_middle_than_at_its_rim(modules: Any) -> None:
    solids = modules("solids")
    ball = solids.Solid("a ball", solids.ball((0, 0, 0), (0.8, 0.8, 0.8)), 0.0)
    turning = solids.Turning(ball, SIZE, 1)
    depth, covered = turning.depths[0:1][0, 0], turning.covers(0)
    # A ball of radius 0.8 comes 0.8 nearer than its middle, of a range of 1.3 to each side.
    assert depth[32, 32] == pytest.approx((1.3 + 0.8) / 2.6, abs=0.01)
    assert (depth > 0).equal(covered)
    row = depth[32][covered[32]]
    assert row[: len(row) // 2].diff().min() >= 0 and row[len(row) // 2 :].diff().max() <= 0


@pytest.mark.parametrize("damage", ["blur", "noise", "JPEG", "all three"])
def test_a_damage_is_one_and_always_the_same(damage: str, modules: Any) -> None:
    degrade = modules("degrade")
    clean = textured(2, (160, 160)).float() / 255
    spoiled = degrade.DAMAGES[damage](clean, 3)
    assert spoiled.equal(degrade.DAMAGES[damage](clean, 3)) and spoiled.shape == clean.shape
    assert 10 < float(psnr(spoiled, clean).mean()) < 36
    if damage == "all three":
        assert psnr(spoiled, clean).mean() < min(
            float(psnr(degrade.DAMAGES[one](clean, 3), clean).mean()) for one in ("blur", "JPEG")
        )


def test_tables_of_films_that_are_known(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every preset gives back its source: what is held against that is perfect, and all else is not."""
    tasks: list[Any] = []

    def drawn(model: Any, task: Any, count: int) -> tuple[TensorFrames, dict[str, Any]]:
        tasks.append(task)
        return TensorFrames.rounded(read(Path(task.input)).frames[0:count]), {"seconds": 1.0, "rows": 1.0}

    class Drawing:
        def __init__(self, prompt: str, seed: int) -> None:
            self.prompt = prompt

        def run(self, model: Any) -> Any:
            def save(path: Path) -> str:
                return saved(path, textured(1, SIZE, seed=9))

            return SimpleNamespace(save=save)

    monkeypatch.setattr(bench, "drawn", drawn)
    monkeypatch.setattr(bench.segue, "Image", Drawing)
    (tmp_path / "clips").mkdir()
    saved(tmp_path / "clips" / "film.apng", textured(12, (96, 64)))
    (tmp_path / "edits.toml").write_text('[film]\nsource = "a wolf"\nprompts = ["a fox"]\ncrop = [0, 0, 64, 64]\n')
    out = tmp_path / "out"
    words = [str(tmp_path / "clips"), str(tmp_path / "edits.toml"), *bench.SHOWS, "-o", str(out), "--seconds", "0.5"]
    bench.main(words)
    said = capsys.readouterr().out
    made = len(tasks)
    assert {task.preset for task in tasks} == {"text", "image", "restore", "render3d"}
    rows = {cells[1].strip(): cells[2:-1] for cells in (line.split("|") for line in said.splitlines()) if cells[1:]}
    _, outlines, changed, _ = map(float, rows["film: a fox"])
    assert outlines == pytest.approx(1, abs=1e-4) and changed == 0
    before, _, _, after, *_ = map(float, rows["film, all three"])
    assert before == after < 30
    solid = [float(cell) for cell in rows["a mushroom, render3d"]]
    assert solid[0] > 0.9 and solid[1] == pytest.approx(1, abs=1e-4) and solid[2] < 4
    assert len([*out.glob("*.png")]) == 1 + 1 + 4 + 4 + 1
    depth = next(task for task in tasks if task.preset == "render3d" and "::" in task.control[0])
    assert read(Path(depth.control[0].split("::")[1].split("=")[0].split("@")[0])).frames.size == SIZE
    bench.main(words)
    assert len(tasks) == made  # kept


def test_a_film_that_stands_still_is_told_from_one_that_moves_along(modules: Any) -> None:
    solids = modules("solids")
    turning = solids.Turning(solids.SOLIDS["die"], SIZE, 3, reach=40, period=8)
    frames = turning.frames
    along = change(frames[0:1], frames[1:2], turning.back(1, 0)).absolute
    stuck = change(frames[0:1], frames[0:1], turning.back(1, 0)).absolute
    assert along is not None and stuck is not None and along < 0.6 * stuck
