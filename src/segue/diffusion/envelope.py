"""When in a run something acts, and how strongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float64
    from torch import Tensor


@dataclass(frozen=True)
class Envelope:
    """A weight over the progress of a run: `power` at `start`, falling in a line to `power * decay` at `stop`, then 0.

    All four lie in [0, 1]. An envelope that starts where it stops never acts.

    Args:
        power: weight at the start.
        start: progress (share of the steps done) from which it acts.
        stop: progress from which it no longer acts.
        decay: what is left of the power at the end of the range; 1 is constant.
    """

    power: float
    start: float = 0.0
    stop: float = 1.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        for name in ("power", "start", "stop", "decay"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} of an envelope must be in [0, 1], got {value}")

    def weight(self, index: Float64[Tensor, " b"], count: int) -> Float64[Tensor, " b"]:
        """The weight of each row that has `index` of `count` steps behind it.

        The range covers whole steps: `power` on its first, `power * decay` on its last.
        """
        first, end = round(self.start * count), round(self.stop * count)
        inside = (index >= first) & (index < end)
        share = (index - first).double() / max(end - 1 - first, 1)
        return inside * self.power * (1 + share * (self.decay - 1))
