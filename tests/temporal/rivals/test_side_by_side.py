"""Side by side: one is plain, grids come apart as they were put together, and pictures that are told lie likewise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segue.diffusion.noise import NamedNoise
from segue.diffusion.solvers import euler_ancestral
from segue.errors import TaskError
from segue.models.bundle import LatentDiffusion
from segue.models.loading import load_model
from segue.temporal.moved_noise import PlacedKick, independent
from segue.temporal.rivals.side_by_side import GridKick, SideBySide
from segue.types import Guided, Point, RowId
from temporal.rivals.clips import alone, inputs, plain


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model(written: Path) -> LatentDiffusion:
    return load_model(written, device="cpu")


def test_one_beside_nothing_is_plain(model: LatentDiffusion) -> None:
    given = inputs(model, 3)
    for solver in (given.solver, euler_ancestral):
        stepping = replace(given, solver=solver)
        assert torch.allclose(SideBySide(1, 1).run(stepping).latents, plain(stepping), atol=1e-5)


def test_grids_come_apart_as_they_were_put_together() -> None:
    grid, frames = SideBySide(3, 2), torch.arange(12 * 2 * 4 * 5.0).view(12, 2, 4, 5)
    whole = grid.joined(frames, [list(range(6)), list(range(6, 12))])
    assert whole.shape == (2, 2, 8, 15)
    assert torch.equal(whole[0, :, :4, 5:10], frames[1])
    assert torch.equal(whole[1, :, 4:, :5], frames[9])
    assert torch.equal(grid.parted(whole), frames)


def test_frames_of_one_grid_see_each_other_and_no_others(model: LatentDiffusion) -> None:
    given = inputs(model, 5)
    made = SideBySide(2, 1).run(given).latents
    assert made.shape == given.noise.shape
    assert torch.allclose(made[2:4], SideBySide(2, 1).run(alone(given, 2, 3)).latents, atol=1e-5)
    assert torch.allclose(made[4:], SideBySide(2, 1).run(alone(given, 4, 4)).latents[:1], atol=1e-5), "filled up"
    assert float((made - plain(given)).abs().max()) > 1e-3


def test_what_is_told_as_pictures_lies_as_the_frames_do(model: LatentDiffusion) -> None:
    given = inputs(model, 4)
    assert isinstance(given.cond, Guided)
    maps = torch.arange(4.0)[:, None, None, None].expand(4, 3, 64, 64)
    terms = tuple(replace(term, residual_inputs={"depth": maps}, concat=given.noise) for term in given.cond.terms)
    told = SideBySide(2, 2).told(replace(given.cond, terms=terms))
    assert isinstance(told, Guided)
    assert len(told) == 1
    picture = told.terms[0].residual_inputs["depth"][0, 0]
    assert picture.shape == (128, 128)
    assert picture[::64, ::64].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert told.terms[1].concat is not None
    assert torch.equal(told.terms[1].concat[0, :, :8, 8:], given.noise[1])
    assert torch.equal(told.terms[1].text, given.cond.terms[1].text[:1])


def test_kicks_are_those_of_the_frames() -> None:
    grid, kick = SideBySide(2, 1), PlacedKick(independent(3, (4, 3)))
    one = torch.full((2,), 0.5, dtype=torch.float64)
    at = Point(torch.tensor([1, 1]), 4, one, one, one, (RowId("grid", 0), RowId("grid", 1)))
    drawn = GridKick(kick, grid, 3)(torch.zeros(2, 2, 3, 8), at, at, torch.tensor([1.0, 2.0]))
    ones = torch.ones(3)
    frames = Point(torch.tensor([1] * 3), 4, ones, ones, ones, tuple(RowId("clip", k) for k in range(3)))
    single = kick(torch.zeros(3, 2, 3, 4), frames, frames, torch.ones(3))
    assert torch.equal(drawn[0], torch.cat([single[0], single[1]], 2))
    assert torch.equal(drawn[1], 2 * torch.cat([single[2], single[2]], 2))
    assert GridKick(NamedNoise(), grid, 3)(torch.zeros(2, 2, 3, 8), at, at, one).shape == (2, 2, 3, 8)


def test_a_grid_has_a_place() -> None:
    with pytest.raises(TaskError, match="1 or more"):
        SideBySide(0, 2)
