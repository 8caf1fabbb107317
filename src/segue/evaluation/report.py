"""A film in numbers, each with what it means: what `segue evaluate` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segue.errors import TaskError
from segue.evaluation.dimensions import Dimensions, dimensions
from segue.evaluation.distances import PixelDistance, best_distance
from segue.evaluation.features import Features
from segue.evaluation.likeness import Likeness, likeness_of
from segue.evaluation.measure import Measure
from segue.evaluation.motion_seen import MotionMatch, motion_match
from segue.evaluation.pixel_mse import PixelMse
from segue.evaluation.seam import Seam, check_borders
from segue.evaluation.seam import seams as seams_of
from segue.evaluation.sharpness import sharpness
from segue.evaluation.smoothness import Smoothness, smoothness
from segue.evaluation.wanted import Answers, Instruments, Wanted, usual_features
from segue.evaluation.warp_error import WarpError, warp_error
from segue.media.clip import Clip
from segue.media.disk import PathLike, as_path
from segue.media.reader import read
from segue.models import perceptual
from segue.types import Perceptual, Progress, silent

_FAR_PAIRS = 4  # One in so many pairs of frames that are no neighbours is warped: the flow takes most of the time.


@dataclass(frozen=True)
class Report:
    """What was found out about a film.

    Args:
        path: of it.
        size: (width, height) in pixels.
        fps: frames per second.
        smoothness: how it passes from frame to frame.
        pixel_mse: how much neighbouring frames differ along the flow, and how sharp they are.
        warp_error: how much what moves changes its look, over short and long times.
        dimensions: those of VBench that need no network of clips, and drift from its own start.
        answers: how it looks, how well it fits its prompt, and how far it is from other pictures, as far as asked.
        likeness: to its source, if one was given.
        before: to its source as well, of the film before it was worked on.
        seams: the lines in the picture that were asked for.
        motion: how what it shows moves, held against its caption, if one was given.
        notes: what is good to know about the numbers.
    """

    path: Path
    size: tuple[int, int]
    fps: float
    smoothness: Smoothness
    pixel_mse: PixelMse
    warp_error: WarpError
    dimensions: Dimensions
    answers: Answers
    likeness: Likeness | None = None
    before: Likeness | None = None
    seams: tuple[Seam, ...] = ()
    motion: MotionMatch | None = None
    notes: tuple[str, ...] = ()

    def measures(self) -> list[Measure]:
        """All numbers, each with its meaning."""
        found = [*steps_told(self.smoothness), *frames_told(self.smoothness), *places_told(self.smoothness)]
        found += [measure for seam in self.seams for measure in seam.measures()]
        found += [*self.warp_error.measures(), *self.pixel_mse.measures(), *self.dimensions.measures()]
        found += self.likeness.measures() if self.likeness else []
        found += self.before.measures_before() if self.before else []
        found += self.motion.measures() if self.motion else []
        return [*found, *self.answers.measures()]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        told = asdict(self)
        told["path"] = str(self.path)
        for name in ("likeness", "before"):
            if told[name] is not None:
                told[name]["source"] = str(told[name]["source"])
        if told["answers"]["against"] is not None:
            told["answers"]["against"]["other"] = str(told["answers"]["against"]["other"])
        if self.motion is not None:
            told["motion"] |= {"asked": sorted(self.motion.asked), "matches": self.motion.matches}
        return told


def evaluate(
    path: PathLike,
    source: PathLike | None = None,
    *,
    seams: Sequence[int] = (),
    columns: Sequence[int] = (),
    rows: Sequence[int] = (),
    distance: Perceptual | None = None,
    wanted: Wanted | None = None,
    progress: Progress = silent,
) -> Report:
    """Measure a film, read a few frames at a time.

    Args:
        path: what `segue.read` reads: a video, an animation, a folder of pictures.
        source: the film that it was made from, of the same size and number of frames.
        seams: numbers of frames where parts of it meet.
        columns: numbers of the first columns to the right of where parts of its pictures meet.
        rows: numbers of the first rows below such places.
        distance: between pictures; left out, the best whose weights are on this machine.
        wanted: what else is asked.
        progress: told of every window.

    Raises:
        MediaError: a file cannot be read.
        ModelError: a network that is asked for cannot be had.
        TaskError: it is too short or too small, the source does not match, there is no such seam, or a prompt cannot be
            scored.
    """
    clip, path, wanted = read(path), as_path(path), wanted or Wanted()
    if len(clip) < 2:
        raise TaskError(f"expected a film of 2 frames or more, and {path} has {len(clip)}; choose a video")
    check_borders(clip.size, columns, rows)
    instruments = Instruments.of(wanted)
    distance = distance or best_distance()
    notes: list[str] = [_NO_NETWORK] if isinstance(distance, PixelDistance) else []
    other = None if source is None else _source(clip, path, as_path(source), notes)
    earlier = _before(other, source, wanted.before, notes)
    originals = None if other is None else other.frames
    smooth = smoothness(clip.frames, distance, seams=seams, progress=progress)
    lines = seams_of(clip.frames, originals, columns=columns, rows=rows, progress=progress)
    warped = warp_error(clip.frames, originals, every=_FAR_PAIRS, progress=progress)
    pixels = PixelMse.of(warped, sharpness(clip.frames, originals, progress=progress))
    likeness = before = None
    if source is not None and originals is not None:
        likeness = likeness_of(clip.frames, originals, as_path(source), distance, progress=progress)
        if earlier is not None:
            before = likeness_of(
                earlier.frames, originals, as_path(source), distance, drifting=False, progress=progress
            )
    fps, networks = float(clip.fps), _networks(instruments)
    own = dimensions(clip.frames, fps, steps=smooth.steps, features=networks, progress=progress)
    moves = None if wanted.caption is None else motion_match(clip.frames, wanted.caption, progress=progress)
    answers = instruments.answers(clip.frames, originals, progress=progress)
    return Report(
        path, clip.size, fps, smooth, pixels, warped, own, answers, likeness, before, lines, moves, tuple(notes)
    )


def _networks(instruments: Instruments) -> list[Features]:
    """Those in which frames of a film are compared with each other: that of --clip-model, and what is here."""
    found = [] if instruments.features is None else [instruments.features]
    if not found and perceptual.is_here("efficientnet-lite0"):
        found.append(usual_features())
    return found


def _source(clip: Clip, path: Path, source: Path, notes: list[str]) -> Clip:
    """The film that another was made from, which fits it; what differs in time is noted."""
    other = read(source)
    _check_alike(clip, path, other, source)
    notes += _on_rates(clip, path, other, source)
    return other


def _before(source: Clip | None, named: PathLike | None, before: Path | None, notes: list[str]) -> Clip | None:
    """The film before it was worked on, which fits the source."""
    if before is None:
        return None
    if source is None or named is None:
        raise TaskError("--before is held against --source, the film as it should be: give it, too")
    return _source(source, as_path(named), before, notes)


def steps_told(found: Smoothness) -> list[Measure]:
    """The numbers that are made of steps."""
    at = found.largest_step_at
    return [
        Measure("path length", found.path_length, "lower", "sum of the steps between neighbouring frames (PPL)"),
        Measure("step variance", found.step_variance, "lower", "how much the steps differ (PDV)"),
        Measure("evenness", found.evenness, "near 1", "largest step over the mean step"),
        Measure("largest step", found.largest_step, "lower", f"where a jump is seen first: frame {at} to {at + 1}"),
        Measure("directness", found.directness, "higher", "1 is the straight way from the first frame to the last"),
    ]


def frames_told(found: Smoothness) -> list[Measure]:
    """The numbers of what single frames show."""
    worst = "" if found.worst_ghosting_at is None else f": frame {found.worst_ghosting_at}"
    return [
        Measure("ghosting", found.ghosting, "lower", "how far frames are double exposures, 0 to 1; footage has < 0.05"),
        Measure("worst ghosting", found.worst_ghosting, "lower", f"in the frame that has most{worst}"),
        Measure("mix", found.mix, "lower", "its first part: changes that are mixes of before and after"),
        Measure("sag", found.sag, "lower", "its second part: sharpness lost in them, 0.5 in a full cross-fade"),
        Measure("motion", found.motion, "neither", "mean optical flow, in widths of the picture per frame"),
        Measure("peak motion", found.peak_motion, "neither", "the fastest hundredth of the fastest step"),
        Measure("flicker", found.flicker, "lower", "noise from frame to frame, of a full range of 1; footage: < 0.01"),
        Measure("brightness flicker", found.brightness_flicker, "lower", "the same of the mean brightness of frames"),
    ]


def places_told(found: Smoothness) -> list[Measure]:
    """The numbers of where a film begins again, and of where its parts meet."""
    loop = Measure("loop ratio", found.loop_ratio, "lower", "step from last to first over the mean; unseen up to 1.5")
    seams = [
        Measure(f"seam at {frame}", ratio, "near 1", "the step there over those around it")
        for frame, ratio in found.seam_ratios.items()
    ]
    return [loop, *seams]


_NO_NETWORK = (
    "no perceptual network is here, so steps are differences of pixels, which do not see as people do; "
    "segue models --fetch lpips-alex downloads one (64 MB)"
)


def _check_alike(clip: Clip, path: Path, other: Clip, source: Path) -> None:
    for what, here, there in (
        ("pixels", "{}x{}".format(*clip.size), "{}x{}".format(*other.size)),
        ("frames", str(len(clip)), str(len(other))),
    ):
        if here != there:
            raise TaskError(
                f"a film and its source are compared pixel by pixel: {path} has {here} {what}, {source} has {there}; "
                f"bring both to one size, rate and length first"
            )


def _on_rates(clip: Clip, path: Path, other: Clip, source: Path) -> list[str]:
    if clip.fps == other.fps:
        return []
    here, there = (f"{path} plays at {float(fps):.5g}" for path, fps in ((path, clip.fps), (source, other.fps)))
    return [f"{here} frames a second and {there}: frames are compared one for one"]
