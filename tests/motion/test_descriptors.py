"""Descriptors of patches, against the patches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segue.motion.descriptors import basis, described


def mirrored(picture: Tensor, reach: int) -> Tensor:
    """The border repeated outwards, edges included, one line at a time."""
    for dim in (1, 2):
        parts: list[Tensor] = []
        length = picture.shape[dim]
        for place in range(-reach, length + reach):
            while not 0 <= place < length:
                place = -1 - place if place < 0 else 2 * length - 1 - place
            parts.append(picture.select(dim, place))
        picture = torch.stack(parts, dim)
    return picture


@pytest.mark.parametrize("patch", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [(9, 12), (2, 1)])
def test_all_terms_keep_every_distance(patch: int, size: tuple[int, int]) -> None:
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    padded = mirrored(picture[0], patch // 2)
    patches = padded.unfold(1, patch, 1).unfold(2, patch, 1).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    whole = described(picture, patch, 3 * patch * patch)[0]
    expected = torch.cdist(patches.double(), patches.double()).square() / (3 * patch * patch)
    assert torch.allclose(torch.cdist(whole.double(), whole.double()).square(), expected, atol=1e-6)


def test_fewer_terms_bound_the_distance_from_below() -> None:
    one, other = torch.rand(2, 1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    before = torch.zeros(1, 400)
    for terms in (1, 4, 16, 40, 75):
        now = (described(one, 5, terms) - described(other, 5, terms)).square().sum(-1)
        assert (now >= before - 1e-7).all()
        before = now


def test_the_first_terms_are_the_mean_and_the_slopes() -> None:
    assert basis(5, 3) == ((0, 0, 0), (0, 0, 1), (0, 1, 0))
    assert len(set(basis(5, 75))) == 75


def test_other_pictures_do_not_matter() -> None:
    pictures = torch.rand(3, 3, 13, 29, generator=torch.Generator().manual_seed(0))
    whole = described(pictures, 5, 16)
    for row in range(3):
        assert torch.equal(whole[row : row + 1], described(pictures[row : row + 1].clone(), 5, 16))
