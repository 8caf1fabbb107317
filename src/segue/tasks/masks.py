"""Pictures that say where a film changes, or when: how they are read, and how the area that is kept stays exact."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segue.errors import TaskError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion
    from segue.temporal.regions import Timing
    from segue.types import Conditioning

MAX_FEATHER = 512.0
FEATHER = 8.0
"""Pixels, one latent of most models: without any, an edge can be seen where the codec is not exact."""
SPREAD = 0.5
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
        picture = fit(clip.frames, size, "crop")[0:1]
        # Scaling leaves white a last digit short of 1; 256 levels are what the file had.
        return (grey(picture, str(self.path), self.role)[0] * 255).round() / 255

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


def grey(pictures: Float[Tensor, "t 3 h w"], name: str, role: str) -> Float[Tensor, "t h w"]:
    """The grey values of pictures in [0, 1].

    Args:
        pictures: that were read.
        name: of their file, for messages.
        role: "mask" or "timing".

    Raises:
        TaskError: they have colours.
    """
    if float((pictures.amax(1) - pictures.amin(1)).max()) > COLOURED:
        raise TaskError(
            f"{role} must be a picture in black, white and grey, {_MEANING[role]}; {name} has colours: is it the right "
            "file?"
        )
    return pictures.mean(1)


_MEANING = {
    "mask": "white where the film changes and black where it is kept",
    "timing": "black where the film changes first and white where it changes last",
}
_EVEN = {
    "mask": "a mask is white where the film changes and black where it is kept",
    "timing": "all of the film changes at the same time",
}


@dataclass(frozen=True)
class Area:
    """Where a film changes, and when each region does. Left alone, all of it changes at the same time.

    Args:
        mask: a picture, white where the film changes and black where it is kept, to the last pixel, as it is in the
            first key.
        feather: over how many pixels inside the mask's edges the change sets in; left out, 8.
        timing: a picture in grey: between every two keys, what is black changes first, what is white last.
        spread: how much of the way from key to key the last region begins after the first, above 0 and below 1; left
            out, 0.5.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    mask: str | None = None
    feather: float | None = None
    timing: str | None = None
    spread: float | None = None

    def __post_init__(self) -> None:
        for value, given, name, other in (
            (self.feather, self.mask, "feather", "mask"),
            (self.spread, self.timing, "spread", "timing"),
        ):
            if value is not None:
                if given is None:
                    raise TaskError(f"{name} says something of the picture that {other} gives: give that too")
                object.__setattr__(self, name, float(value))
        if self.feather is not None and not 0 <= self.feather <= MAX_FEATHER:
            raise TaskError(f"feather must be from 0 to {MAX_FEATHER:g} pixels, got {self.feather}")
        if self.spread is not None and not 0 < self.spread < 1:
            raise TaskError(f"spread must be above 0 and below 1, got {self.spread}")

    def pictures(self) -> tuple[GreyPicture, ...]:
        """The files that are given, the mask first."""
        given = ((self.mask, "mask"), (self.timing, "timing"))
        return tuple(GreyPicture(Path(path).expanduser(), role) for path, role in given if path is not None)

    def notes(self, size: tuple[int, int]) -> tuple[str, ...]:
        """What is said about the files before the work, for a film of (width, height)."""
        return tuple(note for picture in self.pictures() for note in picture.notes(size))

    def hashes(self) -> list[str]:
        """sha256 of the files, for a plan."""
        return [picture.sha256() for picture in self.pictures()]

    def check_unchanged(self, hashes: Sequence[str]) -> None:
        """Whether the files are those that a plan was made with.

        Raises:
            TaskError: one is not; the message says which.
        """
        if len(hashes) != len(self.pictures()):
            raise TaskError("the plan does not belong to this task: it was made with another mask or timing")
        for picture, known in zip(self.pictures(), hashes, strict=True):
            if picture.sha256() != known:
                raise TaskError(f"{picture.path} is not the file that this was made with: its contents have changed")

    def changes(self, size: tuple[int, int]) -> Float[Tensor, "h w"] | None:
        """The feathered mask in pixels, for a film of (width, height); None if all of it changes.

        Raises:
            MediaError, TaskError: see `GreyPicture.load`.
        """
        from segue.temporal.mask import feathered

        found = [picture.load(size) for picture in self.pictures() if picture.role == "mask"]
        return feathered(found[0], FEATHER if self.feather is None else self.feather) if found else None

    def schedule(self, size: tuple[int, int], scale: int) -> Timing | None:
        """When each latent of `scale` pixels changes; None if all do at the same time.

        Raises:
            MediaError, TaskError: see `GreyPicture.load`.
        """
        from segue.temporal.mask import pooled
        from segue.temporal.regions import Timing

        found = [picture.load(size) for picture in self.pictures() if picture.role == "timing"]
        return Timing(pooled(found[0], scale), SPREAD if self.spread is None else self.spread) if found else None


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
        made = self.source()
        # What made it may hold the latents of a whole film; the clip that shows it should not.
        self.source = lambda: made
        return made

    def __call__(self, picture: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
        """The picture with the source's kept area. Where the mask is 0 or 1, and where both agree, this is exact."""
        return self.picture.lerp(picture, self.mask)


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
