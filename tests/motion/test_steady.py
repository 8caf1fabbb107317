"""Film whose light alone flickers: when frames keep their own detail, and what becomes of their light."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise
from typing import get_args

import pytest
import torch
from torch import Tensor

from motion.clips import Held, flickering, joined, noisy, panned
from motion.engines import Shifts, Still
from segue.motion.blend import Blending, Detail, blended
from segue.motion.detail import energy, high, low
from segue.motion.doubling import Pool
from segue.motion.fields import Fields
from segue.motion.flow_match import FlowMatcher
from segue.motion.steady import PAIRS, SharedDetail, Steadied, evenly

DETAILS = get_args(Detail)
SIZE = (40, 32)


def made(style: Held, fields: Fields, blending: Blending, numbers: list[int] | None = None) -> dict[int, Tensor]:
    return {number: picture for number, picture, _ in blended(style, fields, blending, numbers=numbers)}


def textured(count: int) -> Held:
    """Pans over something fine."""
    clip = noisy(Held(panned(1, size=(80, 64)).pictures), 0.12, seed=5).pictures[0]
    return Held(torch.stack([clip[:, n : n + 32, 2 * n : 2 * n + 40] for n in range(count)]))


def is_shared(style: Held, guide: Held) -> bool:
    return SharedDetail(style, Fields(FlowMatcher(), guide))(0)


def test_flicker_leaves_the_detail_of_neighbours_alike_and_noise_does_not() -> None:
    clean = textured(8)
    assert is_shared(clean, clean)
    assert is_shared(flickering(clean, 0.3), clean)
    assert not is_shared(noisy(clean, 0.12), clean)
    assert not is_shared(Held(torch.rand(8, 3, 32, 40, generator=torch.Generator().manual_seed(2))), clean)


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_what_shows_nothing_or_stands_still_shares_it(level: float) -> None:
    plain = Held(torch.full((4, 3, 32, 40), level))
    assert is_shared(plain, plain)
    still = Held(noisy(panned(1, size=SIZE), 0.1).pictures.repeat(4, 1, 1, 1))
    assert SharedDetail(still, Fields(Still(), still)).between(1) == pytest.approx(1, abs=1e-6)


def test_a_few_pairs_speak_for_each_shot_in_whichever_order_frames_are_asked_for() -> None:
    """And where nothing is believed, nothing is joined: each frame has its own detail anyway."""
    clean = textured(9)
    film = joined(flickering(clean, 0.3), noisy(clean, 0.15), Held(clean.pictures[:1]))
    asked: list[int] = []

    class Told(SharedDetail):
        def between(self, number: int) -> float | None:
            asked.append(number)
            return super().between(number)

    found = Told(film, Fields(FlowMatcher(), joined(clean, clean, Held(clean.pictures[:1])), cuts=(9, 18)))
    assert [found(number) for number in (17, 3, 9, 0, 18, 8)] == [False, True, False, True, True, True]
    assert sorted(asked) == [*evenly(8, PAIRS), *(9 + place for place in evenly(8, PAIRS))]
    assert SharedDetail(film, Fields(Shifts(doubt=0), film, cuts=range(19))).between(3) is None


@pytest.mark.parametrize("count", range(12))
def test_some_of_many_are_the_same_from_both_ends(count: int) -> None:
    found = evenly(count, 5)
    assert found == sorted(count - 1 - place for place in found)
    assert len(found) == count if count <= 4 else 4 <= len(found) <= 6
    assert not found or (found[0], found[-1]) == (0, count - 1)


def test_a_mean_of_means_is_one() -> None:
    """Of a film that stands still, restated: the mean over a window of the means over its windows."""
    light = torch.rand(12, generator=torch.Generator().manual_seed(1))
    style = Held(light.view(12, 1, 1, 1).expand(12, 3, 16, 16).contiguous())
    found = made(style, Fields(Still(), style), Blending(3, detail="own"))
    once = [light[max(0, n - 3) : n + 4].mean() for n in range(12)]
    twice = [torch.stack(once[max(0, n - 3) : n + 4]).mean() for n in range(12)]
    for number, picture in found.items():
        assert torch.allclose(picture, twice[number].expand_as(picture), atol=1e-6)


def test_detail_is_a_frame_s_own_bit_for_bit_where_it_is_as_strong_as_others() -> None:
    style = noisy(panned(1, size=SIZE), 0.1)
    detail = high(style.pictures)
    fields = Fields(Still(), style)
    leaf = torch.cat([style.pictures, energy(detail)], 1)

    def steadied(by: float) -> Tensor:
        pool = Pool.of(torch.cat([style.pictures, by * energy(detail)], 1))
        return Steadied(fields, lambda number: leaf, lambda number: pool, 1).detail(0, detail)

    assert torch.equal(steadied(1.0), detail)
    assert torch.allclose(steadied(1.44), 1.2 * detail, atol=2e-4)


def test_own_detail_is_nearer_to_the_film_and_its_light_steadier_than_by_one_mean() -> None:
    clean = textured(16)
    style = flickering(clean, 0.25)
    by = {
        detail: torch.stack(list(made(style, Fields(FlowMatcher(), clean), Blending(4, detail=detail)).values()))
        for detail in DETAILS
    }
    assert torch.equal(by["auto"], by["own"])
    detail = {name: high(pictures) for name, pictures in by.items()}

    def of_clean(pictures: Tensor) -> float:
        both = torch.stack([pictures.flatten(), high(clean.pictures).flatten()])
        return float(torch.corrcoef(both)[0, 1])

    assert 1 - of_clean(detail["own"]) < 0.5 * (1 - of_clean(detail["carried"]))

    def jumps(pictures: Tensor) -> float:
        light = low(pictures - pictures.mean() - clean.pictures + clean.pictures.mean()).mean((1, 2, 3))
        return sum(
            float(abs(later - 2 * here + earlier))
            for earlier, here, later in zip(light, light[1:], light[2:], strict=False)
        )

    assert jumps(by["own"]) < 0.5 * jumps(by["carried"])
    assert jumps(by["carried"]) < 0.5 * jumps(style.pictures)


def test_each_shot_is_made_as_if_it_were_alone() -> None:
    """One that flickers with its own detail, and one with noise with that of keys."""
    clean, engine = textured(8), FlowMatcher()
    one, other = flickering(clean, 0.3), noisy(clean, 0.15)
    film, guide = joined(one, other), joined(clean, clean)
    both = made(film, Fields(engine, guide, cuts=(8,)), Blending(3, detail="auto"))
    for style, blending, first in ((one, Blending(3, detail="own"), 0), (other, Blending(3), 8)):
        alone = made(style, Fields(engine, clean), blending)
        assert all(torch.equal(picture, both[first + number]) for number, picture in alone.items())


@pytest.mark.parametrize("detail", ["own", "auto"])
@pytest.mark.parametrize("grain", [0.0, 1.0])
def test_what_stands_still_or_is_not_believed_comes_out_as_it_is(detail: Detail, grain: float) -> None:
    still = Held(noisy(panned(1, size=SIZE), 0.1).pictures.repeat(7, 1, 1, 1))
    for fields in (Fields(FlowMatcher(), still), Fields(Still(), still)):
        for number, picture, change in blended(still, fields, Blending(3, grain=grain, detail=detail)):
            assert torch.equal(picture, still.pictures[number])
            assert float(change.abs().max()) == 0
    clip = flickering(textured(6), 0.3)
    for number, picture in made(clip, Fields(FlowMatcher(), clip, cuts=range(6)), Blending(3, detail=detail)).items():
        assert torch.equal(picture, clip.pictures[number])


@pytest.mark.parametrize("mode", ["fast", "balanced"])
def test_backwards_and_in_any_order_it_is_the_same(mode: str) -> None:
    guide = textured(12)
    style, blending = flickering(guide, 0.3), Blending(2, "fast" if mode == "fast" else "balanced", detail="own")
    forth = made(style, Fields(Shifts(doubt=0.6), guide, cuts=(7,)), blending)
    back = made(style.backwards(), Fields(Shifts(doubt=0.6), guide.backwards(), cuts=(5,)), blending)
    assert all(torch.equal(picture, back[11 - number]) for number, picture in forth.items())
    some = made(style, Fields(Shifts(doubt=0.6), guide, cuts=(7,)), blending, [9, 2, 3, 11, 0, 2])
    assert all(torch.equal(picture, forth[number]) for number, picture in some.items())


def test_frames_one_after_the_other_make_each_mean_once() -> None:
    """Whatever looks ahead finds what it asked for again, so that memory need not grow, nor time."""
    guide = panned(40, size=(20, 18), step=(0, 0))
    counted: dict[int, int] = {}

    class Counted(Held):
        def __getitem__(self, window: slice, /) -> Tensor:
            counted[window.start] = counted.get(window.start, 0) + 1
            return super().__getitem__(window)

    style = Counted(flickering(guide, 0.2).pictures)
    list(blended(style, Fields(Still(), guide), Blending(3, detail="own")))
    assert set(counted.values()) == {1}


def test_a_film_is_let_go_when_it_is_made() -> None:
    """Whoever keeps its frames on disk holds a lock as long as anything of it is there."""
    guide = panned(6, size=(20, 18), step=(0, 0))
    style, fields = flickering(guide, 0.2), Fields(Still(), guide)
    held = weakref.ref(fields)
    gc.disable()
    try:
        list(blended(style, fields, Blending(2, detail="auto")))
        del fields
        assert held() is None
    finally:
        gc.enable()


def test_neighbours_are_told_apart_by_nothing_but_their_light() -> None:
    """Sharpness stays, where detail that is carried loses some at every remap."""
    clean = textured(12)
    style = flickering(clean, 0.2)
    found = torch.stack(list(made(style, Fields(FlowMatcher(), clean), Blending(4, detail="auto")).values()))
    kept = [
        float(energy(high(a[None])).mean() / energy(high(b[None])).mean())
        for a, b in zip(found, clean.pictures, strict=True)
    ]
    assert min(kept) > 0.8
    assert all(abs(one - other) < 0.1 for one, other in pairwise(kept))
