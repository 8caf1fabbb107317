"""Sound stays with its pictures: on time, cut with them, copied where it can be."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from footage import moving
from segue.errors import MediaError
from segue.media import Audio, Clip, TensorFrames, Writer, read

RATE = 48000


@pytest.fixture(scope="module")
def ticking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of sound: silence, with a click of 10 ms at each whole second but 0."""
    samples = np.zeros(4 * RATE, np.float32)
    for second in (1, 2, 3):
        samples[second * RATE : second * RATE + RATE // 100] = 0.8 * np.sin(np.arange(RATE // 100) * 0.3)
    path = tmp_path_factory.mktemp("sound") / "clicks.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def clicks(path: Path) -> list[float]:
    """When clicks are heard, in seconds after the first picture."""
    with av.open(str(path)) as container:
        first = next(container.decode(video=0)).time or 0.0
    times: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()).max(0) > 0.3)
            times += [(frame.time or 0.0) + place / frame.sample_rate - first for place in loud]
    return [time for n, time in enumerate(times) if n == 0 or time - times[n - 1] > 0.1]


def with_sound(path: Path, start: Fraction = Fraction(0), count: int = 33) -> Clip:
    return Clip(TensorFrames(moving(count)), 12, Audio(path, start))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_sound_is_on_time(ticking: Path, tmp_path: Path, suffix: str) -> None:
    path = with_sound(ticking).save(tmp_path / f"x{suffix}")
    assert clicks(path) == pytest.approx([1, 2], abs=0.03)
    assert (len(read(path)), read(path).fps) == (33, 12)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_sound_is_cut_with_the_clip(ticking: Path, tmp_path: Path, suffix: str) -> None:
    whole = read(with_sound(ticking, count=48).save(tmp_path / f"whole{suffix}"))
    path = whole.cut(18, 42).save(tmp_path / f"x{suffix}")
    assert clicks(path) == pytest.approx([0.5, 1.5], abs=0.03)
    with av.open(str(path)) as container:
        assert container.duration is not None and container.duration / 1e6 == pytest.approx(2, abs=0.05)


def test_packets_are_copied_where_they_can_be(ticking: Path, tmp_path: Path) -> None:
    with av.open(str(ticking)) as container:
        original = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    with av.open(str(with_sound(ticking).save(tmp_path / "x.mp4"))) as container:
        copied = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    assert len(copied) > 100
    assert copied == original[: len(copied)]
    with av.open(str(with_sound(ticking).save(tmp_path / "x.webm"))) as container:
        assert container.streams.audio[0].codec_context.name in ("opus", "libopus")


def test_the_same_bytes_each_time(ticking: Path, tmp_path: Path) -> None:
    for suffix in (".mp4", ".webm"):
        first, second = (with_sound(ticking).save(tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
        assert first == second


def test_sound_stops_with_pictures_that_were_interrupted(ticking: Path, tmp_path: Path) -> None:
    clip = with_sound(ticking)
    writer = Writer(tmp_path / "x.mp4", clip.fps, clip.size, audio=clip.audio)
    writer.append(clip.frames[:18])
    writer.close()
    assert clicks(tmp_path / "x.mp4") == pytest.approx([1], abs=0.03)


def test_sound_that_is_not_there(tmp_path: Path) -> None:
    silent = Clip(TensorFrames(moving(3)), 12).save(tmp_path / "silent.mp4")
    (tmp_path / "text.mp3").write_text("not sound " * 100)
    for path, message in [
        (silent, "cannot read the sound of .*silent.mp4: there is none in it"),
        (tmp_path / "missing.mp3", "cannot read the sound of .*missing.mp3: no such file"),
        (tmp_path / "text.mp3", "cannot read the sound of .*text.mp3: it is damaged"),
    ]:
        with pytest.raises(MediaError, match=message):
            with_sound(path).save(tmp_path / "x.mp4")
    assert not (tmp_path / "x.mp4").exists()
    assert len(list(tmp_path.iterdir())) == 2
