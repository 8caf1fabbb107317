"""Frames that are held for a while are read once."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from footage import moving
from segue.media.clip import TensorFrames, levels_of
from segue.media.recent import RecentFrames


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
