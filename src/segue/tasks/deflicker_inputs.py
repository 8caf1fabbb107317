"""What a film is made to agree by: the film itself, its guide, and how these fit each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from segue.errors import TaskError
from segue.tasks.deflicker import SMALLEST, Deflicker, reduced
from segue.types import Frames

if TYPE_CHECKING:
    from segue.media.clip import Clip
    from segue.media.timing import Timing

PROPORTIONS = 0.01
"""How far, as a share of a side, a guide may be from the film's proportions: cameras and encoders round."""


LOOKED_AT = 9
"""Frames of a guide that are looked at, about, for whether anything moves."""
STILL = 3 / 255
"""How far squares of 4x4 pixels differ, at most, of frames in which nothing moves: encoders are not exact."""
_NUMBER = re.compile(r"\d+", re.ASCII)


@dataclass(frozen=True)
class KeyFrames:
    """Pictures that frames are made of.

    Args:
        pictures: in the size of the film.
        places: the frame that each is of, rising.
    """

    pictures: Frames
    places: tuple[int, ...]

    def span(self, frames: int) -> int:
        """The most frames between two keys, or between one and an end of a film of so many frames."""
        ends = (0, *self.places, frames)
        return max(after - before for before, after in pairwise(ends))

    def check_shots(self, shots: Sequence[int], frames: int) -> None:
        """Find out whether every shot has a key.

        Args:
            shots: the frames that begin one.
            frames: of the film.

        Raises:
            TaskError: one has none.
        """
        for first, stop in pairwise([*shots, frames]):
            if not any(first <= place < stop for place in self.places):
                raise TaskError(
                    f"the shot of the frames {first} to {stop - 1} has no key picture: add one, or say where shots "
                    "begin (--cuts)"
                )


@dataclass(frozen=True)
class Inputs:
    """What a film is made to agree by.

    Args:
        film: whose frames are to agree.
        guide: shows the same frame by frame, in the size of the film; None if it is the film itself.
        keys: what frames are made of; None if of each other.
        notes: what is good to know about them, a line each; the record of the result has the same.
    """

    film: Clip
    guide: Clip | None
    keys: KeyFrames | None
    notes: tuple[str, ...]

    @staticmethod
    def of(task: Deflicker) -> Inputs:
        """Opened, and found to fit each other and the task.

        Raises:
            TaskError: they do not.
            MediaError: one of them cannot be read.
        """
        film = task.source()
        if len(film) < 2:
            raise TaskError(
                f"{task.path} has one frame, which nothing flickers in: expected a video, an animation or a folder "
                "of 2 frames or more"
            )
        if min(film.size) < SMALLEST:
            raise TaskError(
                f"expected frames with sides of {SMALLEST} pixels or more, and {task.path} has "
                f"{film.size[0]}x{film.size[1]}; enlarge it first"
            )
        _check_coarse(task, film.size)
        task.shots(len(film))
        notes = [_sampled(task.path, film)]
        if task.window is not None and task.window > len(film) - 1:
            notes.append(f"the film has {len(film)} frames: a window of {task.window} is all of them")
        guide = keys = None
        if task.guide is not None:
            guide, said = _guide(Path(task.guide).expanduser(), task.path, film)
            notes += said
        if task.keys is not None:
            keys, said = _keys(Path(task.keys).expanduser(), task.path, film)
            notes += said
        return Inputs(film, guide, keys, tuple(note for note in notes if note))


def _check_coarse(task: Deflicker, size: tuple[int, int]) -> None:
    small = reduced(size, task.coarse or 1)
    if task.matching == "flow" and min(small) < SMALLEST:
        raise TaskError(
            f"flow needs frames with sides of {SMALLEST} pixels or more, and with coarse {task.coarse} those of "
            f"{task.path}, {size[0]}x{size[1]}, are {small[0]}x{small[1]}: take a smaller coarse, or leave it out"
        )


def _guide(path: Path, film_path: Path, film: Clip) -> tuple[Clip, list[str]]:
    """The guide in the size of the film, and what is to be said about it."""
    from segue.media.reader import read

    guide = read(path)
    if len(guide) != len(film):
        raise TaskError(
            f"a guide shows the same frame by frame: {film_path} has {len(film)} frames, and {path} has {len(guide)}; "
            "cut them to the same frames, at the same rate"
        )
    fitted, said = _fitted(guide.frames, path, film_path, film)
    notes = [_sampled(path, guide), *said]
    if guide.fps != film.fps:
        notes.append(
            f"{path} plays at {float(guide.fps):.5g} frames a second and the film at {float(film.fps):.5g}: "
            "frames are taken one for one"
        )
    if _stands_still(fitted):
        notes.append(
            f"nothing moves in {path}: the film is made to agree as if nothing moved there either; is this its guide?"
        )
    return replace(guide, frames=fitted), notes


def _stands_still(frames: Frames) -> bool:
    """Whether some frames, from the first to the last, all show the same."""
    from torch.nn.functional import avg_pool2d

    from segue.motion.steady import evenly

    seen = (avg_pool2d(frames[n : n + 1], 4, ceil_mode=True) for n in evenly(len(frames), LOOKED_AT))
    first = next(seen)
    return all(float((picture - first).abs().max()) <= STILL for picture in seen)


def _keys(path: Path, film_path: Path, film: Clip) -> tuple[KeyFrames, list[str]]:
    """The key pictures in the size of the film, and what is to be said about them."""
    from segue.media.pictures import FolderFrames

    if not path.is_dir():
        raise TaskError(f"keys is a folder of pictures that are named by the number of a frame, and {path} is none")
    pictures = FolderFrames(path, "white")
    places: dict[int, Path] = {}
    for file in pictures.files:
        found = _NUMBER.findall(file.stem)
        if len(found) != 1:
            raise TaskError(
                "a key picture is named by the number of its frame, and has no other number in its name, such as "
                f"48.png or frame_0048.png; {file} has {' and '.join(found) or 'none'}"
            )
        place = int(found[0])
        if place in places:
            raise TaskError(f"frame {place} has two key pictures, {places[place].name} and {file.name}; keep one")
        if place >= len(film):
            raise TaskError(f"{file} is for frame {place}, and {film_path} has the frames 0 to {len(film) - 1}")
        places[place] = file
    pictures.files.sort(key={file: place for place, file in places.items()}.__getitem__)
    fitted, said = _fitted(pictures, path, film_path, film)
    return KeyFrames(fitted, tuple(sorted(places))), said


def _fitted(frames: Frames, path: Path, film_path: Path, film: Clip) -> tuple[Frames, list[str]]:
    """Frames in the size of the film, and what is to be said about that.

    Raises:
        TaskError: they have other proportions.
    """
    from segue.media.resize import fit

    here, there = "{}x{}".format(*film.size), "{}x{}".format(*frames.size)
    across, down = (mine / theirs for mine, theirs in zip(film.size, frames.size, strict=True))
    if abs(across / down - 1) > PROPORTIONS and abs(frames.size[1] * across - film.size[1]) > 1:
        raise TaskError(
            f"expected the proportions of the film: {film_path} has {here} pixels, and {path} has {there}; "
            "cut one of them to the other's"
        )
    said = [] if frames.size == film.size else [f"{path} has {there} pixels: it is resized to the film's {here}"]
    return fit(frames, film.size, "stretch"), said


def _sampled(path: Path, clip: Clip) -> str:
    timing: Timing | None = getattr(clip.frames, "timing", None)
    if timing is None or timing.constant:
        return ""
    return f"{path} has no constant rate: it is sampled {float(clip.fps):.5g} times a second, {len(clip)} frames"
