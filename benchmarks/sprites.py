"""Clips of one sprite that moves before a ground: how it moves is known, and said in the caption.

    shot = some(64, "filmed", seed=1)       what is seen, clip by clip
    pictures(shot)                          (64, 8, 3, 64, 64), in [0, 1]
    shot.captions()                         "red ring left slow", ...
    errors(pictures(shot), shot.velocities())       pixels per frame; what is measured on them again

There are two kinds. "filmed" stands for footage: sprites are striped and shaded, they do not go quite straight or
evenly, and light falls off over the ground. "drawn" stands for what a program draws: all of that is plain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

SIDE, FRAMES = 64, 8
SHAPES = ("disc", "square", "diamond", "ring", "cross")
COLOURS = {
    "red": (0.85, 0.12, 0.12),
    "orange": (0.95, 0.55, 0.1),
    "green": (0.15, 0.65, 0.2),
    "cyan": (0.1, 0.7, 0.8),
    "blue": (0.15, 0.25, 0.85),
    "pink": (0.9, 0.25, 0.65),
}
WAYS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
"""Clockwise, each an eighth of a turn further."""
SPEEDS = {"slow": 1.4, "fast": 2.8}
"""Pixels per frame."""
WORDS = (*SHAPES, *COLOURS, *(way.replace(" ", "-") for way in WAYS), *SPEEDS)
MIRRORS = ("across", "upright", "backwards")
Kind = Literal["filmed", "drawn"]
FAINT, SEEN = 0.25, 12.0
"""Below this saturation a pixel is ground; with less than so many pixels, there is no sprite."""


@dataclass(frozen=True)
class Shots:
    """What is seen in n clips: numbers of shape, colour, way and speed, and all that words do not say.

    Args:
        shape, colour, way, speed: numbers of SHAPES, COLOURS, WAYS and SPEEDS.
        radius: in pixels.
        start: x and y of the middle in the middle of the clip, in pixels from that of the picture.
        look: phase and angle of the stripes, angle and depth of the shade on the ground; in [0, 1].
        sway: pixels to the side, and how much of the way the speed changes by; 0 where things go straight and evenly.
        plain: whether there are neither stripes nor shades.
    """

    shape: Tensor
    colour: Tensor
    way: Tensor
    speed: Tensor
    radius: Float[Tensor, " n"]
    start: Float[Tensor, "n 2"]
    look: Float[Tensor, "n 4"]
    sway: Float[Tensor, "n 2"]
    plain: bool

    def __len__(self) -> int:
        return len(self.shape)

    def captions(self) -> list[str]:
        """Colour, shape, way and speed; each is one word."""
        colours, speeds = list(COLOURS), list(SPEEDS)
        each = zip(self.colour.tolist(), self.shape.tolist(), self.way.tolist(), self.speed.tolist(), strict=True)
        return [f"{colours[c]} {SHAPES[s]} {WAYS[w].replace(' ', '-')} {speeds[v]}" for c, s, w, v in each]

    def velocities(self) -> Float[Tensor, "n 2"]:
        """x and y in pixels per frame, as the caption says it."""
        turn = self.way * (2 * math.pi / len(WAYS))
        speeds = torch.tensor(list(SPEEDS.values()))[self.speed]
        return speeds[:, None] * torch.stack([turn.cos(), turn.sin()], 1)

    def first(self, count: int) -> Shots:
        """The first clips of these."""
        parts = {part.name: getattr(self, part.name)[:count] for part in fields(self) if part.name != "plain"}
        return replace(self, **parts)

    def other_way(self, way: Tensor) -> Shots:
        """The same, with another word for where it goes, as for a clip that was mirrored, or runs backwards."""
        return replace(self, way=way % len(WAYS))


def some(count: int, kind: Kind, seed: int) -> Shots:
    """Clips that differ in everything; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(most: int) -> Tensor:
        return torch.randint(most, (count,), generator=generator)

    def even(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    shape, colour, way, speed = drawn(len(SHAPES)), drawn(len(COLOURS)), drawn(len(WAYS)), drawn(len(SPEEDS))
    radius, start, look, sway = 9 + 4 * even(), 14 * even(2) - 7, even(4), even(2) - 0.5
    made = Shots(shape, colour, way, speed, radius, start, look, sway, plain=kind == "drawn")
    return replace(made, sway=sway * torch.tensor([4.0, 0.3])) if kind == "filmed" else replace(made, sway=0 * sway)


def pictures(shots: Shots) -> Float[Tensor, "n t 3 h w"]:
    """The frames, in [0, 1]."""
    return torch.cat([_pictures(shots, row) for row in range(len(shots))])


def _pictures(shots: Shots, row: int) -> Float[Tensor, "1 t 3 h w"]:
    x, y = _places(shots, row)
    radius, look = float(shots.radius[row]), shots.look[row]
    alpha = (0.5 - _distance(SHAPES[int(shots.shape[row])], x, y, radius)).clamp(0, 1)[:, None]
    colour = torch.tensor(list(COLOURS.values()))[shots.colour[row]].reshape(1, 3, 1, 1)
    across = (torch.arange(SIDE) + 0.5) / SIDE - 0.5
    light = torch.full((1, 1, SIDE, SIDE), 0.95)
    if not shots.plain:
        turn, tilt = float(look[1]) * math.pi, float(look[2]) * 2 * math.pi
        stripes = torch.sin(0.55 * (x * math.cos(turn) + y * math.sin(turn)) + 2 * math.pi * float(look[0]))
        shade = 0.8 + 0.2 * (-(x + y) / (2 * radius)).clamp(-1, 1)
        colour = colour * (shade * (0.82 + 0.18 * stripes))[:, None]
        fall = (math.cos(tilt) * across[None] + math.sin(tilt) * across[:, None]) * (0.1 + 0.2 * float(look[3]))
        light = 0.85 + fall.reshape(1, 1, SIDE, SIDE)
    return ((1 - alpha) * light + alpha * colour).clamp(0, 1)[None]


def _places(shots: Shots, row: int) -> tuple[Float[Tensor, "t h w"], Float[Tensor, "t h w"]]:
    """Where each pixel is, seen from the sprite's middle, in every frame."""
    time = torch.arange(FRAMES) - (FRAMES - 1) / 2
    velocity, (aside, change) = shots.velocities()[row], shots.sway[row]
    # Faster, then slower, by as much: the way as a whole is what the caption says; and once to the side and back.
    beat = torch.sin(math.pi * time / (FRAMES - 1) * 2)
    beside = torch.stack([-velocity[1], velocity[0]]) / velocity.norm()
    middle = (SIDE - 1) / 2 + shots.start[row] + (time + change * beat)[:, None] * velocity
    middle = middle + (aside * torch.cos(math.pi * time / (FRAMES - 1)))[:, None] * beside
    pixel = torch.arange(SIDE, dtype=torch.float32)
    x = (pixel[None, None] - middle[:, 0, None, None]).expand(FRAMES, SIDE, SIDE)
    y = (pixel[None, :, None] - middle[:, 1, None, None]).expand(FRAMES, SIDE, SIDE)
    return x, y


def _distance(shape: str, x: Tensor, y: Tensor, radius: float) -> Tensor:
    """In pixels, from the edge of a shape of about so large a radius; below 0 inside."""
    if shape == "disc":
        return (x.square() + y.square()).sqrt() - radius
    if shape == "ring":
        return ((x.square() + y.square()).sqrt() - 0.75 * radius).abs() - 0.3 * radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.85 * radius
    if shape == "diamond":
        return (x.abs() + y.abs() - 1.2 * radius) / math.sqrt(2)
    bars = [torch.maximum(one.abs() - radius, two.abs() - 0.35 * radius) for one, two in ((x, y), (y, x))]
    return torch.minimum(*bars)


def seen_velocities(clips: Float[Tensor, "n t 3 h w"]) -> Float[Tensor, "n 2"]:
    """x and y in pixels per frame, of what has a colour: the line through where its middle is in every frame.

    What is gone in some frames is measured in the others; what is seen in less than two stands still.
    """
    weight = (clips.amax(2) - clips.amin(2) - FAINT).clamp(min=0)
    mass = weight.sum((-1, -2))
    pixel = torch.arange(clips.shape[-1], dtype=torch.float32)
    sums = torch.stack([(weight.sum(-2) * pixel).sum(-1), (weight.sum(-1) * pixel).sum(-1)], -1)
    middle = sums / mass.clamp(min=1e-6)[..., None]
    there = (mass > SEEN * FAINT).float()[..., None]
    time = torch.arange(clips.shape[1], dtype=torch.float32)[None, :, None]
    count = there.sum(1, keepdim=True).clamp(min=1)
    apart = (time - (time * there).sum(1, keepdim=True) / count) * there
    return (apart * middle).sum(1) / apart.square().sum(1).clamp(min=1e-6)


def errors(clips: Float[Tensor, "n t 3 h w"], wanted: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """How far from its caption each clip moves, in pixels per frame."""
    return (seen_velocities(clips) - wanted).norm(dim=1)


def mirrored(clips: Tensor, shots: Shots, how: Sequence[str]) -> tuple[Tensor, Shots]:
    """Clips of which all frames are mirrored alike, or run backwards, with captions that are true of them.

    Args:
        clips: (n, t, ...), the last two axes being height and width.
        shots: what they show.
        how: some of MIRRORS.
    """
    turns = len(WAYS)
    if "across" in how:
        clips, shots = clips.flip(-1), shots.other_way(turns // 2 - shots.way)
    if "upright" in how:
        clips, shots = clips.flip(-2), shots.other_way(-shots.way)
    if "backwards" in how:
        clips, shots = clips.flip(1), shots.other_way(shots.way + turns // 2)
    return clips, shots
