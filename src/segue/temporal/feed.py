"""The settings of a crossfeed, as a user gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segue.diffusion.envelope import Envelope
from segue.errors import TaskError

if TYPE_CHECKING:
    from segue.temporal.keys import Along


@dataclass(frozen=True)
class Feed:
    """How strongly trajectories are pulled towards those before them (crossfeed).

    Args:
        power: in [0, 1]; 0 is not at all, 1 is onto them. Of a power that varies, the largest.
        range: share of the trajectory's own steps over which it acts, in [0, 1].
        decay: what is left of the power at the end of the range, in [0, 1].
        along: the power at every position on the line of the keys; None if it is one.
    """

    power: float = 0.0
    range: float = 1.0
    decay: float = 1.0
    along: Along | None = None

    def __post_init__(self) -> None:
        for name in ("power", "range", "decay"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise TaskError(f"the {name} of a crossfeed must be in [0, 1], got {value}")

    def end(self, step: int, steps: int) -> int:
        """The step before which it ends for a trajectory that begins at a step."""
        return round(self.envelope(step, steps).stop * steps) if self.power > 0 else step

    def envelope(self, step: int, steps: int, position: float = 0.0) -> Envelope:
        """The envelope for a trajectory that begins at a step, and lies at a position."""
        start = step / steps
        power = self.power if self.along is None else self.along(position)
        return Envelope(power, start, start + self.range * (1 - start), self.decay)
