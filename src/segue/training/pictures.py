"""Emoji as arrays: clean edges, a place on a ground, another colour. Arrays are float32 in [0, 1], rows first."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segue.errors import TrainingError

Picture = NDArray[np.floating[Any]]
"""(h, w, 4) with straight alpha, or (h, w, 3) once it stands on a ground."""

HUES = {
    "red": (355, 0.95, 0.97),
    "orange": (28, 1.0, 1.0),
    "yellow": (49, 0.95, 1.0),
    "green": (128, 0.75, 0.84),
    "teal": (177, 0.8, 0.84),
    "blue": (215, 0.85, 1.0),
    "purple": (272, 0.8, 1.0),
    "pink": (325, 0.75, 1.0),
}
"""What a colour word asks for: degrees of hue, and factors of saturation and value that keep it from glaring."""

GROUNDS = {
    "white": (255, 255, 255),
    "gray": (206, 208, 214),
    "blue": (158, 205, 250),
    "green": (176, 228, 186),
    "yellow": (252, 232, 160),
    "orange": (252, 205, 158),
    "pink": (252, 192, 212),
    "purple": (208, 188, 246),
    "dark blue": (44, 58, 106),
    "black": (26, 26, 30),
}
"""Background words and their colours; all but white get a soft light in the middle."""

DARK = frozenset({"dark blue", "black"})
"""The grounds that dark line art would not show on."""


@dataclass(frozen=True)
class Placement:
    """Where an object stands: its size and offset as shares of the picture, its turn to the left in degrees, and
    whether it is mirrored (before it is turned)."""

    scale: float = 0.9
    dx: float = 0.0
    dy: float = 0.0
    angle: float = 0.0
    flip: bool = False


CANONICAL = Placement()


def turned_side(angle: float) -> float:
    """The side of the upright square around a unit square that was turned by `angle` degrees."""
    turn = math.radians(angle)
    return abs(math.cos(turn)) + abs(math.sin(turn))


def decode(data: bytes, *, fringed: bool = True) -> Picture:
    """An encoded picture as (h, w, 4), de-fringed if it needs that."""
    with Image.open(io.BytesIO(data)) as image:
        picture = np.asarray(image.convert("RGBA"), np.float32) / 255
    return defringe(picture) if fringed else picture


def render(svg: bytes, size: int) -> Picture:
    """An SVG drawing as (size, size, 4).

    Raises TrainingError where resvg-py, which draws it, is not installed.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise TrainingError('drawing SVG needs resvg-py: pip install "segue[train]"') from error
    png = resvg_py.svg_to_bytes(svg_string=svg.decode("utf-8"), width=size, height=size)
    return decode(bytes(png), fringed=False)


def defringe(picture: Picture) -> Picture:
    """Cut the faint halo of an RGBA picture and let the colour of the inside reach under its soft edge.

    Renders on a white stage leave nearly transparent, nearly white pixels around the object, which show as a pale
    outline on any other ground. a' = clip((a - .35) / .65); colour where a < .9 is that of the opaque neighbours.
    """
    alpha = picture[..., 3:]
    solid = (alpha >= 0.9).astype(np.float32)
    colour, weight = picture[..., :3] * solid, solid
    for _ in range(6):  # each pass reaches one pixel further out
        spread, reach = _box(colour), _box(weight)
        fill = (weight == 0) & (reach > 0)
        colour = np.where(fill, spread / np.maximum(reach, 1e-6), colour)
        weight = np.where(fill, 1.0, weight).astype(np.float32)
    colour = np.where(weight > 0, colour, picture[..., :3])
    return np.concatenate([colour, np.clip((alpha - 0.35) / 0.65, 0, 1)], -1, dtype=np.float32)


def _box(values: Picture) -> Picture:
    """Sum over the 3 x 3 neighbourhood."""
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)))
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]


def place(picture: Picture, size: int, placement: Placement) -> Picture:
    """The RGBA object inside a transparent square of `size` pixels, resized premultiplied, so that edges stay clean."""
    if placement.flip:
        picture = picture[:, ::-1]
    height, width = picture.shape[:2]
    factor = placement.scale * size / max(height, width)
    box = (max(1, round(width * factor)), max(1, round(height * factor)))
    premultiplied = np.concatenate([picture[..., :3] * picture[..., 3:], picture[..., 3:]], -1)
    channels = [Image.fromarray(np.ascontiguousarray(premultiplied[..., c])) for c in range(4)]
    channels = [c.resize(box, Image.Resampling.LANCZOS) for c in channels]
    if placement.angle:
        channels = [c.rotate(placement.angle, Image.Resampling.BICUBIC, expand=True) for c in channels]
        box = channels[0].size
    small = np.clip(np.stack([np.asarray(c) for c in channels], -1), 0, 1)
    left = round((size - box[0]) / 2 + placement.dx * size)
    top = round((size - box[1]) / 2 + placement.dy * size)
    stage = np.zeros((size, size, 4), np.float32)
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + box[1], size), min(left + box[0], size)
    stage[y0:y1, x0:x1] = small[y0 - top : y1 - top, x0 - left : x1 - left]
    stage[..., :3] = np.clip(stage[..., :3] / np.maximum(stage[..., 3:], 1e-4), 0, 1)
    return stage


def ground(word: str, size: int) -> Picture:
    """A background (size, size, 3): plain white, or a colour a little lighter towards the upper middle."""
    colour = np.array(GROUNDS[word], np.float32) / 255
    if word == "white":
        return np.broadcast_to(colour, (size, size, 3)).astype(np.float32)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / (size - 1) - 0.5
    light = np.clip(1 - ((x**2 + (y + 0.1) ** 2) / 0.5), 0, 1)[..., None]
    return (colour + (1 - colour) * 0.25 * colour.mean() * light).astype(np.float32)


def composite(picture: Picture, behind: Picture) -> Picture:
    """The RGBA picture over an opaque ground."""
    alpha = picture[..., 3:]
    return (picture[..., :3] * alpha + behind * (1 - alpha)).astype(np.float32)


def to_bytes(picture: Picture) -> NDArray[np.uint8]:
    """[0, 1] to 0-255, rounded."""
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def dominant_hue(picture: Picture) -> tuple[float, float]:
    """(degrees, share): the hue most of the saturated pixels have, and the share of them within 35 degrees of it."""
    hue, saturation, value = to_hsv(picture[..., :3])
    weight = saturation * value * picture[..., 3] * (saturation > 0.25)
    total = float(weight.sum())
    if total == 0:
        return 0.0, 0.0
    histogram, _ = np.histogram(hue, bins=36, range=(0, 360), weights=weight)
    smooth = histogram + np.roll(histogram, 1) + np.roll(histogram, -1)
    centre = float(smooth.argmax() * 10 + 5)
    offset = (hue - centre + 180) % 360 - 180
    near = weight * (np.abs(offset) <= 35)
    return (centre + float((near * offset).sum() / near.sum())) % 360, float(near.sum()) / total


def lit(picture: Picture) -> Picture:
    """Dark line art turned white, so that it shows on a dark ground."""
    return np.concatenate([np.ones_like(picture[..., :3]), picture[..., 3:]], -1)


def recolour(picture: Picture, word: str, *, tint: bool = False) -> Picture:
    """The RGBA picture with its dominant hue turned to that of a colour word; shading and other hues stay.

    With `tint`, a grey or white object gets the colour instead: its unsaturated pixels are given hue and saturation.
    """
    hue, saturation, value = to_hsv(picture[..., :3])
    target, vivid, bright = HUES[word]
    if tint:
        grey = np.clip((0.35 - saturation) / 0.1, 0, 1) * np.clip((value - 0.2) / 0.3, 0, 1)
        hue = np.where(grey > 0, target, hue)
        saturation = saturation + grey * np.maximum(0.55 * vivid - saturation, 0)
        value = value + grey * 0.35 * (1 - value)
        changed = from_hsv(hue, saturation, value)
    else:
        centre, _ = dominant_hue(picture)
        distance = np.abs((hue - centre + 180) % 360 - 180)
        share = np.clip((50 - distance) / 15, 0, 1)[..., None]
        turned = from_hsv((hue - centre + target) % 360, saturation * vivid, value * bright)
        changed = picture[..., :3] * (1 - share) + turned * share
    return np.concatenate([changed, picture[..., 3:]], -1, dtype=np.float32)


def to_hsv(rgb: Picture) -> tuple[Picture, Picture, Picture]:
    """Hue in degrees, saturation and value of an RGB picture."""
    value, low = rgb.max(-1), rgb.min(-1)
    span = value - low
    safe = np.maximum(span, 1e-6)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    sector = np.where(value == r, ((g - b) / safe) % 6, np.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4))
    hue = np.where(span > 0, sector * 60, 0.0).astype(np.float32)
    return hue, (span / np.maximum(value, 1e-6)).astype(np.float32), value


def from_hsv(hue: Picture, saturation: Picture, value: Picture) -> Picture:
    """The inverse of `to_hsv`."""
    offset = np.array([5, 3, 1], np.float32)
    k = (offset + (hue / 60)[..., None]) % 6
    fall = np.clip(np.minimum(k, 4 - k), 0, 1)
    return (value[..., None] * (1 - saturation[..., None] * fall)).astype(np.float32)
