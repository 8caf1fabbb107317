"""How a thing moves in a clip, in the words of captions, and whether it is what a caption asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from segue.evaluation.measure import Measure
from segue.evaluation.motion_words import Motion, asked
from segue.evaluation.windows import windows
from segue.motion.flow import flow, luma
from segue.motion.occlusion import followed
from segue.motion.warp import warp
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

AREA = 128 * 128
ROUNDS = 2
"""The flow is searched once more from where the first fit has brought the picture: fast turns are found then."""
LOST = 0.6
"""The share of the difference between two pictures that may be left when one is brought to the other, before the search
begins anew from a turn of GUESS degrees either way."""
GUESS = 16.0
REWEIGHTED = 6
EDGE = 0.02
"""Change of brightness per pixel from which on there is something to follow."""
LEAST = 0.3
"""Pixels below which what can be followed has not moved."""
RESTING = 0.02
"""What resting pixels count, beside those that move."""

STILL_PATH = 0.03
"""Widths of the picture that are gone in eight steps, below which a thing stands still."""
NET = 0.45
"""The share of its path by which what goes one way gets on; what goes to and fro does not."""
TURNING = 0.3
"""The share of all movement of a thing's rim from which on a turn is the movement, and not by the way."""
GROWING = 0.4
SWAY = 10.0
"""Degrees between the ends of a swing."""


@dataclass(frozen=True)
class Steps:
    """From each frame to the next, how what moves has moved as a whole: the similarity that fits its flow best.

    Args:
        shift: of its middle, x then y, in widths of the picture.
        turn: in degrees, clockwise as one sees it; of round things up to a sixth too little.
        growth: the logarithm of how many times larger it got.
        radius: the root mean square distance of what was followed from its middle, in widths.
        left: the share of its movement that no similarity explains, 0 to 1.
    """

    shift: Float[Tensor, "steps 2"]
    turn: Float[Tensor, " steps"]
    growth: Float[Tensor, " steps"]
    radius: Float[Tensor, " steps"]
    left: Float[Tensor, " steps"]


@dataclass(frozen=True)
class MotionMatch:
    """What was asked for, what is seen, and whether that is it.

    Args:
        asked: the movements that the caption may mean; none if it says nothing of movement.
        seen: the movement that the clip shows.
        shift: from the first frame to the last, x then y, in widths of the picture.
        turn: in degrees, clockwise.
        growth: how many times larger.
    """

    asked: frozenset[Motion]
    seen: Motion
    shift: tuple[float, float]
    turn: float
    growth: float

    @property
    def matches(self) -> bool:
        """Whether the clip does what the caption says; what says nothing is never wrong."""
        return not self.asked or self.seen in self.asked

    def measures(self) -> list[Measure]:
        """Whether it matches, and what is seen; no number where the caption says nothing of movement."""
        (x, y), wanted = self.shift, " or ".join(sorted(self.asked)) or "nothing of movement"
        seen = f"{self.seen} (by {x:.2f}, {y:.2f} widths, {self.turn:.0f} degrees, {self.growth:.2f} times as large)"
        value = float(self.matches) if self.asked else None
        return [Measure("motion match", value, "higher", f"1 if it is as the caption says: {wanted}; seen: {seen}")]


def motion_match(frames: Frames, caption: str, *, progress: Progress = silent) -> MotionMatch:
    """Hold the movement of a clip against the words of its caption.

    Raises:
        ValueError: a side of the pictures is shorter than 16 pixels, or there are less than two.
    """
    steps = steps_of(frames, progress=progress)
    x, y = steps.shift.sum(0).tolist()
    growth = math.exp(float(steps.growth.sum()))
    return MotionMatch(asked(caption), seen_motion(steps), (x, y), float(steps.turn.sum()), growth)


def steps_of(frames: Frames, *, progress: Progress = silent) -> Steps:
    """How what moves in a clip moves, step by step; read a few frames at a time.

    Raises:
        ValueError: a side of the pictures is shorter than 16 pixels, or there are less than two.
    """
    if len(frames) < 2:
        raise ValueError(f"movement needs two frames or more, got {len(frames)}")
    found: list[tuple[float, ...]] = []
    for start, pictures in windows(frames, AREA, shared=1):
        found += [_step(one[None], other[None]) for one, other in pairwise(pictures)]
        progress("following the thing", start + len(pictures), len(frames))
    rows = torch.tensor(found, dtype=torch.float64)
    return Steps(rows[:, :2], rows[:, 2], rows[:, 3], rows[:, 4], rows[:, 5])


def seen_motion(steps: Steps) -> Motion:
    """The word for what is seen: by which kind of movement has most of the path, and whether it goes to and fro."""
    radius = steps.radius
    going = steps.shift.square().sum(1).sqrt()
    turning = radius * torch.deg2rad(steps.turn.abs())
    growing = radius * steps.growth.abs()
    path, turned, grown = (float(part.sum()) for part in (going, turning, growing))
    if max(path, turned, grown) < STILL_PATH * len(steps.turn) / 8:
        return "still"
    if turned > TURNING * (path + turned + grown):
        return _turning(steps)
    if grown > GROWING * (path + turned + grown):
        return "grow" if float(steps.growth.sum()) > 0 else "shrink"
    x, y = steps.shift.sum(0).tolist()
    across, down = steps.shift.abs().sum(0).tolist()
    if max(abs(x), abs(y)) < NET * max(across, down):
        # Nothing else goes to and fro sideways, and what hangs or stands leans as it does.
        return "bounce" if down > across else _turning(steps)
    if abs(x) > abs(y):
        return "slide right" if x > 0 else "slide left"
    return "slide down" if y > 0 else "slide up"


def _turning(steps: Steps) -> Motion:
    """One way round, or to and fro about what is above or below."""
    net, whole = float(steps.turn.sum()), float(steps.turn.abs().sum())
    if abs(net) > NET * whole and abs(net) > 2 * SWAY:
        return "spin clockwise" if net > 0 else "spin counterclockwise"
    # Hung from above, a thing that turns clockwise goes to the left; standing on something, to the right.
    leaning = float((steps.turn * steps.shift[:, 0]).sum())
    return "swing" if leaning < 0 else "wobble"


def _step(a: Float[Tensor, "1 3 h w"], b: Float[Tensor, "1 3 h w"]) -> tuple[float, ...]:
    """(shift x, shift y, degrees, log of growth, radius, share left) from one picture to the next."""
    height, width = a.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    best = _followed(a, b, torch.zeros(4, dtype=torch.float64), (0.0, 0.0), x, y)
    if best.off > LOST * float((b - a).abs().mean()):
        for degrees in (-GUESS, GUESS):
            angle = math.radians(degrees)
            start = torch.tensor([math.cos(angle) - 1, math.sin(angle), 0, 0], dtype=torch.float64)
            best = min(best, _followed(a, b, start, best.middle, x, y), key=lambda one: one.off)
    growth, turn, u, v = best.fit.tolist()
    scale = math.hypot(1 + growth, turn)
    return (
        u / width,
        v / width,
        math.degrees(math.atan2(turn, 1 + growth)),
        math.log(scale),
        best.radius / width,
        best.left,
    )


@dataclass(frozen=True)
class _Fit:
    """A similarity about a middle, (growth, turn, shift x, shift y), and how far the pictures are off then."""

    fit: Float[Tensor, " parts"]
    middle: tuple[float, float]
    radius: float
    left: float
    off: float = math.inf


def _followed(
    a: Tensor, b: Tensor, start: Float[Tensor, " parts"], middle: tuple[float, float], x: Tensor, y: Tensor
) -> _Fit:
    """What the flow says, searched from a similarity."""
    found, moved = _Fit(start, middle, 0.0, 1.0), _field(start, middle, x, y).float()[None]
    for _ in range(ROUNDS):
        brought = warp(b, moved)
        there, back = flow(a, brought), flow(brought, a)
        # What was found in the picture that was brought back lies further on by what brought it.
        whole = there + moved
        found = _fitted(whole, _weight(a, whole, followed(there, back)), x, y)
        moved = _field(found.fit, found.middle, x, y).float()[None]
    return replace(found, off=float((warp(b, moved) - a).abs().mean()))


def _weight(a: Tensor, there: Tensor, known: Tensor) -> Float[Tensor, "h w"]:
    """What can be followed counts by how clearly; what rests hardly, if anything moves."""
    light = luma(a)[0]
    across, down = (torch.diff(light, dim=dim, append=light.narrow(dim, -1, 1)) for dim in (1, 0))
    clear = (across.square() + down.square()).sqrt()
    clear = torch.where(clear > EDGE, clear.clamp(max=0.2), clear.new_zeros(()))
    resting = there[0].square().sum(0).sqrt() < LEAST
    return (clear * known[0] * torch.where(resting, RESTING, 1.0)).double()


def _fitted(there: Tensor, weight: Tensor, x: Tensor, y: Tensor) -> _Fit:
    """The similarity about the weighted middle that most of the flow follows.

    Least squares, reweighted by 1 / (1 + (error / scale)^2) with the median error for scale, so that a part that goes
    otherwise, or flow that means nothing, does not decide.
    """
    u, v = there[0].double()
    fit, kept = torch.zeros(4, dtype=torch.float64), weight
    middle, radius, left = (0.0, 0.0), 0.0, 1.0
    if not bool((weight > 0).any()):
        return _Fit(fit, middle, radius, left)
    for _ in range(REWEIGHTED):
        total = kept.sum()
        middle = float((kept * x).sum() / total), float((kept * y).sum() / total)
        dx, dy = x - middle[0], y - middle[1]
        spread = (kept * (dx * dx + dy * dy)).sum()
        growth = (kept * (dx * u + dy * v)).sum() / spread.clamp(min=1e-9)
        turn = (kept * (dx * v - dy * u)).sum() / spread.clamp(min=1e-9)
        fit = torch.stack([growth, turn, (kept * u).sum() / total, (kept * v).sum() / total])
        radius = float((spread / total).sqrt())
        along = _field(fit, middle, x, y)
        error = ((u - along[0]).square() + (v - along[1]).square()).sqrt()
        scale = error[weight > 0].median().clamp(min=0.1)
        kept = weight / (1 + (error / scale).square())
        length = (weight * (u * u + v * v)).sum()
        left = float(((weight * error.square()).sum() / length.clamp(min=1e-9)).clamp(max=1).sqrt())
    return _Fit(fit, middle, radius, left)


def _field(fit: Tensor, middle: tuple[float, float], x: Tensor, y: Tensor) -> Float[Tensor, "2 h w"]:
    growth, turn, u, v = fit
    dx, dy = x - middle[0], y - middle[1]
    return torch.stack([growth * dx - turn * dy + u, turn * dx + growth * dy + v])
