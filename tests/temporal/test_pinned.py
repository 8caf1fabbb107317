# pyright: basic
"""Mean and contrast are held where they are known; what is as it should be is not touched."""

from __future__ import annotations

import torch

from flickers import textured
from segue.media.clip import as_floats
from segue.temporal.pinned import MOST, Tone, brought, pinned, trend

FILM = 0.25 + 0.5 * as_floats(textured(6, (32, 24)))


def test_what_is_as_it_was_known_comes_back_bit_for_bit() -> None:
    assert torch.equal(pinned(FILM, {0: FILM[0], 5: FILM[5]}), FILM)
    assert torch.equal(pinned(0.5 * FILM, {0: FILM[0]}, weight=0.0), 0.5 * FILM)


def test_an_even_change_of_tone_is_undone_in_all_frames() -> None:
    scale, shift = torch.tensor([0.9, 1.1, 1.0])[:, None, None], torch.tensor([0.02, -0.03, 0.01])[:, None, None]
    changed = FILM * scale + shift
    found = pinned(changed, {0: FILM[0]})
    before, after = (float(Tone.of(one).apart(Tone.of(FILM)).mean()) for one in (changed, found))
    assert after < 0.25 * before
    half = pinned(changed, {0: FILM[0]}, weight=0.5)
    assert after < float(Tone.of(half).apart(Tone.of(FILM)).mean()) < before


def test_between_two_known_frames_the_change_is_what_lies_between() -> None:
    film = FILM[:1].expand(5, -1, -1, -1)
    changed = film + torch.linspace(0, 0.08, 5)[:, None, None, None]
    assert torch.allclose(pinned(changed, {0: film[0], 4: film[4]}), film, atol=1e-5)
    uneven = film + torch.tensor([0, 0.06, 0.07, 0.075, 0.08])[:, None, None, None]
    at = [0, 0.75, 0.875, 0.9375, 1.0]
    assert torch.allclose(pinned(uneven, {0: film[0], 4: film[4]}, shares=at), film, atol=1e-5)


def test_contrast_is_not_blown_up() -> None:
    faint = 0.5 + 0.01 * (FILM - 0.5)
    found = pinned(faint, {0: FILM[0]})
    assert bool((Tone.of(found).std <= 1.001 * MOST * Tone.of(faint).std).all())
    flat = torch.full_like(FILM, 0.5)
    assert bool(pinned(flat, {0: FILM[0]}).isfinite().all())


def test_a_trend_is_what_grows_and_nothing_else() -> None:
    still = Tone.of(FILM[:1].expand(8, -1, -1, -1))
    times = list(range(8))
    assert float(trend(still, times).mean.abs().max()) < 1e-12
    line = torch.linspace(0, 0.07, 8, dtype=torch.float64)[:, None]
    wave = 0.02 * torch.tensor([1, -1, -1, 1, 1, -1, -1, 1], dtype=torch.float64)[:, None]
    grown = trend(Tone(still.mean + line + wave, still.std), times)
    assert torch.allclose(grown.mean, line.expand(-1, 3), atol=1e-9)
    assert not trend(still[[0, 1]], [0, 1]).mean.any()


def test_pictures_get_the_tone_that_they_are_brought_to() -> None:
    own = Tone.of(FILM)
    wanted = Tone(own.mean + 0.03, own.std * 0.95)
    assert float(Tone.of(brought(FILM, own, wanted)).apart(wanted).max()) < 1e-5
