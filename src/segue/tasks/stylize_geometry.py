"""In which size a film is drawn, and in which one it is shown: rules that are said aloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segue.media.clip import ByteFrames, ScratchFrames, to_uint8
from segue.media.resize import fit, fit_pictures, fitted_size
from segue.types import Frames

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from segue.tasks.stylize_settings import Fit


@dataclass(frozen=True)
class Geometry:
    """Between the pictures of a film and those that a model draws.

    Args:
        source: (width, height) of the film.
        drawn: (width, height) that the model draws.
        how: the former fill the latter.
        model_size: whether the result is left as large as it is drawn.
    """

    source: tuple[int, int]
    drawn: tuple[int, int]
    how: Fit
    model_size: bool = False

    @property
    def inner(self) -> tuple[int, int]:
        """(width, height) that a whole picture of the film takes where it is drawn."""
        return fitted_size(self.source, self.drawn, self.how)

    @property
    def kept(self) -> tuple[int, int]:
        """(width, height) of what is drawn of the film: without black bars, and without what was cut off."""
        width, height = (min(sides) for sides in zip(self.inner, self.drawn, strict=True))
        return width, height

    @property
    def result(self) -> tuple[int, int]:
        """(width, height) of the result."""
        if self.model_size:
            return self.kept
        sides = zip(self.source, self.kept, self.inner, strict=True)
        width, height = (max(1, round(own * kept / inner)) for own, kept, inner in sides)
        return width, height

    def shown(self, frames: Frames) -> Frames:
        """Frames of the film as the model is shown them."""
        return fit(frames, self.drawn, self.how)

    def finished(self, pictures: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 H W"]:
        """Drawn pictures as the result has them."""
        width, height = self.kept
        left, top = ((whole - own) // 2 for whole, own in zip(self.drawn, self.kept, strict=True))
        return fit_pictures(pictures[..., top : top + height, left : left + width], self.result, "stretch")

    def note(self) -> str:
        """What is good to know about it; "" if sizes are the same."""
        if self.source == self.drawn:
            return ""
        source, drawn, result = ("{}x{}".format(*size) for size in (self.source, self.drawn, self.result))
        done = {"stretch": "", "crop": ", cut to its proportions", "pad": ", with bars that are cut off again"}[
            self.how
        ]
        after = "the result is left so" if self.model_size else f"the result is enlarged to {result}"
        if not self.model_size and self.drawn[0] * self.drawn[1] > self.source[0] * self.source[1]:
            after = f"the result is reduced to {result}"
        return f"frames of {source} pixels are drawn at {drawn}{done} (--size says otherwise), and {after}"


@dataclass(frozen=True)
class FinishedFrames:
    """Drawn frames, in the size of the result; resized when they are asked for."""

    drawn: Frames
    geometry: Geometry

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.geometry.result

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return self.geometry.finished(self.drawn[window])

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window, 256 levels a colour."""
        if self.geometry.result == self.geometry.drawn and isinstance(self.drawn, ByteFrames):
            return self.drawn.levels(window)
        return to_uint8(self[window])

    def discard(self) -> None:
        """Remove the folder in which they lie."""
        if isinstance(self.drawn, ScratchFrames):
            self.drawn.discard()
