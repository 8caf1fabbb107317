"""The clip: frames, their rate, their sound, and how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from segue.errors import InterruptedRunError, MediaError
from segue.media.disk import PathLike, as_path, check_record, record_path, written_whole
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float, UInt8
    from torch import Tensor

    from segue.media.audio import Audio

MAX_RATE = 1000


def as_rate(fps: Fraction | float) -> Fraction:
    """Frames per second as an exact fraction; the decimals of television (23.976, 29.97, 59.94) become k·1000/1001.

    Raises:
        MediaError: if it is not in (0, 1000], or a decimal below 0.0005, which no whole thousandth is near.
    """
    if not 0 < fps <= MAX_RATE:
        raise MediaError(f"fps must be above 0 and at most {MAX_RATE}, got {fps}")
    if isinstance(fps, Fraction):
        return fps
    for whole in (24, 30, 48, 60, 120):
        television = Fraction(whole * 1000, 1001)
        if abs(fps - television) < 0.0045:
            return television
    rate = Fraction(fps).limit_denominator(1000)
    if not rate:
        raise MediaError(f"expected fps of at least 0.001, got {fps}; a slower rate can be given as a Fraction")
    return rate


def to_uint8(frames: Float[Tensor, "t 3 h w"] | UInt8[Tensor, "t 3 h w"]) -> UInt8[Tensor, "t 3 h w"]:
    """Pictures in [0, 1] rounded to 256 levels; the one place where values are rounded. uint8 passes unchanged.

    Raises:
        MediaError: if the shape is not t 3 h w, or a value lies outside [0, 1] by more than 1e-3 or is not a number.
    """
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise MediaError(f"expected frames of shape (t, 3, height, width), got {tuple(frames.shape)}")
    if not frames.is_floating_point():
        if frames.element_size() != 1:
            raise MediaError(f"expected frames as uint8 or as floats in [0, 1], got {frames.dtype}")
        return frames
    if not len(frames):
        return frames.byte()
    low, high = (float(bound) for bound in frames.aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise MediaError(f"expected frames in [0, 1], got values from {low:.4g} to {high:.4g}")
    return frames.float().clamp(0, 1).mul_(255).round_().byte()


@runtime_checkable
class ByteFrames(Frames, Protocol):
    """Frames that are kept as bytes: reading these saves the way through floats."""

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window, 256 levels a colour."""
        ...


@runtime_checkable
class SlowFrames(Frames, Protocol):
    """Frames that are made when they are asked for, and take long: asked for too many at once, an interrupt loses them.

    Args:
        pace: how many to ask for at once.
    """

    @property
    def pace(self) -> int: ...


@runtime_checkable
class ScratchFrames(Frames, Protocol):
    """Frames that lie on disk while they are being made, in a folder that goes when they are written elsewhere."""

    def discard(self) -> None:
        """Remove the folder; there are no frames any more."""
        ...


def levels_of(frames: Frames, window: slice) -> UInt8[Tensor, "t 3 h w"]:
    """The pictures of a window as bytes; rounded, if they are not kept so."""
    return frames.levels(window) if isinstance(frames, ByteFrames) else to_uint8(frames[window])


def as_floats(levels: UInt8[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 h w"]:
    """Bytes to pictures in [0, 1]; `to_uint8` takes them back exactly."""
    import torch

    return levels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


@dataclass(frozen=True)
class Provenance:
    """How a clip was made: the record that is written as JSON beside it.

    Args:
        record: plain values (what json can hold): the task, the resolved plan, the model, versions, seeds, scores.
    """

    record: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> str:
        """The record as text, keys in the order given, with a newline at the end."""
        return json.dumps(self.record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True)
class TensorFrames:
    """Frames in memory, a byte per value.

    Raises:
        MediaError: if the pixels are not uint8 of shape (t, 3, h, w).
    """

    pixels: UInt8[Tensor, "t 3 h w"]

    def __post_init__(self) -> None:
        if self.pixels.is_floating_point():
            raise MediaError(f"expected uint8 pixels, got {self.pixels.dtype}: use TensorFrames.rounded for floats")
        to_uint8(self.pixels)

    @staticmethod
    def rounded(frames: Float[Tensor, "t 3 h w"]) -> TensorFrames:
        """Of pictures in [0, 1], rounded once."""
        return TensorFrames(to_uint8(frames).cpu())

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.pixels.shape[3], self.pixels.shape[2]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return as_floats(self.pixels[window])

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window, 256 levels a colour."""
        return self.pixels[window]


@dataclass(frozen=True)
class Excerpt:
    """A part of other frames."""

    frames: Frames
    numbers: range

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.frames.size

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return self.frames[self._inner(window)]

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window, 256 levels a colour."""
        return levels_of(self.frames, self._inner(window))

    def _inner(self, window: slice) -> slice:
        numbers = self.numbers[window]
        # Backwards to the first frame, `stop` is -1, which a slice would take for the last one.
        return slice(numbers.start, numbers.stop if numbers.stop >= 0 else None, numbers.step)


@dataclass(frozen=True)
class Clip:
    """A sequence of pictures at a constant rate, with what belongs to it.

    Args:
        frames: the pictures; in memory, in a file or in a spool.
        fps: frames per second; kept as an exact fraction.
        audio: the sound that goes with them, from the first frame on.
        provenance: how they were made.
    """

    frames: Frames
    fps: Fraction
    audio: Audio | None = None
    provenance: Provenance | None = None

    def __init__(
        self,
        frames: Frames,
        fps: Fraction | float,
        audio: Audio | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        for name, value in (("frames", frames), ("fps", as_rate(fps)), ("audio", audio), ("provenance", provenance)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return float(len(self.frames) / self.fps)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.frames.size

    def cut(self, first: int, stop: int) -> Clip:
        """The frames from `first` up to, not including, `stop`, with their sound.

        Raises:
            MediaError: if they are not 0 <= first < stop <= the number of frames.
        """
        if not 0 <= first < stop <= len(self):
            raise MediaError(f"expected a range within the {len(self)} frames of the clip, got {first} to {stop}")
        audio = None if self.audio is None else self.audio.later(first / self.fps)
        return Clip(Excerpt(self.frames, range(first, stop)), self.fps, audio, self.provenance)

    def save(
        self, path: PathLike, *, crf: int | None = None, preset: str | None = None, progress: Progress = silent
    ) -> Path:
        """Write the clip, in the format that the path's suffix names, and its record as JSON beside it.

        Args:
            path: see `segue.media.write`.
            crf: constant rate factor of H.264 and VP9, lower is better; other formats refuse it.
            preset: speed of the H.264 encoder, from "ultrafast" to "veryslow"; other formats refuse it.
            progress: told of every window of frames that is written.

        Returns:
            The path of the clip.

        Raises:
            MediaError: for an unknown suffix, or options that the format does not have.
            DiskError: if the file system refuses, or the JSON that lies beside the path is no record. Nothing
                half-written is left, and an older file is still whole.
            InterruptedRunError: on Ctrl-C; a shorter clip of what was written by then is kept, its record says so.
                Where an older file has the name, it is left alone, and the part gets a name of its own.
        """
        from segue.media.writer import write

        path = as_path(path)
        if self.provenance is not None:
            self.provenance.to_json()  # What JSON cannot hold is found before the work, not after it.
            check_record(path)
        try:
            write(self, path, crf=crf, preset=preset, progress=progress)
        except InterruptedRunError as error:
            if self.provenance is not None:
                _save_record(Provenance({**self.provenance.record, "complete": False}), error.path or path)
            raise
        if self.provenance is not None:
            _save_record(self.provenance, path)
        return path


def _save_record(provenance: Provenance, path: Path) -> None:
    with written_whole(record_path(path)) as part:
        part.write_text(provenance.to_json(), encoding="utf-8")
