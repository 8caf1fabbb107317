"""Mixes of latents: ends are exact, equals stay equal, no length is lost, and rows do not see each other."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from segue.temporal.mix import Mix, mixed, slerp

MIXES: tuple[Mix, ...] = get_args(Mix)
SHAPE = (3, 4, 6, 6)


def pair(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    return a, scale * b


def shares(value: float) -> Tensor:
    return torch.full((SHAPE[0],), value, dtype=torch.float64)


@pytest.mark.parametrize("mix", MIXES)
def test_the_ends_are_exact(mix: Mix) -> None:
    a, b = pair()
    assert torch.equal(mixed(a, b, shares(0), mix), a)
    assert torch.equal(mixed(a, b, shares(1), mix), b)


@pytest.mark.parametrize("mix", MIXES)
def test_a_mix_of_equals_is_what_they_are(mix: Mix) -> None:
    a, _ = pair()
    assert torch.allclose(mixed(a, a, shares(0.3), mix), a, atol=1e-6)
    assert torch.equal(mixed(0 * a, 0 * a, shares(0.3), mix), 0 * a)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_norms_lie_between_those_of_both(mix: Mix, share: float) -> None:
    """A straight line would lose three tenths half-way between independent latents."""
    a, b = pair(scale=2.0)
    lengths = [part.flatten(1).norm(dim=1) for part in (a, mixed(a, b, shares(share), mix), b)]
    assert bool((lengths[0] * 0.97 <= lengths[1]).all())
    assert bool((lengths[1] <= lengths[2] * 1.03).all())
    lost = (a * (1 - share) + b * share).flatten(1).norm(dim=1)
    assert bool((lost < lengths[1]).all())


def test_each_channel_has_its_own_angle() -> None:
    """Channels that agree are mixed as such, whatever the angle between the others is."""
    a, b = pair()
    b[:, 0] = a[:, 0]
    by_channel, whole = mixed(a, b, shares(0.5), "channels"), mixed(a, b, shares(0.5))
    assert torch.allclose(by_channel[:, 0], a[:, 0], atol=1e-6)
    assert not torch.allclose(whole[:, 0], a[:, 0], atol=1e-2)
    for channel in range(SHAPE[1]):
        alone = mixed(a[:, [channel]], b[:, [channel]], shares(0.5))
        assert torch.equal(alone, by_channel[:, [channel]])


def test_a_straight_line_has_the_length_that_lies_between() -> None:
    a, b = pair(scale=3.0)
    found = mixed(a, b, shares(0.25), "linear").flatten(1)
    straight = (0.75 * a + 0.25 * b).flatten(1)
    assert torch.allclose(found.norm(dim=1), 0.75 * a.flatten(1).norm(dim=1) + 0.25 * b.flatten(1).norm(dim=1))
    assert torch.allclose(torch.cosine_similarity(found, straight), torch.ones(SHAPE[0]))
    assert bool(mixed(a, -a, shares(0.5), "linear").isfinite().all()), "opposites have no direction half-way"


@pytest.mark.parametrize("mix", MIXES)
def test_rows_do_not_see_each_other(mix: Mix) -> None:
    a, b = pair()
    share = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    together = mixed(a, b, share, mix)
    alone = [mixed(a[[i]], b[[i]], share[[i]], mix) for i in range(SHAPE[0])]
    assert torch.equal(together, torch.cat(alone))


def test_slerp_is_the_mix_of_whole_latents() -> None:
    a, b = pair()
    assert torch.equal(slerp(a, b, shares(0.3)), mixed(a, b, shares(0.3), "whole"))
