"""Sound that goes with a clip. It stays in its file until the clip is written, and is copied where that can be."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from segue.errors import MediaError

if TYPE_CHECKING:
    from av import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

    from segue.media.formats import Format


Item = TypeVar("Item")


@dataclass(frozen=True)
class Audio:
    """The sound of a file, from a time on.

    Args:
        path: a video or sound file.
        start: where in the file the clip's first frame lies, in seconds.
    """

    path: Path
    start: Fraction = Fraction(0)

    def later(self, seconds: Fraction) -> Audio:
        """The same sound for a clip that begins later."""
        return replace(self, start=self.start + seconds)


class Soundtrack:
    """The sound of a file on its way into another one, at the pace of the pictures.

    Packets are copied if the container takes their codec, else decoded and encoded again. The cut is exact to one
    packet (about 20 ms): what begins before the first picture is left out, what comes later keeps its time.

    Args:
        audio: whose first sound stream is used.
        container: open for writing, before its first packet.
        form: says what the container holds.

    Raises:
        MediaError: if there is no sound, or it is damaged.
    """

    def __init__(self, audio: Audio, container: OutputContainer, form: Format) -> None:
        from av.codec.context import Flags

        self.audio = audio
        self._container = container
        with self._reading():
            source, stream = self._open()
        self._copied = stream.codec_context.name in form.copied
        # MP4 and MOV play only from zero on what begins before it, as the lead-in that AAC needs; others would shift.
        self._lead = form.container in ("mp4", "mov") and self._copied
        self._out: AudioStream
        if self._copied:
            self._out = container.add_stream_from_template(stream)
        else:
            rate = 48000 if form.sound == "libopus" else stream.codec_context.sample_rate
            encoder: Any = form.sound
            layout = stream.codec_context.layout
            # A WAV file often says only how many channels it has, which no encoder takes for a layout.
            usual = {1: "mono", 2: "stereo"}.get(layout.nb_channels, layout.name)
            self._out = container.add_stream(encoder, rate=rate, layout=usual)
            self._out.codec_context.flags |= Flags.bitexact
        self._packets = self._copy(source, stream) if self._copied else self._encode(source, stream)
        self._held: Packet[Any] | None = None

    def _open(self) -> tuple[InputContainer, AudioStream]:
        import av

        source = av.open(f"file:{self.audio.path.absolute()}")
        if not source.streams.audio:
            raise MediaError(f"cannot read the sound of {self.audio.path}: there is none in it")
        return source, source.streams.audio[0]

    @contextmanager
    def _reading(self) -> Generator[None]:
        import av

        from segue.media.disk import disk_errors

        try:
            with disk_errors(self.audio.path, "read the sound of"):
                yield
        except av.FFmpegError as error:
            raise MediaError(f"cannot read the sound of {self.audio.path}: it is damaged; try another copy") from error

    def mux(self, until: Fraction) -> None:
        """Write what begins before this time, in seconds of the clip."""
        while True:
            packet = self._held or next(self._packets, None)
            self._held = packet
            if packet is None or packet.pts is None or packet.pts * (packet.time_base or 1) >= until:
                return
            self._held = None
            self._container.mux(packet)

    def _copy(self, source: InputContainer, stream: AudioStream) -> Iterator[Packet[Any]]:
        packets = source.demux(stream)
        while (packet := self._next(packets)) is not None:
            if packet.pts is None or not self._shift(packet, stream.time_base):
                continue
            packet.stream = self._out
            yield packet

    def _encode(self, source: InputContainer, stream: AudioStream) -> Iterator[Packet[Any]]:
        frames = source.decode(stream)
        while (frame := self._next(frames)) is not None:
            if self._shift(frame, frame.time_base):
                yield from self._out.encode(frame)
        yield from self._out.encode(None)

    def _next(self, items: Iterator[Item]) -> Item | None:
        with self._reading():
            return next(items, None)

    def _shift(self, item: Packet[Any] | AudioFrame, time_base: Fraction | None) -> bool:
        """Count from the clip's first picture. False for what begins before it."""
        tick = time_base or Fraction(1, 1000)
        item.pts = (item.pts or 0) - round(self.audio.start / tick)
        item.dts = item.pts
        return item.pts >= 0 or (self._lead and item.pts + (item.duration or 0) >= 0)
