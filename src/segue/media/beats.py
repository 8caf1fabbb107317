"""Beats and onsets of a sound: when a listener would tap a foot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from segue.errors import MediaError
from segue.media.audio import Audio

if TYPE_CHECKING:
    from av import AudioFrame
    from jaxtyping import Float32, Float64, Int64

RATE = 22050
WINDOW, HOP = 1024, 256
FRAMES = RATE / HOP
"""Frames of the onset strength per second: one in 12 ms."""
BANDS = 40
LOUDNESS = 1000.0
"""Compression of magnitudes, log(1 + LOUDNESS * magnitude): sounds below a thousandth of full scale count little."""
BLOCK = 1 << 18
"""Samples that are heard at once, so that an hour of music takes no more memory than 12 seconds."""
LEAD = 4
"""Frames of silence before the first sample, so that a sound at the very beginning is heard to begin."""
DELAY = 0.25 * WINDOW / RATE - LEAD / FRAMES
"""The time of frame 0 in seconds: a sound is noticed a quarter of a window before it is in the middle of one."""

SLOWEST, FASTEST = 40.0, 240.0
"""Tempos that are considered, in beats per minute."""
USUAL, OCTAVES = 120.0, 0.8
"""The usual tempo, and the width in octaves of the bell around it (Ellis 2007, section 3.2)."""
TEMPOS = 96
HEARD = 8.0
"""Seconds of sound that the tempo at one time is judged by."""
TIGHTNESS = 100.0
"""How much an uneven beat costs against a strong onset."""
SILENT = 1e-3
"""Onset strength that varies by less than this is none."""
HEARD_SHARE = 0.4
"""Something sounds on almost every beat of music (0.95 and more were measured); by chance, as in noise, on a third."""


@dataclass(frozen=True)
class Beats:
    """The beats of a sound.

    Args:
        times: in seconds after `Audio.start`, increasing, not before it.
        tempo: beats per minute; the median, if it changes.
        strength: of each beat, from 0 (nothing sounds there) to 1 (the strongest).
    """

    times: tuple[float, ...]
    tempo: float
    strength: tuple[float, ...]


def find_beats(audio: Audio) -> Beats:
    """Beats by dynamic programming over the onset strength, at a tempo that may change.

    After D. Ellis, "Beat Tracking by Dynamic Programming" (2007): onset strength is the spectral flux of 40 mel
    bands; the best chain of beats maximises the strength at the beats less TIGHTNESS * log(interval / period)^2. We
    deviate in the period: it is followed through the sound by the best path through local autocorrelations, where
    Ellis takes one for all. The result depends on nothing but the file.

    Args:
        audio: a sound file, or a video with sound; all of it is heard.

    Raises:
        MediaError: if the file cannot be read, has no sound, or nothing in it sounds like a beat.
    """
    begin, strength = _heard(audio)
    frames = _chain(strength, _periods(strength)) if strength.any() else np.zeros(0, np.int64)
    times = _seconds(frames, begin, audio)
    if len(times) < 2:
        raise MediaError(f"no beat can be heard in {audio.path}: it is silent or has no rhythm; try another sound")
    strengths = strength[frames[-len(times) :]]
    return Beats(tuple(times), _tempo(np.array(times)), tuple((strengths / strengths.max()).tolist()))


def find_onsets(audio: Audio) -> tuple[float, ...]:
    """Where something begins to sound, in rhythm or not: the peaks of the onset strength.

    Args:
        audio: a sound file, or a video with sound; all of it is heard.

    Returns:
        Seconds after `audio.start`, increasing, not before it.

    Raises:
        MediaError: if the file cannot be read, has no sound, or is silent.
    """
    begin, strength = _heard(audio)
    times = _seconds(_peaks(strength), begin, audio)
    if not times:
        raise MediaError(f"nothing can be heard in {audio.path}: it is silent; try another sound")
    return tuple(times)


def _heard(audio: Audio) -> tuple[float, Float64[np.ndarray, " t"]]:
    """When the sound begins in its file, and its onset strength."""
    blocks = _sound(audio)
    first = next(blocks, None)
    begin = 0.0 if first is None or first.time is None else first.time
    return begin, _onset_strength(block.to_ndarray()[0] for block in chain([first] if first else [], blocks))


def _seconds(frames: Int64[np.ndarray, " n"], begin: float, audio: Audio) -> list[float]:
    """When frames of the onset strength are, after `audio.start`; those before it are left out."""
    times = (frames / FRAMES + begin + DELAY - float(audio.start)).tolist()
    # What begins with the first sample may be found a moment before it.
    return [max(time, 0.0) for time in times if time > -1 / FRAMES]


def _tempo(times: Float64[np.ndarray, " n"]) -> float:
    """Beats per minute, over several beats at a time: one interval is only known to a frame."""
    span = min(8, len(times) - 1)
    return 60 * span / float(np.median(times[span:] - times[:-span]))


def _sound(audio: Audio) -> Iterator[AudioFrame]:
    """The sound as one channel at RATE, in blocks."""
    import av

    from segue.media.disk import disk_errors

    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE, frame_size=BLOCK)
    try:
        with disk_errors(audio.path, "read the sound of"), av.open(f"file:{audio.path.absolute()}") as container:
            if not container.streams.audio:
                raise MediaError(f"cannot read the sound of {audio.path}: there is none in it")
            for frame in container.decode(container.streams.audio[0]):
                yield from resampler.resample(frame)
            yield from resampler.resample(None)
    except av.FFmpegError as error:
        raise MediaError(f"cannot read the sound of {audio.path}: it is damaged; try another copy") from error


def _onset_strength(blocks: Iterable[Float32[np.ndarray, " n"]]) -> Float64[np.ndarray, " t"]:
    """How much louder each frame is than the one before, over all bands, less what is so all the time.

    Its standard deviation is 1; it is zero throughout if the sound is silent.
    """
    hann, bands = np.hanning(WINDOW + 1)[:-1].astype(np.float32), _mel_bands()
    held, before = np.zeros(WINDOW // 2 + LEAD * HOP, np.float32), np.zeros((1, BANDS))
    parts: list[np.ndarray] = []
    for block in chain(blocks, [np.zeros(WINDOW, np.float32)]):
        held = np.concatenate([held, block])
        if len(held) < WINDOW:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(held, WINDOW)[::HOP]
        level = np.log1p(LOUDNESS * np.abs(np.fft.rfft(windows * hann)) / (WINDOW / 4) @ bands)
        parts.append(np.maximum(np.diff(level, axis=0, prepend=before), 0).mean(1))
        held, before = held[len(windows) * HOP :], level[-1:]
    flux = np.concatenate(parts)
    around = round(FRAMES / 2)
    mean = np.convolve(np.pad(flux, around, mode="edge"), np.full(2 * around + 1, 1 / (2 * around + 1)), mode="valid")
    flux = np.maximum(flux - mean, 0)
    return flux / flux.std() if flux.std() > SILENT else np.zeros(len(flux))


def _mel_bands() -> Float64[np.ndarray, "bins bands"]:
    """Triangles of equal weight, evenly spaced in mel (2595 log10(1 + f / 700)) up to 8 kHz."""
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle)).clip(0)
    return triangles / triangles.sum(0).clip(1e-9)


def _periods(strength: Float64[np.ndarray, " t"]) -> Float64[np.ndarray, " t"]:
    """The period of the beat around each frame, in frames.

    Every half second the onset strength around it is compared with itself, shifted; the best path through these takes
    tempos that fit, that are usual, and that change seldom.
    """
    tempos = SLOWEST * (FASTEST / SLOWEST) ** np.linspace(0, 1, TEMPOS)
    lags = 60 * FRAMES / tempos
    half = round(HEARD * FRAMES / 2)
    step = round(FRAMES / 2)
    centres = np.arange(0, len(strength), step)
    padded = np.pad(strength, half)
    window = np.hanning(2 * half)
    whole = np.arange(round(lags.max()) + 2)
    fits = np.empty((len(centres), TEMPOS))
    for place, centre in enumerate(centres.tolist()):
        part = padded[centre : centre + 2 * half] * window
        power = np.abs(np.fft.rfft(part, 4 * half)) ** 2
        alike = np.fft.irfft(power)[whole] / max(float((part * part).sum()), 1e-9)
        fits[place] = np.interp(lags, whole, alike)
    likely = np.exp(-0.5 * (np.log2(tempos / USUAL) / OCTAVES) ** 2)
    apart = np.log2(tempos[:, None] / tempos[None]) ** 2
    path = _best_path(fits * likely, 10 * apart)
    return np.interp(np.arange(len(strength)), centres, lags[path])


def _best_path(gains: Float64[np.ndarray, "t n"], costs: Float64[np.ndarray, "n n"]) -> Int64[np.ndarray, " t"]:
    """The choice at each time with the greatest sum of gains less the costs of changes (Viterbi)."""
    score, back = gains[0], np.zeros(gains.shape, np.int64)
    for time in range(1, len(gains)):
        options = score[None] - costs
        back[time] = options.argmax(1)
        score = options.max(1) + gains[time]
    path = np.empty(len(gains), np.int64)
    path[-1] = score.argmax()
    for time in range(len(gains) - 1, 0, -1):
        path[time - 1] = back[time, path[time]]
    return path


def _chain(strength: Float64[np.ndarray, " t"], periods: Float64[np.ndarray, " t"]) -> Int64[np.ndarray, " n"]:
    """The frames of the best chain of beats (Ellis 2007, equation 5), without beats in silence at its ends.

    None if most of them are in silence.
    """
    width = float(np.median(periods)) / 32
    reach = np.arange(-round(4 * width), round(4 * width) + 1)
    local = np.convolve(strength, np.exp(-0.5 * (reach / width) ** 2), mode="same")
    score, back = local.copy(), np.full(len(local), -1)
    for frame in range(len(local)):
        period = periods[frame]
        first, last = frame - round(2 * period), frame - round(period / 2)
        if last < 0:
            continue
        before = np.arange(max(first, 0), last + 1)
        options = score[before] - TIGHTNESS * np.log((frame - before) / period) ** 2
        best = int(options.argmax())
        if options[best] > 0:
            score[frame], back[frame] = local[frame] + options[best], before[best]
    # The last beat is the best of the last period: those before it have had less time to gain.
    tail = len(score) - min(round(periods[-1]), len(score))
    frames = [tail + int(score[tail:].argmax())]
    while back[frames[-1]] >= 0:
        frames.append(int(back[frames[-1]]))
    chain = np.array(frames[::-1])
    heard = np.flatnonzero(local[chain] > 0.5 * np.sqrt((local[chain] ** 2).mean()))
    if not len(heard):
        return chain[:0]
    chain = chain[heard[0] : heard[-1] + 1]
    return chain if len(heard) >= HEARD_SHARE * len(chain) else chain[:0]


def _peaks(strength: Float64[np.ndarray, " t"]) -> Int64[np.ndarray, " n"]:
    """The frames where the strength is the greatest within 60 ms, and above its mean by a standard deviation."""
    reach = round(0.06 * FRAMES)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(strength, reach), 2 * reach + 1).max(1)
    return np.flatnonzero((strength == around) & (strength > strength.mean() + 1))
