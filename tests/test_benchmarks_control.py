"""The benchmark of control adapters: one that adds nothing is worth nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from benchmarked import run
from models.tiny import write_model
from segue.models.control_adapter import ControlAdapter, Layout, save_adapter
from segue.zoo import load


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
    few = ["--kinds", "softedge", "tile", "--count", "3", "--steps", "3", "-o", tmp_path / "sheet.png"]
    said = run("control", corpus, tmp_path / "run", "--model", model, "--adapter", adapter, *few)
    lines = [line.replace(" ± ", "±").split() for line in said.splitlines()[1:]]
    assert [line[0] for line in lines] == ["softedge", "tile"]
    assert all(line[1::2] == line[2::2] and len(line) == 7 for line in lines)
    assert (tmp_path / "sheet.png").is_file()
