"""Correspondence between pictures that were drawn after a film: along its movement only where they share it.

A drawing need not follow its film: a head turns, and the one that is drawn in its place stands still. Blended along
the film's movement, it gets a second nose. So whether a pair of drawn frames agrees along the film's way is looked at
around every pixel, against two other explanations of what is seen: that nothing moved, and the movement that is found
in the drawn frames themselves. The film's way is given up only where another one fits clearly better; a search fits
whatever two pictures have in common by chance, and so has to fit better still.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import torch

from segue.motion.detail import low
from segue.motion.fields import Fields
from segue.motion.flow import SMALLEST
from segue.motion.flow_match import FlowMatcher
from segue.motion.match import Match, Matcher

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float
    from torch import Tensor

    from segue.types import Frames

LAYOUT = "segue followed 1"
_AROUND = 3.0
"""Standard deviation, in pixels, of the area whose agreement is looked at."""
_NOTHING = (3 / 255) ** 2
"""Mean square of a difference that nobody sees as a second outline."""
_STILL, _OWN = 1.25, 2.0
"""How many times worse the film's way may fit than standing still, and than what is found in the drawing. Of films
that were made to follow theirs with noise, flicker or strokes of their own, 96 to 99 % of the pixels are left to it."""
_HARDLY = 1e-3
"""Weight, beside 1, of pixels that the source does not believe."""
_FEW = 0.001
"""Share of pixels for which nothing is searched."""
_ALIKE = 0.001
"""How much worse than usual, and than as much again as is usual, another way may fit for trust to fall to 1/e."""


class Followed(Fields):
    """Fields of a drawn film, along the movement of its source where that is seen to be the drawing's, too.

    Where the film's way is kept, everything about it is; a drawing that follows its source has the source's fields, bit
    for bit. Pixels that follow nothing are not believed.

    Args:
        source: of the film that was drawn after; its level and cuts hold here, too.
        drawn: as many pictures of the same size. Those between the two of a pair have to be there, and no others.
        matcher: what finds the drawing's own movement.
        folder: where answers are kept, if anywhere; see `Fields`.

    Raises:
        ValueError: the pictures are of another size or number.
    """

    def __init__(
        self,
        source: Fields,
        drawn: Frames,
        *,
        matcher: Matcher | None = None,
        folder: Path | None = None,
    ) -> None:
        if len(drawn) != len(source) or drawn.size != source.size:
            raise ValueError(
                f"expected pictures like those that were compared, {len(source)} of "
                f"{source.size[0]}x{source.size[1]}; got {len(drawn)} of {drawn.size[0]}x{drawn.size[1]}"
            )
        matcher = matcher or FlowMatcher()
        held, device = source.memory, source.device
        super().__init__(matcher, drawn, cuts=source.cuts, folder=folder, memory=held, device=device)
        self.source = source

    def hold(self, pairs: int) -> None:
        """See `Fields`."""
        super().hold(pairs)
        self.source.hold(pairs)

    def follows(self, here: int, there: int) -> float:
        """Share of the pixels that are found in frame `there` where the source says."""
        same = self.way(here, there).way == self.source.way(here, there).way
        return float(same.all(1).float().mean())

    def _found(self, first: int, last: int) -> tuple[Match, Match]:
        one, other = self._small(first), self._small(last)
        # Both directions at once, as rows.
        pair = _Pair(torch.cat([one, other]), torch.cat([other, one]), _both(*self._told(first, last)))
        if not bool(pair.astray.any()):
            return pair.told[:1], pair.told[1:]
        unexplained = (pair.astray & (pair.still > _NOTHING)).float().mean((1, 2)).amax()
        own: tuple[Match, Match] | None = None
        if float(unexplained) > _FEW and min(self.size) >= SMALLEST:
            # Over longer strides the drawing's own movement is what it was found to be over shorter ones.
            own = self._start(first, last) or self.matcher(one, other)
        chosen = pair.chosen(own and _both(*own))
        return chosen[:1], chosen[1:]

    def _told(self, first: int, last: int) -> tuple[Match, Match]:
        return self.source.direct(first, last), self.source.direct(last, first)

    def _name(self, first: int, last: int) -> str:
        name = f"{LAYOUT}\n{super()._name(first, last)}\n{self.source._name(first, last)}"
        return blake2b(name.encode(), digest_size=20).hexdigest()


def _both(one: Match, other: Match) -> Match:
    """Two matches as rows of one."""
    return Match(
        torch.cat([one.way, other.way]),
        torch.cat([one.error, other.error]),
        torch.cat([one.confidence, other.confidence]),
        one.whole and other.whole,
    )


class _Pair:
    """Two drawn pictures, from either to the other.

    Args:
        here: both.
        there: the other of each.
        told: the ways to it, by the source.
    """

    def __init__(self, here: Float[Tensor, "2 3 h w"], there: Float[Tensor, "2 3 h w"], told: Match) -> None:
        self.here, self.there, self.told = here, there, told
        # What the source does not believe itself says nothing about what lies beside it.
        self._weight = told.confidence[:, None] + _HARDLY
        self._weights = low(self._weight, _AROUND)
        self.along, self.still = self._misfit(told.remap(there)), self._misfit(there)
        self.astray = (self.along > _NOTHING) & (told.confidence > 0)

    def _misfit(self, brought: Float[Tensor, "2 3 h w"]) -> Float[Tensor, "2 h w"]:
        """How far pictures that were brought here are from these around every pixel: mean square differences."""
        apart = (self.here - brought).square().mean(1, keepdim=True)
        return (low(self._weight * apart, _AROUND) / self._weights)[:, 0].clamp(min=0)

    def chosen(self, own: Match | None = None) -> Match:
        """For each pixel the way that is told, or none of any length, or the drawing's own.

        Args:
            own: None if it is not known, as it would not matter.
        """
        along, still, told = self.along, self.still, self.told
        kept, stays = along <= _STILL * still + _NOTHING, torch.ones_like(still, dtype=torch.bool)
        way, error = torch.zeros_like(told.way), still
        if own is not None:
            misfit = self._misfit(own.remap(self.there))
            kept &= along <= _OWN * misfit + _NOTHING
            stays = still <= _STILL * misfit + _NOTHING
            way, error = torch.where(stays[:, None], way, own.way), torch.where(stays, still, misfit)
        # Flicker is everywhere, and no reason not to believe; what changes is somewhere.
        usual = torch.minimum(along, error).flatten(1).median(1).values.view(-1, 1, 1)
        believed = (-(still - usual).clamp(min=0) / (_ALIKE + usual)).exp()
        if own is not None:
            believed = torch.where(stays, believed, own.confidence)
        return Match(
            torch.where(kept[:, None], told.way, way),
            torch.where(kept, told.error, error),
            torch.where(kept, told.confidence, believed),
            told.whole and (own is None or own.whole),
        )
