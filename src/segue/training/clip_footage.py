"""Clips out of footage: shots cut into windows, of which those that are worth it are kept; see `clip_folders`."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from segue.errors import MediaError, SegueError, TrainingError
from segue.media.clip import Excerpt
from segue.media.resize import fit_pictures
from segue.training.bounds import Count, Rate
from segue.training.clip_corpus import Said
from segue.training.clip_filters import Limits, quality
from segue.training.clip_folders import VIDEOS, Faults, Footage, footage
from segue.training.clip_stack import ClipStack
from segue.training.journal import watched
from segue.types import Frames

LEFT_RIGHT = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
LEFT_RIGHT["leftward"], LEFT_RIGHT["rightward"] = "rightward", "leftward"
REPORT = "report.jsonl.part"
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class FootageConfig:
    """How footage becomes clips.

    fps: that footage is read at; footage of fewer frames a second shows some of them twice, and is left out.
    windows: at most of each shot, one after the other, evenly spread.
    uncaptioned: "skip" leaves out what nobody said anything of; "keep" learns it without words.
    mirrored: whether clips may be seen in a mirror; left and right are exchanged in their captions.
    """

    size: Annotated[int, Field(ge=16)] = 128
    frames: Annotated[int, Field(ge=2)] = 16
    fps: Rate = 8.0
    windows: Count = 4
    uncaptioned: Literal["skip", "keep"] = "skip"
    mirrored: bool = True
    limits: Limits = field(default_factory=Limits)


@dataclass
class Report:
    """How many windows were kept, and how many videos and windows were not, by why."""

    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter[str])

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))
        return f"{self.kept} clips are kept; left out: {reasons or 'nothing'}"


def build_footage(out: Path, folder: Path, config: FootageConfig) -> Report:
    """Write clips of a folder's footage, and say what was left out; what a cut run has done is kept.

    Pictures are fitted into squares of `size`: the middle is kept, what stands out is cut off.

    Raises:
        TrainingError: there is no footage, or none of it may be learned from.
    """
    shape = (config.frames, config.size, config.size, 3)
    key = hashlib.sha256(json.dumps([_listing(folder), asdict(config)], sort_keys=True).encode()).hexdigest()
    faults = Faults()
    with ClipStack(out, shape, key) as stack, watched("videos", _count(folder)) as tell:
        done = _done(out / REPORT, stack)
        with (out / REPORT).open("a", encoding="utf-8") as log:
            for number, video in enumerate(footage(folder, faults)):
                tell(number)
                if video.name in done:
                    continue
                left_out, before = Counter[str](), stack.count
                for start, fps, frames in _windows(video, config, left_out):
                    stack.append(frames, json.dumps(_line(video, start, fps, config), ensure_ascii=False))
                done[video.name] = Report(stack.count - before, left_out)
                log.write(json.dumps([video.name, stack.count - before, left_out]) + "\n")
                log.flush()
        report = Report(stack.count, Counter(faults.counts))
        for one in done.values():
            report.left_out += one.left_out
        if not stack.count:
            raise TrainingError(f"{folder} has nothing to learn from: {report}; give other footage, or wider limits")
        names = {**faults.names, UNREADABLE: [name for name, one in done.items() if one.left_out[UNREADABLE]][:5]}
        said = {"footage": folder.name, "config": asdict(config), "kept": report.kept, "left_out": report.left_out}
        stack.close({**said, "unreadable": names})
    (out / REPORT).unlink()
    return report


def mirrored(caption: str) -> str:
    """What is said of it in a mirror."""
    words = "|".join(LEFT_RIGHT)
    return re.sub(rf"\b({words})\b", lambda found: LEFT_RIGHT[found[0].lower()], caption, flags=re.IGNORECASE)


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    """What clips follow from, besides the recipe: names, sizes and times of all files."""
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _count(folder: Path) -> int:
    """About how many videos there are: a shard counts as one."""
    return max(1, sum(Path(name).suffix.lower() in {*VIDEOS, ".tar"} for name, _, _ in _listing(folder)))


def _done(log: Path, stack: ClipStack) -> dict[str, Report]:
    """The videos that are done with; the clips of one that was being read are dropped."""
    done: dict[str, Report] = {}
    if stack.fresh:
        log.unlink(missing_ok=True)
    lines = log.read_text("utf-8").splitlines(keepends=True) if log.exists() else []
    for line in lines:
        if line.endswith("\n"):
            name, kept, left_out = json.loads(line)
            done[name] = Report(kept, Counter(left_out))
    log.write_text("".join(line for line in lines if line.endswith("\n")), "utf-8")
    stack.keep(sum(report.kept for report in done.values()))
    return done


def _line(video: Footage, start: int, fps: float, config: FootageConfig) -> dict[str, object]:
    captions = video.captions or ("",)
    said = Said(captions, (), tuple(map(mirrored, captions)) if config.mirrored else ())
    return {"source": video.name, "start": start, "fps": fps, "captions": asdict(said)}


def _windows(
    video: Footage, config: FootageConfig, left_out: Counter[str]
) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
    """(first frame, frames per second, pictures) of the windows of a video that are kept."""
    from segue.evaluation.footage import shots
    from segue.media import read

    if not video.captions and config.uncaptioned == "skip":
        left_out["without a caption"] += 1
        return
    try:
        native = read(video.path).fps
        clip = read(video.path, fps=config.fps)
        if native < config.fps:
            left_out["of too few frames a second"] += 1
        elif min(clip.frames.size) < config.size // 2:
            left_out["too small"] += 1
        elif max(clip.frames.size) > 4 * min(clip.frames.size):
            left_out["too narrow"] += 1
        else:
            for shot in shots(clip.frames):
                for numbers in spread(shot, config.frames, config.windows):
                    window = Excerpt(clip.frames, numbers)
                    if faults := quality(window, config.fps).faults(config.limits):
                        left_out.update(faults[:1])
                    else:
                        yield numbers.start, config.fps, _pictures(window, config.size)
                left_out["shots that are too short"] += len(shot) < config.frames
    except MediaError:
        left_out[UNREADABLE] += 1
    except SegueError as error:
        raise TrainingError(f"{video.name}: {error}") from error


def spread(shot: range, frames: int, most: int) -> list[range]:
    """At most so many windows of a shot that do not overlap, evenly spread over it."""
    room = len(shot) // frames
    count = min(room, most)
    if not count:
        return []
    gap = (len(shot) - count * frames) // count
    starts = [shot.start + gap // 2 + number * (frames + gap) for number in range(count)]
    return [range(start, start + frames) for start in starts]


def _pictures(frames: Frames, size: int) -> NDArray[np.uint8]:
    fitted = fit_pictures(frames[0 : len(frames)], (size, size), "crop")
    return (fitted.clamp(0, 1) * 255 + 0.5).byte().permute(0, 2, 3, 1).contiguous().numpy()
