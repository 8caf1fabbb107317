"""Pictures, animated pictures and folders of pictures as frames."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from segue.errors import MediaError
from segue.media.clip import as_floats
from segue.media.disk import disk_errors
from segue.media.recent import held
from segue.media.sinks import RATE
from segue.media.timing import DEFAULT_RATE, Timing, gathered, timing

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

# By content, not by name; Pillow's other readers are for rarities, or start programs.
KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
_TICKS = {"GIF": Fraction(1, 100), "PNG": Fraction(1, 1_000_000)}
_DIGITS = re.compile(r"(\d+)", re.ASCII)
_RATE = re.compile(r"[1-9]\d*(/[1-9]\d*)?", re.ASCII)
_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


@contextmanager
def _reading(path: Path) -> Generator[None]:
    try:
        with disk_errors(path, "read"):
            yield
    except UnidentifiedImageError as error:
        expected = f"expected one of the kinds {', '.join(KINDS)}"
        raise MediaError(
            f"cannot read {path}: it is no picture, or it is damaged ({expected}); try another copy, or take it away"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise MediaError(f"cannot read {path}: the picture is damaged ({error}); try another copy") from error


def picture_kind(path: Path) -> Literal["still", "moving"] | None:
    """Whether the file's content is a picture that Pillow reads, and whether that moves. None if it is no picture.

    Raises:
        MediaError: if it is damaged.
    """
    with _reading(path):
        try:
            with Image.open(path, formats=KINDS) as image:
                moves = image.format in ("GIF", "WEBP", "PNG") and getattr(image, "n_frames", 1) > 1
                return "moving" if moves else "still"
        except UnidentifiedImageError:
            return None


def still(path: Path, background: str) -> UInt8[Tensor, "1 3 h w"]:
    """The one picture of a file.

    Raises:
        MediaError: if it is none, or damaged.
    """
    with _reading(path), Image.open(path, formats=KINDS) as image:
        return torch.from_numpy(to_rgb(image, background).copy()).permute(2, 0, 1)[None]


def to_rgb(image: Image.Image, background: str) -> UInt8[np.ndarray, "h w 3"]:
    """8 bits a colour, turned as the camera was held; what is transparent is laid over the background."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point values have no fixed white")
    if image.mode.startswith("I"):
        # 16 bits of grey. Pillow's own conversion clips them to white.
        image = Image.fromarray((np.asarray(image, np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return np.asarray(image.convert("RGB"))


def simplified(path: Path) -> tuple[str, ...]:
    """What of a still picture is not as its file has it, a line each: it is read with 8 bits a colour and opaque.

    Raises:
        MediaError: it is damaged.
    """
    if not path.is_file() or picture_kind(path) != "still":
        return ()
    with _reading(path), Image.open(path, formats=KINDS) as image:
        said = list[str]()
        if image.mode.startswith("I") or ";16" in str(image.tile[0][3] if image.tile else ""):
            said.append(f"{path} has 16 bits a colour, of which 8 are read")
        if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
            said.append(f"{path} is transparent in part, which is laid on white: the result is opaque")
        return tuple(said)


class AnimatedFrames:
    """The frames of an animated GIF, WebP or PNG at a constant rate; the last ones decoded are kept (see `held`).

    Args:
        path: the file.
        fps: sample it at this rate instead of its own.
        background: what shows through transparent pixels.

    Raises:
        MediaError: if it is damaged.
    """

    def __init__(self, path: Path, fps: Fraction | None, background: str) -> None:
        self.path, self.background = path, background
        self._lock = Lock()
        self._cache: OrderedDict[int, UInt8[np.ndarray, "h w 3"]] = OrderedDict()
        starts = [0.0]
        with _reading(path):
            # From memory: an open file would have to be closed by someone. Animations are small.
            self._data = path.read_bytes()
            self._image = Image.open(BytesIO(self._data), formats=KINDS)
            for number in range(getattr(self._image, "n_frames", 1)):
                self._image.seek(number)
                self._image.load()
                # Players show what claims to last no time at all for a tenth of a second.
                starts.append(starts[-1] + (self._image.info.get("duration") or 100) / 1000)
        tick = _TICKS.get(self._image.format or "", Fraction(1, 1000))
        ticks = [round(start / tick) for start in starts]
        self.timing: Timing = timing(ticks[:-1], ticks[-1], tick, fps=fps)
        self._room = held(3 * self.size[0] * self.size[1])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self._image.size

    def __len__(self) -> int:
        return len(self.timing.shown)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return as_floats(self.levels(window))

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window, 256 levels a colour."""
        with self._lock, _reading(self.path):
            return gathered(self.timing.shown[window], self.size, self._frame)

    def _frame(self, number: int) -> UInt8[np.ndarray, "h w 3"]:
        if number not in self._cache:
            if number < self._image.tell():
                # Pillow cannot go back in an animated PNG.
                self._image = Image.open(BytesIO(self._data), formats=KINDS)
            self._image.seek(number)
            self._cache[number] = to_rgb(self._image, self.background)
            if len(self._cache) > self._room:
                self._cache.popitem(last=False)
        return self._cache[number]


class FolderFrames:
    """The pictures of a folder in the order of the numbers in their names, read when they are asked for.

    Args:
        path: a folder of pictures of one size; other files in it are passed over.
        background: what shows through transparent pixels.

    Raises:
        MediaError: if there is no picture, one cannot be read, or they differ in size.
    """

    def __init__(self, path: Path, background: str) -> None:
        self.path, self.background = path, background
        with disk_errors(path, "read"):
            self.files = sorted((item for item in path.iterdir() if item.suffix.lower() in SUFFIXES), key=_natural)
        if not self.files:
            raise MediaError(f"cannot read {path}: there are no pictures in this folder ({', '.join(SUFFIXES)})")
        self.size, rate = self._inspect(self.files[0])
        self.rate = Fraction(rate) if _RATE.fullmatch(rate) else DEFAULT_RATE
        for file in self.files[1:]:
            size, _ = self._inspect(file)
            if size != self.size:
                raise MediaError(
                    f"cannot read {path}: {file.name} has {size[0]}x{size[1]} pixels, {self.files[0].name} has "
                    f"{self.size[0]}x{self.size[1]}; the frames of a clip are of one size"
                )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return as_floats(self.levels(window))

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window, 256 levels a colour."""
        files = self.files[window]
        if not files:
            return torch.empty(0, 3, *self.size[::-1], dtype=torch.uint8)
        return torch.cat([still(file, self.background) for file in files])

    def _inspect(self, file: Path) -> tuple[tuple[int, int], str]:
        """The size that a file will have, and the rate that it may name."""
        with _reading(file), Image.open(file, formats=KINDS) as image:
            sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
            width, height = image.size
            return (height, width) if sideways else (width, height), str(image.info.get(RATE, ""))


def _natural(file: Path) -> list[tuple[int, str]]:
    """Sorts 2.png before 10.png."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(file.name)]
