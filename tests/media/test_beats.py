"""Beats are where clicks were put, whatever the tempo; what has no beat is refused."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from footage import moving
from segue.errors import MediaError
from segue.media import Audio, Clip, TensorFrames, read
from segue.media.beats import Beats, find_beats, find_onsets

RATE = 44100
NEAR = 0.01
"""Seconds: beats are found to 12 ms, so that they are half of it off; a frame of video at 30 per second is 33."""


def saved(samples: np.ndarray, path: Path, codec: str = "pcm_s16le") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        assert isinstance(stream, av.AudioStream)
        pcm = (samples[None] * 32767).astype(np.int16)
        form = "s16" if codec.startswith("pcm") else "fltp"
        data = pcm if form == "s16" else samples[None].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(data, format=form, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def clicking(times: np.ndarray, seconds: float, loud: float = 0.8) -> np.ndarray:
    samples = np.zeros(round(seconds * RATE))
    count = np.arange(round(0.05 * RATE))
    click = loud * np.sin(count * (2 * np.pi * 1000 / RATE)) * np.exp(-count / 400)
    for time in times.tolist():
        first = round(time * RATE)
        samples[first : first + len(click)] += click[: len(samples) - first]
    return samples


def found(samples: np.ndarray, folder: Path) -> Beats:
    return find_beats(Audio(saved(samples, folder / "x.wav")))


@pytest.mark.parametrize("offset", [0.0, 0.31])
@pytest.mark.parametrize("tempo", [90, 120, 137])
def test_beats_are_where_the_clicks_are(tempo: int, offset: float, tmp_path: Path) -> None:
    times = np.arange(offset, 14.9, 60 / tempo)
    beats = found(clicking(times, 15), tmp_path)
    assert len(beats.times) == len(times)
    assert np.abs(np.array(beats.times) - times).max() < NEAR
    assert beats.tempo == pytest.approx(tempo, rel=0.005)
    assert len(beats.strength) == len(times)
    assert max(beats.strength) == 1 and min(beats.strength) > 0.3
    onsets = find_onsets(Audio(tmp_path / "x.wav"))
    assert len(onsets) == len(times)
    assert np.abs(np.array(onsets) - times).max() < NEAR


def test_onsets_need_no_rhythm(tmp_path: Path) -> None:
    times = np.array([0.3, 0.5, 1.4, 1.5, 3.2, 3.9])
    path = saved(clicking(times, 5), tmp_path / "x.wav")
    assert find_onsets(Audio(path)) == pytest.approx(times.tolist(), abs=NEAR)
    assert find_onsets(Audio(path, Fraction(1))) == pytest.approx((times[2:] - 1).tolist(), abs=NEAR)
    for silence in (np.zeros(RATE), np.random.default_rng(0).uniform(-6e-5, 6e-5, RATE)):
        with pytest.raises(MediaError, match=r"nothing can be heard in .*x\.wav: it is silent"):
            find_onsets(Audio(saved(silence, path)))


def test_the_tempo_may_change(tmp_path: Path) -> None:
    slow, fast = np.arange(0.2, 12, 60 / 96), 12 + np.arange(0.2, 11.9, 60 / 132)
    times = np.concatenate([slow, fast])
    beats = found(clicking(times, 24), tmp_path)
    # One beat more or less where it changes is a matter of opinion.
    assert abs(len(beats.times) - len(times)) <= 1
    apart = np.abs(np.array(beats.times)[None] - times[:, None]).min(1)
    assert (apart > NEAR).sum() <= 1


def test_beats_go_on_through_rests_and_noise(tmp_path: Path) -> None:
    times = np.arange(0.2, 19.9, 0.5)
    played = times[(np.arange(len(times)) % 8) != 5]
    noise = np.random.default_rng(0).normal(0, 0.02, 20 * RATE)
    beats = found((clicking(played, 20) + noise).clip(-1, 1), tmp_path)
    assert len(beats.times) == len(times)
    assert np.abs(np.array(beats.times) - times).max() < 2 * NEAR


def test_a_beat_is_found_among_other_sounds(tmp_path: Path) -> None:
    times = np.arange(0.25, 19, 60 / 110)
    off = (times + 0.75 * 60 / 110)[1::4]
    melody = sum(
        0.1 * np.sin(2 * np.pi * pitch * np.arange(20 * RATE) / RATE) * (np.arange(20 * RATE) // 20000 % 3 == part)
        for part, pitch in enumerate((220, 277, 330))
    )
    beats = found((clicking(times, 20, 0.6) + clicking(off, 20, 0.4) + melody).clip(-1, 1), tmp_path)
    apart = np.abs(np.array(beats.times)[None] - times[:, None]).min(1)
    assert beats.tempo == pytest.approx(110, rel=0.01)
    assert (apart < NEAR).mean() > 0.95


def test_times_count_from_the_start_of_the_clip(tmp_path: Path) -> None:
    path = saved(clicking(np.arange(0.2, 11.9, 0.5), 12), tmp_path / "x.wav")
    whole, later = find_beats(Audio(path)), find_beats(Audio(path, Fraction(3)))
    assert later.times == pytest.approx([time - 3 for time in whole.times if time >= 3])
    assert all(a < b for a, b in pairwise(later.times))
    assert len(later.strength) == len(later.times)


def test_the_sound_of_a_video_and_of_compressed_files(tmp_path: Path) -> None:
    times = np.arange(0.4, 9.9, 0.5)
    sound = saved(clicking(times, 10), tmp_path / "x.m4a", "aac")
    film = Clip(TensorFrames(moving(60)), 6, Audio(sound)).save(tmp_path / "x.mp4")
    for path in (sound, film):
        beats = find_beats(Audio(path))
        assert np.abs(np.array(beats.times) - times).max() < NEAR


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_the_beats_of_a_file_are_those_of_the_film_that_it_is_put_under(suffix: str, tmp_path: Path) -> None:
    # The first sound of an MP3 is not at its time 0, and a film keeps it so.
    sound = saved(clicking(np.arange(0.4, 9.9, 0.5), 10), tmp_path / "x.mp3", "libmp3lame")
    film = read(Clip(TensorFrames(moving(60)), 6, Audio(sound)).save(tmp_path / f"x{suffix}"))
    assert film.audio is not None
    assert find_beats(film.audio).times == pytest.approx(find_beats(Audio(sound)).times, abs=NEAR)


def test_long_sounds_are_heard_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(clicking(np.arange(0.1, 39.9, 0.45), 40), tmp_path / "x.wav")
    whole = find_beats(Audio(path))
    monkeypatch.setattr("segue.media.beats.BLOCK", 10_000)
    assert find_beats(Audio(path)) == whole


def test_the_same_file_has_the_same_beats(tmp_path: Path) -> None:
    path = saved(clicking(np.arange(0.1, 7.9, 0.45), 8), tmp_path / "x.wav")
    assert find_beats(Audio(path)) == find_beats(Audio(path))


def test_what_has_no_beat_is_refused(tmp_path: Path) -> None:
    seconds = np.arange(12 * RATE) / RATE
    for samples in (
        np.zeros(5 * RATE),
        np.random.default_rng(0).uniform(-6e-5, 6e-5, 12 * RATE),
        np.zeros(10),
        clicking(np.array([2.0]), 5),
        0.4 * np.sin(2 * np.pi * 220 * seconds),
        np.random.default_rng(0).normal(0, 0.1, 12 * RATE).clip(-1, 1),
    ):
        with pytest.raises(MediaError, match=r"no beat can be heard in .*x\.wav"):
            found(samples, tmp_path)


def test_files_without_sound(tmp_path: Path) -> None:
    silent = Clip(TensorFrames(moving(3)), 12).save(tmp_path / "silent.mp4")
    (tmp_path / "text.mp3").write_text("not sound " * 100)
    for path, message in [
        (silent, r"cannot read the sound of .*silent\.mp4: there is none in it"),
        (tmp_path / "missing.mp3", r"cannot read the sound of .*missing\.mp3: no such file"),
        (tmp_path / "text.mp3", r"cannot read the sound of .*text\.mp3: it is damaged"),
    ]:
        with pytest.raises(MediaError, match=message):
            find_beats(Audio(path))
