"""Masks of an edit: read, made to fit, carried through a film, and what is kept put back pixel by pixel."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segue.errors import TaskError
from segue.media.clip import Clip, ScratchFrames, as_floats, levels_of, to_uint8
from segue.media.reader import read
from segue.media.resize import fit_pictures
from segue.media.spool import Spool
from segue.motion.carried_mask import CarriedMask, evened
from segue.motion.fields import Fields
from segue.tasks.edit_settings import EditArea
from segue.tasks.masks import grey
from segue.tasks.stylize_geometry import Geometry
from segue.tasks.stylize_inputs import TOGETHER
from segue.temporal.mask import feathered, pooled
from segue.types import Frames

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

FEATHERED = 1 / 64
"""Share of a picture's shorter side over which a change sets in where nothing is said: 8 pixels of 512."""


@dataclass
class Masks:
    """Where each frame changes, at the size that is drawn and at that of the result.

    Args:
        given: the files, by the frame that each is for; one for None is for all, each, or the first, to be carried.
        film: what is edited.
        geometry: between its pictures and those that are drawn.
        feather: pixels of the film over which the change sets in.
        still: whether one mask is for all frames as it is.
    """

    given: dict[int | None, Clip]
    film: Clip
    geometry: Geometry
    feather: float
    still: bool = False
    _carried: Spool | None = field(default=None, init=False)

    @staticmethod
    def of(area: EditArea, film: Clip, geometry: Geometry) -> Masks:
        """All of them, opened.

        Raises:
            MediaError: one cannot be read.
            TaskError: one has other proportions than the film, or another number of frames, is for a frame that is not
                there, has colours, or leaves nothing open.
        """
        given: dict[int | None, Clip] = {}
        for one in area.files:
            path = Path(one.file).expanduser()
            clip = given[one.frame] = read(path)
            _check_fits(path, one.frame, clip, film)
        feather = FEATHERED * min(film.size) if area.feather is None else area.feather
        masks = Masks(given, film, geometry, feather, area.still)
        names = {one.frame: one.file for one in area.files}
        _check_open(masks, names)
        return masks

    @property
    def follows(self) -> bool:
        """Whether masks are carried from frame to frame."""
        whole = self.given.get(None)
        return len(self.film) > 1 and not self.still and (whole is None or len(whole) == 1)

    def notes(self, area: EditArea) -> tuple[str, ...]:
        """What is good to know about them, a line each."""
        said = list[str]()
        for one in area.files:
            own = self.given[one.frame].size
            if own != self.film.size:
                sizes = "{}x{}".format(*own), "{}x{}".format(*self.film.size)
                said.append(f"{one.file} has {sizes[0]} pixels; it is scaled to {sizes[1]}")
        if self.follows:
            frames = ", ".join(str(one.frame or 0) for one in area.files)
            said.append(f"the mask of frame {frames} follows what moves (--still leaves one where it is)")
        return tuple(said)

    def carry(self, fields: Callable[[], Fields], folder: Path) -> None:
        """Find the masks of all frames from those that are given, if they follow what moves; they are kept on disk.

        Args:
            fields: what is found where in the film, in the size that is drawn.
            folder: where they are kept; what is there already is not looked for again.

        Raises:
            TaskError: a shot has no mask.
        """
        if not self.follows:
            return
        spool = self._carried = Spool(folder, self.geometry.drawn)
        weakref.finalize(self, spool.close)
        if len(spool) == len(self.film):
            return
        known = {frame or 0: self._fitted(clip, 0) for frame, clip in self.given.items()}
        masks = CarriedMask(fields(), known)
        for number in range(len(spool), len(self.film)):
            mask = masks.mask(number).cpu()
            spool.append((mask if number in known else evened(mask)).expand(1, 3, -1, -1))

    def drawn(self, frames: range) -> Float[Tensor, "t h w"]:
        """Of frames, at the size that is drawn; as they are given, with no feather."""
        if self._carried is not None:
            return self._carried[frames.start : frames.stop].mean(1)
        return torch.stack([self._fitted(*self._own(frame)) for frame in frames])

    def latents(self, frames: range, scale: int) -> Float[Tensor, "t h w"]:
        """Of the latents of frames, with the feather."""
        pixels = self.feather * self.geometry.inner[0] / self.geometry.source[0]
        return torch.stack([pooled(feathered(mask, pixels), scale) for mask in self.drawn(frames)])

    def result(self, frames: range) -> Float[Tensor, "t h w"]:
        """Of frames of the result, with the feather."""
        return torch.stack([feathered(self._shown(frame), self.feather) for frame in frames])

    def _shown(self, frame: int) -> Float[Tensor, "h w"]:
        if self._carried is not None:
            finished = self.geometry.finished(self._carried[frame : frame + 1])
            return _rounded(finished[0].mean(0))
        clip, number = self._own(frame)
        return _rounded(as_result(_grey(clip, number, self.film.size), self.geometry)[0, 0])

    def _own(self, frame: int) -> tuple[Clip, int]:
        """The file of a frame, and its number there."""
        clip = self.given[None] if None in self.given else self.given[frame]
        return clip, frame if len(clip) > 1 else 0

    def _fitted(self, clip: Clip, number: int) -> Float[Tensor, "h w"]:
        picture = _grey(clip, number, self.film.size)
        return _rounded(fit_pictures(picture, self.geometry.drawn, self.geometry.how)[0, 0])


@dataclass(frozen=True)
class KeptPixels:
    """Frames of which the area outside a mask is that of the source, bit for bit.

    Args:
        drawn: the changed frames, in the size of the result.
        source: the film.
        masks: where it changes; None keeps all of it.
        geometry: between the two.
    """

    drawn: Frames
    source: Frames
    masks: Masks | None
    geometry: Geometry

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.drawn.size

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        numbers = range(len(self))[window]
        kept = as_result(self.source[window], self.geometry)
        if self.masks is None or not len(numbers):
            return kept
        return kept.lerp(self.drawn[window], self.masks.result(numbers)[:, None])

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window, 256 levels a colour."""
        return to_uint8(self[window])

    def discard(self) -> None:
        """Remove the folder in which they lie."""
        if isinstance(self.drawn, ScratchFrames):
            self.drawn.discard()


def as_result(pictures: Float[Tensor, "t c h w"], geometry: Geometry) -> Float[Tensor, "t c H W"]:
    """Pictures of the film as the result has them: cut as drawn ones are; not resized unless the result is."""
    inner, kept = geometry.inner, geometry.kept
    width, height = (round(own * part / whole) for own, part, whole in zip(geometry.source, kept, inner, strict=True))
    left, top = (geometry.source[0] - width) // 2, (geometry.source[1] - height) // 2
    return fit_pictures(pictures[..., top : top + height, left : left + width], geometry.result, "stretch")


def _check_fits(path: Path, frame: int | None, clip: Clip, film: Clip) -> None:
    (width, height), (wide, tall) = clip.size, film.size
    if abs(width * tall - height * wide) > max(width, height):
        raise TaskError(
            f"the mask {path} has {width}x{height} pixels, and what it is for has {wide}x{tall}: make it of that size, "
            "or of the same proportions"
        )
    if len(clip) != 1 and (frame is not None or len(clip) != len(film)):
        raise TaskError(
            f"the mask {path} has {len(clip)} frames, and what it is for has {len(film)}: give one picture, FRAME="
            "PICTURE, or a film of as many frames"
        )
    if frame is not None and frame >= len(film):
        raise TaskError(f"there is a mask for frame {frame}, and the frames are 0 to {len(film) - 1}: {path}")


def _check_open(masks: Masks, names: dict[int | None, str]) -> None:
    """Raise TaskError if a mask has colours, or nothing is white in any."""
    found = False
    for frame, clip in masks.given.items():
        for first in range(0, len(clip), TOGETHER):
            pictures = clip.frames[first : first + TOGETHER]
            found = found or bool(grey(pictures, names[frame], "mask").any())
    if not found:
        raise TaskError(
            f"nothing in the mask {', '.join(names.values())} is white, so nothing would change: paint white what is to"
        )


def _grey(clip: Clip, number: int, size: tuple[int, int]) -> Float[Tensor, "1 1 h w"]:
    """A mask in the size of the film."""
    picture = as_floats(levels_of(clip.frames, slice(number, number + 1))).mean(1, keepdim=True)
    return fit_pictures(picture, size, "stretch")


def _rounded(mask: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """To 256 levels, as its file has them: what was black is exactly 0 again."""
    return (mask * 255).round() / 255
