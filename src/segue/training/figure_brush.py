"""A brush for rounded things: shapes as signed distances, antialiased, shaded as if they were soft clay, outlined."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_LIGHT = np.array([-0.48, -0.62, 0.62], np.float32)  # where it comes from: left, above, and from who looks
_SHADE = np.array([0.60, 0.56, 0.70], np.float32)  # what is turned away has this share of its colour
_INK = np.array([0.34, 0.28, 0.36], np.float32)  # so has an outline

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Cone:
    """The hull of two circles; with one, a disc. Places and radii in pixels.

    Args:
        a, b: the middles of the circles.
        ra, rb: their radii.
        cut: it ends at b, flat, as a hem does.
    """

    a: np.ndarray
    b: np.ndarray
    ra: float
    rb: float
    cut: bool = False

    def box(self, margin: float) -> tuple[float, float, float, float]:
        """Least x and y, greatest x and y."""
        low = np.minimum(self.a[:2] - self.ra, self.b[:2] - self.rb) - margin
        high = np.maximum(self.a[:2] + self.ra, self.b[:2] + self.rb) + margin
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


@dataclass(frozen=True)
class Surface:
    """What a colour is asked for: places on a cone.

    Args:
        along: pixels from a towards b.
        across: from -1 at one edge to 1 at the other, facing from a to b: at the picture's left if b is below a.
        radius: of the cone there, in pixels.
    """

    along: np.ndarray
    across: np.ndarray
    radius: np.ndarray


Paint = Colour | Callable[[Surface], np.ndarray]
"""A colour, or the colours (h, w, 3) of places."""


class Canvas:
    """A picture and its alpha while they are painted; colours are multiplied by alpha."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.width, self.height = size
        self.colours = np.zeros((self.height, self.width, 3), np.float32)
        self.alpha = np.zeros((self.height, self.width), np.float32)

    def limb(self, parts: Sequence[tuple[Cone, Paint]], outline: float) -> None:
        """Paint cones, later ones over earlier ones, inside of one outline and shaded as one thing."""
        window = self.window([cone.box(outline + 2) for cone, _ in parts])
        if window is None:
            return
        rows, columns, x, y = window
        measured = [_measured(cone, x, y) for cone, _ in parts]
        distances = np.stack([distance for distance, _, _ in measured])
        # Where cones meet, the surface goes over from one to another within some pixels, without a seam.
        reach = max(0.5, 0.3 * float(np.mean([max(cone.ra, cone.rb) for cone, _ in parts])))
        shares = np.exp(-(distances - distances.min(0)) / reach)
        shares /= shares.sum(0)
        aside = np.clip(1 + distances / np.stack([surface.radius for _, surface, _ in measured]), 0, 1)
        leaning = (shares[..., None] * aside[..., None] * np.stack([gradient for _, _, gradient in measured])).sum(0)
        normal = np.concatenate([leaning, np.sqrt(np.clip(1 - (leaning**2).sum(-1, keepdims=True), 0, 1))], -1)
        painted = [
            lit(paint(surface) if callable(paint) else np.asarray(paint, np.float32), normal)
            for (_, paint), (_, surface, _) in zip(parts, measured, strict=True)
        ]
        self.over(rows, columns, painted[0] * _INK, covered(distances.min(0) - outline))
        for distance, colours in zip(distances, painted, strict=True):
            self.over(rows, columns, colours, covered(distance))

    def over(self, rows: slice, columns: slice, colours: np.ndarray, cover: np.ndarray) -> None:
        """Put colours over what is there."""
        cover = cover.astype(np.float32)
        self.colours[rows, columns] = self.colours[rows, columns] * (1 - cover[..., None]) + colours * cover[..., None]
        self.alpha[rows, columns] = self.alpha[rows, columns] * (1 - cover) + cover

    def window(
        self, boxes: Sequence[tuple[float, float, float, float]]
    ) -> tuple[slice, slice, np.ndarray, np.ndarray] | None:
        """The pixels of some boxes, and their x and y; None outside of the picture."""
        left, top = (math.floor(min(box[i] for box in boxes)) for i in (0, 1))
        right, bottom = (math.ceil(max(box[i] for box in boxes)) + 1 for i in (2, 3))
        rows, columns = slice(max(top, 0), min(bottom, self.height)), slice(max(left, 0), min(right, self.width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        y, x = np.mgrid[rows, columns].astype(np.float32)
        return rows, columns, x, y


def covered(distance: np.ndarray) -> np.ndarray:
    """The share of a pixel that a shape covers, whose edge is so far away."""
    return np.clip(0.5 - distance, 0, 1)


def soft(value: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """0 below, 1 above, smooth between; or falling, if low is above high."""
    share = np.clip((value - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


def darker(colour: Colour, share: float) -> Colour:
    """A colour with that share of its light."""
    red, green, blue = colour
    return share * red, share * green, share * blue


def mixed(a: np.ndarray | Colour, b: np.ndarray | Colour, share: np.ndarray) -> np.ndarray:
    """Colours from one to another."""
    share = share[..., None].astype(np.float32)
    return np.asarray(a, np.float32) * (1 - share) + np.asarray(b, np.float32) * share


def lit(flat: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Colours under the light, which has a soft end and a small gloss."""
    facing = normal @ (_LIGHT / np.linalg.norm(_LIGHT))
    light = soft(facing, -0.35, 0.75)[..., None]
    gloss = 0.16 * soft(facing, 0.88, 1.0)[..., None]
    base = flat * (_SHADE + (1 - _SHADE) * light)
    return np.clip(base + gloss * (1 - base), 0, 1)


def _measured(cone: Cone, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, Surface, np.ndarray]:
    """The signed distance to the hull of two circles, where one is on it, and where the distance grows."""
    axis = (cone.b[:2] - cone.a[:2]).astype(np.float32)
    length = float(np.hypot(*axis))
    slope = cone.ra - cone.rb
    if length <= abs(slope) + 1e-4:  # One circle holds the other.
        larger = cone.a if slope > 0 else cone.b
        axis, length, slope = np.array([0, 1], np.float32), 0.0, 0.0
        radius = max(cone.ra, cone.rb)
        start, ra, rb = larger[:2], radius, radius
    else:
        axis, start, ra, rb = axis / length, cone.a[:2], cone.ra, cone.rb
    along = (x - start[0]) * axis[0] + (y - start[1]) * axis[1]
    side = -(x - start[0]) * axis[1] + (y - start[1]) * axis[0]
    sine = slope / max(length, 1e-4)
    cosine = math.sqrt(1 - sine * sine)
    reach = -sine * np.abs(side) + cosine * along  # along the tangent, whose ends are the circles
    at_a, at_b = reach <= 0, reach >= cosine * length
    sign = np.where(side < 0, -1, 1)
    outwards = np.stack([np.broadcast_to(sine, along.shape), cosine * sign], -1)  # along, aside
    to_a, to_b = np.stack([along, side], -1), np.stack([along - length, side], -1)
    far_a, far_b = np.linalg.norm(to_a, axis=-1), np.linalg.norm(to_b, axis=-1)
    distance = np.where(at_a, far_a - ra, np.where(at_b, far_b - rb, cosine * np.abs(side) + sine * along - ra))
    near_a = to_a / np.maximum(far_a, 1e-6)[..., None]
    near_b = to_b / np.maximum(far_b, 1e-6)[..., None]
    local = np.where(at_a[..., None], near_a, np.where(at_b[..., None], near_b, outwards))
    if cone.cut:
        distance = np.maximum(distance, along - length)
    across = np.array([-axis[1], axis[0]], np.float32)
    gradient = local[..., :1] * axis + local[..., 1:] * across
    share = np.clip(along / max(length, 1e-4), 0, 1)
    radius = (ra + share * (rb - ra)).astype(np.float32)
    surface = Surface(along, np.clip(side / np.maximum(radius, 1e-3), -1, 1), radius)
    return distance.astype(np.float32), surface, gradient.astype(np.float32)
