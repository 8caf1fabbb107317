"""The demonstration of DDIB runs: shapes become shapes, and there and back is less wrong with more steps."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "ddib.py"


@pytest.fixture(scope="module")
def ddib() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ddib", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ddib"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("updates", ["0", "40"])
def test_it_measures_and_draws(tmp_path: Path, updates: str) -> None:
    small = ["--points", "100", "--sample", "200", "--updates", updates, "--steps", "10", "40"]
    words = ["-o", str(tmp_path), "--plot", str(tmp_path / "ddib.png"), "--drawn", "50", "--drawn-steps", "10", *small]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    table = json.loads(done.stdout)
    assert table == json.loads((tmp_path / "ddib.json").read_text())
    assert [row["pair"] for row in table] == ["moons to checkerboard", "rings to squares", "spirals to moons"]
    for row in table:
        assert row["ddim"]["40"] < 0.6 * row["ddim"]["10"]
        assert row["exact"]["40"] < row["exact"]["10"]
        assert 0 < row["sample"] < row["apart"]
    if updates == "0":
        assert sum(row["there"] for row in table) < sum(row["apart"] for row in table)
    with Image.open(tmp_path / "ddib.png") as picture:
        assert picture.size == (880, 660)


@pytest.mark.parametrize("name", ["moons", "checkerboard", "rings", "squares", "spirals"])
def test_shapes_are_of_about_one_size_and_around_the_middle(name: str, ddib: ModuleType) -> None:
    points = ddib.SHAPES[name](4000, torch.Generator().manual_seed(0))
    assert points.shape == (4000, 2)
    assert float(points.mean(0).abs().max()) < 0.1
    assert float(points.abs().max()) < 2.3
    assert 0.6 < float(points.std()) < 1.3


def test_a_checkerboard_has_empty_fields(ddib: ModuleType) -> None:
    points = ddib.checkerboard(4000, torch.Generator().manual_seed(0)) / 0.85 + 2
    fields = points.floor().long().sum(1) % 2
    assert float((fields == 0).double().mean()) == 1


def test_the_energy_distance_knows_the_same_from_another(ddib: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, far = (ddib.SHAPES[name](1000, generator) for name in ("moons", "moons", "rings"))
    assert ddib.energy(a, a) == pytest.approx(0, abs=1e-5)
    assert ddib.energy(a, b) < 0.1 * ddib.energy(a, far)
