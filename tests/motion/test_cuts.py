"""Where shots begin."""

from __future__ import annotations

import gc

import pytest
import torch
from torch.nn.functional import interpolate

from footage import real_clip
from motion.clips import Held, flickering, ground, joined, noisy, panned
from segue.media import read
from segue.motion.cuts import cuts


def film() -> Held:
    return joined(panned(9, 1), panned(12, 2, step=(1, 2)), panned(8, 3))


@pytest.mark.parametrize(("noise", "flicker"), [(0, 0), (0.06, 0), (0, 0.3), (0.06, 0.2)])
def test_cuts_are_found_and_no_others(noise: float, flicker: float) -> None:
    assert cuts(noisy(flickering(film(), flicker), noise)) == (9, 21)
    assert cuts(noisy(flickering(panned(20), flicker), noise)) == ()


def test_backwards_the_same_cuts_are_found() -> None:
    assert cuts(film().backwards()) == (29 - 21, 29 - 9)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("light", [1.0, 0.0, 0.8])
def test_a_flash_is_no_cut(length: int, light: float) -> None:
    pictures = panned(16).pictures.clone()
    pictures[7 : 7 + length] = pictures[7 : 7 + length].lerp(torch.tensor(light), 0.95)
    assert cuts(Held(pictures)) == ()


@pytest.mark.parametrize(("length", "found"), [(1, ()), (2, ()), (3, (7, 10)), (4, (7, 11))])
@pytest.mark.parametrize("light", [False, True], ids=["picture", "light"])
def test_a_flash_in_which_nothing_is_left_is_none_unless_it_lasts(
    length: int, found: tuple[int, ...], light: bool
) -> None:
    pictures = panned(20).pictures.clone()
    pictures[7 : 7 + length] = torch.ones(length, 3, 48, 64) if light else panned(length, 2).pictures
    assert cuts(Held(pictures)) == found


def test_fast_movement_is_none_and_neither_is_what_crosses_the_picture() -> None:
    assert cuts(panned(14, step=(6, 3))) == ()
    pictures = panned(16, step=(1, 0)).pictures.clone()
    thing = ground(5)[:, :48, :40]
    for number in range(16):
        seen = torch.arange(64) - (7 * number - 40)
        within = (seen >= 0) & (seen < 40)
        pictures[number][..., within] = thing[..., seen[within]]
    assert cuts(Held(pictures)) == ()


def test_a_fade_is_none() -> None:
    share = torch.linspace(0, 1, 24)[:, None, None, None]
    assert cuts(Held(panned(24, 1).pictures * (1 - share) + panned(24, 2).pictures * share)) == ()


def test_shots_of_two_frames_are_shots() -> None:
    shots = joined(panned(8, 1), panned(3, 2), panned(8, 4))
    assert cuts(shots) == (8, 11)


def test_plain_pictures_and_short_clips_have_none() -> None:
    assert cuts(Held(torch.full((6, 3, 20, 30), 0.3))) == ()
    for count in (0, 1, 2):
        assert cuts(Held(panned(9).pictures[:count])) == ()
    assert cuts(Held(torch.rand(5, 3, 4, 5, generator=torch.Generator().manual_seed(0)).mul(0.01))) in ((), (4,))


def test_progress_is_told_of_every_frame() -> None:
    told: list[tuple[float, float]] = []
    cuts(panned(7), progress=lambda what, done, total: told.append((done, total)))
    assert told == [(number, 7) for number in range(1, 8)]


@pytest.mark.parametrize(
    ("name", "found"), [("scene_cuts", (30, 76, 137, 187, 242)), ("bigbuckbunny", ()), ("portrait", ()), ("wolf", ())]
)
def test_real_cuts_are_found_under_noise_and_flicker(name: str, found: tuple[int, ...]) -> None:
    frames = read(real_clip(f"{name}.mp4")).frames
    # Half the pixels of each side, and the stretch around each cut, or the beginning of a film without.
    near = [n for n in range(len(frames)) if (not found and n < 16) or any(-4 <= n - cut < 4 for cut in found)]
    small = torch.cat([interpolate(frames[n : n + 1], scale_factor=0.5, mode="area") for n in near])
    for spoiled in (Held(small), noisy(flickering(Held(small), 0.1), 0.06)):
        assert {near[cut] for cut in cuts(spoiled)} >= set(found)
        # Where stretches meet there are cuts that the film does not have.
        assert all(near[cut] in found or near[cut] - near[cut - 1] > 1 for cut in cuts(spoiled))


def test_of_a_long_film_a_few_small_pictures_are_held() -> None:
    film, most = panned(40), 0

    class Watched(Held):
        def __getitem__(self, window: slice, /) -> torch.Tensor:
            nonlocal most
            grey = [each for each in gc.get_objects() if type(each) is torch.Tensor and each.shape[:2] == (1, 1)]
            most = max(most, sum(each.untyped_storage().nbytes() > 0 for each in grey))
            return super().__getitem__(window)

    cuts(Watched(film.pictures))
    assert 5 <= most <= 15
