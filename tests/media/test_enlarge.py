"""Enlarging without a model: like Pillow's Lanczos, mirrors that go on, and bands that are taken over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from footage import moving
from segue.media.enlarge import lanczos, low_band, mirrored, with_low_band


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_it_is_the_lanczos_of_pillow(factor: int) -> None:
    picture = moving(1, (40, 30))
    size = 40 * factor, 30 * factor
    for channel, ours in zip(picture[0] / 255, lanczos(picture / 255, factor)[0], strict=True):
        # In bytes, Pillow would clip what overshoots after the first of two passes.
        theirs = Image.fromarray(channel.numpy()).resize(size, Image.Resampling.LANCZOS)
        assert np.abs(ours.numpy() - np.asarray(theirs).clip(0, 1)).max() < 1e-5


def test_a_mirror_goes_on_as_far_as_is_asked() -> None:
    picture = torch.arange(3.0).expand(1, 3, 2, 3)
    assert mirrored(picture, (8, 2))[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert torch.equal(mirrored(picture, (3, 2)), picture)
    assert torch.equal(mirrored(picture[..., :1, :1], (4, 4)), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="cannot be padded"):
        mirrored(picture, (2, 2))


def test_the_lowest_band_is_that_of_the_small_picture_and_details_stay() -> None:
    small = moving(1, (48, 32)) / 255
    large = (lanczos(small, 4) * 0.8 + 0.02 * torch.randn(1, 3, 128, 192)).clamp(0, 1)
    mended = with_low_band(large, small)
    before, after = (float((low_band(x, (32, 48)) - low_band(small, (32, 48))).abs().mean()) for x in (large, mended))
    assert after < before / 10
    fine = mended - large
    assert fine.diff(dim=-1).abs().max() < 0.02
    assert fine.abs().mean() > 0.05


def test_a_band_of_one_pixel_is_the_small_picture() -> None:
    """Back-projection: once more brings it nearer, and nothing is missing where nothing was."""
    small = moving(1, (48, 32)) / 255
    large = (lanczos(small, 4) * 0.8 + 0.05).clamp(0, 1)
    away = [float((low_band(x, (32, 48), 1) - small).abs().mean()) for x in (large, with_low_band(large, small, 1))]
    assert away[1] < away[0] / 10
    blocks = small.repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert (with_low_band(blocks, small, 1) - blocks).abs().max() < 1e-6
