"""Edits of a part: outside a mask, latents are put back on the way of the source, at every step.

SDEdit's masked form (Meng et al. 2021, arXiv:2108.01073, algorithm 2) and RePaint's known region (Lugmayr et al. 2022,
arXiv:2201.09865, eq. 8). Latents are larger than pixels, so the area stays exact only if its pixels are put back after
decoding; `segue.tasks.masks` does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from segue.diffusion.schedule import Schedule
from segue.temporal.operator import Identity
from segue.types import Kick, Point, RowId, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class Way(Protocol):
    """The source's way through noise: `Inversion`, `Encoding` of CycleDiffusion, or `NoisedWay`."""

    @property
    def ids(self) -> tuple[RowId, ...]:
        """Whose it is."""
        ...

    def at(self, step: int) -> Float[Tensor, "t c h w"]:
        """The latents of all rows with `step` steps behind them."""
        ...


@dataclass(frozen=True)
class NoisedWay:
    """Pictures, noised to each level of a run.

    Args:
        x0: clean latents.
        noise: standard noise, one per row and the same at every step; or a kick, which draws it afresh.
        schedule: of the run.
        ids: who the rows are.
    """

    x0: Float[Tensor, "t c h w"]
    noise: Tensor | Kick
    schedule: Schedule
    ids: tuple[RowId, ...]

    def at(self, step: int) -> Float[Tensor, "t c h w"]:
        """The pictures at the level that the network is asked at next, or themselves at the data end."""
        if step == len(self.schedule):
            return self.x0
        now, _ = self.schedule.step(torch.full((len(self.x0),), step), self.ids)
        if isinstance(self.noise, torch.Tensor):
            return now.noised(self.x0, self.noise)
        return over_rows(now.alpha, self.x0) * self.x0 + self.noise(self.x0, now, now, now.sigma)


@dataclass(frozen=True)
class KeptArea(Identity):
    """Keeps latents outside a mask on the source's way; frames each on their own.

    Where the mask is 0 they are the source's to the end, where it is 1 never, and in between until a share 1 - mask of
    the steps that are run is over, as in `segue.temporal.mask.Outside`. Rows that have no way are left alone.

    Args:
        mask: of latents, in [0, 1], one for all frames or one for each row of the way; see `mask.pooled`.
        way: of the source.
        first: the step at which runs begin, from which shares are counted.
    """

    mask: Float[Tensor, "n h w"]
    way: Way
    first: int = 0
    _places: dict[RowId, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {row: place for place, row in enumerate(self.way.ids)})
        if len(self.mask) not in (1, len(self._places)):
            raise ValueError(f"expected one mask, or one for each of {len(self._places)} rows; got {len(self.mask)}")

    def on_stepped(
        self, x: Float[Tensor, "b c h w"], x0: Float[Tensor, "b c h w"], at: Point
    ) -> Float[Tensor, "b c h w"]:
        """The latents, with the source's outside.

        Raises:
            ValueError: latents have another size than the mask.
        """
        if x.shape[-2:] != self.mask.shape[-2:]:
            raise ValueError(f"a mask of {tuple(self.mask.shape[-2:])} does not fit latents of {tuple(x.shape[-2:])}")
        out, ways = x.clone(), dict[int, "Tensor"]()
        for place, (row, step) in enumerate(zip(at.rows, at.index.tolist(), strict=True)):
            if row not in self._places:
                continue
            own = self._places[row]
            held = self._held(own, step, at.count)
            if bool(held.any()):
                if step not in ways:
                    ways[step] = self.way.at(step).to(x)
                out[place] = torch.where(held.to(x.device), ways[step][own], x[place])
        return out

    def _held(self, own: int, step: int, count: int) -> Tensor:
        """Which latents of a row are the source's, when so many of `count` steps are over."""
        mask = self.mask[own if len(self.mask) > 1 else 0].cpu().double()
        return (mask == 0) | (step - self.first < (1 - mask) * (count - self.first))


def kept_area(
    mask: Float[Tensor, "n h w"],
    x0: Float[Tensor, "t c h w"],
    noise: Tensor | Kick,
    schedule: Schedule,
    ids: Sequence[RowId],
    first: int = 0,
) -> KeptArea:
    """The area outside a mask kept on the noised source; see `KeptArea` and `NoisedWay`."""
    return KeptArea(mask, NoisedWay(x0, noise, schedule, tuple(ids)), first)
