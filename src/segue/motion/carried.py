"""Detail that is carried from key frames to those between, so that it stays sharp and moves with what is shown.

A mean over a window that slides changes with every frame by what enters and leaves it. Detail that is carried changes
only by the slow cross-fade between two keys, and is no mean of anything: strokes stay strokes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, isqrt, pi
from typing import TYPE_CHECKING

import torch

from segue.motion.detail import energy, gain, low, slope, whole
from segue.motion.kept import Packed, Shelf
from segue.motion.match import Match

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.motion.fields import Fields

_TRUSTED = 1e-3
"""The weight of both keys together from which on there is anything to mix."""
_AROUND = 1.5
"""Standard deviation, in pixels, of the area over which a guide is compared with itself along a way."""
_ASTRAY = 0.02
"""How much worse than usual that area may be for trust in the way to fall to 1/e, beside as much as is usual."""
_STAGE = 24
"""Frames from one way to a key that is held to the next, at least; those between are held only around where one is."""
_MOST = 2.0
"""The largest gain; two that have nothing in common are mixed to no less than 0.7."""


class Paths:
    """Ways to a key from frame to frame: first to the neighbour that is nearer to the key, then on as it does.

    So what is carried moves between two frames just as these two say. Composed of the fewest ways, it would jump
    between one composition and the next.

    The way to a key ahead is composed from there, and frames on the route ask for theirs in falling distance. Not all
    are held meanwhile, but one for each stage, from which those of a stage are composed once more when it is reached:
    memory grows with the root of the span, time at most by as much again. In any other order, too, the bits are these.

    Args:
        fields: the ways between frames.
        span: frames between two keys, about.
    """

    def __init__(self, fields: Fields, span: int) -> None:
        self.fields = fields
        self._stage = max(_STAGE, isqrt(span))
        # For both sides, that of the key behind and that of the one ahead.
        self._near: Shelf[Packed] = Shelf(0, least=2 * self._stage + 4)
        self._stages: Shelf[Packed] = Shelf(0, least=2 * (span // self._stage) + 4)

    @property
    def held(self) -> int:
        """Ways that are in memory."""
        return len(self._near) + len(self._stages)

    def way(self, number: int, key: int) -> Match:
        """From a frame to a key of its shot, from neighbour to neighbour."""
        sign = 1 if key > number else -1
        there = number
        while there != key and self._shelf(there, key).get((there, key)) is None:
            there += sign
        match = self.fields.way(key, key) if there == key else self._known(there, key)
        while there != number:
            there -= sign
            match = self._next(there, there + sign, key, match)
            self._shelf(there, key).put((there, key), Packed.of(match), 1)
            match = self._known(there, key)
        return match

    def _shelf(self, number: int, key: int) -> Shelf[Packed]:
        return self._near if (key - number) % self._stage else self._stages

    def _known(self, number: int, key: int) -> Match:
        packed = self._shelf(number, key).get((number, key))
        assert packed is not None
        return packed.match(self.fields.device)

    def _next(self, number: int, neighbour: int, key: int, onward: Match) -> Match:
        step = self.fields.way(number, neighbour)
        return step if neighbour == key else step.then(onward)


class Carrier:
    """Detail of the key frames around any frame, brought to it.

    Args:
        fields: the ways between frames.
        detail: of a frame, in bands; see `segue.motion.detail.split`.
        every: frames from key to key, about: they are the first and the last frame of a shot, and others evenly
            between.
    """

    def __init__(self, fields: Fields, detail: Callable[[int], Float[Tensor, "1 6 h w"]], every: int) -> None:
        self.fields, self.detail, self.every = fields, detail, every
        self.paths = Paths(fields, every)

    def keys(self, number: int) -> tuple[int, int]:
        """The keys before and after a frame; both the frame itself, if it is one."""
        first, last = self.fields.shot(number)
        count = max(1, round((last - first) / self.every))
        if count % 2 == 0 and (last - first) % 2:
            # There is no frame in the middle, and two beside it would be keys with nothing between to fade over.
            count += 1
        # Mirrored about the middle of the shot, so that backwards the same frames are keys.
        half = [(last - first) * part // count for part in range(count // 2 + 1)]
        keys = {first + place for place in half} | {last - place for place in half}
        return max(key for key in keys if key <= number), min(key for key in keys if key >= number)

    def __call__(
        self, number: int, own: Float[Tensor, "1 6 h w"]
    ) -> tuple[Float[Tensor, "1 3 h w"], Float[Tensor, "1 1 h w"]]:
        """The detail carried to a frame, and how far it can be trusted, 0 to 1.

        Two keys are mixed by how near they are and how much they are believed, and each band of the mix is given back
        the energy that mixing, and moving by parts of a pixel, took. Where both say the same as `own`, so does the
        answer, bit for bit.

        Args:
            own: detail that is there already, in bands.
        """
        before, after = self.keys(number)
        if before == after:
            return whole(self.detail(number)), torch.ones_like(own[:, :1])
        (one, weight, trust), (other, weight_other, trust_other) = (
            self._side(number, key, after - before) for key in (before, after)
        )
        total = weight + weight_other
        here = with_energies(own)
        mixed = here + (weight * (one - here) + weight_other * (other - here)) / total.clamp(min=1e-6)
        trusted = torch.where(total > _TRUSTED, torch.maximum(trust, trust_other), torch.zeros_like(total))
        return whole(loud(mixed)), trusted

    def _side(self, number: int, key: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Detail of one key with its energies, weight, and trust."""
        way = self.paths.way(number, key)
        brought = way.remap(with_energies(self.detail(key)))
        trust = way.confidence[:, None] * alike(self.fields.picture(number), way.remap(self.fields.picture(key)))
        return brought, trust * cos(pi / 2 * abs(number - key) / length), trust


def alike(here: Float[Tensor, "1 3 h w"], brought: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 1 h w"]:
    """How far a picture shows what another does that was brought to it, 0 to 1, against what is usual over both.

    Links of a way that are each believed may lead astray together.
    """
    apart = low((here - brought).square().mean(1, keepdim=True), _AROUND).clamp(min=0)
    usual = apart.median()
    return (-(apart - usual).clamp(min=0) / (_ASTRAY + usual)).exp()


def with_energies(bands: Float[Tensor, "1 6 h w"]) -> Float[Tensor, "1 8 h w"]:
    """Two bands and what tells how strong they are: of the finer one, which loses its finest first, the slope."""
    return torch.cat([bands, slope(bands[:, :3]), energy(bands[:, 3:])], 1)


def loud(mixed: Float[Tensor, "1 8 h w"]) -> Float[Tensor, "1 6 h w"]:
    """Each band with the energy that comes with it."""
    fine, rest = mixed[:, :3], mixed[:, 3:6]
    both = torch.full_like(mixed[:, :1], 2)
    fine = fine * gain(slope(fine), mixed[:, 6:7], both, 1.0, _MOST)
    return torch.cat([fine, rest * gain(energy(rest), mixed[:, 7:], both, 1.0, _MOST)], 1)
