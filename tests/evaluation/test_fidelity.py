"""PSNR by its definition, SSIM against scikit-image's, and both together."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from skimage import metrics
from torch import Tensor

from segue.evaluation.fidelity import fidelity, psnr, ssim
from segue.models.perceptual.latents import LatentDistance

skimage_ssim: Any = metrics.structural_similarity


class MeanDifference:
    """A Perceptual that is easy to check."""

    name = "mean difference"
    domain: Literal["frames"] = "frames"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().flatten(1).mean(1)


def pictures(seed: int, rows: int = 3, height: int = 40, width: int = 57) -> Tensor:
    """Smooth, with some noise, as pictures are."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(rows, 3, 6, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (smooth + 0.03 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("strength", [0.0, 0.01, 0.1, 1.0])
def test_ssim_is_scikit_images(strength: float) -> None:
    a, other = pictures(1), pictures(2)
    b = torch.lerp(a, other, strength)
    expected = [
        skimage_ssim(
            one.permute(1, 2, 0).double().numpy(),
            two.permute(1, 2, 0).double().numpy(),
            channel_axis=2,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for one, two in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(ssim(a, b).numpy(), expected, atol=1e-7)
    assert (max(expected) == pytest.approx(1)) == (strength == 0)


def test_psnr_is_its_definition() -> None:
    a = torch.full((2, 3, 16, 16), 0.5)
    b = a.clone()
    b[0] += 0.1
    assert psnr(a, b)[0] == pytest.approx(20, abs=1e-4)
    assert math.isinf(psnr(a, b)[1])


def test_all_measures_are_means_over_pictures_however_they_are_batched() -> None:
    a = pictures(1, 5)
    b = (a + torch.linspace(0.01, 0.2, 5).view(-1, 1, 1, 1)).clamp(0, 1)
    found = fidelity(a, b, (MeanDifference(),), batch=2)
    assert found.pictures == 5
    assert found.psnr == pytest.approx(float(psnr(a, b).mean()))
    assert found.ssim == pytest.approx(float(ssim(a, b).mean()))
    assert found.distances == {"mean difference": pytest.approx(float((a - b).abs().mean()), rel=1e-5)}
    worse = fidelity(a, (b + 0.1).clamp(0, 1), (MeanDifference(),))
    assert worse.psnr < found.psnr
    assert worse.ssim < found.ssim
    assert worse.distances["mean difference"] > found.distances["mean difference"]


def test_what_cannot_be_compared_is_refused() -> None:
    a = pictures(1)
    with pytest.raises(ValueError, match="as many copies as originals"):
        fidelity(a, a[:2])
    with pytest.raises(ValueError, match="as many copies as originals"):
        psnr(a[:0], a[:0])
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(a[..., :10], a[..., :10])
    with pytest.raises(ValueError, match="latent-distance-3 compares latents"):
        fidelity(a, a, (LatentDistance(),))
