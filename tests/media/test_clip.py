"""Clips, their rates, and the rounding of pixels."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
import torch

from footage import moving
from segue.errors import MediaError
from segue.media import Clip, TensorFrames
from segue.media.clip import as_rate, to_uint8
from segue.media.timing import timing
from segue.types import Frames


@pytest.mark.parametrize(
    ("fps", "exact"),
    [
        (24, Fraction(24)),
        (24.0, Fraction(24)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (12.5, Fraction(25, 2)),
        (0.1, Fraction(1, 10)),
        (Fraction(30000, 1001), Fraction(30000, 1001)),
    ],
)
def test_rates_are_exact(fps: float, exact: Fraction) -> None:
    assert as_rate(fps) == exact
    assert Clip(TensorFrames(moving(3)), fps).fps == exact


@pytest.mark.parametrize("fps", [0, -24, 1001, float("nan"), float("inf")])
def test_rates_out_of_range(fps: float) -> None:
    with pytest.raises(MediaError, match="fps must be above 0 and at most 1000"):
        as_rate(fps)


def test_a_rate_that_rounds_to_nothing_is_refused() -> None:
    with pytest.raises(MediaError, match=r"at least 0\.001"):
        as_rate(0.0004)
    assert as_rate(0.001) == Fraction(1, 1000)
    assert as_rate(Fraction(1, 2500)) == Fraction(1, 2500)


def test_every_level_survives_the_way_through_floats() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    frames = TensorFrames(levels)
    assert isinstance(frames, Frames)
    assert to_uint8(frames[:]).equal(levels)
    assert TensorFrames.rounded(frames[:]).pixels.equal(levels)
    assert TensorFrames.rounded(torch.full((1, 3, 2, 2), 1.0005)).pixels.eq(255).all()


def test_what_is_no_picture_is_refused() -> None:
    for wrong in (torch.zeros(3, 4, 4), torch.zeros(1, 4, 4, 3), torch.zeros(1, 3, 4, 4, dtype=torch.int32)):
        with pytest.raises(MediaError, match="expected frames"):
            to_uint8(wrong)
    with pytest.raises(MediaError, match="expected uint8 pixels"):
        TensorFrames(torch.zeros(1, 3, 4, 4))


def test_a_cut_keeps_rate_and_bounds() -> None:
    clip = Clip(TensorFrames(moving(10)), 25)
    part = clip.cut(2, 7)
    assert (len(part), part.fps, part.seconds, part.size) == (5, 25, 0.2, (96, 64))
    assert part.frames[:].equal(clip.frames[2:7])
    for first, stop in ((3, 3), (-1, 4), (0, 11)):
        with pytest.raises(MediaError, match="within the 10 frames"):
            clip.cut(first, stop)


@pytest.mark.parametrize(
    "fps", [Fraction(24), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25, 2), Fraction(60)]
)
@pytest.mark.parametrize("tick", [Fraction(1, 1000), Fraction(1, 90000)])
def test_rounded_time_stamps_give_the_rate_back(fps: Fraction, tick: Fraction) -> None:
    ticks = [round(n / fps / tick) for n in range(301)]
    found = timing(ticks[:-1], ticks[-1], tick)
    assert (found.fps, found.constant, list(found.shown)) == (fps, True, list(range(300)))


def test_sampling_shows_what_a_player_shows() -> None:
    found = timing([0, 40, 80, 120, 400, 440], 480, Fraction(1, 1000))
    assert (found.fps, found.constant) == (25, False)
    assert list(found.shown) == [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 4, 5]
    assert list(timing([0, 40, 80, 120], 160, Fraction(1, 1000), fps=Fraction(50)).shown) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_face_costs_nothing() -> None:
    script = (
        "import sys, segue.media, segue.media.clip; print(sorted({'torch', 'av', 'PIL', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
