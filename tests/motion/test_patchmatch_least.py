"""How near PatchMatch comes to the least that there is: every place tried, for every pixel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from footage import real_clip
from motion.pictures import moved
from segue.media.reader import read
from segue.motion.descriptors import described
from segue.motion.match import ends
from segue.motion.patchmatch import PatchMatcher

SIDE = 128


def patches(picture: Tensor, size: int) -> Tensor:
    """Whole patches (h w, 3 size size), so that squared distances are mean squared differences."""
    return described(picture, size, 3 * size * size)[0]


def least(a: Tensor, b: Tensor, size: int) -> float:
    """The mean, over all pixels, of the difference to the most similar patch anywhere."""
    here, there = patches(a, size), patches(b, size)
    lengths = there.square().sum(1)
    nearest = torch.cat([(lengths - 2 * part @ there.T).argmin(1) for part in here.split(1024)])
    return float((here - there[nearest]).square().sum(1).mean())


def found(a: Tensor, b: Tensor, size: int, matcher: PatchMatcher) -> float:
    """The same of the patches that a matcher found."""
    goal = ends(matcher(a, b)[0].way)[0].flatten()
    return float((patches(a, size) - patches(b, size)[goal]).square().sum(1).mean())


def square(name: str, frame: int, side: int) -> Tensor:
    """A frame's middle, as long as it is high, in [0, 1]."""
    picture = read(real_clip(name)).frames[frame : frame + 1]
    high, wide = picture.shape[2:]
    return interpolate(picture[..., (wide - high) // 2 : (wide + high) // 2], (side, side), mode="area")


@pytest.mark.parametrize(
    ("name", "far", "patch"),
    [("bigbuckbunny", 1, 5), ("portrait", 8, 7), ("scene_cuts", 32, 5), ("wolf", 32, 5)],
)
def test_within_five_percent_of_the_least_on_real_frames(name: str, far: int, patch: int) -> None:
    a, b = square(f"{name}.mp4", 0, SIDE), square(f"{name}.mp4", far, SIDE)
    assert found(a, b, patch, PatchMatcher.thorough(patch)) < 1.05 * least(a, b, patch)


def test_within_five_percent_of_the_least_on_what_is_drawn() -> None:
    a, b = moved(9, -5, 64, 64)
    b = (0.9 * b + 0.02 * torch.randn(b.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    best = least(a, b, 5)
    assert found(a, b, 5, PatchMatcher.thorough()) < 1.05 * best
    assert found(a, b, 5, PatchMatcher(rounds=(1,), reach=1, terms=1)) > 1.05 * best, "or this says nothing"
