"""The benchmark of instruction models: pairs that were kept back, changed by what was said, beside doing nothing."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.tiny import write_model
from segue.training.instruct_data import EditPairs

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "instruct.py"
PAIRS = 80


def read_benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("instruct_benchmark", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Pictures, each of which becomes the next; two kinds."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    np.save(folder / "pictures.npy", np.random.default_rng(0).integers(0, 256, (2 * PAIRS, 64, 64, 3), dtype=np.uint8))
    lines = [
        {"before": 2 * row, "after": 2 * row + 1, "kind": ("colour", "turn")[row % 3 == 0], "weight": 1.0,
         "instructions": ["make it red"], "captions": ["apple", "red apple"]}
        for row in range(PAIRS)
    ]  # fmt: skip
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    digest = hashlib.sha256((folder / "pictures.npy").read_bytes()).hexdigest()
    (folder / "sources.json").write_text(json.dumps({"pictures_sha256": digest}), "utf-8")
    return folder


def test_each_kind_is_measured_beside_doing_nothing(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark, model = read_benchmark(), tmp_path / "model"
    write_model(model, length=24, vae="tiny", in_channels=8)
    how = ["--steps", "2", "--count", "2", "--scales", "3", "--picture-scales", "1", "1.5"]
    benchmark.main([str(pairs), "--model", str(model), *how, "-o", str(tmp_path / "sheet.png")])
    table = [line.split() for line in capsys.readouterr().out.splitlines() if not line.startswith("   ")]
    assert [row[0] for row in table] == ["kind", "colour", "colour", "turn", "turn"]
    left = [float(row[7]) for row in table[1:]]
    assert left[0] == left[1] and left[2] == left[3], "doing nothing is worth the same whatever the scales"
    kept = EditPairs.load(pairs).split(40)[1]
    chosen, _ = benchmark.chosen(kept, "turn", 2, 7)
    before, after = chosen.floats(chosen.before), chosen.floats(chosen.after)
    assert left[2] == pytest.approx(float(np.mean(benchmark.psnr(before, after))), abs=0.01)
    assert float(torch.stack([benchmark.apart(before, before).sum(), benchmark.apart(before, after).sum()]).min()) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[1] == 4 * 3 * 64


def test_a_model_that_draws_from_words_is_refused(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "model", length=24, vae="tiny")
    with pytest.raises(SystemExit):
        read_benchmark().main([str(pairs), "--model", str(tmp_path / "model"), "--steps", "2", "--count", "1"])
    assert "does not follow instructions: it takes 4 channels" in capsys.readouterr().err
