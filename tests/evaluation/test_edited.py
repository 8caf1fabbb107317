"""How much an edit kept: by definitions, and in the direction that each number promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from segue.errors import TaskError
from segue.evaluation.edited import Words, directions, edited, structures
from segue.evaluation.fidelity import psnr, ssim
from segue.media import TensorFrames

SIZE = (48, 32)


class Pooled:
    """Features that are easy to check: colours of blocks, finer and coarser."""

    name = "blocks"
    side = 56

    def stages(self, pictures: Tensor) -> Iterator[Tensor]:
        for block in (2, 4, 8):
            yield avg_pool2d(pictures, block)


class Colours:
    """An encoder whose texts are colours."""

    name = "mean colours"

    def __call__(self, pictures: Tensor) -> Tensor:
        return normalize(pictures.mean((2, 3)), dim=1)

    def texts(self, prompts: list[str]) -> Tensor:
        said = {"red": [1.0, 0.0, 0.0], "green": [0.0, 1.0, 0.0], "blue": [0.0, 0.0, 1.0]}
        return torch.tensor([said[prompt] for prompt in prompts])


class MeanDifference:
    name = "mean difference"
    domain: Literal["frames"] = "frames"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().flatten(1).mean(1)


def frames(count: int = 3, seed: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 6, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, (SIZE[1], SIZE[0]), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().byte()


def square() -> Tensor:
    mask = torch.zeros(1, 3, SIZE[1], SIZE[0], dtype=torch.uint8)
    mask[..., 8:24, 12:36] = 255
    return mask


def test_numbers_are_what_they_say() -> None:
    source, mask = frames(), square()
    result = source.clone()
    result[..., 8:24, 12:36] = 255 - result[..., 8:24, 12:36]
    result[:, 0, 0, 0] = (source[:, 0, 0, 0].int() + 10).clamp(max=255).byte()
    outside = float((result[:, 0, 0, 0].int() - source[:, 0, 0, 0].int()).float().mean()) / (3 * (48 * 32 - 24 * 16))
    found = edited(*map(TensorFrames, (result, source, mask)), distance=MeanDifference())
    a, b = source.float() / 255, result.float() / 255
    assert found.psnr == pytest.approx(float(psnr(a, b).mean()))
    assert found.ssim == pytest.approx(float(ssim(a, b).mean()))
    assert found.outside == pytest.approx(outside, rel=1e-4)
    assert found.inside == pytest.approx(float((a - b)[..., 8:24, 12:36].abs().mean()) * 255, rel=1e-4)
    assert found.distance == pytest.approx(float((a - b).abs().mean()))
    assert found.outside_psnr is not None and found.psnr is not None and found.outside_psnr > found.psnr + 20
    assert [measure.name for measure in found.measures()] == [
        "PSNR", "SSIM", "kept outside", "PSNR outside", "change inside", "distance",
    ]  # fmt: skip


def test_what_is_equal_is_kept() -> None:
    source = TensorFrames(frames())
    found = edited(source, source, TensorFrames(square()), maps=Pooled())
    assert (found.psnr, found.ssim, found.outside, found.inside) == (None, 1.0, 0.0, 0.0)
    assert found.outside_psnr is None and found.structure == 0


def test_structure_is_about_what_is_where() -> None:
    """Other colours everywhere leave it nearly as it was; things that are elsewhere do not."""
    a = frames(2).float() / 255
    recoloured = 0.1 + 0.6 * a
    moved = a.roll(12, 3)
    kept, lost = (structures(a, other, Pooled()) for other in (recoloured, moved))
    assert float(kept.max()) < 1e-6 < 0.05 < float(lost.min())
    assert torch.equal(structures(a, moved, Pooled()), structures(moved, a, Pooled()))


def test_direction_is_that_of_the_words() -> None:
    before = torch.tensor([[1.0, 0.0, 0.0]]).expand(3, -1)
    after = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, -0.2, 0.2]])
    found = directions(before, after, Words("green", "red", Colours()))
    assert float(found[0]) == pytest.approx(1)
    assert float(found[1]) == pytest.approx(0.5)
    assert float(found[2]) < 0
    green, red = torch.zeros(2, 3, 32, 48, dtype=torch.uint8).split(1)
    green[:, 1], red[:, 0] = 200, 200
    one = edited(TensorFrames(green), TensorFrames(red), words=Words("green", "red", Colours()))
    assert one.direction == pytest.approx(1) and one.encoder == "mean colours"


def test_masks_are_one_or_each() -> None:
    source, each = TensorFrames(frames()), square().repeat(3, 1, 1, 1)
    each[1] = each[1].roll(6, 2)
    found = edited(TensorFrames(frames(seed=2)), source, TensorFrames(each))
    assert found.outside is not None and found.outside > 0


@pytest.mark.parametrize(
    ("result", "mask", "said"),
    [
        (frames(2), None, "the edit has 2 frames, the source 3"),
        (frames()[..., :40], None, "the edit has 40x32 pixels, the source 48x32"),
        (frames(), square()[..., :40], "expected a mask of 48x32 pixels"),
        (frames(), square().repeat(2, 1, 1, 1), "one or 3; got 2"),
        (frames(), square() * 0, "this one is of one kind"),
    ],
)
def test_what_does_not_fit_is_told(result: Tensor, mask: Tensor | None, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        edited(TensorFrames(result), TensorFrames(frames()), None if mask is None else TensorFrames(mask))
