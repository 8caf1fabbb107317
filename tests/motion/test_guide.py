"""Guides where there is no source."""

from __future__ import annotations

import pytest
import torch

from motion.clips import Held, flickering, noisy, panned
from segue.motion.fields import Fields
from segue.motion.guide import Levelled, levelled
from segue.motion.patchmatch import PatchMatcher

SMALL = PatchMatcher(terms=8, rounds=(1,), reach=2)


def strong() -> Held:
    """Four frames of strong contrasts, far from black and white."""
    return Held((panned(4).pictures > 0.5).float() * 0.5 + 0.2)


def test_gain_and_offset_say_nothing() -> None:
    clip = strong()
    lit = Held(clip.pictures * torch.tensor([0.7, 1.0, 1.3, 1.1]).view(4, 1, 1, 1) - 0.05)
    apart = (Levelled(clip)[0:4] - Levelled(lit)[0:4]).abs()
    # What is faint keeps its strength, instead of being made to stand out.
    assert float((apart < 1e-4).float().mean()) > 0.95
    assert float(apart.mean()) < 0.001
    assert float((lit.pictures - clip.pictures).abs().mean()) > 0.05


def test_a_frame_is_the_same_in_any_window() -> None:
    guide = Levelled(noisy(panned(6), 0.05))
    assert (len(guide), guide.size) == (6, (64, 48))
    assert torch.equal(guide[0:6][3], guide[3:4][0])
    assert guide[6:6].shape == (0, 3, 48, 64)
    assert 0 <= float(guide[0:6].min()) <= float(guide[0:6].max()) <= 1


def test_noise_says_less_and_none_is_asked_for_at_zero() -> None:
    still = Held(panned(1).pictures.repeat(2, 1, 1, 1))
    spoiled = noisy(still, 0.06)

    def apart(blur: float) -> float:
        pictures = Levelled(spoiled, blur)[0:2]
        return float((pictures[0] - pictures[1]).square().mean())

    assert apart(1.5) < apart(0.7) < 0.5 * apart(0)
    assert torch.equal(Levelled(spoiled, 0)[0:2], levelled(spoiled[0:2]))


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_plain_pictures_stay_plain(value: float) -> None:
    plain = levelled(torch.full((1, 3, 20, 20), value))
    assert torch.allclose(plain, torch.full_like(plain, 0.5))


def test_what_flickers_is_believed_as_if_it_did_not() -> None:
    clip = panned(5, step=(2, 1))
    spoiled = flickering(clip, 0.4)
    believed = [
        float(torch.cat([Fields(SMALL, guide).way(n, n + 1).confidence for n in range(4)]).mean())
        for guide in (clip, spoiled, Levelled(spoiled, 0))
    ]
    assert believed[1] < 0.7 * believed[0]
    assert believed[2] > 0.9 * believed[0]


def test_what_is_faint_is_made_to_stand_out_by_so_much_and_no_more() -> None:
    """The noise of a plain background would else be taken for something, and nothing there be believed."""
    faint = Held(panned(4).pictures * 0.05 + 0.5)
    assert float((Levelled(faint, 0)[0:4] - 0.5).std()) < 3 * float(faint.pictures.std())


def test_light_on_a_part_of_the_picture_says_nothing_but_at_its_edge() -> None:
    clip = strong()
    shade = torch.linspace(0.8, 1.2, 64).view(1, 1, 1, 64)
    lit = Levelled(Held(clip.pictures * shade))[0:4]
    apart = (lit - Levelled(clip)[0:4]).abs().mean()
    assert float(apart) < 0.1 * float((lit - 0.5).abs().mean())
