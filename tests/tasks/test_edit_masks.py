"""Masks that were carried have even edges; nothing else of them changes."""

from __future__ import annotations

import pytest
import torch

from segue.motion.carried_mask import evened


def test_straight_edges_and_ramps_stay() -> None:
    hard, ramp = torch.zeros(128, 160), torch.linspace(-1, 2, 160).clamp(0, 1).expand(128, -1)
    hard[:, 40:] = 1
    assert torch.equal(evened(hard), hard)
    assert torch.equal(evened(ramp), (255 * ramp).round() / 255)


def test_frays_go() -> None:
    draw = torch.Generator().manual_seed(1)
    columns = torch.arange(160).expand(128, -1)
    straight = (columns < 80).float()
    frayed = (columns < 80 + torch.randint(-2, 3, (128, 1), generator=draw)).float()
    frayed[5, 5] = frayed[90, 120] = 0.5

    def apart(mask: torch.Tensor) -> float:
        return float((mask - straight).abs().sum())

    even = evened(frayed)
    assert apart(even) < apart(frayed) / 2
    assert float(even[5, 5]) == 1 and float(even[90, 120]) == 0
    assert float((even[1:] != even[:-1]).sum()) < float((frayed[1:] != frayed[:-1]).sum()) / 2


@pytest.mark.parametrize("side", [3, 9, 30])
def test_a_small_area_is_still_there(side: int) -> None:
    mask = torch.zeros(512, 512)
    mask[100 : 100 + side, 200 : 200 + side] = 1
    even = evened(mask)
    assert float(even.sum()) >= 0.9 * side**2
    assert float(even[:90].sum()) == 0 == float(even[:, 240:].sum())
