"""Clips to learn from: windows of frames, played either way, mirrored, and with captions that stay true."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from segue.errors import TrainingError
from segue.evaluation.motion_words import MEANT, WORDINGS, asked
from segue.training.clip_corpus import Said
from segue.training.data import described_lines

GIVEN: Mapping[str, tuple[int, ...]] = {"none": (), "first": (0,), "two": (0, 1), "ends": (0, -1)}
"""Which frames of a window may be given as pictures: nothing, the first (as of a still that shall move), the first two
(so that a longer film goes on as it went), or both ends (which are filled in between)."""


@dataclass(frozen=True)
class ClipLine:
    """What is known of a clip.

    Args:
        captions: that are true of it.
        fps: frames per second.
        motion: "" where nobody said how things move.
        steps: from each frame to the next, how the thing goes: by how many pixels across and down, by how many degrees
            clockwise, and the logarithm of how many times larger it gets. None where that is not known.
    """

    captions: Said
    fps: float
    motion: str = ""
    steps: tuple[tuple[float, float, float, float], ...] | None = None

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> ClipLine:
        """From a line of a manifest, which may say more.

        Raises:
            ValueError: there is no caption.
        """
        motion = str(line.get("motion", ""))
        shown = dict(zip(("forward", "backward", "mirrored", "both"), ways_of(motion), strict=True))
        said = Said(**{way: decided(captions, shown[way]) for way, captions in line["captions"].items()})
        if not said.forward:
            raise ValueError("every clip needs captions")
        return cls(said, float(line["fps"]), motion, _steps(line))


def ways_of(motion: str) -> tuple[str, str, str, str]:
    """The movement of a clip, played backwards, mirrored, and both; "" for those that have no word."""
    if motion not in WORDINGS:
        return "", "", "", ""
    mirrored = WORDINGS[motion].mirrored
    return motion, WORDINGS[motion].undone, mirrored, WORDINGS[mirrored].undone


def decided(captions: Sequence[str], motion: str) -> tuple[str, ...]:
    """Captions of a clip without those that leave its way open and elsewhere mean another one.

    "A spinning top" is true of both ways, and what learns to foretell frames would learn the mean of both.

    Args:
        captions: true of the clip.
        motion: that is seen; "" if unknown.
    """
    meant = [caption for caption in captions if motion in MEANT or len(asked(caption)) < 2]
    return tuple(meant or captions) if motion else tuple(captions)


def _steps(line: Mapping[str, Any]) -> tuple[tuple[float, float, float, float], ...] | None:
    """What a line says of each step.

    Raises:
        ValueError: it says it of other numbers of steps, or nothing becomes larger by nothing.
    """
    if not all(line.get(key) for key in ("flow", "turn", "zoom")):
        return None
    told = zip(line["flow"], line["turn"], line["zoom"], strict=True)
    return tuple((float(x), float(y), float(turn), math.log(zoom)) for (x, y), turn, zoom in told)


@dataclass(frozen=True)
class Taken:
    """A window of a clip.

    Args:
        row: of which clip.
        frames: the numbers of its frames, in the order in which they are shown; descending when played backwards.
        caption: true of what is then seen.
        fps: of the window: that of the clip over the stride.
        flipped: left and right are exchanged.
        motion: of the clip as it is stored; "" if unknown.
    """

    row: int
    frames: NDArray[np.int64]
    caption: str
    fps: float
    flipped: bool
    motion: str


@dataclass(frozen=True)
class Augmentation:
    """Chance that is the same for all frames of a window.

    Args:
        crop: the least share of the sides that is kept; 1 keeps everything.
        colour: how far brightness, contrast and the balance of colours go, as shares; 0 leaves them.
    """

    crop: float = 1.0
    colour: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1 or not 0 <= self.colour < 1:
            raise TrainingError(f"expected a crop above 0, at most 1, and colour in [0, 1); got {self}")


@dataclass(frozen=True)
class Clips:
    """Clips of one size and length, read from the disk as they are asked for."""

    frames: NDArray[np.uint8]
    lines: tuple[ClipLine, ...]
    rows: NDArray[np.int64]

    @classmethod
    def load(cls, folder: Path, *, checked: bool = True) -> Clips:
        """The clips of a folder that `segue train clips` has made.

        Args:
            folder: holds frames.npy, manifest.jsonl and sources.json.
            checked: hold the frames against the hash that was taken when they were made, about 3 s a GB.

        Raises:
            TrainingError: there are none, or their files are damaged or not of one build.
        """
        if not (folder / "sources.json").exists():
            raise TrainingError(f"no clips in {folder}: make some first: segue train clips")
        try:
            return cls._read(folder, checked)
        except (OSError, ValueError, LookupError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise TrainingError(f"the clips in {folder} are damaged ({reason}); make them again") from error

    @classmethod
    def _read(cls, folder: Path, checked: bool) -> Clips:
        wanted = json.loads((folder / "sources.json").read_text("utf-8"))["frames_sha256"]
        if checked:
            with (folder / "frames.npy").open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
                    raise ValueError("frames.npy is not the file that sources.json tells of")
        frames = np.load(folder / "frames.npy", mmap_mode="r", allow_pickle=False)
        if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or not len(frames):
            raise ValueError(f"expected frames of uint8 (n, t, h, w, 3), got {frames.dtype} {frames.shape}")
        lines = tuple(ClipLine.read(line) for line in described_lines(folder / "manifest.jsonl"))
        if len(lines) != len(frames):
            raise ValueError(f"{len(frames)} clips, {len(lines)} lines in manifest.jsonl")
        return cls(frames, lines, np.arange(len(lines)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def length(self) -> int:
        """Frames of each clip."""
        return self.frames.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.frames.shape[3], self.frames.shape[2]

    def way(self, row: int, first: int, other: int) -> tuple[float, ...] | None:
        """How a clip's thing goes from one frame to another, as `segue.models.travel.Way` counts; None: unknown."""
        steps = self.lines[row].steps
        if steps is None:
            return None
        sign, half = (1 if other >= first else -1), min(self.size) / 2
        between = np.array(steps[min(first, other) : max(first, other)]).reshape(-1, 4)
        across, down, turn, growth = sign * between.sum(0)
        return float(across / half), float(down / half), math.radians(turn), float(growth)

    def split(self, every: int) -> tuple[Clips, Clips]:
        """(training, validation): every `every`-th clip goes to validation. Rows keep their numbers."""
        kept = np.arange(len(self)) % every == every - 1
        return replace(self, rows=self.rows[~kept]), replace(self, rows=self.rows[kept])

    def choose(
        self,
        rng: np.random.Generator,
        batch: int,
        frames: int,
        *,
        strides: Sequence[int] = (1, 2),
        reversed: float = 0.3,
        flipped: float = 0.0,
        said: float = 0.9,
    ) -> list[Taken]:
        """Windows of so many frames, each of a clip that is drawn.

        Args:
            rng: decides everything.
            batch: how many windows.
            frames: in each.
            strides: of which each window has one: every frame, every second ...; those that are too long are left out.
            reversed: the share that is played backwards, of clips of which somebody said what is seen then.
            flipped: the share that is mirrored, likewise.
            said: the share that has its caption; the others have "".

        Raises:
            TrainingError: the clips are too short.
        """
        fitting = [stride for stride in strides if stride >= 1 and (frames - 1) * stride < self.length]
        if not fitting or frames < 1 or not len(self):
            raise TrainingError(
                f"windows of {frames} frames at strides {tuple(strides)} need longer clips: there are {len(self)}, of "
                f"{self.length} frames; ask for fewer frames, or make longer clips"
            )
        return [self._taken(rng, frames, fitting, reversed, flipped, said) for _ in range(batch)]

    def pictures(self, taken: Sequence[Taken]) -> Float[Tensor, "b t 3 h w"]:
        """The frames of windows, in [0, 1]."""
        cut: list[NDArray[np.uint8]] = [self.frames[one.row, one.frames] for one in taken]
        cut = [frames[:, :, ::-1] if one.flipped else frames for one, frames in zip(taken, cut, strict=True)]
        return torch.from_numpy(np.stack(cut)).permute(0, 1, 4, 2, 3).float() / 255

    def _taken(
        self,
        rng: np.random.Generator,
        count: int,
        strides: Sequence[int],
        backward: float,
        mirrored: float,
        said: float,
    ) -> Taken:
        row = int(self.rows[rng.integers(len(self.rows))])
        stride = int(rng.choice(strides))
        start = int(rng.integers(self.length - (count - 1) * stride))
        line, chances = self.lines[row], rng.random(3)
        flip = bool(line.captions.mirrored) and bool(chances[0] < mirrored)
        options = line.captions.both if flip else line.captions.backward
        back = bool(options) and bool(chances[1] < backward)
        if not back:
            options = line.captions.mirrored if flip else line.captions.forward
        caption = str(options[rng.integers(len(options))]) if chances[2] < said else ""
        frames = np.arange(start, start + count * stride, stride)
        return Taken(row, frames[::-1].copy() if back else frames, caption, line.fps / stride, flip, line.motion)


def augmented(
    pictures: Float[Tensor, "b t 3 h w"], how: Augmentation, rng: np.random.Generator
) -> Float[Tensor, "b t 3 h w"]:
    """Windows cropped and in other colours, each otherwise, and all of its frames alike; in [0, 1]."""
    made = list[Tensor]()
    height, width = pictures.shape[-2:]
    for window in pictures:
        share = float(rng.uniform(how.crop, 1))
        sides = max(1, round(share * height)), max(1, round(share * width))
        y, x = (int(rng.integers(whole - side + 1)) for whole, side in zip((height, width), sides, strict=True))
        cut = window[..., y : y + sides[0], x : x + sides[1]]
        if sides != (height, width):
            cut = interpolate(cut, (height, width), mode="bicubic", antialias=True, align_corners=False)
        if how.colour:
            gain = torch.from_numpy(1 + how.colour * rng.uniform(-1, 1, (3, 1, 1)) / 2).float()
            contrast, light = 1 + how.colour * rng.uniform(-1, 1), how.colour * rng.uniform(-1, 1) / 2
            cut = ((cut - 0.5) * contrast + 0.5 + light) * gain
        made.append(cut.clamp(0, 1))
    return torch.stack(made)


def given_frames(rng: np.random.Generator, batch: int, frames: int, shares: Mapping[str, float]) -> Bool[Tensor, "b t"]:
    """Which frames of each window are given as pictures.

    Args:
        rng: decides which.
        batch: how many windows.
        frames: in each.
        shares: how often each kind of GIVEN is drawn, relative to the others.

    Raises:
        TrainingError: there is no such kind, or no share above 0, or a window with less than two frames.
    """
    if not shares or not set(shares) <= set(GIVEN) or min(shares.values()) < 0 or not sum(shares.values()):
        raise TrainingError(f"expected shares of {', '.join(GIVEN)}, not all 0; got {dict(shares)}")
    if frames < 2 and any(share for kind, share in shares.items() if len(GIVEN[kind]) > 1):
        raise TrainingError(f"two given frames need windows of two or more, got {frames}")
    kinds, weights = list(shares), np.array(list(shares.values()), np.float64)
    mask = torch.zeros(batch, frames, dtype=torch.bool)
    for row, kind in enumerate(rng.choice(len(kinds), batch, p=weights / weights.sum())):
        mask[row, list(GIVEN[kinds[kind]])] = True
    return mask
