"""Frames that are held for a while are read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from footage import moving
from segue.media import Clip, read
from segue.media.clip import TensorFrames, levels_of
from segue.media.recent import RecentFrames, held
from segue.media.video import VideoFrames


@dataclass
class Counted:
    """Frames that remember what was read."""

    frames: TensorFrames
    read: list[int] = field(default_factory=list[int])

    @property
    def size(self) -> tuple[int, int]:
        return self.frames.size

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, window: slice, /) -> Tensor:
        self.read += range(len(self))[window]
        return self.frames[window]


def test_two_who_read_side_by_side_read_once() -> None:
    source = Counted(TensorFrames(moving(10)))
    recent = RecentFrames(source, 4)
    for number in range(10):
        _ = recent[number : number + 1], recent[max(0, number - 3) : number]
    assert source.read == list(range(10))
    _ = recent[0:1]
    assert source.read[-1] == 0


def test_who_looks_ahead_and_back_does_not_have_it_read_backwards() -> None:
    source = Counted(TensorFrames(moving(12)))
    recent = RecentFrames(source, 6)
    for first in range(0, 12, 4):
        for number in (first + 3, first + 2, first + 1, first):
            _ = recent[number : number + 1]
    # Of what was before the first that was asked for, nothing is known.
    assert source.read == [3, 2, 1, 0, *range(4, 12)]


def test_they_are_the_frames() -> None:
    frames = TensorFrames(moving(6))
    recent = RecentFrames(frames, 2)
    for window in (slice(None), slice(1, 4), slice(4, 1, -1), slice(3, 3), slice(-2, None)):
        numbers = range(6)[window]
        assert torch.equal(levels_of(recent, window), frames.pixels[list(numbers)])
        assert torch.equal(recent[window], frames.pixels[list(numbers)] / 255)
    assert (len(recent), recent.size) == (6, frames.size)


@pytest.mark.parametrize("width, height", [(854, 480), (1280, 720), (640, 360), (480, 480)])
def test_of_a_long_film_no_more_is_held_than_of_a_short_one(width: int, height: int) -> None:
    size = 3 * width * height
    assert held(size) < 50
    assert held(size) * size <= 128 << 20


@pytest.mark.parametrize("width, height", [(16, 16), (96, 64), (1920, 1080), (3840, 2160), (7680, 4320)])
def test_small_frames_are_held_by_the_hundred_and_large_ones_for_a_few_windows(width: int, height: int) -> None:
    size = 3 * width * height
    assert held(size) >= (1000 if size < 20_000 else 8)
    assert held(size) * size <= max(128 << 20, 8 * size)


def test_a_decoder_forgets_what_was_long_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    convert = VideoFrames.__dict__["_picture"]

    def counted(self: VideoFrames, frame: av.VideoFrame) -> np.ndarray:
        shown.append(frame.pts or 0)
        return convert(self, frame)

    def five(size: int) -> int:
        assert size == 3 * 96 * 64
        return 5

    monkeypatch.setattr("segue.media.video.held", five)
    frames = read(Clip(TensorFrames(moving(20)), 24).save(tmp_path / "x.mp4")).frames
    monkeypatch.setattr(VideoFrames, "_picture", counted)
    for number in range(20):
        _ = frames[number : number + 1]
    assert len(frames[15:20]) == 5
    assert len(shown) == 20
    _ = frames[14:15]
    assert len(shown) == 21
