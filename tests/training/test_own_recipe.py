"""A copied recipe is a recipe: as it stands it trains the same weights, and an edit is what runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segue.cli.main import main

SMALL = ("width=8", "encoder_blocks=[0,1,1,1]", "decoder_blocks=[1,1,1,1]", "steps=3", "batch=4", "save_every=3")


def test_a_copy_trains_and_can_be_edited(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = [f"corpus={corpus}", *SMALL]
    assert main(["train", "codec", "--copy", "my.py"]) == 0
    assert main(["train", "codec", *small, "out=runs/codec"]) == 0
    assert main(["train", "my.py", *small]) == 0
    name = "checkpoint.safetensors"
    original, copied = (load_file(tmp_path / "runs" / run / name) for run in ("codec", "my"))
    assert all(torch.equal(value, copied[key]) for key, value in original.items())

    recipe = (tmp_path / "my.py").read_text("utf-8")
    head = "def main(config: Config) -> Path:\n"
    assert head in recipe
    edited = recipe.replace(head, f'{head}    (config.out.parent / f"edited-{{config.steps}}").mkdir()\n')
    (tmp_path / "my.py").write_text(edited, "utf-8")
    assert main(["train", "my.py", *small, "steps=4"]) == 0
    assert (tmp_path / "runs" / "edited-4").is_dir()
