"""Frames that agree: laws of the blend, and what it is for."""

from __future__ import annotations

import weakref
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest
import torch
from torch import Tensor

from motion.clips import Held, flickering, joined, noisy, panned
from motion.engines import Shifts
from segue.motion.blend import Blending, Mode, blended
from segue.motion.detail import energy, gain, high, low
from segue.motion.doubling import Pool, Side, centred
from segue.motion.fields import Fields
from segue.motion.flow import flow
from segue.motion.flow_match import FlowMatcher
from segue.motion.match import Match
from segue.motion.patchmatch import PatchMatcher
from segue.motion.warp import warp

MODES = get_args(Mode)
SMALL = PatchMatcher(terms=8, rounds=(1,), reach=2)


def made(style: Held, fields: Fields, blending: Blending, numbers: list[int] | None = None) -> dict[int, Tensor]:
    return {number: picture for number, picture, _ in blended(style, fields, blending, numbers=numbers)}


def weak(count: int, strength: float = 0.06) -> Held:
    return noisy(panned(count, size=(40, 32)), strength)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("grain", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("engine", [SMALL, FlowMatcher()], ids=["patches", "flow"])
def test_a_clip_that_stands_still_comes_out_as_it_is(engine: PatchMatcher, mode: Mode, grain: float) -> None:
    still = Held(noisy(panned(1), 0.1).pictures.repeat(7, 1, 1, 1))
    for number, picture, change in blended(still, Fields(engine, still), Blending(3, mode, grain, every=4)):
        assert torch.equal(picture, still.pictures[number])
        assert float(change.abs().max()) == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_window_of_none_changes_nothing(mode: Mode) -> None:
    clip = weak(3)
    for number, picture, change in blended(clip, Fields(Shifts(), clip), Blending(0, mode)):
        assert torch.equal(picture, clip.pictures[number])
        assert float(change.max()) == 0


@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_believed_changes_nothing(mode: Mode) -> None:
    clip = weak(6)
    for number, picture, change in blended(clip, Fields(Shifts(doubt=0), clip, cuts=range(6)), Blending(3, mode)):
        assert torch.equal(picture, clip.pictures[number])
        assert float(change.max()) == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", [Shifts(doubt=0.6), SMALL, FlowMatcher()], ids=["shifts", "patches", "flow"])
def test_backwards_it_is_the_same(engine: PatchMatcher, mode: Mode) -> None:
    guide, style = panned(9, size=(40, 32)), weak(9)
    blending = Blending(3, mode, 0.7, every=3)
    forth = made(style, Fields(engine, guide, cuts=(5,)), blending)
    back = made(style.backwards(), Fields(engine, guide.backwards(), cuts=(4,)), blending)
    for number, picture in forth.items():
        assert torch.equal(picture, back[8 - number]), number


@pytest.mark.parametrize("mode", MODES)
def test_any_frame_in_any_order_is_the_same(mode: Mode) -> None:
    guide, style = panned(14, size=(40, 32)), weak(14)
    engine, blending = Shifts(doubt=0.6), Blending(4, mode, 0.7, every=5)
    whole = made(style, Fields(engine, guide), blending)
    some = made(style, Fields(engine, guide), blending, [9, 2, 3, 13, 0, 10, 2])
    assert list(some) == [9, 2, 3, 13, 0, 10]
    for number, picture in some.items():
        assert torch.equal(picture, whole[number])


@pytest.mark.parametrize("window", [1, 2, 3, 4, 6, 7, 10, 15])
def test_doubling_is_the_mean_along_all_composed_ways(window: int) -> None:
    """Against each frame of the window remapped by hand, along fields of whole pixels that are composed first."""
    style = weak(13)
    fields = Fields(Shifts(doubt=0.8), panned(13, size=(40, 32)), cuts=(9,))

    def leaf(number: int) -> Tensor:
        return style[number : number + 1].double()

    before, after = (Side(fields, leaf, window + 1, sign) for sign in (-1, 1))
    for number in range(13):
        pool = centred(before.at(number), after.at(number), leaf(number))
        rows = [there for there in range(number - window, number + window + 1) if fields.joined(number, there)]
        ways = [fields.way(number, there) for there in rows]
        weights = torch.stack([way.confidence[:, None].double() for way in ways])
        values = torch.stack([way.remap(leaf(there)) for way, there in zip(ways, rows, strict=True)])
        assert torch.allclose(pool.mean, (weights * values).sum(0) / weights.sum(0), atol=1e-6)
        assert torch.allclose(pool.weight, weights.sum(0), rtol=1e-6)
        assert torch.allclose(pool.squares, weights.square().sum(0), rtol=1e-6)


def test_doubling_holds_little() -> None:
    """About as many pools as the window has frames; more of them when it begins."""
    fields = Fields(Shifts(reach=0), panned(80, size=(20, 18), step=(0, 0)))
    for window in (7, 15, 12, 31):
        for sign in (-1, 1):
            side = Side(fields, lambda number: torch.zeros(1, 1, 18, 20), window + 1, sign)
            held = 0
            for number in range(80):
                side.at(number)
                held = max(held, len(side))
            assert held <= 3 * (window + 1)


@pytest.mark.parametrize("mode", MODES)
def test_a_window_of_one_sees_both_neighbours(mode: Mode) -> None:
    """Also at the ends, where there is one."""
    pictures = torch.full((5, 3, 24, 24), 0.5)
    pictures[2, 0] = 0.8
    fields = Fields(Shifts(reach=0), Held(torch.full_like(pictures, 0.5)))
    found = made(Held(pictures), fields, Blending(1, mode))
    red = [float(found[number][0].mean()) for number in range(5)]
    assert red == pytest.approx([0.5, 0.6, 0.6, 0.6, 0.5], abs=1e-5)
    pictures[0, 0], pictures[2, 0] = 0.7, 0.5
    found = made(Held(pictures), fields, Blending(1, mode))
    assert float(found[0][0].mean()) == pytest.approx(0.6, abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_blended_over_a_cut(mode: Mode) -> None:
    engine, blending = FlowMatcher(), Blending(7, mode, 0.5, every=4)
    one, other = weak(6), noisy(panned(7, 3, size=(40, 32)), 0.06, seed=9)
    apart = [made(clip, Fields(engine, clip), blending) for clip in (one, other)]
    film = joined(one, other)
    both = made(film, Fields(engine, film, cuts=(6,)), blending)
    for number, picture in both.items():
        clip, first = (0, 0) if number < 6 else (1, 6)
        assert torch.equal(picture, apart[clip][number - first])


@pytest.mark.parametrize("mode", MODES)
def test_brightness_no_longer_jumps(mode: Mode) -> None:
    guide = panned(16)
    style = flickering(guide, 0.1)
    found = made(style, Fields(Shifts(reach=6), guide), Blending(7, mode))

    def jump(pictures: list[Tensor]) -> float:
        return sum(float((a.mean() - b.mean()).abs()) for a, b in pairwise(pictures))

    steady = jump(list(guide.pictures))
    assert jump(list(found.values())) - steady < 0.25 * (jump(list(style.pictures)) - steady)


@pytest.mark.parametrize("engine", [FlowMatcher(), SMALL], ids=["flow", "patches"])
def test_noise_is_cleaned_away_or_moves_with_the_picture(engine: PatchMatcher) -> None:
    """Along the true motion, frames differ less; at grain 1 there is as much detail as was, at 0 that of the clean."""
    guide, style = panned(24, step=(1, 1)), noisy(panned(24, step=(1, 1)), 0.06)
    true = flow(guide[3:19], guide[4:20])

    def apart(pictures: Tensor) -> float:
        return float((pictures[:-1] - warp(pictures[1:], true))[..., 6:-6, 6:-6].square().mean())

    def sharp(pictures: Tensor) -> float:
        return float((pictures[..., 1:] - pictures[..., :-1])[..., 6:-6, 6:-6].square().mean())

    before = style[3:20]
    found: dict[float, Tensor] = {}
    for grain in (0.0, 1.0):
        pictures = made(style, Fields(engine, guide), Blending(7, "fast", grain), list(range(3, 20)))
        found[grain] = torch.stack(list(pictures.values()))
        assert bool(found[grain].isfinite().all())
    assert apart(found[0.0]) < 0.05 * apart(before)
    assert apart(found[1.0]) < 0.35 * apart(before)
    assert 0.8 * sharp(guide[3:20]) < sharp(found[0.0]) < 1.5 * sharp(guide[3:20])
    assert 0.65 * sharp(before) < sharp(found[1.0]) < 1.1 * sharp(before)
    clean = guide[3:20]
    assert float((found[0.0] - clean).square().mean()) < 0.2 * float((before - clean).square().mean())


def test_the_change_says_where_and_how_much() -> None:
    pictures = torch.full((3, 3, 24, 32), 0.5)
    pictures[1, :, 4:8, 4:8] = 0.9
    fields = Fields(Shifts(reach=0), Held(torch.full_like(pictures, 0.5)))
    change = {number: change for number, _, change in blended(Held(pictures), fields, Blending(1))}[1]
    assert change.shape == (24, 32)
    assert float(change[5, 5]) > 0.1
    assert float(change[:, 28:].max()) == 0


def test_memory_does_not_grow_with_the_clip() -> None:
    class Counted(Held):
        """Frames that know how many of them are in use, at most."""

        def __getitem__(self, window: slice, /) -> Tensor:
            counts.append(sum(1 for row in alive if row() is not None))
            found = self.pictures[window].clone()
            alive.append(weakref.ref(found))
            return found

    peaks: list[int] = []
    for count in (30, 90):
        counts: list[int] = []
        alive: list[weakref.ref[Tensor]] = []
        clip = Counted(panned(count, size=(20, 18), step=(0, 0)).pictures)
        fields = Fields(Shifts(reach=0), clip, memory=100_000)
        held = 0
        for _ in blended(clip, fields, Blending(3, "fast", 1.0, every=6)):
            held = max(held, fields.held)
        peaks.append(max(counts) + held)
    assert peaks[0] == peaks[1]


def test_gain_gives_back_what_a_mean_has_lost() -> None:
    random = torch.Generator().manual_seed(0)
    shared, own = torch.randn(1, 3, 64, 64, generator=random), torch.randn(16, 3, 64, 64, generator=random)
    each = high(shared + 2 * own)
    mean = each.mean(0, keepdim=True)
    energies = energy(mean), energy(each).mean(0, keepdim=True), torch.full((1, 1, 64, 64), 16.0)
    for grain, due in ((0.0, 1.0), (0.5, 3.0), (1.0, 5.0)):
        louder = gain(*energies, grain, 10.0) * mean
        aimed = due * float(energy(high(shared)).mean())
        assert float(energy(louder).mean()) == pytest.approx(aimed, rel=0.1)
    assert float(gain(*energies, 1.0, 1.5).max()) == 1.5
    nothing = torch.zeros(1, 1, 64, 64)
    assert torch.equal(gain(nothing, nothing, nothing + 3, 1.0, 4.0), torch.ones_like(nothing))


def test_bands_add_up_and_plain_pictures_have_no_detail() -> None:
    picture = weak(1).pictures
    assert torch.allclose(low(picture) + high(picture), picture, atol=1e-6)
    assert float(high(torch.full((1, 3, 30, 30), 0.4)).abs().max()) < 1e-6
    assert low(torch.rand(1, 3, 3, 2)).shape == (1, 3, 3, 2)


def test_pools_of_equal_frames_are_the_frame() -> None:
    picture = weak(1).pictures
    way = Match(torch.zeros(1, 2, 32, 40), torch.zeros(1, 32, 40), torch.rand(1, 32, 40), whole=True)
    pool = Pool.of(picture)
    for _ in range(4):
        pool = pool.joined(pool, way)
    assert torch.equal(pool.mean, picture)
    assert torch.equal(centred(pool, pool, picture).mean, picture)


@pytest.mark.parametrize("values", [{"window": -1}, {"mode": "slow"}, {"grain": 1.2}, {"every": 0}, {"detail": "x"}])
def test_what_is_no_blending_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="blending takes"):
        replace(Blending(), **values)


def test_clips_that_differ_are_refused() -> None:
    fields = Fields(Shifts(), panned(4))
    for style in (panned(5), panned(4, size=(40, 40))):
        with pytest.raises(ValueError, match="like those that were compared"):
            blended(style, fields)
    with pytest.raises(ValueError, match="frames are 0 to 3"):
        blended(panned(4), fields, numbers=[4])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("mode", MODES)
def test_a_frame_that_is_not_finite_is_named(value: float, mode: Mode) -> None:
    style = weak(6)
    style.pictures[4, 1, 3, 5] = value
    found = blended(style, Fields(Shifts(), weak(6)), Blending(2, mode))
    with pytest.raises(ValueError, match=r"frame 4 .* not finite"):
        list(found)


def test_progress_is_told() -> None:
    told: list[float] = []
    list(blended(weak(4), Fields(Shifts(), weak(4)), Blending(1), progress=lambda what, done, total: told.append(done)))
    assert told == [1, 2, 3, 4]
