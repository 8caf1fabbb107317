"""How alike the pictures of a film are made while they are drawn."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from segue.errors import TaskError

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion
    from segue.temporal.alignment import Alignment


STATISTICS = 0.2
"""How much of the slider goes into statistics: on the embedded model 0.5 of them made steps a sixth larger."""


@dataclass(frozen=True)
class Likeness:
    """How alike the pictures of a film are made while they are drawn. Left alone, nothing is done to them.

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
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    structure: float = 0.0
    shared_noise: float | None = None
    shared_attention: float | None = None
    shared_statistics: float | None = None
    interpolation: float = 0.0
    fusion: Literal["outer", "inner"] = "outer"
    mix: Literal["whole", "channels", "linear"] = "whole"

    def __post_init__(self) -> None:
        for name in ("structure", "shared_noise", "shared_attention", "shared_statistics", "interpolation"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise TaskError(f"{name} must be in [0, 1], got {value}")
        if self.fusion not in ("outer", "inner"):
            raise TaskError(f"fusion must be outer or inner, got {self.fusion!r}")
        if self.mix not in ("whole", "channels", "linear"):
            raise TaskError(f"mix must be whole, channels or linear, got {self.mix!r}")

    @contextmanager
    def attached(self, model: LatentDiffusion) -> Generator[Alignment]:
        """The alignment of a film's pictures, at work in the attention of the model until the end of the block."""
        from contextlib import nullcontext

        from segue.models.attention import attached, sites
        from segue.temporal.alignment import Alignment
        from segue.temporal.attention import SharedAttention
        from segue.temporal.structure import Interpolation, Structure

        def part(own: float | None, share: float = 1.0) -> float:
            return share * self.structure if own is None else own

        structure = Structure(
            part(self.shared_noise), part(self.shared_attention), part(self.shared_statistics, STATISTICS)
        )
        interpolation = Interpolation(self.interpolation, fusion=self.fusion)
        sharing = SharedAttention() if structure.attention > 0 or interpolation.acts else None
        if sharing is not None and "unet" not in model.parts:
            raise TaskError(f"structure and interpolation act in the attention of a UNet, and {model.name} has none")
        with attached(sites(model.parts["unet"]), sharing) if sharing else nullcontext():
            yield Alignment(structure, interpolation, self.mix, sharing)
