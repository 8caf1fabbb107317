"""Frames that are read more than once, a few at a time, from where reading them again is slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segue.media.clip import as_floats, levels_of
from segue.types import Frames

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

HELD_BYTES, HELD_FRAMES, MOST_BYTES = 32 << 20, 32, 128 << 20


def held(size: int) -> int:
    """How many of the frames that were decoded last are held, against seeking: 32 MiB, but 32 frames up to 128 MiB.

    As many are held of a short film as of a long one, once it is longer than a window.

    Args:
        size: bytes of a frame.
    """
    return max(8, HELD_BYTES // size, min(HELD_FRAMES, MOST_BYTES // size))


class RecentFrames:
    """Frames of which those that were read last are held, a byte per value.

    Several who go through a film side by side have it decoded once, and in order, as long as none is further behind or
    ahead than these: what lies between is read before it is asked for, as a decoder passes it anyway.

    Args:
        frames: all of them.
        count: how many are held, 1 or more.
    """

    def __init__(self, frames: Frames, count: int) -> None:
        self.frames, self.count = frames, count
        # The oldest goes, whoever has looked at it since: all go forwards.
        self._held: dict[int, UInt8[Tensor, "1 3 h w"]] = {}

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.frames.size

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return as_floats(self.levels(window))

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window, 256 levels a colour."""
        numbers = range(len(self))[window]
        return torch.cat([self._one(number) for number in numbers]) if numbers else levels_of(self.frames, slice(0))

    def _one(self, number: int) -> UInt8[Tensor, "1 3 h w"]:
        newest = max(self._held, default=number)
        if number not in self._held:
            # Decoders dislike to go back.
            for each in range(newest + 1, number) if number - newest < self.count else ():
                self._hold(each)
            self._hold(number)
        return self._held[number]

    def _hold(self, number: int) -> None:
        self._held[number] = levels_of(self.frames, slice(number, number + 1))
        if len(self._held) > self.count:
            del self._held[next(iter(self._held))]
