"""Choosing where branches fork first, pair by pair: least ghosting within a limit of motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate

from segue.evaluation.ghosting import ghosting
from segue.evaluation.windows import reduced
from segue.motion.flow import SMALLEST, flow
from segue.temporal.grow import Grower
from segue.temporal.preview import Previews, stride_of
from segue.temporal.ruler import Develop
from segue.types import Progress

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.denoiser import Tally

CANDIDATES = (0.2, 0.3, 0.4, 0.5, 0.6)
"""Depths that are looked at. Earlier forks leave the keys behind, and what forks later can only mix them."""
AREA = 256 * 256
"""Pixels of a picture whose motion is judged."""
DIGITS = 3
"""Scores are rounded to so many before they are compared, so that no machine's last bit decides."""


@dataclass(frozen=True)
class Seen:
    """What a preview showed.

    Args:
        step: at which it forked.
        ghosting: how much of a double exposure of its two keys it is, from 0 to 1.
        motion: the mean length of the flow from the left key to it and from it to the right key, in widths of the
            picture. Between pictures that have nothing in common, it is a rough measure of how far they are apart.
    """

    step: int
    ghosting: float
    motion: float


def best(seen: Sequence[Seen], limit: float) -> Seen:
    """Of previews within a limit of motion, the one with the least ghosting. Of equal ones, that with the least motion,
    and then the one that forks last; if none is within the limit, the one with the least motion.
    """

    def motion(one: Seen) -> float:
        return round(one.motion, DIGITS)

    calm = [one for one in seen if motion(one) <= limit]
    if not calm:
        return min(seen, key=lambda one: (motion(one), round(one.ghosting, DIGITS), -one.step))
    return min(calm, key=lambda one: (round(one.ghosting, DIGITS), motion(one), -one.step))


@dataclass
class DepthChoice:
    """Chooses a depth for every two neighbouring keys, once these have been run.

    Args:
        grower: has run the keys, and kept their latents at every step but the first.
        develop: makes pictures.
        batch: pictures that are made together.
        limit: of motion, in widths of the picture.
        tally: counts what the network is asked.
        progress: told of every step.
        known: makes pictures of the keys, if somebody else has some of them already; None is `develop`.
    """

    grower: Grower
    develop: Develop
    batch: int
    limit: float
    tally: Tally
    progress: Progress
    known: Develop | None = None
    calls: int = field(default=0, init=False)
    rows: int = field(default=0, init=False)
    """Network calls and rows that the previews took."""

    def __call__(self) -> list[float]:
        """The depths, from left to right."""
        before = self.tally.calls, self.tally.rows
        steps = len(self.grower.schedule)
        previews = Previews(self.grower, candidates(steps))
        done, total = 0, previews.row_steps()
        for row_steps in previews.run():
            done += row_steps
            self.progress("previewing depths", done, total)
        self.calls, self.rows = self.tally.calls - before[0], self.tally.rows - before[1]
        names = range(len(self.grower.keys))
        latents = [self.grower.final(key) for key in names]
        keys = self._pictures(self.known or self.develop, latents, names, [float(key) for key in names])
        return [
            best(self._seen(previews, pair, keys[[pair]], keys[[pair + 1]]), self.limit).step / steps
            for pair in range(len(keys) - 1)
        ]

    def _seen(
        self, previews: Previews, pair: int, left: Float[Tensor, "1 3 h w"], right: Float[Tensor, "1 3 h w"]
    ) -> list[Seen]:
        names = [previews.names[pair, step] for step in previews.forks]
        latents = [previews.final(pair, step) for step in previews.forks]
        middle = self._pictures(self.develop, latents, names, [pair + 0.5] * len(names))
        left, right = left.expand_as(middle), right.expand_as(middle)
        scores = zip(
            previews.forks,
            ghosting(left, middle, right).tolist(),
            ((motion(left, middle) + motion(middle, right)) / 2).tolist(),
            strict=True,
        )
        return [Seen(*score) for score in scores]

    def _pictures(
        self, develop: Develop, latents: list[Tensor], names: Sequence[int], positions: Sequence[float]
    ) -> Float[Tensor, "b 3 H W"]:
        cuts = [slice(first, first + self.batch) for first in range(0, len(latents), self.batch)]
        return torch.cat([develop(torch.stack(latents[cut]), names[cut], positions[cut]) for cut in cuts])


def candidates(steps: int) -> list[int]:
    """The steps at which previews of a run of `steps` fork: those of their coarser schedule next to the candidates."""
    stride = stride_of(steps)
    last = (steps - 1) // stride
    return sorted({stride * min(max(1, round(steps * depth / stride)), last) for depth in CANDIDATES})


def motion(a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """The mean length of the flow between pictures, in widths."""
    there = flow(*(_judged(pictures) for pictures in (a, b)))
    return there.square().sum(1).sqrt().mean((1, 2)) / there.shape[-1]


def _judged(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Pictures of a size that flow can be found in."""
    pictures = reduced(pictures, AREA)
    height, width = (max(side, SMALLEST) for side in pictures.shape[-2:])
    return pictures if pictures.shape[-2:] == (height, width) else interpolate(pictures, (height, width))
