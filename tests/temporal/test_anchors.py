"""Anchors by coverage: few frames that show what all show, and none that shows nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from segue.errors import TaskError
from segue.media.reader import read
from segue.temporal.anchors import choose_anchors, further_anchors

CLIPS = Path(__file__).parents[3] / "shared" / "clips"


class Film:
    """Frames in memory."""

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames
        self.size = frames.shape[3], frames.shape[2]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, window: slice) -> Tensor:
        return self.frames[window]


def scene(seed: int, count: int, shift: int = 2) -> Tensor:
    """A texture of its own that moves across the picture."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 8, 24, generator=generator)
    fine = torch.rand(1, 3, 24, 80, generator=generator) - 0.5
    size = (48, 160)
    wide = interpolate(coarse, size, mode="bicubic") + 0.3 * interpolate(fine, size, mode="bicubic")
    wide = wide.clamp(0, 1)
    return torch.cat([wide[..., shift * i : shift * i + 64] for i in range(count)])


def test_one_thing_needs_one_anchor_and_two_things_two() -> None:
    assert len(choose_anchors(Film(scene(0, 12, shift=0)))) == 1
    chosen = choose_anchors(Film(torch.cat([scene(0, 8), scene(1, 12)])))
    assert len(chosen) >= 2
    assert chosen[0] < 8 <= chosen[-1]


def test_each_shot_has_one_and_the_film_no_more_than_it_may() -> None:
    film = Film(torch.cat([scene(seed, 6) for seed in range(5)]))
    shots = (6, 12, 18, 24)
    chosen = choose_anchors(film, shots, most=2)
    assert [number // 6 for number in chosen] == [0, 1, 2, 3, 4], "shots go before the most that there may be"
    assert len(choose_anchors(film, most=3)) == 3
    assert choose_anchors(film, shots) == choose_anchors(film, shots)


def test_a_shorter_list_covers_less() -> None:
    """Each further anchor is one that brings the film nearer: what is chosen first stays."""
    film = Film(torch.cat([scene(seed, 6) for seed in range(4)]))
    few, many = (set(choose_anchors(film, most=most, worth=0.0)) for most in (2, 4))
    assert few < many
    assert len({number // 6 for number in many}) == 4


@pytest.mark.parametrize("kind", ["black", "flat", "blurred", "faded"])
def test_no_frame_that_shows_nothing_is_looked_at(kind: str) -> None:
    frames = scene(2, 12, shift=1)
    spoilt = {
        "black": torch.zeros_like(frames),
        "flat": torch.full_like(frames, 0.6),
        "blurred": avg_pool2d(frames, 9, 1, 4),
        "faded": frames * 0.02,
    }[kind]
    bad = [0, 1, 2, 3, 6, 11]
    frames = torch.stack([spoilt[i] if i in bad else frames[i] for i in range(12)])
    chosen = choose_anchors(Film(frames), most=4, worth=0.0)
    assert chosen
    assert not set(chosen) & set(bad)


def test_a_shot_of_nothing_gets_none_and_a_film_of_nothing_its_best() -> None:
    film = torch.cat([scene(0, 6), torch.zeros(6, 3, 48, 64)])
    assert all(number < 6 for number in choose_anchors(Film(film), (6,)))
    empty = torch.zeros(5, 3, 48, 64)
    empty[3, :, 20:22] = 0.01
    assert choose_anchors(Film(empty)) == (3,)


def test_short_films_and_none() -> None:
    assert choose_anchors(Film(scene(0, 1))) == (0,)
    assert choose_anchors(Film(scene(0, 2)[..., :9, :9]), most=1) in {(0,), (1,)}
    with pytest.raises(TaskError, match="got 0 frames and 4 anchors"):
        choose_anchors(Film(torch.zeros(0, 3, 8, 8)))
    with pytest.raises(TaskError, match="3 frames and 0 anchors"):
        choose_anchors(Film(scene(0, 3)), most=0)


def test_a_long_film_is_read_here_and_there() -> None:
    class Counting(Film):
        read = 0

        def __getitem__(self, window: slice) -> Tensor:
            Counting.read += 1
            return self.frames[window.start % 6 : window.start % 6 + 1]

        def __len__(self) -> int:
            return 5000

    chosen = choose_anchors(Counting(scene(0, 6)), (10, 20, 4990))
    assert Counting.read < 110
    assert any(number < 10 for number in chosen)
    assert any(10 <= number < 20 for number in chosen)
    assert chosen[-1] >= 4990


def test_later_parts_have_anchors_for_what_they_show_anew() -> None:
    film = Film(torch.cat([scene(seed, 6, shift=0) for seed in (0, 1, 0, 2)]))
    parts = [(0, 6), (6, 12), (12, 18), (18, 24)]
    found = further_anchors(film, parts, (3,), most=9)
    assert {number // 6 for number in found} == {1, 3}, "the third part shows what the first does"
    assert found == further_anchors(film, parts, (3,), most=9)
    assert further_anchors(film, parts, (3,), most=9, worth=1.0) == ()
    assert further_anchors(film, parts[:1], (3,), most=9) == () == further_anchors(film, parts, (3,), most=0)


def test_further_anchors_are_those_that_bring_the_film_nearest() -> None:
    """Where not all may be had: what most of the film behind them shows. No part has one for those before it."""
    film = Film(torch.cat([scene(0, 6), scene(2, 2), scene(1, 4), scene(1, 8), scene(0, 2)]))
    parts = [(0, 6), (6, 8), (8, 12), (12, 20), (20, 22)]
    (one,) = further_anchors(film, parts, (3,), most=1)
    assert 8 <= one < 12
    assert set(further_anchors(film, parts, (3,), most=2)) > {one}


def test_frames_that_two_parts_share_are_of_the_first() -> None:
    film = Film(torch.cat([scene(0, 6), scene(1, 6)]))
    assert further_anchors(film, [(0, 12), (8, 12)], (3,), most=2) == ()
    assert further_anchors(film, [(0, 7), (5, 12)], (3,), most=1)[0] >= 7


def test_a_film_of_very_many_shots_is_read_here_and_there() -> None:
    class Counting(Film):
        read = 0

        def __getitem__(self, window: slice) -> Tensor:
            Counting.read += 1
            place = 6 * (window.start >= 2500) + window.start % 6
            return self.frames[place : place + 1]

        def __len__(self) -> int:
            return 5000

    film = Counting(torch.cat([scene(seed, 6, shift=0) for seed in (0, 1)]))
    (one,) = further_anchors(film, [(5 * i, 5 * i + 5) for i in range(1000)], (3,), most=4)
    assert 2500 <= one < 2600
    assert Counting.read < 110


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the clips are not on this machine")
def test_a_real_film_of_one_animal() -> None:
    chosen = choose_anchors(read(CLIPS / "wolf.mp4").frames)
    assert 1 <= len(chosen) <= 3
