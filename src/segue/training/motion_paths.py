"""How a thing goes through a clip: for each movement, an affine map of every frame.

What comes back to where it was begins there: a picture that is given, of a bell that hangs or a ball that lies, then
says what comes next, which it would not if it were any moment of a swing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.evaluation.motion_words import Motion
from segue.training.moving_words import Speed

Path = NDArray[np.floating[Any]]

GRID = 1 / 16
SIDES = (0.5, 0.5625, 0.625)
"""Of things that go somewhere, as shares of the picture: there must be room to go."""
TURNED_SIDES = (0.5625, 0.625, 0.6875)
"""Of things that turn where they are."""
STILL_SIDES = (0.5, 0.72, 0.9)
TRAVEL: dict[Speed, float] = {"slow": 0.45, "usual": 0.75, "fast": 1.0}
"""Of the room that there is, in sixteen frames."""
LEAP: dict[Speed, tuple[float, float]] = {"slow": (16, 0.42), "usual": (12, 0.34), "fast": (8, 0.24)}
"""Frames from floor to floor, and height as a share of the picture: high leaps take longer."""
SQUASH = 0.1
TURN: dict[Speed, float] = {"slow": 6.0, "usual": 12.0, "fast": 18.0}
"""Degrees per frame."""
GROWTH: dict[Speed, float] = {"slow": 1.35, "usual": 1.75, "fast": 2.3}
"""In sixteen frames."""
SWING: dict[Speed, tuple[float, float]] = {"slow": (16, 26), "usual": (12, 24), "fast": (10, 20)}
"""Frames of a period, and degrees either way."""
WOBBLE: dict[Speed, tuple[float, float]] = {"slow": (8, 12), "usual": (7, 14), "fast": (6, 15)}
FRAMES = 16
"""Over which travel and growth are told."""


@dataclass(frozen=True)
class Course:
    """Where a thing is in every frame.

    Args:
        centre: (t, 2), of the thing's middle, x then y, as shares of the picture from its middle.
        scale: (t, 2), its sides as shares of the picture.
        angle: (t,), degrees by which it is turned clockwise, as one sees it.
        pivot: x and y, as shares of the thing from its middle: what the turn goes around and squashing leaves.
    """

    centre: Path
    scale: Path
    angle: Path
    pivot: tuple[float, float] = (0.0, 0.0)

    def poses(self, sprite: int, size: int) -> Path:
        """(t, 2, 3): maps from places in a picture of `sprite` pixels to places on a screen of `size` pixels.

        Both x then y in pixels, counted from the middle of the first one, as of `segue.training.scene.Layer`.
        """
        turn = np.radians(self.angle)
        across = self.scale * size / sprite
        cos, sin = np.cos(turn), np.sin(turn)
        linear = np.stack(
            [
                np.stack([cos * across[:, 0], -sin * across[:, 1]], 1),
                np.stack([sin * across[:, 0], cos * across[:, 1]], 1),
            ],
            1,
        )
        middle = (sprite - 1) / 2
        pivot = np.array(self.pivot)
        held = middle + pivot * sprite  # in the thing's own picture
        # Where the pivot is on the screen does not depend on the turn.
        at = (size - 1) / 2 + (self.centre + pivot * self.scale.max(0)) * size
        shift = at - linear @ held
        return np.concatenate([linear, shift[:, :, None]], 2)


def course(motion: Motion, speed: Speed, frames: int, rng: np.random.Generator) -> Course:
    """A way of moving, of which the seed chooses side, place, phase and start."""
    time = np.arange(frames, dtype=np.float64)
    return _COURSES[motion.split(" ")[0]](motion, speed, time, rng)


def _even(side: float, frames: int) -> Path:
    return np.full((frames, 2), side)


def _on_grid(reach: float, rng: np.random.Generator) -> float:
    """A place that is off the middle by whole cells of latents, at most `reach`."""
    cells = max(0, math.floor(reach / GRID + 1e-9))
    return float(rng.integers(-cells, cells + 1)) * GRID


def _slide(motion: Motion, speed: Speed, time: Path, rng: np.random.Generator) -> Course:
    side = float(rng.choice(SIDES))
    room = 1 - side
    way = TRAVEL[speed] * room
    start = -room / 2 + float(rng.uniform(0, room - way))
    along = start + way * time / (FRAMES - 1)
    if motion in ("slide left", "slide up"):
        along = -along
    beside = np.full_like(time, _on_grid(min(0.125, room / 2), rng))
    upright = motion in ("slide up", "slide down")
    centre = np.stack([beside, along] if upright else [along, beside], 1)
    return Course(centre, _even(side, len(time)), np.zeros_like(time))


def _bounce(motion: Motion, speed: Speed, time: Path, rng: np.random.Generator) -> Course:
    """Parabolas above a floor, from the floor on; a little flatter where it touches down."""
    period, height = LEAP[speed]
    side = float(rng.choice(SIDES))
    height = min(height, 1 - side - 0.02)
    phase = time / period % 1
    up = 4 * phase * (1 - phase)
    pressed = SQUASH * np.clip(1 - up / 0.35, 0, 1)
    scale = side * np.stack([1 + 0.6 * pressed, 1 - pressed], 1)
    floor = (1 - side) / 2 - 0.02 - float(rng.uniform(0, 1 - side - 0.02 - height))
    # The pivot is the foot, so that what is pressed flat stays on the floor.
    centre = np.stack([np.full_like(time, _on_grid((1 - side) / 4, rng)), floor - height * up], 1)
    return Course(centre, scale, np.zeros_like(time), (0.0, 0.5))


def _spin(motion: Motion, speed: Speed, time: Path, rng: np.random.Generator) -> Course:
    side = float(rng.choice(TURNED_SIDES))
    start = float(rng.choice([0, 0, 0, 90, 180, 270]))
    way = 1 if motion == "spin clockwise" else -1
    return Course(_placed(side, time, rng), _even(side, len(time)), start + way * TURN[speed] * time)


def _scaled(motion: Motion, speed: Speed, time: Path, rng: np.random.Generator) -> Course:
    most = GROWTH[speed]
    large = float(rng.uniform(0.72, 0.9))
    share = time / (FRAMES - 1)
    sides = large * most ** (share - 1 if motion == "grow" else -share)
    return Course(_placed(0.85, time, rng), np.stack([sides, sides], 1), np.zeros_like(time))


def _swing(motion: Motion, speed: Speed, time: Path, rng: np.random.Generator) -> Course:
    period, degrees = SWING[speed]
    side = float(rng.choice(SIDES))
    angle = degrees * np.sin(2 * math.pi * time / period)
    return Course(_placed(0.85, time, rng), _even(side, len(time)), angle, (0.0, -0.5))


def _wobble(motion: Motion, speed: Speed, time: Path, rng: np.random.Generator) -> Course:
    period, degrees = WOBBLE[speed]
    side = float(rng.choice(TURNED_SIDES))
    angle = degrees * np.sin(2 * math.pi * time / period)
    return Course(_placed(0.85, time, rng), _even(side, len(time)), angle, (0.0, 0.5))


def _still(motion: Motion, speed: Speed, time: Path, rng: np.random.Generator) -> Course:
    side = float(rng.choice(STILL_SIDES))
    return Course(_placed(side, time, rng), _even(side, len(time)), np.zeros_like(time))


def _placed(side: float, time: Path, rng: np.random.Generator) -> Path:
    """One place for all frames, near enough to the middle for a thing of that side."""
    at = [_on_grid(min(0.125, (1 - side) / 2), rng) for _ in range(2)]
    return np.tile(np.array(at), (len(time), 1))


_COURSES: dict[str, Callable[[Motion, Speed, Path, np.random.Generator], Course]] = {
    "slide": _slide,
    "bounce": _bounce,
    "spin": _spin,
    "grow": _scaled,
    "shrink": _scaled,
    "swing": _swing,
    "wobble": _wobble,
    "still": _still,
}
