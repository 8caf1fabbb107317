"""Noise in files: between two processes nothing is lost, and what does not belong together is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from segue.diffusion.noise import noise
from segue.diffusion.schedule import Schedule
from segue.errors import CheckpointError, ModelNotFoundError
from segue.models.inverted import InvertedLatents, InvertedOrigin
from segue.types import RowId

RUN = Schedule.from_config({"timestep_spacing": "trailing"}, 20)
ORIGIN = InvertedOrigin("emoji", "ab" * 32, "a red apple", "blur", 1.0, 2, True)
SHAPE = (4, 6, 5)


def latents() -> Tensor:
    return torch.stack([noise(0, "z", 0, RowId("clip", frame), SHAPE) for frame in range(3)])


def noised(increment: Tensor | None = None) -> InvertedLatents:
    return InvertedLatents.of(latents(), 4, RUN, ORIGIN, increment)


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_written_is_read(tmp_path: Path, exact: bool) -> None:
    made = noised(latents() * 0.1 if exact else None)
    made.save(tmp_path / "z.safetensors")
    read = InvertedLatents.read(tmp_path / "z.safetensors")
    assert torch.equal(read.latents, made.latents)
    assert torch.equal(read.alphas, made.alphas)
    assert (read.first, read.steps, read.origin) == (4, 20, ORIGIN)
    assert (read.increment is None) is not exact
    if exact:
        assert torch.equal(read.increment if read.increment is not None else latents(), latents() * 0.1)
    read.check_fits(RUN, SHAPE)
    first = (tmp_path / "z.safetensors").read_bytes()
    made.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == first


OTHER_PROCESS = """
import sys, torch
from pathlib import Path
from segue.diffusion.schedule import Schedule
from segue.models.inverted import InvertedLatents
from segue.temporal.bridge import bridged
from segue.temporal.inversion import Inversion
from segue.types import RowId
from toy import GaussianDenoiser, text_of
torch.set_grad_enabled(False)
run = Schedule.from_config({"timestep_spacing": "trailing"}, 20)
noised = InvertedLatents.read(Path(sys.argv[1]))
noised.check_fits(run, (4, 6, 5))
ids = tuple(RowId("clip", frame) for frame in range(3))
way = Inversion.kept(noised.latents, noised.first, ids, noised.increment)
print(bridged(GaussianDenoiser(-0.2, 0.4), way, run, text_of(0.0, 0.0, 0.0)).double().sum().item())
"""


def test_source_and_target_live_in_different_processes(tmp_path: Path) -> None:
    from segue.temporal.bridge import bridged
    from segue.temporal.inversion import inverted
    from toy import GaussianDenoiser, text_of

    ids, told = tuple(RowId("clip", frame) for frame in range(3)), text_of(0.0, 0.0, 0.0)
    way = inverted(GaussianDenoiser(), latents(), RUN, told, ids, strength=0.8)
    InvertedLatents.of(way.state.x, way.first, RUN, ORIGIN).save(tmp_path / "z.safetensors")
    here = bridged(GaussianDenoiser(-0.2, 0.4), way, RUN, told).double().sum().item()
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "z.safetensors")],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == here


def test_what_does_not_fit_is_refused() -> None:
    made = noised()
    with pytest.raises(CheckpointError, match=r"latents of \(4, 6, 5\), and this run has \(4, 6, 6\)"):
        made.check_fits(RUN, (4, 6, 6))
    with pytest.raises(CheckpointError, match="of a run of 20 steps, and this run has 10"):
        made.check_fits(Schedule.from_config({"timestep_spacing": "trailing"}, 10), SHAPE)
    with pytest.raises(CheckpointError, match="other noise levels"):
        made.check_fits(Schedule.from_config({"timestep_spacing": "trailing", "beta_end": 0.012}, 20), SHAPE)


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        InvertedLatents.read(tmp_path / "none.safetensors")
    save_file({"latents": latents()}, tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="is no noise of this version"):
        InvertedLatents.read(tmp_path / "plain.safetensors")
    noised().save(tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-40])
    with pytest.raises(CheckpointError):
        InvertedLatents.read(tmp_path / "cut.safetensors")
    replace(noised(), latents=latents() * float("nan")).save(tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        InvertedLatents.read(tmp_path / "nan.safetensors")
    replace(noised(), first=20).save(tmp_path / "late.safetensors")
    with pytest.raises(CheckpointError, match="from step 20"):
        InvertedLatents.read(tmp_path / "late.safetensors")
