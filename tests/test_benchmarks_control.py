"""The benchmark of control adapters: one that adds nothing is worth nothing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from models.tiny import write_model
from segue.models.control_adapter import ControlAdapter, Layout, save_adapter
from segue.zoo import load

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "control.py"


def test_an_adapter_that_adds_nothing_is_measured_as_nothing(tmp_path: Path) -> None:
    model, corpus, adapter = tmp_path / "model", tmp_path / "corpus", tmp_path / "adapter.safetensors"
    write_model(model, length=24, vae="tiny")
    unet = load(str(model), "cpu").parts["unet"]
    save_adapter(adapter, ControlAdapter(Layout.of(unet, 8, widths=(8, 8), blocks=(1, 1), embedding=8)))
    corpus.mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (80, 64, 64, 3), dtype=np.uint8)
    np.save(corpus / "pictures.npy", pictures)
    (corpus / "manifest.jsonl").write_text("\n".join([json.dumps({"weight": 1, "captions": ["apple"]})] * 80), "utf-8")
    digest = hashlib.sha256((corpus / "pictures.npy").read_bytes()).hexdigest()
    (corpus / "sources.json").write_text(json.dumps({"pictures_sha256": digest}), "utf-8")
    command = [sys.executable, str(BENCHMARK), str(corpus), str(tmp_path / "run"), "--model", str(model)]
    command += ["--adapter", str(adapter), "--kinds", "softedge", "tile", "--count", "3", "--steps", "3"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "sheet.png")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.replace(" ± ", "±").split() for line in done.stdout.splitlines()[1:]]
    assert [line[0] for line in lines] == ["softedge", "tile"]
    assert all(line[1::2] == line[2::2] and len(line) == 7 for line in lines)
    assert (tmp_path / "sheet.png").is_file()
