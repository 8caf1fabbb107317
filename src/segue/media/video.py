"""The frames of a video file, decoded when they are asked for."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Lock
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from segue.errors import MediaError
from segue.media.clip import as_floats
from segue.media.disk import disk_errors
from segue.media.recent import held
from segue.media.sinks import SWSCALE, TRUE_SIZE
from segue.media.timing import DEFAULT_RATE, Timing, gathered, timing

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

# Containers that list each frame with its time. Others are decoded once from end to end to count.
_INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_MATRIX = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_HDR = {16: "PQ", 18: "HLG"}
_PADDED = re.compile(re.escape(TRUE_SIZE).replace(r"\{width\}", r"(\d+)").replace(r"\{height\}", r"(\d+)"))


class VideoFrames:
    """The frames of a video file at a constant rate.

    Windows are found by seeking to the key frame before them; frames that follow what was decoded last, or that are
    among the last ones decoded (see `held`), cost no seek, so that streaming through a file with overlapping windows
    decodes it once.
    Pictures come as a player shows them: turned as the file says, with square pixels (the shorter side of a pixel is
    stretched), colours by the file's own matrix; where it names none, BT.709 from 720 lines or 1280 columns on, else
    BT.601.

    Args:
        path: any file that FFmpeg can decode.
        fps: sample the file at this rate instead of its own.

    Raises:
        MediaError: if it is no video, is damaged, or is HDR.
        DiskError: if it cannot be opened.
    """

    def __init__(self, path: Path, fps: Fraction | None = None) -> None:
        self.path = path
        self._lock = Lock()
        self._cache: OrderedDict[int, UInt8[np.ndarray, "h w 3"]] = OrderedDict()
        with self._decoding():
            self._rewind()
            self._ticks, end = self._index()
            self._rewind()
            first = next(self._decoder, None)
            if first is None:
                raise MediaError(f"cannot read {self.path}: its first frame is damaged; try another copy")
            picture = self._picture(first)
            self._rewind()
        self._place: dict[int | None, int] = {tick: number for number, tick in enumerate(self._ticks)}
        self._size = picture.shape[1], picture.shape[0]
        self._room = held(picture.nbytes)
        declared = [rate for rate in (self._stream.average_rate, self._stream.guessed_rate) if rate]
        self.timing: Timing = timing(self._ticks, end, self._tick, declared=declared, fps=fps)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, as shown."""
        return self._size

    @property
    def has_sound(self) -> bool:
        """Whether the file has sound, too."""
        return bool(self._container.streams.audio)

    @property
    def start(self) -> Fraction:
        """When the first frame is shown, in seconds of the file."""
        return self._ticks[0] * self._tick

    def __len__(self) -> int:
        return len(self.timing.shown)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return as_floats(self.levels(window))

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window, 256 levels a colour."""
        with self._lock, self._decoding():
            return gathered(self.timing.shown[window], self.size, self._frame)

    @contextmanager
    def _decoding(self) -> Generator[None]:
        try:
            with disk_errors(self.path, "read"):
                yield
        except av.FFmpegError as error:
            raise MediaError(f"cannot read {self.path}: the video is damaged; try another copy") from error

    def _rewind(self) -> None:
        """Open the file anew: always right, where seeking to the start is not."""
        try:
            self._container = av.open(f"file:{self.path.absolute()}")
        except (av.InvalidDataError, ValueError) as error:
            raise MediaError(f"cannot read {self.path}: it is neither video nor picture, or it is damaged") from error
        if not self._container.streams.video:
            raise MediaError(f"cannot read {self.path}: there is no video in it")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._tick = self._stream.time_base or Fraction(1, 1000)
        self._decoder: Iterator[av.VideoFrame] = self._container.decode(self._stream)
        self._next = 0
        comment = {name.lower(): text for name, text in self._container.metadata.items()}.get("comment", "")
        padded = _PADDED.fullmatch(comment)
        self._true_size = (int(padded[1]), int(padded[2])) if padded else None

    def _index(self) -> tuple[list[int], int]:
        """When each frame is shown, and when the last one ends, in ticks."""
        if self._container.format.name in _INDEXED:
            stamps = self._listed()
        else:
            stamps = [(frame.pts, frame.duration, frame.key_frame) for frame in self._decoder]
        if not stamps:
            raise MediaError(f"cannot read {self.path}: there are no frames in it")
        rate = self._stream.average_rate or self._stream.guessed_rate or DEFAULT_RATE
        step = max(1, round(1 / (rate * self._tick)))
        shown = sorted((tick, key) for tick, _, key in stamps if tick is not None)
        ticks = [tick for tick, _ in shown]
        # Without a time of its own for each frame there is nothing to seek by: frames are counted from the start.
        self._seekable = len(set(ticks)) == len(stamps)
        if not self._seekable:
            return [step * number for number in range(len(stamps))], step * len(stamps)
        self._keys = [number for number, (_, key) in enumerate(shown) if key]
        last, duration, _ = stamps[-1]
        if last != ticks[-1] or not duration:
            # Frames that are stored out of order have the durations of their neighbours.
            duration = round(median(after - before for before, after in pairwise(ticks))) if len(ticks) > 1 else step
        return ticks, ticks[-1] + duration

    def _listed(self) -> list[tuple[int | None, int | None, bool]]:
        """The time, the duration and whether it is a key frame, of each frame that the container lists."""
        stamps: list[tuple[int | None, int | None, bool]] = []
        count, whole = 0, True
        # One packet after the other: all of them together are the file.
        for packet in self._container.demux(self._stream):
            if packet.size:
                count, whole = count + 1, whole and not packet.is_corrupt
                if not packet.is_discard:
                    stamps.append((packet.pts, packet.duration, packet.is_keyframe))
        if not whole or count < self._stream.frames:
            there = f"{count} of {self._stream.frames} frames are there"
            raise MediaError(f"cannot read {self.path}: it is cut short, {there}; try another copy")
        return stamps

    def _frame(self, number: int) -> UInt8[np.ndarray, "h w 3"]:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        if self._seekable and not (self._next <= number and self._key_before(number) <= self._next):
            self._container.seek(self._ticks[number], stream=self._stream)
            self._decoder = self._container.decode(self._stream)
            self._next = -1
        if self._next > number or not self._reach(number):
            self._rewind()
            if not self._reach(number):
                raise MediaError(f"cannot read {self.path}: frame {number} is damaged; try another copy")
        return self._cache[number]

    def _reach(self, number: int) -> bool:
        """Decode up to this frame. False if it does not come: a seek may land behind it."""
        for frame in self._decoder:
            here = self._place.get(frame.pts) if self._seekable else self._next
            if here is None:
                continue
            if here > number:
                return False
            self._next = here + 1
            if here == number:
                self._cache[number] = self._picture(frame)
                if len(self._cache) > self._room:
                    self._cache.popitem(last=False)
                return True
        return False

    def _key_before(self, number: int) -> int:
        return self._keys[max(0, bisect_right(self._keys, number) - 1)]

    def _picture(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        """As a player shows it."""
        if frame.color_trc in _HDR:
            raise MediaError(
                f"cannot read {self.path}: it is HDR video ({_HDR[frame.color_trc]}), and only SDR is understood; "
                "convert it to BT.709 first"
            )
        width, height = frame.width, frame.height
        aspect = self._stream.sample_aspect_ratio or 1
        if aspect > 1:
            width = round(width * aspect)
        elif aspect < 1:
            height = round(height / aspect)
        matrix = _MATRIX.get(frame.colorspace)
        if matrix is None:
            matrix = Colorspace.ITU709 if frame.height >= 720 or frame.width >= 1280 else Colorspace.ITU601
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        picture = frame.reformat(
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=matrix,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=SWSCALE,
        ).to_ndarray()
        if self._true_size is not None:
            picture = picture[: self._true_size[1], : self._true_size[0]]
        turned = np.rot90(picture, round(frame.rotation / 90) % 4)
        return np.ascontiguousarray(turned)
