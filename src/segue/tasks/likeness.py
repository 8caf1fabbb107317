"""How alike the pictures of a film are made while they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from segue.errors import TaskError
from segue.temporal.curve import Curve, Value, value_of

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion
    from segue.temporal.alignment import Alignment
    from segue.temporal.keys import Along
    from segue.temporal.structure import Structure

STATISTICS = 0.2
"""How much of the slider goes into statistics: on the embedded model 0.5 of them made steps a sixth larger."""


@dataclass(frozen=True)
class Likeness:
    """How alike the pictures of a film are made while they are drawn. Left alone, nothing is done to them.

    Each number may be a curve over the film, which counts at each key, and at each frame between them.

    Args:
        structure: in [0, 1]; how far keys take the layout of the first key: all three of the following at once.
        shared_noise: in [0, 1]; the starting noise of each key is mixed towards that of the key before it. Left out,
            it is `structure`.
        shared_attention: in [0, 1]; keys attend to what the first key attends to. Left out, it is `structure`. It
            costs a network row more a key.
        shared_statistics: in [0, 1]; each channel's mean and deviation are pulled towards the first key's. Left out,
            it is a fifth of `structure`, since it takes the colours along.
        interpolation: in [0, 1]; branches attend to both keys beside them. It costs two network rows more for every
            two keys and step.
        fusion: outer mixes the answers to the two keys, inner their keys and values.
        mix: how latents are mixed where a branch forks: whole (one angle), channels (an angle for each) or linear
            (a line, brought back to length).
        words: how texts are mixed between keys: tokens (an angle for each) or line.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    structure: Value = 0.0
    shared_noise: Value | None = None
    shared_attention: Value | None = None
    shared_statistics: Value | None = None
    interpolation: Value = 0.0
    fusion: Literal["outer", "inner"] = "outer"
    mix: Literal["whole", "channels", "linear"] = "whole"
    words: Literal["line", "tokens"] = "tokens"

    def __post_init__(self) -> None:
        for name in ("structure", "shared_noise", "shared_attention", "shared_statistics", "interpolation"):
            value: Value | None = getattr(self, name)
            if value is None:
                continue
            object.__setattr__(self, name, value_of(value, name))
            if not 0 <= Curve.of(value).low <= Curve.of(value).high <= 1:
                raise TaskError(f"{name} must be in [0, 1], got {value}")
        if self.fusion not in ("outer", "inner"):
            raise TaskError(f"fusion must be outer or inner, got {self.fusion!r}")
        if self.mix not in ("whole", "channels", "linear"):
            raise TaskError(f"mix must be whole, channels or linear, got {self.mix!r}")
        if self.words not in ("line", "tokens"):
            raise TaskError(f"words must be tokens or line, got {self.words!r}")

    @property
    def curves(self) -> tuple[Value, ...]:
        """The fields that may change over the film, as far as they are given."""
        parts = (self.shared_noise, self.shared_attention, self.shared_statistics)
        return (self.structure, self.interpolation, *(part for part in parts if part is not None))

    @contextmanager
    def attached(self, model: LatentDiffusion, along: Callable[[Value], Along]) -> Generator[Alignment]:
        """The alignment of a film's pictures, at work in the attention of the model until the end of the block.

        Args:
            model: whose attention it is.
            along: makes numbers at positions of the tree from the text of a curve.

        Raises:
            TaskError: rows shall attend to others in a model that has no attention to step into.
        """
        from contextlib import nullcontext

        from segue.models.attention import attached, sites
        from segue.temporal.alignment import Alignment
        from segue.temporal.attention import SharedAttention
        from segue.temporal.structure import Interpolation

        structure, blend = self._structure(along), self.interpolation
        varying = along(blend) if isinstance(blend, str) else None
        interpolation = Interpolation(Curve.of(blend).high, fusion=self.fusion, along=varying)
        sharing = SharedAttention() if structure.attention > 0 or interpolation.acts else None
        if sharing is not None and model.backbone is None:
            raise TaskError(f"structure and interpolation act in the attention of a network, and {model.name} has none")
        with attached(sites(model.backbone), sharing) if sharing and model.backbone else nullcontext():
            yield Alignment(structure, interpolation, self.mix, sharing)

    def _structure(self, along: Callable[[Value], Along]) -> Structure:
        from segue.temporal.structure import Structure

        highest: dict[str, float] = {}
        varying: dict[str, Along] = {}
        for name, own, share in (
            ("noise", self.shared_noise, 1.0),
            ("attention", self.shared_attention, 1.0),
            ("statistics", self.shared_statistics, STATISTICS),
        ):
            value, part = (self.structure, share) if own is None else (own, 1.0)
            highest[name] = part * Curve.of(value).high
            if isinstance(value, str):
                varying[name] = _scaled(along(value), part)
        return Structure(**highest, along=varying)


def _scaled(along: Along, share: float) -> Along:
    return lambda position: share * along(position)
