"""Weighted means whose frames come each by itself: along composed ways, or along ways that agree on the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from segue.motion.detail import low
from segue.motion.doubling import Pool, centred

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.motion.fields import Fields
    from segue.motion.match import Match

_GUIDE = 2.0
"""How much more a difference of the guides counts than one of what is blended."""
_AROUND = 1.5
"""Standard deviation, in pixels, of the patch over which pictures are compared."""
_STEP = 0.5
"""How far ways that are not whole are moved to see whether that is better; whole ones, by a pixel."""
_BESIDE = ((1, 0), (-1, 0), (0, 1), (0, -1))


class Pairs:
    """Pools of a window, remapped frame by frame.

    A joint pool searches for every frame of the window from where its composed way leads, takes the mean, and then
    moves each way where patches agree better, in the guide and with the mean; of which the mean is then taken. So a
    patch that would be laid beside its like is moved onto it (the term of style of FastBlend's accurate mode; there,
    the mean is of whatever shares a batch, here it is of the window, so that no batch makes a difference).

    Args:
        fields: the ways between frames.
        leaf: the channels of a frame, of which the first three are its colours.
        window: frames to each side.
        joint: whether ways are searched and moved.
    """

    def __init__(
        self, fields: Fields, leaf: Callable[[int], Float[Tensor, "1 c h w"]], window: int, *, joint: bool
    ) -> None:
        self.fields, self.leaf, self.window, self.joint = fields, leaf, window, joint

    def at(self, number: int) -> Pool:
        """The pool of a frame."""
        find = self.fields.direct if self.joint else self.fields.way
        frames = range(number - self.window, number + self.window + 1)
        ways = {place: find(number, place) for place in frames if self.fields.joined(number, place) and place != number}
        pool = self._mean(number, ways)
        if self.joint:
            aim = torch.cat([self.fields.picture(number) * _GUIDE**0.5, pool.mean[:, :3]], 1)
            pool = self._mean(number, {place: self._moved(way, place, aim) for place, way in ways.items()})
        return pool

    def _mean(self, number: int, ways: dict[int, Match]) -> Pool:
        """Nearest first to both sides, so that backwards it is the same sum."""
        centre = self.leaf(number)
        sides = {sign: Pool.of(centre) for sign in (-1, 1)}
        for place in sorted(ways, key=lambda place: abs(place - number)):
            sign = 1 if place > number else -1
            sides[sign] = sides[sign].joined(Pool.of(self.leaf(place)), ways[place])
        return centred(sides[-1], sides[1], centre)

    def _moved(self, way: Match, place: int, aim: Float[Tensor, "1 6 h w"]) -> Match:
        there = torch.cat([self.fields.picture(place) * _GUIDE**0.5, self.leaf(place)[:, :3]], 1)
        best, least = way, _apart(way, there, aim)
        for x, y in _BESIDE:
            by = torch.tensor([x, y], dtype=way.way.dtype, device=way.way.device).view(1, 2, 1, 1)
            other = replace(way, way=way.way + (by if way.whole else by * _STEP))
            cost = _apart(other, there, aim)
            better = cost < least
            best = replace(best, way=torch.where(better, other.way, best.way))
            least = torch.where(better, cost, least)
        return best


def _apart(way: Match, there: Tensor, aim: Tensor) -> Float[Tensor, "1 1 h w"]:
    return low((way.remap(there) - aim).square().mean(1, keepdim=True), _AROUND)
