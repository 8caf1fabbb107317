"""What `segue upscale` makes with the embedded upscaler: no seams, no flicker, no drift of colours."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segue.evaluation.fidelity import psnr
from segue.evaluation.movement import movement
from segue.media import Clip, TensorFrames
from segue.media.enlarge import low_band
from segue.models.bundle import LatentDiffusion
from segue.tasks.upscale import Tiling, Upscale
from segue.zoo import load

SIDE = 64


@cache
def model(name: str = "emoji-x4") -> LatentDiffusion:
    return load(name, device="cpu")


def rolling(count: int) -> Tensor:
    """A shaded ball on a plain ground, with a soft edge, that moves by half a pixel a frame."""
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    frames: list[Tensor] = []
    for number in range(count):
        away = ((x - 28 - number / 2).square() + (y - 32).square()).sqrt()
        inside = (20.5 - away).clamp(0, 1)
        shade = 0.6 + 0.4 * (1 - away / 24).clamp(0, 1)
        ball = torch.stack([0.9 * shade, 0.3 * shade, 0.2 * shade])
        frames.append(inside * ball + (1 - inside) * 0.97)
    return (torch.stack(frames) * 255).round().byte()


@pytest.fixture
def film(tmp_path: Path) -> str:
    return str(Clip(TensorFrames(rolling(6)), fps=6).save(tmp_path / "ball.apng"))


@pytest.fixture
def still(tmp_path: Path) -> str:
    return str(Clip(TensorFrames(rolling(1)), fps=6).save(tmp_path / "ball.png"))


def test_windows_leave_no_seams(still: str) -> None:
    whole, tiled = (
        Upscale(still, ("a ball",), colours="model", tiling=Tiling(window)).run(model()).frames[0:1]
        for window in (256, 128)
    )
    assert (whole - tiled).abs().mean() < 0.003
    # A seam would be a step between neighbours that the whole has not, all along a line where windows begin or end.
    lines = [place * 4 - 1 for place in (24, 32, 48, 32 + 24)]
    for axis in (-1, -2):
        steps = [x.diff(dim=axis).abs().mean((0, 1, -1 if axis == -2 else -2)) for x in (whole, tiled)]
        assert all(float(steps[1][line] - steps[0][line]) < 0.004 for line in lines)


def test_a_film_flickers_no_more_than_the_small_one(film: str) -> None:
    small = TensorFrames(rolling(6))
    large = TensorFrames.rounded(Upscale(film, ("a ball",)).run(model()).frames[:])
    before, after = (float(movement(frames).noise.nanmean()) for frames in (small, large))
    assert after <= before


def test_colours_stay(still: str) -> None:
    small = rolling(1) / 255
    drift = {
        colours: float((low_band(_large(still, colours), (SIDE, SIDE)) - low_band(small, (SIDE, SIDE))).abs().mean())
        for colours in ("input", "model")
    }
    assert drift["input"] < 0.004
    assert drift["input"] < drift["model"] < 0.03


def _large(still: str, colours: str) -> Tensor:
    task = Upscale(still, ("a ball",), colours="input" if colours == "input" else "model")
    return task.run(model()).frames[0:1]


def test_a_model_that_draws_goes_over_a_film_and_leaves_it_what_it_was(film: str) -> None:
    small = TensorFrames(rolling(6))
    large = TensorFrames.rounded(Upscale(film, ("a ball",), method="same-model").run(model("emoji")).frames[:])
    assert large.size == (2 * SIDE, 2 * SIDE)
    before, after = (float(movement(frames).noise.nanmean()) for frames in (small, large))
    assert after <= before
    assert psnr(interpolate(large[:], (SIDE, SIDE), mode="area"), small[:]).min() > 28
