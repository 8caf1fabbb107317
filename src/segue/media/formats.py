"""The formats that clips are written in, by suffix."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from segue.errors import MediaError

# Encoders split their work by threads, and the split decides the bytes: the number must not follow the machine.
THREADS = "4"


@dataclass(frozen=True)
class Format:
    """How a suffix is written.

    Args:
        kind: a file with many frames, one picture, or a folder of pictures.
        container: FFmpeg's name of the file format; Pillow's for a picture.
        codec: FFmpeg's name of the encoder.
        pixels: the encoder's pixel format.
        crf: the default constant rate factor, where the codec has one.
        preset: the default speed preset, where the codec has one.
        even: whether both sides must be even.
        options: what else the encoder is told.
        muxing: what else the container is told.
        sound: the encoder for sound, where the container holds any.
        copied: codecs of sound that the container takes as they are.
    """

    kind: Literal["video", "picture", "folder"]
    container: str
    codec: str = ""
    pixels: str = "rgb24"
    crf: int | None = None
    preset: str | None = None
    even: bool = False
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    muxing: Mapping[str, str] = field(default_factory=dict[str, str])
    sound: str | None = None
    copied: tuple[str, ...] = ()


def _h264(container: str) -> Format:
    # chromaloc says where the colour samples are taken: in the middle of their four pixels, as the conversion does it.
    # mbtree is off, as its AVX-512 code reads memory that was never written: small pictures got other bytes every time.
    options = {"threads": THREADS, "x264-params": "chromaloc=1:mbtree=0"}
    copied = ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus")
    muxing = {"movflags": "+faststart"} if container != "matroska" else {}
    return Format("video", container, "libx264", "yuv420p", 16, "medium", True, options, muxing, "aac", copied)


_VP9 = {"threads": THREADS, "b": "0", "deadline": "good", "cpu-used": "2", "row-mt": "0", "tile-columns": "0"}

FORMATS: Mapping[str, Format] = {
    ".mp4": _h264("mp4"),
    ".m4v": _h264("mp4"),
    ".mov": _h264("mov"),
    ".mkv": _h264("matroska"),
    ".webm": Format("video", "webm", "libvpx-vp9", "yuv420p", 24, None, False, _VP9, {}, "libopus", ("opus", "vorbis")),
    ".gif": Format("video", "gif", "gif", "pal8"),
    ".webp": Format("video", "webp", "libwebp", "bgra", options={"quality": "90"}, muxing={"loop": "0"}),
    ".apng": Format("video", "apng", "apng", "rgb24", options={"pred": "mixed"}, muxing={"plays": "0"}),
    ".png": Format("picture", "PNG"),
    ".jpg": Format("picture", "JPEG", options={"quality": "95", "subsampling": "0"}),
    ".jpeg": Format("picture", "JPEG", options={"quality": "95", "subsampling": "0"}),
    "": Format("folder", "PNG"),
}


def format_of(path: str | os.PathLike[str]) -> Format:
    """The format that a path names by its suffix. No suffix, or a folder that exists: a folder of PNG files.

    Raises:
        MediaError: if the suffix is unknown.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        return FORMATS[suffix]
    if path.is_dir():
        return FORMATS[""]
    known = ", ".join(name for name in FORMATS if name)
    raise MediaError(f"cannot tell the format of {path}: use one of {known}, or a name without suffix for a folder")
