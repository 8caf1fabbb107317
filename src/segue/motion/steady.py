"""Film of which the light alone flickers: its frames share their detail, so that each can keep its own."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING

import torch

from segue.motion.detail import high, low
from segue.motion.doubling import Pool, Side, centred

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.motion.fields import Fields
    from segue.motion.match import Match
    from segue.types import Frames

SHARED = 0.87
"""Correlation of the detail of neighbours from which on it is taken to be the same. Of films that were measured it is
.94 and more, whatever their light does; with noise of 3 to 6 % .46 to .92, painted anew for each frame at most .66."""
PAIRS = 5
"""Pairs of neighbours, about, that speak for a shot."""
_AROUND = 4.0
"""Standard deviation, in pixels, of the area over which the strength of detail is compared."""
_NOTHING = 1e-6
"""Mean square of detail that is hardly any: a quarter of one of 256 levels."""
_LOUDEST = 2.0
"""How many times stronger or weaker the detail of a frame may be made."""


class SharedDetail:
    """Whether the frames of a shot show the same detail; found out when it is first asked for, and kept.

    A few pairs of neighbours speak for the whole shot, the same ones in whichever direction it runs, so that no frame
    of a shot is made otherwise than the next.

    Args:
        style: the frames.
        fields: the ways between them.
    """

    def __init__(self, style: Frames, fields: Fields) -> None:
        self.style, self.fields = style, fields
        self._known: dict[int, bool] = {}

    def __call__(self, number: int) -> bool:
        """Of the shot that a frame belongs to."""
        first, last = self.fields.shot(number)
        if first not in self._known:
            told = [self.between(first + place) for place in evenly(last - first, PAIRS)]
            said = [share for share in told if share is not None]
            self._known[first] = not said or median(said) >= SHARED
        return self._known[first]

    def between(self, number: int) -> float | None:
        """The correlation of the detail of a frame with that of the next one, brought to it, and the other way round.

        Strength makes no difference, so that flicker makes none. None where nothing can be followed.
        """
        detail = [high(self.style[n : n + 1].to(self.fields.device, torch.float32)) for n in (number, number + 1)]
        ways = self.fields.way(number, number + 1), self.fields.way(number + 1, number)
        both = [_correlation(detail[i], ways[i].remap(detail[1 - i]), ways[i]) for i in (0, 1)]
        return None if both[0] is None or both[1] is None else (both[0] + both[1]) / 2


def evenly(count: int, most: int) -> list[int]:
    """About `most` of the numbers below a count, evenly, and the same ones counted from its end."""
    half = [(count - 1) * part // max(1, most - 1) for part in range((most + 1) // 2)] if count else []
    return sorted({*half, *(count - 1 - place for place in half)})


def _correlation(one: Tensor, other: Tensor, way: Match) -> float | None:
    weight = way.confidence[:, None]
    if not bool(weight.any()):
        return None
    across, mine, theirs = (float((weight * product).sum()) for product in (one * other, one.square(), other.square()))
    return across / (mine * theirs) ** 0.5 if mine * theirs > 0 else float(mine == theirs)


class Steadied:
    """The low band of film whose light flickers, and the detail of its frames, as loud as it should be.

    The low band is a mean of means: that of a window still changes with every frame that enters or leaves it, by the
    flicker of that one, and a mean of these hardly does. It costs no detail, as that is not the mean's. The detail is
    made as strong, around every pixel, as that of all frames of the window is on average.

    Args:
        fields: the ways between frames.
        leaves: the colours of a frame, and the energy of its detail.
        pools: of each frame, of these channels.
        window: frames to each side.
    """

    def __init__(
        self,
        fields: Fields,
        leaves: Callable[[int], Float[Tensor, "1 4 h w"]],
        pools: Callable[[int], Pool],
        window: int,
    ) -> None:

        def band(number: int) -> Tensor:
            return low(pools(number).mean[:, :3])

        # Were it a method, this would hold itself, and with it the film after it was made.
        self._leaves, self._pools, self._band = leaves, pools, band
        self._sides = [Side(fields, band, window + 1, sign) for sign in (-1, 1)]

    def light(self, number: int) -> Float[Tensor, "1 3 h w"]:
        """What is added to the mean of a frame; exactly nothing where nothing was joined."""
        before, after = (side.at(number) for side in self._sides)
        here = self._band(number)
        return low(centred(before, after, here).mean - here)

    def detail(self, number: int, own: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 3 h w"]:
        """The detail of a frame, made as strong as that of those around it; where it is, it stays, bit for bit."""
        # Energies that were moved by parts of a pixel may have fallen below nothing.
        energies = (channels[:, 3:4] for channels in (self._pools(number).mean, self._leaves(number)))
        due, there = (low(each, _AROUND).clamp(min=0) + _NOTHING for each in energies)
        return own * (due / there).sqrt().clamp(1 / _LOUDEST, _LOUDEST)
