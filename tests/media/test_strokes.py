"""Simulated strokes: few colours, no detail, the same large shapes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segue.errors import MediaError
from segue.media.strokes import strokes


def scene(size: tuple[int, int] = (96, 64)) -> Tensor:
    """A red disc on blue under fine noise; (width, height)."""
    width, height = size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    disc = ((x - width / 2) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2).float()
    picture = torch.stack([0.1 + 0.7 * disc, torch.full_like(disc, 0.2), 0.8 - 0.6 * disc])
    return (picture + 0.15 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def colours_of(picture: Tensor) -> int:
    return len(picture.flatten(1).T.unique(dim=0))


@pytest.mark.parametrize("colours", [2, 6, 16])
def test_few_colours_are_left(colours: int) -> None:
    painted = strokes(scene(), colours=colours)
    assert painted.shape == (3, 64, 96)
    assert 2 <= colours_of(painted) <= colours < colours_of(scene())
    assert 0 <= float(painted.min()) <= float(painted.max()) <= 1


def test_detail_goes_and_shapes_stay() -> None:
    picture, painted = scene(), strokes(scene())

    def fine(part: Tensor) -> float:
        return float((part[:, :, 1:] - part[:, :, :-1]).abs().mean())

    assert fine(painted) < 0.2 * fine(picture)
    assert float(painted[0, 32, 48]) > 0.6 > 0.3 > float(painted[0, 4, 4])
    assert float(painted[2, 4, 4]) > 0.6 > 0.4 > float(painted[2, 32, 48])


def test_a_broad_brush_takes_small_things_away() -> None:
    picture = torch.full((3, 64, 64), 0.2)
    picture[:, 30:33, 30:33] = 1.0
    assert float(strokes(picture, brush=1)[0, 31, 31]) > 0.9
    assert float(strokes(picture, brush=9)[0, 31, 31]) < 0.3
    assert float(strokes(picture)[0, 31, 31]) < 0.3


def test_the_same_picture_gives_the_same_strokes() -> None:
    assert torch.equal(strokes(scene()), strokes(scene()))
    assert strokes(scene().double()).dtype == torch.float64


@pytest.mark.parametrize("given", [{"colours": 1}, {"colours": 300}, {"brush": 4}, {"brush": 0}])
def test_what_cannot_be_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(MediaError, match="expected"):
        strokes(scene(), **given)
