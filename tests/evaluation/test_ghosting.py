"""Ghosting: a double exposure is told from everything else that lies between two pictures."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from footage import real_clip
from segue.evaluation.ghosting import exposure, exposures, ghosting
from segue.media import TensorFrames, read

SIZE = 96


def texture(seed: int, width: int = SIZE) -> Tensor:
    """A picture (3, h, w) with edges everywhere, others in every seed."""
    coarse = torch.rand(1, 3, SIZE // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    return interpolate(coarse, (SIZE, width), mode="bicubic")[0].clamp(0, 1)


def disc(
    across: float, down: float, colour: tuple[float, float, float] = (0.9, 0.1, 0.1), radius: float = 16
) -> Tensor:
    """A disc on a light ground."""
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    cover = (radius + 0.5 - ((x - across) ** 2 + (y - down) ** 2).sqrt()).clamp(0, 1)
    return torch.lerp(torch.full((3, SIZE, SIZE), 0.9), torch.tensor(colour).view(3, 1, 1).expand(3, SIZE, SIZE), cover)


def turned(picture: Tensor, degrees: float) -> Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    grid = affine_grid(torch.tensor([[[c, -s, 0.0], [s, c, 0.0]]]), [1, *picture.shape], align_corners=False)
    return grid_sample(picture[None], grid, padding_mode="border", align_corners=False)[0]


def bar() -> Tensor:
    picture = torch.full((3, SIZE, SIZE), 0.9)
    picture[:, 40:56, 14:82] = torch.tensor([0.1, 0.3, 0.8]).view(3, 1, 1)
    return picture


def fade(a: Tensor, b: Tensor, count: int = 17) -> Tensor:
    return torch.stack([torch.lerp(a, b, i / (count - 1)) for i in range(count)])


A, B = texture(1), texture(2)
WIDE = texture(3, 3 * SIZE)
FADES = {
    "pictures": fade(A, B),
    "discs": fade(disc(30, 30), disc(64, 60, (0.1, 0.2, 0.8), 18)),
    "one within the other": fade(disc(48, 48, radius=14), disc(48, 48, (0.1, 0.5, 0.1), 26)),
    "slow": fade(A, B, 90),
}
OTHERS = {
    "sliding": torch.stack([disc(20 + 3.5 * i, 48) for i in range(17)]),
    "sliding slowly": torch.stack([disc(30 + 0.5 * i, 48) for i in range(17)]),
    "panning": torch.stack([WIDE[:, :, 6 * i : 6 * i + SIZE] for i in range(17)]),
    "turning": torch.stack([turned(bar(), 6 * i) for i in range(17)]),
    "growing": torch.stack([disc(48, 48, radius=10 + 1.5 * i) for i in range(17)]),
    "a cut": torch.stack([A] * 8 + [B] * 9),
    "changing colours": fade(disc(48, 48), disc(48, 48, (0.1, 0.7, 0.2))),
    "out of black": fade(torch.zeros_like(A), A),
    "out of white": fade(torch.ones_like(A), disc(48, 48)),
    "brighter": fade(A * 0.6, A),
}


@pytest.mark.parametrize("name", FADES)
def test_a_cross_fade_is_a_double_exposure(name: str) -> None:
    found = exposures(TensorFrames.rounded(FADES[name]))
    assert float(found.mix.max()) > 0.8
    assert float(found.score.max()) > 0.75
    assert float(found.score[1:-1].mean()) > 0.45
    assert float(found.score[0]) == float(found.score[-1]) == 0
    assert abs(int(found.score.argmax()) - len(found.score) // 2) <= len(found.score) // 6


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_fade_is_none(name: str) -> None:
    found = exposures(TensorFrames.rounded(OTHERS[name]))
    assert float(found.score.max()) < 0.12
    assert float(found.score.mean()) < 0.05


def test_a_still_picture_and_noise_are_none() -> None:
    assert not exposures(TensorFrames.rounded(torch.stack([A] * 9))).score.any()
    noisy = torch.stack([A] * 9) + 0.05 * torch.randn(9, *A.shape, generator=torch.Generator().manual_seed(0))
    assert float(exposures(TensorFrames.rounded(noisy.clamp(0, 1))).score.max()) < 0.02


def test_a_long_clip_is_judged_as_if_it_were_held_whole() -> None:
    """It is read once, and frames are forgotten when they are out of reach."""
    frames = torch.cat([fade(A, B, 170), fade(B, A, 30)])[:, :, ::2, ::2]
    found = exposures(TensorFrames.rounded(frames)).mix
    whole = TensorFrames.rounded(frames)[0 : len(frames)]
    for i in (1, 31, 32, 63, 100, 160, 165, 185, 199):
        spans = [(max(i - 2**k, 0), min(i + 2**k, 199)) for k in range(8)]
        left, right = whole[[span[0] for span in spans]], whole[[span[1] for span in spans]]
        assert float(found[i]) == pytest.approx(float(exposure(left, whole[[i] * 8], right).mix.max()), abs=1e-5)
    assert float(found[185]) > 0.7


def test_half_and_half_is_1_and_lacks_half_the_sharpness() -> None:
    found = exposure(A[None], (A / 2 + B / 2)[None], B[None])
    assert float(found.mix) > 0.85
    assert float(found.sag) == pytest.approx(0.5, abs=0.05)
    assert float(ghosting(A[None], (A / 2 + B / 2)[None], B[None])) == pytest.approx(float(found.score))


def test_the_score_rises_up_to_the_middle_of_a_fade() -> None:
    shares = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.5])
    middles = torch.stack([torch.lerp(A, B, float(share)) for share in shares])
    scores = ghosting(A.expand(5, -1, -1, -1), middles, B.expand(5, -1, -1, -1))
    assert bool((scores.diff() > 0.05).all())
    assert float(scores[0]) == 0


def test_it_is_the_same_forwards_and_backwards_and_row_by_row() -> None:
    left, right = torch.stack([A, disc(30, 30), A]), torch.stack([B, disc(60, 60), A])
    middle = torch.stack([torch.lerp(A, B, 0.4), disc(45, 45), A])
    forwards = ghosting(left, middle, right)
    assert torch.allclose(forwards, ghosting(right, middle, left), atol=1e-5)
    assert torch.allclose(
        forwards, torch.cat([ghosting(*(part[i : i + 1] for part in (left, middle, right))) for i in range(3)])
    )


def test_a_part_that_fades_counts_by_its_share_of_the_change() -> None:
    """On the left a disc slides, on the right one fades into another place."""
    left, right = disc(22, 22, radius=10), disc(22, 70, radius=10)
    middle = disc(22, 46, radius=10)
    clean = float(ghosting(left[None], middle[None], right[None]))
    start, end = torch.minimum(left, disc(74, 22, radius=10)), torch.minimum(right, disc(74, 70, radius=10))
    half = torch.minimum(middle, disc(74, 22, radius=10) / 2 + disc(74, 70, radius=10) / 2)
    both = float(ghosting(start[None], half[None], end[None]))
    assert clean < 0.05
    assert 0.25 < both < 0.75


def test_large_pictures_are_judged_as_small_ones() -> None:
    large = [interpolate(part[None], scale_factor=4, mode="bicubic").clamp(0, 1) for part in (A, A / 2 + B / 2, B)]
    small = [part[None] for part in (A, A / 2 + B / 2, B)]
    assert float(ghosting(*large)) == pytest.approx(float(ghosting(*small)), abs=0.1)


@pytest.mark.parametrize("size", [(37, 53), (16, 200), (8, 8), (96, 97)])
def test_every_size_will_do(size: tuple[int, int]) -> None:
    pictures = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    found = ghosting(pictures[:1], pictures.mean(0, keepdim=True), pictures[1:])
    assert 0.4 < float(found) <= 1


def test_pictures_that_differ_in_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="pictures of one shape"):
        ghosting(A[None], B[None, :, :50], A[None])


@pytest.mark.parametrize("name", ["wolf.mp4", "bigbuckbunny.mp4", "scene_cuts.mp4"])
def test_real_footage_has_no_ghosts_until_it_is_cross_faded(name: str) -> None:
    clip = read(real_clip(name))
    frames = torch.cat(
        [interpolate(clip.frames[i : i + 1], (144, 192), mode="bilinear", antialias=True) for i in range(20)]
    )
    assert float(exposures(TensorFrames.rounded(frames)).score.max()) < 0.12
    faded = fade(frames[0], frames[0].flip(2), 20)
    assert float(exposures(TensorFrames.rounded(faded)).score.max()) > 0.7
