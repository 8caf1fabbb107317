"""PatchMatch: for the patch around every pixel, the most similar patch of another picture."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import inf
from typing import TYPE_CHECKING, Literal

import torch

from segue.motion.descriptors import described
from segue.motion.match import Match, returned
from segue.motion.pyramid import bounded, levels, reduced, repeated
from segue.motion.search import Field, Ground
from segue.motion.voting import voted

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

__all__ = ["PatchMatcher", "voted"]

_VERSION = 2
"""Of what is found: fields that were kept by another are not these."""

_AT_ONCE = 2**20
"""Pixels of pairs that are searched together, which bounds the memory; no row depends on it."""

_COARSEST = 16
"""Pixels along the shorter side, below which pictures are not halved again."""

_LARGER = 2
"""Rounds of each level, at most, whose patches are larger than the last one's."""

_JUMPS = (4, 1)
"""How far away the neighbours are whose ways are tried, one after the other."""

_ASTRAY = 1.5
"""Pixels beyond the first, to which the way there and back may lead past its start."""


@dataclass(frozen=True)
class PatchMatcher:
    """Guided PatchMatch over a pyramid, both directions at once (Barnes et al. 2009; FastBlend, arXiv:2311.09265).

    What it minimises at every pixel is the mean squared difference of two patches, that of the guide `guide_weight`
    times beside that of the style, if there is one. Patches are compared by their descriptors (see
    `segue.motion.descriptors`), so that a candidate costs `terms` numbers rather than a patch. Every level of the
    pyramid passes a few rounds: each looks at random places around the best so far, at a radius that halves, and then
    at where neighbours lead. Patches shrink in the first rounds, which keeps to what surrounds a pixel where that
    itself says little; and in the last round of each level a way may cost a little more if it agrees with those of its
    neighbours, or flat areas would swim.

    What is drawn at random is the same for every pair and both directions: a pair gives the same bytes in any batch,
    and swapping its pictures swaps the answer.

    Args:
        patch: pixels along a side of the patches, at last; odd.
        terms: numbers of a descriptor; at 3 * patch**2 or more, patches are compared in full.
        rounds: at full size, at half of it, and so on; the last entry stands for all that are coarser.
        reach: the first radius of the random search, in pixels of its level. At the coarsest it is the whole picture.
        sorts: places anywhere that look alike by a sort of both pictures (`Field.sorted`) and are tried in each round.
        coherence: what a way may cost more for each pixel, up to 2, that it is nearer to the mean of its neighbours',
            in units of the error.
        finest: the level at which the search ends: 1 is half the size. What is found there is only repeated.
        begin: what the coarsest level starts from: everything stays where it is, or anything goes anywhere.
        guide_weight: of the guide against the style, where a style is given.
        floor: the error, per value, that says nothing against a match: that of noise.
        tolerance: how much more of it lowers the confidence to 1/e.
        seed: of what is drawn.

    Raises:
        ValueError: a field is out of its range.
    """

    patch: int = 5
    terms: int = 16
    rounds: tuple[int, ...] = (2, 2, 4)
    reach: int = 4
    sorts: int = 0
    coherence: float = 1e-4
    finest: int = 0
    begin: Literal["identity", "random"] = "identity"
    guide_weight: float = 10.0
    floor: float = 0.0005
    tolerance: float = 0.004
    seed: int = 0

    def __post_init__(self) -> None:
        if not _is_count(self.patch, 1) or self.patch % 2 == 0:
            raise ValueError(f"patch must be an odd number of pixels; got {self.patch}")
        if not self.rounds or not all(_is_count(entry, 1) for entry in self.rounds):
            raise ValueError(f"rounds must be whole, 1 or more at each level; got {self.rounds}")
        for name, least in (("terms", 1), ("reach", 1), ("sorts", 0), ("finest", 0), ("seed", 0)):
            if not _is_count(getattr(self, name), least):
                raise ValueError(f"{name} must be whole, {least} or more; got {getattr(self, name)}")
        if self.begin not in ("identity", "random"):
            raise ValueError(f"begin must be identity or random; got {self.begin!r}")
        for name in ("guide_weight", "tolerance"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"{name} must be finite and above 0; got {getattr(self, name)}")
        for name in ("coherence", "floor"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} must be finite, 0 or more; got {getattr(self, name)}")

    @staticmethod
    def thorough(patch: int = 5) -> PatchMatcher:
        """The least difference, however long it takes: whole patches, looked for everywhere, with no regard to others.

        It is within 5 % of a search of all places, and for measuring: what is most alike need not be the same thing.
        """
        return PatchMatcher(patch, terms=3 * patch * patch, rounds=(12, 2), reach=8, sorts=3, coherence=0)

    @property
    def name(self) -> str:
        """What it is, with all its settings."""
        return " ".join([f"patchmatch-{_VERSION}", *(f"{one.name}={getattr(self, one.name)}" for one in fields(self))])

    @torch.no_grad()
    def __call__(
        self,
        a: Float[Tensor, "b 3 h w"],
        b: Float[Tensor, "b 3 h w"],
        start: tuple[Match, Match] | None = None,
        style: tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 h w"]] | None = None,
    ) -> tuple[Match, Match]:
        """From `a` to `b`, and from `b` to `a`: ways of whole pixels that end within the picture.

        The confidence is the product of what the error leaves of it and of how near the way back ends to where the way
        began. What is covered or has left the picture fails in one or the other.

        Args:
            a: pictures in [0, 1], of any size.
            b: as many, of the same size.
            start: what is believed so far, in both directions: a candidate at every level.
            style: pictures of `a` and `b` that the patches brought over should also agree in. As what lies under `a`
                is to be made from `b`'s, it is compared with what the ways so far make of it (arXiv:2311.09265).

        Raises:
            ValueError: the shapes differ, or are none of pictures; or a value is not finite.
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or min(a.shape[-2:]) < 1:
            raise ValueError(
                f"matches go between pictures of one shape (b, 3, h, w); got {tuple(a.shape)} and {tuple(b.shape)}"
            )
        if style is not None and any(one.shape != a.shape for one in style):
            raise ValueError(f"styles are of the shape of their guides, {tuple(a.shape)}")
        if not all(bool(one.isfinite().all()) for one in (a, b, *(style or ()))):
            raise ValueError("expected pictures in [0, 1]; got values that are not finite, and like no others")
        if start is not None and any(one.way[:, 0].shape != a[:, 0].shape for one in start):
            raise ValueError(f"a start has a way for each pixel of {tuple(a.shape)}")
        if len(a) == 0:
            nothing = Match(a.new_empty(0, 2, *a.shape[2:]), a[:, 0], a[:, 0], whole=True)
            return nothing, nothing
        wave = max(1, _AT_ONCE // (a.shape[2] * a.shape[3]))
        found = [
            self._searched(
                torch.cat([a[rows], b[rows]]).float(),
                None if start is None else torch.cat([one.way[rows] for one in start]),
                None if style is None else torch.cat([one[rows] for one in style]).float(),
            )
            for rows in (slice(first, first + wave) for first in range(0, len(a), wave))
        ]
        return _joined([there for there, _ in found]), _joined([back for _, back in found])

    def _searched(self, pictures: Tensor, start: Tensor | None, style: Tensor | None) -> tuple[Match, Match]:
        """Rows are all pictures of one side, then all of the other; each is searched for in its counterpart."""
        guides = levels(pictures, _COARSEST)
        styles = None if style is None else levels(style, _COARSEST)
        top = len(guides) - 1
        finest = min(self.finest, top)
        way = torch.zeros(len(pictures), 2, *guides[top].shape[2:], dtype=torch.int32, device=pictures.device)
        cost = way[:, 0].float()
        for level in range(top, finest - 1, -1):
            if level < top:
                way = repeated(way * 2, *guides[level].shape[2:])
            began = None if start is None else reduced(start, level, *guides[level].shape[2:])
            field = self._bettered(way, guides[level], None if styles is None else styles[level], began, (level, top))
            way, cost = field.way, field.cost
        return self._believed(way.float(), cost if style is None else cost / (self.guide_weight + 1), finest, pictures)

    def _bettered(
        self, way: Tensor, guide: Tensor, style: Tensor | None, began: Tensor | None, at: tuple[int, int]
    ) -> Field:
        """All rounds of a level, which is told as its number and that of the coarsest."""
        level, top = at
        draws = torch.Generator().manual_seed(self.seed * 1000 + level)
        rounds = self.rounds[min(level, len(self.rounds) - 1)]
        farthest = max(guide.shape[2:])
        ground = self._ground(guide, style, way, self._patch(0, rounds))
        field = Field.of(way, ground)
        if level == top and self.begin == "random":
            field = field.drawn(ground, farthest, draws)
        if began is not None:
            field = field.better(began, ground)
        for turn in range(rounds):
            if turn > 0 and (style is not None or self._patch(turn, rounds) != self._patch(turn - 1, rounds)):
                ground = self._ground(guide, style, field.way, self._patch(turn, rounds))
                field = Field.of(field.way, ground)
            if turn == rounds - 1:
                ground = replace(ground, coherence=self.coherence * (1 if style is None else self.guide_weight + 1))
            radius = farthest if level == top else self.reach
            while radius >= 1:
                field = field.drawn(ground, radius, draws)
                radius //= 2
            if self.sorts > 0:
                field = field.sorted(ground, self.sorts, draws)
            for jump in _JUMPS:
                field = field.propagated(ground, jump)
        return field

    def _patch(self, turn: int, rounds: int) -> int:
        return self.patch + 2 * max(0, min(_LARGER, rounds - 1) - turn)

    def _ground(self, guide: Tensor, style: Tensor | None, way: Tensor, patch: int) -> Ground:
        height, width = guide.shape[2:]
        terms = min(self.terms, 3 * patch * patch)
        there = described(guide, patch, terms)
        if style is None:
            return Ground(there, there, height, width)
        nothing = guide[:, 0]
        made = voted(Match(bounded(way).float(), nothing, nothing, whole=True), _counterpart(style), patch)
        there = there * self.guide_weight**0.5
        here, there = (torch.cat([there, described(one, patch, terms)], -1) for one in (made, style))
        return Ground(here, there, height, width)

    def _believed(self, way: Tensor, error: Tensor, finest: int, pictures: Tensor) -> tuple[Match, Match]:
        apart = returned(way, Match(_counterpart(way), error, error, whole=True))
        similar = (-(error - self.floor).clamp(min=0) / self.tolerance).exp()
        # A pixel beside where it began is a rounding; a few are another place.
        back = (-0.5 * ((apart - 1).clamp(min=0) / _ASTRAY).square()).exp()
        confidence = similar * back
        for level in range(finest - 1, -1, -1):
            height, width = (-(-side // 2**level) for side in pictures.shape[2:])
            way = bounded(repeated(way * 2, height, width))
            error, confidence = repeated(error, height, width), repeated(confidence, height, width)
        both = Match(way, error, confidence, whole=True)
        pairs = len(way) // 2
        return both[:pairs], both[pairs:]


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _counterpart(rows: Tensor) -> Tensor:
    return rows.roll(len(rows) // 2, 0)


def _joined(parts: list[Match]) -> Match:
    if len(parts) == 1:
        return parts[0]
    way, error, confidence = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("way", "error", "confidence")
    )
    return Match(way, error, confidence, whole=True)
