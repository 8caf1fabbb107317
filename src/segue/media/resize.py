"""Frames of one size made to fit another, by a rule that is said aloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch.nn.functional import interpolate, pad

from segue.errors import MediaError
from segue.types import Frames

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Fit = Literal["pad", "crop", "stretch"]


@dataclass(frozen=True)
class Fitted:
    """Frames of another size, resized when they are asked for.

    Args:
        frames: what to fit.
        size: (width, height) wanted, in pixels.
        how: "pad" keeps everything and fills what is left with black; "crop" fills the size and cuts what stands out,
            in equal parts on both sides; "stretch" changes the proportions.

    Raises:
        MediaError: for a size below one pixel, or an unknown rule.
    """

    frames: Frames
    size: tuple[int, int]
    how: Fit

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise MediaError(f"expected a width and a height of at least 1 pixel, got {self.size[0]}x{self.size[1]}")
        if self.how not in ("pad", "crop", "stretch"):
            raise MediaError(f"how must be pad, crop or stretch, got {self.how!r}")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return fit_pictures(self.frames[window], self.size, self.how)


def fit(frames: Frames, size: tuple[int, int], how: Fit) -> Frames:
    """Frames of this (width, height), by the rule `how`; see `Fitted`. Those that have it come back as they are."""
    fitted = Fitted(frames, size, how)
    return frames if frames.size == size else fitted


def fit_pictures(pictures: Float[Tensor, "t 3 h w"], size: tuple[int, int], how: Fit) -> Float[Tensor, "t 3 H W"]:
    """Pictures in [0, 1] made to fit (width, height); bicubic, antialiased."""
    width, height = size
    if not len(pictures):
        return pictures.new_empty(0, 3, height, width)
    inner_width, inner_height = fitted_size((pictures.shape[3], pictures.shape[2]), size, how)
    resized = pictures
    if pictures.shape[2:] != (inner_height, inner_width):
        resized = interpolate(pictures, (inner_height, inner_width), mode="bicubic", antialias=True).clamp(0, 1)
    # Negative padding cuts.
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    return pad(resized, (left, width - inner_width - left, top, height - inner_height - top))


def fitted_size(source: tuple[int, int], size: tuple[int, int], how: Fit) -> tuple[int, int]:
    """The (width, height) that a picture of size `source` takes, before it is padded or cut to `size`."""
    if how == "stretch":
        return size
    scales = size[0] / source[0], size[1] / source[1]
    scale = min(scales) if how == "pad" else max(scales)
    return max(1, round(source[0] * scale)), max(1, round(source[1] * scale))


def within_grid(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The smallest (width, height) of multiples that pictures of this size fit into as they are."""
    width, height = (-(-side // multiple) * multiple for side in size)
    return width, height


def on_grid(size: tuple[int, int], multiple: int, *, area: int | None = None) -> tuple[int, int]:
    """The size nearest to `size` whose sides a model takes.

    Args:
        size: (width, height) in pixels; its proportions are kept as well as the grid allows.
        multiple: both sides become multiples of it.
        area: pixels wanted; by default those of `size`.
    """
    scale = (area / (size[0] * size[1])) ** 0.5 if area is not None else 1.0
    width, height = (max(multiple, round(side * scale / multiple) * multiple) for side in size)
    return width, height
