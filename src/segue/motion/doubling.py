"""Weighted means of many frames with few remaps: the frames of a window, doubled and doubled again.

A pool is the weighted mean of some frames, brought to the place of one of them. A_0[t] is frame t; A_{l+1}[t] joins
A_l[t] with A_l[t - 2^l], which comes along the way from t to t - 2^l and counts as much as that way is believed. So
A_l[t] pools the 2^l frames that end at t, after l remaps; other numbers of frames are joined of such blocks by their
binary digits, the longest first. Weights are the products of confidences along the way. Where ways are whole, a chain
of remaps is the remap along the composed way: nothing is resampled twice. (FastBlend joins blocks of a Fenwick tree
instead, which needs remaps at all distances, and searches for each.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.motion.fields import Fields
    from segue.motion.match import Match


@dataclass(frozen=True)
class Pool:
    """The weighted mean of some frames at the place of one, whose weight is 1 everywhere.

    Means are moved towards what joins them by its share, so that equal frames give the very same bits.

    Args:
        values: the mean of any channels that frames have; and, as the last two channels, the sum of all weights, and of
            their squares.
    """

    values: Float[Tensor, "1 c+2 h w"]

    @staticmethod
    def of(channels: Float[Tensor, "1 c h w"]) -> Pool:
        """One frame."""
        ones = torch.ones_like(channels[:, :1])
        return Pool(torch.cat([channels, ones, ones], 1))

    @property
    def mean(self) -> Float[Tensor, "1 c h w"]:
        """The weighted mean."""
        return self.values[:, :-2]

    @property
    def weight(self) -> Float[Tensor, "1 1 h w"]:
        """The sum of weights, 1 or more."""
        return self.values[:, -2:-1]

    @property
    def squares(self) -> Float[Tensor, "1 1 h w"]:
        """The sum of squared weights."""
        return self.values[:, -1:]

    def joined(self, far: Pool, way: Match) -> Pool:
        """With another pool, that comes along its way."""
        return self.added(way.remap(far.values), way.confidence[:, None])

    def added(self, brought: Float[Tensor, "1 c+2 h w"], trust: Float[Tensor, "1 1 h w"]) -> Pool:
        """With the values of another pool, at its place already."""
        added = trust * brought[:, -2:-1].clamp(min=0)
        weight = self.weight + added
        mean = self.mean + (added / weight) * (brought[:, :-2] - self.mean)
        squares = self.squares + trust.square() * brought[:, -1:].clamp(min=0)
        return Pool(torch.cat([mean, weight, squares], 1))


def centred(before: Pool, after: Pool, centre: Float[Tensor, "1 c h w"]) -> Pool:
    """Two pools that both begin with the same frame, which then counts once; which one is which makes no difference."""
    weight = before.weight + after.weight - 1
    apart = before.weight * (before.mean - centre) + after.weight * (after.mean - centre)
    return Pool(torch.cat([centre + apart / weight, weight, before.squares + after.squares - 1], 1))


class Side:
    """Pools of the `count` frames that begin at a frame and go to one side of it, for one frame after the other.

    A pool is kept from when it is first needed to when it was needed last, which is 2^l frames at level l.

    Args:
        fields: the ways between frames.
        leaf: the channels of a frame.
        count: of the frame itself and those beside it.
        sign: 1 for later frames, -1 for earlier ones.
    """

    def __init__(
        self, fields: Fields, leaf: Callable[[int], Float[Tensor, "1 c h w"]], count: int, sign: Literal[1, -1]
    ) -> None:
        self.fields, self.leaf, self.count, self.sign = fields, leaf, count, sign
        self.levels = [level for level in range(count.bit_length()) if count >> level & 1]
        self._blocks: dict[tuple[int, int], Pool] = {}
        self._parts: dict[tuple[int, int], Pool] = {}

    def at(self, number: int) -> Pool:
        """The pool of a frame; cheap if the frame before it was asked for last."""
        self._forget(number)
        # Shortest first, each at the first place that the frame which comes into sight now completes: whatever joins
        # them later finds them here.
        for level in range(self.levels[-1] + 1):
            self._prepare(self._block, level, 1 << level, number)
        for part, level in enumerate(self.levels):
            self._prepare(self._part, part, self._span(level), number)
        return self._part(len(self.levels) - 1, number)

    def _prepare(self, find: Callable[[int, int], Pool], which: int, span: int, number: int) -> None:
        place = number if self.sign < 0 else number + self.count - span
        if place < len(self.fields):
            find(which, place)

    def _span(self, level: int) -> int:
        """Frames of the part that ends with this digit of the count."""
        return self.count & ((2 << level) - 1)

    def _block(self, level: int, number: int) -> Pool:
        """Of 2^level frames."""
        pool = self._blocks.get((level, number))
        if pool is None:
            if level == 0:
                pool = Pool.of(self.leaf(number))
            else:
                pool = self._with(self._block(level - 1, number), number, level - 1, self._block)
            self._blocks[level, number] = pool
        return pool

    def _part(self, part: int, number: int) -> Pool:
        """Of as many frames as the lowest digits of the count say."""
        level = self.levels[part]
        if part == 0:
            return self._block(level, number)
        pool = self._parts.get((part, number))
        if pool is None:
            near = self._block(level, number)
            pool = self._with(near, number, level, lambda _, there: self._part(part - 1, there))
            self._parts[part, number] = pool
        return pool

    def _with(self, near: Pool, number: int, level: int, find: Callable[[int, int], Pool]) -> Pool:
        there = number + self.sign * (1 << level)
        if not self.fields.joined(number, there):
            return near
        return near.joined(find(level, there), self.fields.way(number, there))

    def _forget(self, number: int) -> None:
        for kept, last in ((self._blocks, self._last_block), (self._parts, self._last_part)):
            for level, place in list(kept):
                if last(level, place) < number or place > number + self.count:
                    del kept[level, place]

    def _last_block(self, level: int, place: int) -> int:
        """The frame that needs this block last, if frames are asked for in order."""
        if self.sign < 0:
            return place + (1 << level if level < self.levels[-1] else 0)
        longest = 2 << level if level < self.levels[-1] else 0
        if level in self.levels:
            longest = max(longest, self._span(level))
        return place + longest - self.count

    def _last_part(self, part: int, place: int) -> int:
        if self.sign < 0:
            return place + (1 << self.levels[part + 1] if part + 1 < len(self.levels) else 0)
        return place + self._span(self.levels[part]) - self.count

    def __len__(self) -> int:
        """How many pools are held."""
        return len(self._blocks) + len(self._parts)
