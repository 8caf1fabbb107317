"""The noise that frames of a film begin in: one for all, one that moves along, one for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flickers import saved, textured
from segue.media import Clip
from segue.media.clip import levels_of
from segue.models.bundle import LatentDiffusion
from segue.tasks.sampling import Sampling
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_settings import Agreement, Beginning, Noise, Shape
from segue.types import Call, Conditioning
from toy import toy_model

SIZE = (48, 32)
SPEED = 2
"""Pixels a frame, to the right."""


@dataclass(frozen=True)
class Alike:
    """A network that does the same in every place."""

    def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
        return torch.tanh(0.2 * x)


def drawn(film: str, noise: Noise, model: LatentDiffusion, solver: str = "ddim", strength: float = 0.6) -> Tensor:
    agreement = Agreement("self", deflicker=0, blend=0.0)
    beginning = Beginning(strength, noise=noise)
    sampling = Sampling(steps=5, solver=solver, size=SIZE)
    clip: Clip = Stylize(
        film, "one", agreement=agreement, beginning=beginning, shape=Shape(cuts="none"), sampling=sampling
    ).run(model)
    return levels_of(clip.frames, slice(None))


@pytest.mark.parametrize("solver", ["ddim", "euler_ancestral"])
def test_where_nothing_moves_noise_stays(solver: str, tmp_path: Path) -> None:
    """So does what a solver adds on its way."""
    film = saved(tmp_path / "still.apng", textured(1, SIZE).expand(4, -1, -1, -1))
    shared, moved, independent = (
        drawn(film, noise, toy_model(), solver) for noise in ("shared", "moved", "independent")
    )
    assert torch.equal(shared, moved) and torch.equal(shared[0], shared[3])
    assert not torch.equal(independent[0], independent[3])


@pytest.mark.parametrize("solver", ["ddim", "euler_ancestral"])
def test_where_a_film_moves_noise_goes_along(solver: str, tmp_path: Path) -> None:
    film = saved(tmp_path / "film.apng", textured(4, SIZE))
    shared, moved = (drawn(film, noise, toy_model(network=Alike()), solver, 1.0) for noise in ("shared", "moved"))
    assert torch.equal(shared[0], moved[0]) and torch.equal(shared[0], shared[3])
    # From nothing but noise, a network that does the same everywhere shows how that moved.
    inner = slice(8, -8)

    def change(frames: Tensor, by: int) -> float:
        here, before = frames[1:, :, inner, inner], frames.roll(by, 3)[:-1, :, inner, inner]
        return float((here.float() - before.float()).abs().mean())

    assert change(moved, SPEED) < 0.5 * change(moved, 0)
    assert change(shared, 0) == 0
