"""Clips to files: streamed, exact in rate, the same bytes every time, and whole or not there at all."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from segue.errors import ExhaustedError, ExhaustedRunError, InterruptedRunError, MediaError
from segue.media.clip import SlowFrames, as_rate, levels_of, to_uint8
from segue.media.disk import (
    PathLike,
    as_path,
    check_folder,
    check_writable,
    disk_errors,
    part_of,
    partial_path,
    remove,
)
from segue.media.formats import Format, format_of
from segue.media.sinks import FolderSink, PictureSink, Sink, VideoSink
from segue.types import Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from segue.media.audio import Audio
    from segue.media.clip import Clip

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
WINDOW_BYTES = 64 << 20
WINDOW_FRAMES = 16
"""Small enough that progress is seen, and that an interrupt loses little."""
FIRST_FRAMES = 2
"""The first window is the least that an interrupt keeps: it is made even after the interrupt, so it is short."""


class Writer:
    """Write frames as they come; the file appears under its name when it is closed.

    Used as a context: closed at the end, and discarded on an error. A caller who is interrupted and wants to keep what
    there is calls `close()`: the file is then a whole, shorter video. A program that is killed leaves the old file, and
    a hidden `.part` file beside it that can be removed.

    Args:
        path: the suffix chooses the format. .mp4 .m4v .mov .mkv are H.264, .webm VP9, .gif, .webp and .apng animated,
            .png and .jpg one picture, no suffix a folder of PNG files. An existing file is replaced, but
            only by a whole one.
        fps: frames per second, exact if a Fraction. GIF rounds each time to 1/100 s and WebP to 1/1000 s.
        size: (width, height) of all frames. H.264 needs even sides: an odd side gets its last column or row
            once more, and the file's comment keeps the true size, to which `read` cuts it back.
        audio: sound to put beside the frames, cut to their length. Pictures, GIF, WebP and folders hold none.
        crf: constant rate factor, 0 to 51 for H.264 (default 16), 0 to 63 for VP9 (default 24); lower is better.
        preset: speed of the H.264 encoder (default "medium").

    Raises:
        MediaError: for an unknown suffix, or options that the format does not have.
        DiskError: if the file system refuses.
    """

    def __init__(
        self,
        path: PathLike,
        fps: Fraction | float,
        size: tuple[int, int],
        *,
        audio: Audio | None = None,
        crf: int | None = None,
        preset: str | None = None,
    ) -> None:
        self.path = as_path(path)
        self.size = size
        self.fps = as_rate(fps)
        self.audio = audio
        self.count = 0
        self._closed = False
        self._sink: Sink | None = None
        form = format_of(self.path)
        _check_options(self.path, form, crf, preset)
        if min(size) < 1:
            raise MediaError(f"expected a width and a height of at least 1 pixel, got {size[0]}x{size[1]}")
        check_writable(self.path)
        self._part = part_of(self.path)
        with self._guarded():
            self._sink = _sink(self, self._part, form, crf, preset)

    @property
    def seconds(self) -> float:
        """How long the frames so far play."""
        return float(self.count / self.fps)

    def append(self, frames: Float[Tensor, "t 3 h w"] | UInt8[Tensor, "t 3 h w"]) -> None:
        """Add frames: floats in [0, 1], or uint8.

        Raises:
            MediaError: if they are of another size, or not in [0, 1].
            DiskError: if the file system refuses. The writer is then discarded.
        """
        if self._closed or self._sink is None:
            raise MediaError(f"{self.path} is closed: frames can no longer be added")
        pixels = to_uint8(frames)
        size = (pixels.shape[3], pixels.shape[2])
        if size != self.size:
            raise MediaError(f"expected frames of {self.size[0]}x{self.size[1]} pixels, got {size[0]}x{size[1]}")
        with self._guarded():
            for frame in pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy():
                self._sink.append(frame)
                self.count += 1

    def close(self, name: Path | None = None) -> Path:
        """Complete the file with the frames that were added, and move it to its name. Closing twice does nothing.

        Args:
            name: another name of the same format and in the same folder, for a part of what was wanted.

        Raises:
            MediaError: if no frame was added.
            DiskError: if the file system refuses; nothing is left then.
        """
        if self._closed or self._sink is None:
            return self.path
        self.path = name or self.path
        if not self.count:
            self.discard()
            raise MediaError(f"cannot write {self.path}: there are no frames")
        try:
            with self._guarded():
                self._sink.finish()
                _move(self._part, self.path)
        finally:
            self.discard()
        return self.path

    def discard(self) -> None:
        """Give up: what was written is removed, and an older file of this name stays as it is."""
        if not self._closed:
            self._closed = True
            if self._sink is not None:
                self._sink.abort()
            remove(self._part)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    @contextmanager
    def _guarded(self) -> Generator[None]:
        # An interrupt is no reason to discard: what was appended can still be closed.
        try:
            with disk_errors(self.path):
                yield
        except Exception:
            self.discard()
            raise


def write(
    clip: Clip, path: PathLike, *, crf: int | None = None, preset: str | None = None, progress: Progress = silent
) -> Path:
    """Write a whole clip, a window of frames at a time. Arguments, formats and errors are those of `Writer`.

    On Ctrl-C the frames that were written by then are kept, as a whole file; where an older file has the name, under
    another one, which the error states. If none was written yet, the first two are made before it stops, which may
    take as long as decoding them does; a second Ctrl-C stops at once, and nothing is written then.

    Returns:
        The path of the file or folder.

    Raises:
        InterruptedRunError: on Ctrl-C, or as memory ran out, with the path and the number of frames that are there.
    """

    def opened() -> Writer:
        return Writer(path, clip.fps, clip.size, audio=clip.audio, crf=crf, preset=preset)

    with opened() as writer:
        try:
            for window in _windows(clip):
                writer.append(levels_of(clip.frames, window))
                progress("writing", writer.count, len(clip))
        except KeyboardInterrupt:
            if 0 < writer.count < len(clip):
                raise _kept(clip, writer) from None
        except ExhaustedError as error:
            if not writer.count:
                raise
            raise _kept(clip, writer, error) from None
        if writer.count or not len(clip):
            return writer.close()
        writer.discard()
    # An encoder that was interrupted in its first frame cannot be given it again.
    with opened() as writer:
        writer.append(levels_of(clip.frames, next(_windows(clip))))
        if writer.count < len(clip):
            raise _kept(clip, writer)
        return writer.close()


def _windows(clip: Clip) -> Iterator[slice]:
    """The windows that a clip is written in."""
    width, height = clip.size
    wanted = clip.frames.pace if isinstance(clip.frames, SlowFrames) else WINDOW_FRAMES
    most = max(1, min(wanted, WINDOW_BYTES // (12 * width * height)))
    yield slice(0, min(FIRST_FRAMES, most))
    for first in range(min(FIRST_FRAMES, most), len(clip), most):
        yield slice(first, first + most)


def _kept(clip: Clip, writer: Writer, exhausted: ExhaustedError | None = None) -> InterruptedRunError:
    """Close an interrupted writer with the frames that it has."""
    path = writer.close(partial_path(writer.path))
    ended = InterruptedRunError if exhausted is None else ExhaustedRunError
    why = "interrupted while writing" if exhausted is None else str(exhausted)
    return ended(f"{why}; {path} holds {writer.count} of {len(clip)} frames", path=path, frames=writer.count)


def _sink(writer: Writer, part: Path, form: Format, crf: int | None, preset: str | None) -> Sink:
    if form.kind == "folder":
        return FolderSink(part, writer.fps)
    if form.kind == "picture":
        return PictureSink(part, form, writer.path.name)
    return VideoSink(part, form, writer.fps, writer.size, writer.audio, options=_options(form, crf, preset))


def _options(form: Format, crf: int | None, preset: str | None) -> dict[str, str]:
    options = dict(form.options)
    if form.crf is not None:
        options["crf"] = str(form.crf if crf is None else crf)
    if form.preset is not None:
        options["preset"] = preset or form.preset
    return options


def _move(part: Path, path: Path) -> None:
    """A file replaces a file in one step. A folder cannot, so the old one steps aside first."""
    if not (part.is_dir() and path.is_dir()):
        part.replace(path)
        return
    check_folder(path)
    aside = part_of(path)
    path.rename(aside)
    part.rename(path)
    remove(aside)


def _check_options(path: Path, form: Format, crf: int | None, preset: str | None) -> None:
    if crf is not None and form.crf is None:
        raise MediaError(f"crf is for H.264 and VP9, and {path.name} is neither: leave it out, or choose .mp4 or .webm")
    most = 63 if form.codec == "libvpx-vp9" else 51
    if crf is not None and not 0 <= crf <= most:
        raise MediaError(f"crf must be between 0 and {most} for {path.suffix}, got {crf}")
    if preset is not None and form.preset is None:
        raise MediaError(f"preset is for H.264, and {path.name} is not: leave it out, or choose .mp4")
    if preset is not None and preset not in PRESETS:
        raise MediaError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
