"""Contrast and sharpness are those that people know from Pillow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from segue.media.clip import as_floats
from segue.media.enhance import contrasted, sharpened

OURS: dict[str, Callable[[Tensor, float], Tensor]] = {"Contrast": contrasted, "Sharpness": sharpened}


def pictures() -> Tensor:
    seeded = torch.Generator().manual_seed(1)
    coarse = torch.rand(2, 3, 15, 22, generator=seeded)
    return (torch.nn.functional.interpolate(coarse, (30, 43), mode="bicubic").clamp(0, 1) * 255).round().byte()


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5, 5.0])
def test_it_is_what_pillow_makes(kind: str, factor: float) -> None:
    shown = pictures()
    made = OURS[kind](as_floats(shown), factor) * 255
    for picture, mine in zip(shown, made, strict=True):
        theirs = getattr(ImageEnhance, kind)(Image.fromarray(picture.permute(1, 2, 0).numpy())).enhance(factor)
        wanted = torch.from_numpy(np.asarray(theirs).copy()).permute(2, 0, 1).float()
        # Pillow rounds the mean, or the smooth picture, before it goes away from it.
        assert (wanted - mine).abs().max() <= 1 + 0.5 * abs(1 - factor)
    assert (made - shown).abs().max() > 10


@pytest.mark.parametrize("enhanced", OURS.values())
def test_one_changes_nothing_at_all(enhanced: Callable[[Tensor, float], Tensor]) -> None:
    shown = as_floats(pictures())
    assert torch.equal(enhanced(shown, 1.0), shown)


def test_the_smallest_pictures_have_nothing_to_sharpen() -> None:
    dot = torch.full((1, 3, 2, 2), 0.3)
    assert torch.equal(sharpened(dot, 3.0), dot)
