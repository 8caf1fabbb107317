"""Runs in files: what is written is what is read, and what is no run is told."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segue.errors import CheckpointError, DiskError, ModelNotFoundError, UnsafeFileError
from segue.models.recorded import FORMAT, Origin, Recorded, levels
from toy import toy_model

ORIGIN = Origin("toy", "0" * 64, "ddim", "a boat", "", 2.0, 0.25, 3)


def run(steps: int = 4) -> Recorded:
    latents = torch.randn(steps + 1, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    return Recorded(latents, *levels(toy_model().schedule(steps, (16, 16), solver="ddim")), ORIGIN)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    own = run()
    own.save(tmp_path / "walk.safetensors")
    again = Recorded.read(tmp_path / "walk.safetensors")
    assert again.origin == ORIGIN
    assert torch.equal(again.latents, own.latents)
    assert torch.equal(again.alphas, own.alphas)
    assert [path.name for path in tmp_path.iterdir()] == ["walk.safetensors"]


def test_a_run_fits_the_schedule_that_it_was_made_with() -> None:
    model = toy_model()
    assert run().fits(model.schedule(4, (16, 16), solver="ddim"))
    assert not run().fits(model.schedule(5, (16, 16), solver="ddim"))
    other = replace(model, scheduler={**model.scheduler, "timestep_spacing": "leading"})
    assert not run().fits(other.schedule(4, (16, 16), solver="ddim"))


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    own, path = run(), tmp_path / "walk.safetensors"
    tensors = {"latents": own.latents, "alphas": own.alphas, "sigmas": own.sigmas}
    said = {"format": FORMAT, "origin": json.dumps(asdict(ORIGIN))}
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        Recorded.read(path)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="is no trajectory of this version of Segue: a trajectory is what"):
        Recorded.read(path)
    save_file(tensors, path, {"format": FORMAT, "origin": "{}"})
    with pytest.raises(CheckpointError, match="does not say what run"):
        Recorded.read(path)
    save_file({**tensors, "alphas": own.alphas[1:]}, path, said)
    with pytest.raises(CheckpointError, match="no whole run"):
        Recorded.read(path)
    save_file({**tensors, "latents": own.latents * float("nan")}, path, said)
    with pytest.raises(CheckpointError, match="no whole run"):
        Recorded.read(path)
    path.write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(UnsafeFileError):
        Recorded.read(path)
    with pytest.raises(DiskError, match="does not exist"):
        own.save(tmp_path / "nowhere" / "walk.safetensors")
