"""What makes the keys of a film alike in layout, and frames between them alike to both: settings, as a user gives them.

Everything is aligned to the first key. What acts on a key at full weight acts on the frames beside it by how near they
are, so that they arrive at it and nothing jumps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from segue.diffusion.envelope import Envelope
from segue.errors import TaskError

if TYPE_CHECKING:
    from segue.temporal.keys import Along

Fusion = Literal["outer", "inner"]
"""Whether the answers to both keys are mixed, or what they are asked about: keys and values."""


@dataclass(frozen=True)
class Structure:
    """How strongly keys take after those before them; 0 is not at all, bit for bit, and 1 is as far as it goes.

    Args:
        noise: in [0, 1]; the starting noise of each key is mixed towards that of the key before it. 1 is one seed.
        attention: in [0, 1]; keys attend to what the first key attends to, besides their own (shared keys and values
            in self-attention: Wu et al. 2022, arXiv:2212.11565), and answers are mixed with those of plain attention.
        statistics: in [0, 1]; mean and standard deviation of each channel of the latents are pulled towards those of
            the first key (AdaIN: Huang & Belongie 2017, arXiv:1703.06868, eq. 8).
        range: share of the run over which attention and statistics act, in [0, 1], counted from its start.
        along: the first three at every position on the line of the keys, by name, where they vary; the number is then
            the largest that there is.
    """

    noise: float = 0.0
    attention: float = 0.0
    statistics: float = 0.0
    range: float = 0.6
    along: Mapping[str, Along] = field(default_factory=dict[str, "Along"])

    def __post_init__(self) -> None:
        for name in ("noise", "attention", "statistics", "range"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise TaskError(f"the {name} of a structure must be in [0, 1], got {value}")

    @property
    def leans(self) -> bool:
        """Whether other keys wait for the first one, as they need its trajectory."""
        return self.range > 0 and (self.attention > 0 or self.statistics > 0)

    def at(self, name: str, position: float) -> float:
        """One of the three parts at a position."""
        return self.along[name](position) if name in self.along else getattr(self, name)

    def envelope(self, power: float) -> Envelope:
        """The envelope of one part, of which `power` is used."""
        return Envelope(power, 0.0, self.range)


@dataclass(frozen=True)
class Interpolation:
    """How branches attend to both keys beside them (He et al. 2024, AID, arXiv:2403.17924), early in the run.

    Args:
        power: in [0, 1]; 0 is plain attention. Of one that varies, the largest.
        range: share of the run over which it acts, in [0, 1], counted from its start.
        fusion: "outer" mixes the answers to (own, left key) and (own, right key), "inner" answers to own and the mix
            of the keys' keys and values.
        cross: whether they attend to the keys' texts, too, in cross-attention.
        along: the power at every position on the line of the keys, if it varies.
    """

    power: float = 0.0
    range: float = 0.6
    fusion: Fusion = "outer"
    cross: bool = False
    along: Along | None = None

    def __post_init__(self) -> None:
        for name in ("power", "range"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise TaskError(f"the {name} of attention interpolation must be in [0, 1], got {value}")
        if self.fusion not in get_args(Fusion):
            raise TaskError(f'fusion must be "outer" or "inner", got {self.fusion!r}')

    @property
    def acts(self) -> bool:
        """Whether it does anything."""
        return self.power > 0 and self.range > 0

    def envelope(self, position: float) -> Envelope:
        """When it acts at a position, and how strongly."""
        return Envelope(self.power if self.along is None else self.along(position), 0.0, self.range)
