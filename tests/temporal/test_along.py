"""Blending along a guide inside the loop: coarser the more noise, exact where nothing changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from segue.media.clip import TensorFrames
from segue.motion.blend import Blending, blended
from segue.motion.fields import Fields
from segue.motion.match import Match
from segue.temporal.along import Along, Smaller, level

SIZE, FRAMES = (40, 32), 6


class Still:
    """Everything stays where it is."""

    name = "still"

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, a: Tensor, b: Tensor, start: tuple[Match, Match] | None = None) -> tuple[Match, Match]:
        self.sizes.append((a.shape[3], a.shape[2]))
        none = torch.zeros(len(a), 2, *a.shape[2:])
        match = Match(none, none[:, 0], torch.ones_like(none[:, 0]), whole=True)
        return match, match


def clip(frames: int = FRAMES, seed: int = 0) -> TensorFrames:
    """Noise around a picture."""
    drawn = torch.Generator().manual_seed(seed)
    picture = torch.rand((3, *SIZE[::-1]), generator=drawn)
    return TensorFrames.rounded((picture + 0.1 * torch.randn((frames, 3, *SIZE[::-1]), generator=drawn)).clamp(0, 1))


def along(matcher: Still, levels: int = 4) -> Along:
    guide = clip(seed=1)
    return Along([Fields(matcher, guide if k == 0 else Smaller(guide, k)) for k in range(levels)], Blending(window=2))


def test_the_finest_is_that_of_the_fields() -> None:
    matcher, style = Still(), clip()
    for (number, picture, change), (_, plain, same) in zip(
        along(matcher)(style, 0.5), blended(style, Fields(matcher, clip(seed=1)), Blending(window=2)), strict=True
    ):
        assert torch.equal(picture, plain)
        assert torch.equal(change, same)
        assert float((picture - style[number : number + 1][0]).abs().max()) > 0.01


@pytest.mark.parametrize(("noise", "size"), [(0.0, (40, 32)), (1.2, (20, 16)), (5.0, (10, 8)), (float("inf"), (5, 4))])
def test_the_more_noise_the_smaller_are_pictures_compared(noise: float, size: tuple[int, int]) -> None:
    matcher = Still()
    made = list(along(matcher)(clip(), noise))
    assert set(matcher.sizes) == {size}
    assert [number for number, _, _ in made] == list(range(FRAMES))
    assert {tuple(picture.shape) for _, picture, _ in made} == {(3, 32, 40)}


def test_blending_coarsely_leaves_detail_alone() -> None:
    style = clip()

    def added(noise: float) -> Tensor:
        return torch.stack([picture for _, picture, _ in along(Still())(style, noise)]) - style[:]

    fine, coarse = ((part.diff(dim=-1).abs().mean() / part.abs().mean()) for part in (added(0.0), added(1.2)))
    assert coarse < 0.6 * fine, "what is added is smooth"
    apart = [(style[:] + added(noise)).std(0).mean() for noise in (0.0, 1.2)]
    assert apart[0] < apart[1] < style[:].std(0).mean()


@pytest.mark.parametrize("noise", [0.0, 1.2, 5.0])
def test_equal_pictures_stay_as_they_are(noise: float) -> None:
    one = clip(1).pixels
    style = TensorFrames(one.expand(FRAMES, -1, -1, -1))
    for number, picture, change in along(Still())(style, noise):
        assert torch.equal(picture, style[number : number + 1][0])
        assert not bool(change.any())


@pytest.mark.parametrize("noise", [0.0, 1.2, 5.0])
def test_where_nothing_is_said_to_change_nothing_does(noise: float) -> None:
    style = clip(1).pixels.expand(FRAMES, -1, -1, -1).clone()
    style[2, :, 10:14, 8:12] = 255 - style[2, :, 10:14, 8:12]
    some = 0
    for number, picture, change in along(Still())(TensorFrames(style), noise):
        before = TensorFrames(style)[number : number + 1][0]
        assert torch.equal(picture[:, change == 0], before[:, change == 0])
        some += int((change > 0).sum())
    assert 0 < some < FRAMES * SIZE[0] * SIZE[1]


def test_fewer_fields_bound_how_coarse_it_gets() -> None:
    matcher = Still()
    list(along(matcher, levels=2)(clip(), float("inf")))
    assert set(matcher.sizes) == {(20, 16)}


def test_a_clip_of_another_length_is_told() -> None:
    for noise in (0.0, 1.2):
        with pytest.raises(ValueError, match=f"expected pictures .* {FRAMES} of"):
            list(along(Still())(clip(FRAMES - 1), noise))


def test_levels() -> None:
    found = [level(noise) for noise in (0.0, 1.0, 1.2, 4.0, 5.0, 17.0, 18.0, float("inf"))]
    assert found[:7] == [0, 0, 1, 1, 2, 2, 3]
    assert found == sorted(found)


def test_smaller_frames_are_means() -> None:
    frames = clip(2)
    odd = replace(frames, pixels=frames.pixels[..., :31, :39])
    small = Smaller(odd, 1)
    assert small.size == (20, 16)
    assert tuple(small[0:2].shape) == (2, 3, 16, 20)
    assert torch.allclose(small[1:2][0, :, 3, 4], odd[1:2][0, :, 6:8, 8:10].mean((1, 2)))
    assert torch.allclose(small[1:2][0, :, 15, 4], odd[1:2][0, :, 30, 8:10].mean(1))
