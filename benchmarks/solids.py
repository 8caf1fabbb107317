"""Raw renderings: grey solids that turn before a camera, with the exact depth and the exact movement of every pixel.

    scene = Turning(SOLIDS["snowman"], (128, 128), 12)
    scene.frames[0:12]        shaded grey, as a program for modelling shows them
    scene.depths[0:12]        near is white, as control networks are shown depth; one range for the whole scene
    scene.back(3, 2)          where the pixels of frame 3 lie in frame 2, and which of them it shows

Solids are given by their distance functions, and found by going along each ray as far as nothing can be in the way
(sphere tracing; Hart 1996, doi:10.1007/s003710050084).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from segue.media.clip import TensorFrames
from segue.motion.match import Match

Array = NDArray[np.float64]
Distance = Callable[[Array], Array]
FAR, STEPS, TOUCHING = 5.0, 90, 1e-3
AWAY = 3.6
"""Of the camera from the middle of a solid, which is about 1 large to each side."""
ROUND = 1.3
"""No part of a solid is farther from its middle."""
LENS = 2.6
"""Focal length, in halves of the picture's shorter side."""
LIGHT = np.array([-0.45, 0.75, 0.6]) / math.sqrt(0.45**2 + 0.75**2 + 0.6**2)
GROUND, SHADE = 0.93, (0.25, 0.8)
LIKE = 0.03
"""How far apart two depths of one place may be."""


@dataclass(frozen=True)
class Solid:
    """A thing.

    Args:
        words: what it is the raw rendering of.
        distance: from places (n, 3), x to the right, y up, z towards the camera, to its surface; below 0 inside.
        tilt: degrees by which its top leans towards the camera.
    """

    words: str
    distance: Distance
    tilt: float = 12.0


@dataclass(frozen=True)
class Turning:
    """A solid that turns to and fro before a camera that rises and sinks.

    Args:
        solid: what.
        size: (width, height) in pixels.
        count: how many frames.
        reach: degrees to which it is turned to each side, and a quarter of which the camera rises.
        period: frames until it is where it was.
    """

    solid: Solid
    size: tuple[int, int]
    count: int
    reach: float = 28.0
    period: float = 24.0

    @cached_property
    def frames(self) -> TensorFrames:
        """Its pictures, lit from the upper left."""
        return TensorFrames.rounded(torch.stack([self._shaded(number) for number in range(self.count)]))

    @cached_property
    def depths(self) -> TensorFrames:
        """How near everything is, from 0, the ground, to 1."""
        near = np.stack([np.where(hit, (AWAY + ROUND - depth) / (2 * ROUND), 0) for hit, _, depth in self._all])
        return TensorFrames.rounded(torch.from_numpy(near).clamp(0, 1).float()[:, None].repeat(1, 3, 1, 1))

    def covers(self, number: int) -> Bool[torch.Tensor, "h w"]:
        """The pixels that show the solid."""
        return torch.from_numpy(self._all[number][0])

    def back(self, here: int, there: int) -> Match:
        """From the pixels of one frame to where the same is in another; what that does not show is not believed."""
        hit, own, _ = self._all[here]
        width, height = self.size
        columns, rows = np.meshgrid(np.arange(width), np.arange(height))
        across, down, depth = self._projected(own @ self._turned(there).T)
        x, y = across.round().astype(int).clip(0, width - 1), down.round().astype(int).clip(0, height - 1)
        covered, _, depths = self._all[there]
        inside = (across >= 0) & (across <= width - 1) & (down >= 0) & (down <= height - 1)
        shown = inside & covered[y, x] & (np.abs(depths[y, x] - depth) < LIKE)
        known = torch.from_numpy(np.where(hit, shown, ~covered)).float()[None]
        way = np.where(hit, np.stack([across - columns, down - rows]), 0)
        return Match(torch.from_numpy(way).float()[None], torch.zeros_like(known), known, False)

    @cached_property
    def _all(self) -> list[tuple[NDArray[np.bool_], Array, Array]]:
        """Of every frame: which pixels show the solid, the places of it that they show, and how far away these are."""
        return [self._met(number, 1) for number in range(self.count)]

    def _turned(self, number: int) -> Float[Array, "3 3"]:
        """How the solid stands in a frame."""
        phase = 2 * math.pi * number / self.period
        around = math.radians(self.reach * math.sin(phase))
        over = math.radians(self.solid.tilt + self.reach / 4 * math.cos(phase))
        (c, s), (d, e) = (math.cos(around), math.sin(around)), (math.cos(over), math.sin(over))
        return np.array([[1, 0, 0], [0, d, -e], [0, e, d]]) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])

    def _projected(self, places: Float[Array, "*n 3"]) -> tuple[Array, Array, Array]:
        """Columns, rows, and how far away."""
        width, height = self.size
        depth = AWAY - places[..., 2]
        scale = LENS * min(width, height) / 2 / depth
        return (width - 1) / 2 + scale * places[..., 0], (height - 1) / 2 - scale * places[..., 1], depth

    def _met(self, number: int, samples: int) -> tuple[NDArray[np.bool_], Array, Array]:
        """Where rays through as many samples along each side of a pixel meet the solid."""
        width, height = self.size
        x, y = ((np.arange(side * samples) + 0.5) / samples - side / 2 for side in (width, height))
        focal, turned = LENS * min(width, height) / 2, self._turned(number)
        across, down = np.meshgrid(x / focal, -y / focal)
        rays = np.stack([across, down, -np.ones_like(across)], -1).reshape(-1, 3)
        lengths = np.linalg.norm(rays, axis=1, keepdims=True)
        rays, eye = (rays / lengths) @ turned, np.array([0, 0, AWAY]) @ turned
        reached, gap = np.full(len(rays), AWAY - ROUND * 1.1), np.full(len(rays), np.inf)
        for _ in range(STEPS):
            going = np.flatnonzero((gap > TOUCHING) & (reached < FAR))
            if not len(going):
                break
            gap[going] = self.solid.distance(eye + reached[going, None] * rays[going])
            reached[going] += np.where(gap[going] > TOUCHING, gap[going], 0)
        hit = (gap <= TOUCHING).reshape(across.shape)
        places = np.where(hit[..., None], (eye + reached[:, None] * rays).reshape(*hit.shape, 3), 0)
        return hit, places, (reached / lengths[:, 0]).reshape(hit.shape)

    def _shaded(self, number: int) -> Float[torch.Tensor, "3 h w"]:
        hit, places, _ = self._met(number, 2)
        grey = np.full(hit.shape, GROUND)
        step, solid = 2e-3, self.solid.distance
        inside = places[hit]
        slopes = [solid(inside + step * axis) - solid(inside - step * axis) for axis in np.eye(3)]
        normals = np.stack(slopes, -1) / (2 * step) @ self._turned(number).T
        grey[hit] = SHADE[0] + (SHADE[1] - SHADE[0]) * (normals @ LIGHT).clip(0, 1)
        height, width = self.size[1], self.size[0]
        return torch.from_numpy(grey.reshape(height, 2, width, 2).mean((1, 3))).float()[None].repeat(3, 1, 1)


def ball(middle: tuple[float, float, float], radii: tuple[float, float, float]) -> Distance:
    """An ellipsoid; its distances are a bound, and right at its surface."""
    at, r = np.array(middle), np.array(radii)

    def distance(places: Array) -> Array:
        inner = np.linalg.norm((places - at) / r, axis=-1)
        outer = np.linalg.norm((places - at) / r**2, axis=-1).clip(1e-9)
        return inner * (inner - 1) / outer

    return distance


def capsule(one: tuple[float, float, float], other: tuple[float, float, float], radius: float) -> Distance:
    """All that is within a radius of a line."""
    a, b = np.array(one), np.array(other)

    def distance(places: Array) -> Array:
        share = ((places - a) @ (b - a) / ((b - a) @ (b - a))).clip(0, 1)
        return np.linalg.norm(places - a - share[..., None] * (b - a), axis=-1) - radius

    return distance


def ring(middle: tuple[float, float, float], radius: float, thick: float) -> Distance:
    """A torus that lies, as a wheel does that fell over."""
    at = np.array(middle)

    def distance(places: Array) -> Array:
        x, y, z = (places - at).transpose()
        return np.hypot(np.hypot(x, z) - radius, y) - thick

    return distance


def box(sides: tuple[float, float, float], edge: float) -> Distance:
    """A box around the middle, of half these sides, with round edges."""
    half = np.array(sides) - edge

    def distance(places: Array) -> Array:
        over = np.abs(places) - half
        return np.linalg.norm(over.clip(0), axis=-1) + over.max(-1).clip(max=0) - edge

    return distance


def together(*parts: Distance) -> Distance:
    """All parts."""
    return lambda places: np.minimum.reduce([part(places) for part in parts])


SOLIDS = {
    "snowman": Solid(
        "a snowman",
        together(
            ball((0, -0.42, 0), (0.62, 0.58, 0.62)),
            ball((0, 0.38, 0), (0.44, 0.42, 0.44)),
            capsule((0, 0.4, 0.4), (0, 0.36, 0.7), 0.06),
            capsule((0, 0.82, 0), (0, 0.98, 0), 0.22),
            capsule((-0.5, -0.2, 0), (-0.8, 0, 0.1), 0.09),
            capsule((0.5, -0.2, 0), (0.8, 0, 0.1), 0.09),
        ),
    ),
    "mushroom": Solid(
        "a mushroom",
        together(ball((0, 0.3, 0), (0.9, 0.55, 0.9)), capsule((0, -0.7, 0), (0, 0.2, 0), 0.3)),
    ),
    "doughnut": Solid("a doughnut", ring((0, 0, 0), 0.62, 0.32), 55.0),
    "die": Solid("a game die", box((0.62, 0.62, 0.62), 0.12), 25.0),
}
"""What there is to turn."""
