"""Fit rules do what they say: pad keeps all, crop fills, stretch changes the proportions."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from footage import moving
from segue.errors import MediaError
from segue.media import TensorFrames, contact_sheet, fit
from segue.media.resize import Fit, fit_pictures, on_grid


def frames(size: tuple[int, int] = (96, 64), count: int = 3) -> TensorFrames:
    return TensorFrames(moving(count, size))


@pytest.mark.parametrize("how", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("size", [(64, 64), (31, 77), (200, 50), (96, 65)], ids=str)
def test_the_size_is_the_one_that_was_asked_for(how: Fit, size: tuple[int, int]) -> None:
    fitted = fit(frames(), size, how)
    assert fitted.size == size
    assert len(fitted) == 3
    assert fitted[1:3].shape == (2, 3, size[1], size[0])
    assert fitted[3:].shape == (0, 3, size[1], size[0])
    assert float(fitted[:].min()) >= 0 and float(fitted[:].max()) <= 1


def test_what_fits_is_left_alone() -> None:
    source = frames()
    assert fit(source, (96, 64), "crop") is source
    assert fit_pictures(source[:], (96, 64), "pad").equal(source[:])


def test_pad_keeps_everything_and_crop_fills() -> None:
    white = torch.ones(1, 3, 40, 80)
    padded = fit_pictures(white, (40, 40), "pad")
    assert padded[..., 10:30, :].eq(1).all() and padded[..., :10, :].eq(0).all() and padded[..., 30:, :].eq(0).all()
    assert fit_pictures(white, (40, 40), "crop").eq(1).all()
    marked = white.clone()
    marked[..., :10] = 0
    assert fit_pictures(marked, (40, 40), "crop").eq(1).all()
    assert not fit_pictures(marked, (40, 40), "stretch").eq(1).all()


def test_small_pictures_are_averages() -> None:
    """Without antialiasing, a fine checkerboard would become black or white."""
    board = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(1, 3, 64, 64)
    assert (fit_pictures(board, (8, 8), "stretch") - 0.5).abs().max() < 0.02


def test_rules_and_sizes_are_checked() -> None:
    with pytest.raises(MediaError, match="pad, crop or stretch, got 'zoom'"):
        fit(frames(), (8, 8), cast(Any, "zoom"))
    with pytest.raises(MediaError, match="at least 1 pixel, got 0x8"):
        fit(frames(), (0, 8), "pad")


def test_the_grid_of_a_model() -> None:
    assert on_grid((512, 512), 64) == (512, 512)
    assert on_grid((1280, 720), 64) == (1280, 704)
    assert on_grid((10, 10), 64) == (64, 64)
    width, height = on_grid((1280, 720), 8, area=512 * 512)
    assert width % 8 == height % 8 == 0
    assert abs(width * height / 512**2 - 1) < 0.03 and abs(width / height / (16 / 9) - 1) < 0.03


def test_a_contact_sheet_shows_the_whole_clip() -> None:
    source = frames((20, 10), 30)
    sheet = contact_sheet(source, count=7, columns=3, gap=2)
    assert sheet.dtype == torch.uint8 and sheet.shape == (3, 3 * 12 - 2, 3 * 22 - 2)
    assert sheet[:, :10, :20].equal(source.pixels[0])
    assert sheet[:, 24:, :20].equal(source.pixels[29])
    assert sheet[:, 24:, 22:].eq(255).all()
    assert contact_sheet(source, count=100, columns=6, width=10).shape == (3, 5 * 9 - 4, 6 * 14 - 4)
    assert contact_sheet(frames(count=1)).shape == (3, 64, 96)
    with pytest.raises(MediaError, match="expected frames"):
        contact_sheet(TensorFrames(torch.empty(0, 3, 4, 4, dtype=torch.uint8)))
