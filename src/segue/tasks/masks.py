"""Pictures that say where a film changes, or when: how they are read, and how the area that is kept stays exact."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from segue.errors import TaskError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion
    from segue.types import Conditioning

MAX_FEATHER = 512.0
COLOURED = 0.1
"""Largest difference between red, green and blue of a pixel that still counts as grey: JPEG adds some colour."""
NEARLY = 0.05
"""What is darker but not black was probably meant to be black."""


@dataclass(frozen=True)
class GreyPicture:
    """A file whose grey values are numbers from 0 (black) to 1 (white); what is transparent is white.

    Args:
        path: of a still picture.
        role: the field that it is given by, "mask" or "timing", for messages.
    """

    path: Path
    role: str = "mask"

    def load(self, size: tuple[int, int]) -> Float[Tensor, "h w"]:
        """The grey values, scaled and cut to (width, height) in pixels. What is black in the file is exactly 0.

        Raises:
            MediaError: it cannot be read.
            TaskError: it is no still picture, or has colours.
        """
        from segue.media.reader import read
        from segue.media.resize import fit

        clip = read(self.path)
        if len(clip) != 1:
            raise TaskError(f"{self.role} must be one picture; {self.path} has {len(clip)}")
        picture = fit(clip.frames, size, "crop")[0:1][0]
        if float((picture.amax(0) - picture.amin(0)).max()) > COLOURED:
            raise TaskError(
                f"{self.role} must be a picture in black, white and grey, {_MEANING[self.role]}; {self.path} has "
                "colours: is it the right file?"
            )
        # Scaling leaves white a last digit short of 1; 256 levels are what the file had.
        return (picture.mean(0) * 255).round() / 255

    def notes(self, size: tuple[int, int]) -> tuple[str, ...]:
        """What is said about it before the work: that it is scaled and cut, or that it does not say much."""
        from segue.media.reader import read

        own, said = read(self.path).size, list[str]()
        if own != size:
            said.append(f"{self.path} has {own[0]}x{own[1]} pixels; it is scaled and cut to {size[0]}x{size[1]}")
        grey = self.load(size)
        if float(grey.max()) == float(grey.min()):
            said.append(f"{self.path} is of one grey everywhere; {_EVEN[self.role]}")
        elif self.role == "mask" and bool(((grey > 0) & (grey < NEARLY)).any()) and not bool((grey == 0).any()):
            said.append(
                f"nothing in {self.path} is exactly black, so nothing is kept exactly; PNG keeps black, JPEG does not"
            )
        return tuple(said)

    def sha256(self) -> str:
        """Of the file."""
        from segue.media.disk import disk_errors

        with disk_errors(self.path, "read"), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def unchanged(self, known: str) -> None:
        """Whether the file is the one that a plan was made with.

        Raises:
            TaskError: it is not.
        """
        if self.sha256() != known:
            raise TaskError(f"{self.path} is not the file that this was made with: its contents have changed")


_MEANING = {
    "mask": "white where the film changes and black where it is kept",
    "timing": "black where the film changes first and white where it changes last",
}
_EVEN = {
    "mask": "a mask is white where the film changes and black where it is kept",
    "timing": "all of the film changes at the same time",
}


def checked_feather(pixels: float) -> float:
    """How wide the edge of a mask is.

    Raises:
        TaskError: it is negative, or wider than any edge should be.
    """
    if not 0 <= pixels <= MAX_FEATHER:
        raise TaskError(f"feather must be from 0 to {MAX_FEATHER:g} pixels, got {pixels}")
    return float(pixels)


@dataclass
class Kept:
    """Shows a source picture where a mask is black, bit for bit, and what the film shows where it is white.

    Args:
        mask: in [0, 1], of the size of the film.
        source: makes the source picture, float32 on the CPU; asked once, when the first picture is finished.
    """

    mask: Float[Tensor, "h w"]
    source: Callable[[], Float[Tensor, "3 h w"]]

    @cached_property
    def picture(self) -> Float[Tensor, "3 h w"]:
        """The source picture."""
        return self.source()

    def __call__(self, picture: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
        """The picture with the source's kept area. It is exact: 0 times a number and 1 times another add no error."""
        return self.mask * picture + (1 - self.mask) * self.picture


def shown_to(
    model: LatentDiffusion,
    texts: Conditioning,
    picture: Float[Tensor, "3 h w"] | None,
    mask: Float[Tensor, "h w"] | None,
) -> Conditioning:
    """What a model is told, with the picture and the mask appended if it is an inpainting model.

    Args:
        model: any model.
        texts: what it is told besides.
        picture: what is kept where the mask is black; in [0, 1], of the size of the film.
        mask: in [0, 1], of the same size; 1 where the film changes.

    Raises:
        TaskError: an inpainting model has no picture or no mask.
    """
    if not model.inpaints:
        return texts
    if picture is None or mask is None:
        missing = "a mask" if mask is None else "a picture to start from"
        raise TaskError(
            f"{model.name} is an inpainting model: it needs {missing}; give both (the first key as a picture, and a "
            "mask), or take the model that it was made from"
        )
    from segue.models.inpainting import inpainting

    appended = inpainting(model.codec, picture.to(model.device), mask.to(model.device))
    return replace(texts, concat=appended.expand(len(texts), -1, -1, -1))
