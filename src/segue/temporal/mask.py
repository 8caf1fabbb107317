"""Changing a part of the picture: what lies outside a mask stays on the trajectory of one key, the source.

A mask is 1 where the film changes, and 0 where it is kept. Latents are larger than pixels, so the operator keeps the
picture as a whole together, and only mixing pixels in the end makes the kept area exact; the task does that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import avg_pool2d, pad

from segue.temporal.crossfeed import Guide
from segue.temporal.operator import Identity
from segue.types import Point, RowId

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor


def pooled(mask: Float[Tensor, "h w"], scale: int) -> Float[Tensor, "h/s w/s"]:
    """The mean of a mask over the pixels of each latent. Exactly 0 or 1 where all of them are."""
    return avg_pool2d(mask[None].double(), scale)[0].to(mask.dtype)


def feathered(mask: Float[Tensor, "h w"], pixels: float) -> Float[Tensor, "h w"]:
    """A mask that rises smoothly over so many pixels inside its edges; what is 0 stays 0, and 0 pixels change nothing.

    The rise is a cubic (3 t^2 - 2 t^3) of the Euclidean distance to the nearest pixel that is exactly 0. The edges of
    the picture are no edges of the mask.
    """
    reach = math.ceil(pixels)
    share = (_distance_to_kept(mask, reach) / (pixels + 1)).clamp(max=1)
    return torch.minimum(mask, (share**2 * (3 - 2 * share)).to(mask.dtype))


def _distance_to_kept(mask: Float[Tensor, "h w"], reach: int) -> Float[Tensor, "h w"]:
    """Euclidean distance to the nearest pixel that is 0, where it is at most `reach` pixels; else more than that."""
    far = float((reach + 1) ** 2)
    squared = torch.where(mask == 0, 0.0, far).double()
    # Nearest along the rows first, then along the columns: squared distances add up (Felzenszwalb & Huttenlocher 2012).
    for axis in (1, 0):
        sides = (reach, reach, 0, 0) if axis == 1 else (0, 0, reach, reach)
        around = pad(squared[None], sides, value=far)[0]
        length = squared.shape[axis]
        moved = (around.narrow(axis, reach + by, length) + by**2 for by in range(-reach, reach + 1))
        for near in moved:
            squared = torch.minimum(squared, near)
    return squared.sqrt()


@dataclass(frozen=True)
class Outside(Identity):
    """Keeps latents outside a mask on the trajectory of a source, at every step of every row.

    Where the mask is 0 they are the source's to the end, where it is 1 never. In between they are until a share
    1 - mask of the run is over, and free from then on: to mix two noisy latents would take half of their noise away,
    and blur what becomes of them (Levin & Fried 2023, arXiv:2306.00950, who grade edits so; Avrahami et al. 2022,
    arXiv:2206.02779, for the mask itself). The source's own row is left alone, and so is noise before the first step.

    Args:
        mask: of latents, in [0, 1]; see `pooled`.
        trajectories: by the number of their node. The source's must hold all steps, unless it runs in the same batch.
        source: the number of its key.
    """

    mask: Float[Tensor, "h w"]
    trajectories: Mapping[int, Guide]
    source: int = 0

    def on_latents(self, x: Float[Tensor, "b c h w"], at: Point) -> Float[Tensor, "b c h w"]:
        """The same for a row that has just been mixed from its parents: a spherical mix of equal parts is not equal."""
        return self._held(x, at)

    def on_stepped(
        self, x: Float[Tensor, "b c h w"], x0: Float[Tensor, "b c h w"], at: Point
    ) -> Float[Tensor, "b c h w"]:
        """The latents with the source's outside."""
        return self._held(x, at)

    def _held(self, x: Tensor, at: Point) -> Tensor:
        own = RowId("key", self.source)
        held = self._kept(at.index, at.count).to(x.device)
        if not bool(held.any()):
            return x
        rows: list[Tensor] = []
        for place, (row, step) in enumerate(zip(at.rows, at.index.tolist(), strict=True)):
            if row == own or step == 0:
                rows.append(x[place])
                continue
            source = x[at.rows.index(own)] if own in at.rows else self.trajectories[self.source].at(step).to(x)
            rows.append(torch.where(held[place], source, x[place]))
        return torch.stack(rows)

    def _kept(self, index: Int64[Tensor, " b"], count: int) -> Tensor:
        """Which latents of each row are the source's, when so many of `count` steps are over."""
        mask = self.mask.cpu().double()
        return (mask == 0) | (index[:, None, None] < (1 - mask) * count)
