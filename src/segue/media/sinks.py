"""What becomes of frames, by kind of file: a video, one picture, a folder of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import av
import numpy as np
from av.codec.context import Flags
from av.filter import Graph
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from segue.errors import MediaError
from segue.media.audio import Audio, Soundtrack
from segue.media.formats import Format

if TYPE_CHECKING:
    from jaxtyping import UInt8


# What the picture of a padded file is; the reader cuts it back.
TRUE_SIZE = "segue: the picture is {width}x{height}, at the top left"
# Under which name the first file of a folder keeps the rate.
RATE = "fps"

BT709 = 1
LIMITED = 1
SWSCALE = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
"""No short cuts: without these, swscale rounds by up to 3 levels and takes the colour of the nearest sample."""


class Sink(Protocol):
    """What becomes of the frames of one file."""

    def append(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Take one frame."""
        ...

    def finish(self) -> None:
        """Everything has come: complete what lies under the temporary name."""
        ...

    def abort(self) -> None:
        """Let go of what is open. After `finish`, nothing."""
        ...


class PictureSink:
    """One picture, by Pillow."""

    def __init__(self, part: Path, form: Format, name: str) -> None:
        self.part, self.form, self.name = part, form, name
        self._written = False

    def append(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Write it."""
        if self._written:
            raise MediaError(
                f"{self.name} holds one picture, and the clip has more frames: choose a video such as .mp4, "
                "or a name without suffix for a folder of PNG files"
            )
        options = {name: int(value) for name, value in self.form.options.items()}
        Image.fromarray(frame).save(self.part, format=self.form.container, **options)
        self._written = True

    def finish(self) -> None:
        """It is written."""

    def abort(self) -> None:
        """Nothing is open."""


class FolderSink:
    """A folder of 00000.png, 00001.png, …; the first one says the rate."""

    def __init__(self, part: Path, fps: Fraction) -> None:
        self.part, self.fps = part, fps
        self._count = 0
        part.mkdir()

    def append(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Write one file."""
        info = PngInfo()
        if not self._count:
            info.add_text(RATE, str(self.fps))
        Image.fromarray(frame).save(self.part / f"{self._count:05d}.png", pnginfo=info)
        self._count += 1

    def finish(self) -> None:
        """All files are written; of one that was interrupted, the rest is removed."""
        (self.part / f"{self._count:05d}.png").unlink(missing_ok=True)

    def abort(self) -> None:
        """Nothing is open."""


class VideoSink:
    """One file of many frames, by FFmpeg, with the same bytes each time."""

    def __init__(
        self,
        part: Path,
        form: Format,
        fps: Fraction,
        size: tuple[int, int],
        audio: Audio | None,
        *,
        options: Mapping[str, str],
    ) -> None:
        self.form = form
        self.pad = tuple(side % 2 if form.even else 0 for side in size)
        self._count = 0
        self._time_base = 1 / fps
        muxing = {"fflags": "+bitexact", **form.muxing}
        # "file:" keeps a colon in a name from being read as a protocol.
        self._container = av.open(f"file:{part.absolute()}", "w", format=form.container, container_options=muxing)
        try:
            self._stream = self._open_stream(fps, size, options)
            self._sound = Soundtrack(audio, self._container, form) if audio is not None and form.sound else None
            self._palette = _palette(size, self._time_base) if form.pixels == "pal8" else None
        except BaseException:
            self.abort()
            raise

    def _open_stream(self, fps: Fraction, size: tuple[int, int], options: Mapping[str, str]) -> av.VideoStream:
        if any(self.pad):
            self._container.metadata["comment"] = TRUE_SIZE.format(width=size[0], height=size[1])
        stream = self._container.add_stream(self.form.codec, rate=fps, options=dict(options))
        assert isinstance(stream, av.VideoStream)
        context = stream.codec_context
        context.width, context.height = size[0] + self.pad[0], size[1] + self.pad[1]
        context.pix_fmt = self.form.pixels
        context.time_base = self._time_base
        context.flags |= Flags.bitexact
        if self.form.pixels == "yuv420p":
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED
        return stream

    def append(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Encode one frame."""
        if any(self.pad):
            frame = np.pad(frame, ((0, self.pad[1]), (0, self.pad[0]), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts, picture.time_base = self._count, self._time_base
        self._container.mux(self._stream.encode(self._converted(picture)))
        self._count += 1
        if self._sound is not None:
            self._sound.mux(until=self._count * self._time_base)

    def _converted(self, picture: av.VideoFrame) -> av.VideoFrame:
        if self._palette is not None:
            self._palette.vpush(picture)
            return self._palette.vpull()
        if self.form.pixels != "yuv420p":
            return picture.reformat(format=self.form.pixels)
        return picture.reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=SWSCALE,
            threads=1,
        )

    def finish(self) -> None:
        """Flush the encoder and complete the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def abort(self) -> None:
        """Close the file, whatever it lacks."""
        with suppress(Exception):
            self._container.close()


def _palette(size: tuple[int, int], time_base: Fraction) -> Graph:
    """256 colours chosen for each frame. The fixed pattern of Bayer dithering moves least from frame to frame."""
    graph = Graph()
    source = graph.add_buffer(width=size[0], height=size[1], format=av.VideoFormat("rgb24"), time_base=time_base)
    split, sink = graph.add("split"), graph.add("buffersink")
    choose = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=5")
    source.link_to(split)
    split.link_to(choose, 0, 0)
    split.link_to(use, 1, 0)
    choose.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
