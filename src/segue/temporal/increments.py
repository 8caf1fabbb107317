"""What was added to the steps of a run, to be added to those of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from segue.types import Point, RowId

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Increments:
    """A kick that replays a record, whatever standard deviation is asked for.

    Args:
        by_step: what is added, by the number of steps that lie behind.
        ids: whose they are.
    """

    by_step: Mapping[int, Float[Tensor, "t c h w"]]
    ids: tuple[RowId, ...]

    def __call__(
        self, like: Float[Tensor, "b c h w"], now: Point, then: Point, std: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """The increments of the rows.

        Raises:
            ValueError: there are none of a row, or of a step.
        """
        rows: list[Tensor] = []
        for row, step in zip(now.rows, now.index.tolist(), strict=True):
            if row not in self._places or step not in self.by_step:
                raise ValueError(f"there is no record of step {step} of {row}; its steps are {sorted(self.by_step)}")
            rows.append(self.by_step[step][self._places[row]])
        return torch.stack(rows).to(like)

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return sum(part.nbytes for part in self.by_step.values())

    def renamed(self, ids: Sequence[RowId]) -> Increments:
        """The same for rows of other names, one for one."""
        return replace(self, ids=tuple(ids))

    @cached_property
    def _places(self) -> dict[RowId, int]:
        return {row: place for place, row in enumerate(self.ids)}
