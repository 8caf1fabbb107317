"""Drawings of edges: alike at all sizes, of one frame alone, and nothing where there is nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from segue.errors import TaskError
from segue.models.annotate import KINDS, find_annotator

LINES = ("canny", "softedge", "lineart")
WITHOUT_WEIGHTS = (*LINES, "tile", "shuffle", "palette", "none")


def disc(size: int, *, contrast: float = 0.8, radius: float = 0.3) -> Tensor:
    """A light disc on dark ground, by areas of pixels, and a square of another colour in it."""
    times = 4 if size < 512 else 1
    fine = (torch.arange(times * size) + 0.5) / (times * size) - 0.5
    y, x = torch.meshgrid(fine, fine, indexing="ij")
    picture = 0.1 + contrast * ((x * x + y * y).sqrt() < radius).float().repeat(3, 1, 1)
    inner = (x.abs() < 0.1) & (y.abs() < 0.1)
    picture[0] = torch.where(inner, 0.1, picture[0])
    return interpolate(picture[None], (size, size), mode="area")


def ring(size: int, width: float, radius: float = 0.3) -> Tensor:
    """Where the disc's outline is, within a width in shares of the side."""
    middle = (torch.arange(size) + 0.5) / size - 0.5
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    return ((x * x + y * y).sqrt() - radius).abs() < width


@pytest.mark.parametrize("kind", WITHOUT_WEIGHTS)
@pytest.mark.parametrize("size", [(96, 128), (160, 130)])
def test_each_frame_is_drawn_by_itself_at_its_size(kind: str, size: tuple[int, int]) -> None:
    pictures = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1))
    drawn = find_annotator(kind)(pictures)
    assert drawn.shape == pictures.shape and drawn.dtype == pictures.dtype
    assert float(drawn.min()) >= 0 and float(drawn.max()) <= 1
    assert torch.equal(drawn[1:2], find_annotator(kind)(pictures[1:2]))
    assert torch.equal(drawn, find_annotator(kind)(pictures)), "the same for the same picture"


@pytest.mark.parametrize("kind", LINES)
@pytest.mark.parametrize("size", [64, 128, 512, 700])
def test_an_outline_is_drawn_where_it_is_and_nowhere_else(kind: str, size: int) -> None:
    drawn = find_annotator(kind)(disc(size))[0, 0]
    reach = max(0.035, 2.5 / size)
    inner = torch.zeros(size, size, dtype=torch.bool)
    low, high = math.floor(size * 0.35), math.ceil(size * 0.65)
    inner[low:high, low:high] = True
    assert float(drawn[~ring(size, reach) & ~inner].max()) < 0.15
    # Every direction from the middle meets the stroke, or passes between two pixels of it that touch at a corner.
    closed = max_pool2d((drawn * ring(size, reach))[None], 3, 1, 1)[0]
    angles = torch.arange(0, 2 * math.pi, 0.1)
    for angle in angles.tolist():
        steps = torch.arange(0.25, 0.35, 0.25 / size)
        rows = ((steps * math.sin(angle) + 0.5) * size).long()
        columns = ((steps * math.cos(angle) + 0.5) * size).long()
        assert float(closed[rows, columns].max()) > 0.6


@pytest.mark.parametrize("kind", LINES)
def test_small_and_large_pictures_give_alike_drawings(kind: str) -> None:
    small, large = (find_annotator(kind)(disc(size)) for size in (128, 1024))
    small, large = (interpolate(drawn, (32, 32), mode="area").flatten() for drawn in (small, large))
    # Strokes are never thinner than a pixel, so that it is their places that are compared, not their widths.
    alike = torch.corrcoef(torch.stack([small, large]))[0, 1]
    assert float(alike) > 0.9


def test_soft_strokes_keep_their_width_in_shares_of_the_picture() -> None:
    inked = [float(find_annotator("softedge")(disc(size)).mean()) for size in (128, 512, 1024)]
    assert max(inked) < 1.6 * min(inked)
    thin = float(find_annotator("lineart")(disc(512)).mean())
    assert inked[1] > 2 * thin


@pytest.mark.parametrize("kind", LINES)
def test_colours_of_one_lightness_have_edges(kind: str) -> None:
    picture = torch.full((1, 3, 128, 128), 0.0)
    picture[:, :, :, :64] = torch.tensor([0.80, 0.30, 0.30])[:, None, None]
    picture[:, :, :, 64:] = torch.tensor([0.18, 0.55, 0.18])[:, None, None]
    drawn = find_annotator(kind)(picture)[0, 0]
    assert float(drawn[20:100, 62:66].amax(1).min()) > 0.6
    assert float(drawn[:, :50].max()) < 0.05


@pytest.mark.parametrize("kind", LINES)
def test_nothing_is_made_larger_to_fill_an_empty_picture(kind: str) -> None:
    flat = torch.full((1, 3, 128, 128), 0.4)
    noise = 0.4 + 0.005 * torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    assert float(find_annotator(kind)(flat).max()) == 0
    assert float(find_annotator(kind)(noise).mean()) < 0.01


def test_what_is_not_a_picture_is_refused() -> None:
    annotate = find_annotator("canny")
    for wrong in (torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(TaskError, match="shape"):
            annotate(wrong)
    for wrong in (torch.full((1, 3, 8, 8), 255.0), torch.full((1, 3, 8, 8), float("nan"))):
        with pytest.raises(TaskError, match=r"\[0, 1\]"):
            annotate(wrong)
    assert annotate(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 8, 8)
    with pytest.raises(TaskError, match="expected one of canny"):
        find_annotator("edges")
    assert len(set(KINDS)) == 9
