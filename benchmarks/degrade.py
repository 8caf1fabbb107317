"""What makes a clip flicker: noise, brightness that jumps, frames each painted on their own; and what damages it.

All are drawn by seed and number of the frame, so that the same clip is always spoiled in the same way.
Frames come back rounded to 256 levels, as they would be read from a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Array = np.ndarray
VERSION = 1
"""Of what comes out."""
NOISE = 0.06
"""Standard deviation of the noise, in shares of the full range: 15 levels of 255."""
GAIN, OFFSET = 0.10, 0.03
"""Standard deviations of the logarithm of the brightness, and of what is added to it."""
GRID = 3, 4
"""Places down and across at which the local gain is drawn."""
BLUR = 0.008
"""Standard deviation of the blur, in shares of the root of the picture's area: 2 pixels of 256 x 256."""
QUALITY = 20
"""Of the JPEG."""
BRUSHES = 0.070, 0.038, 0.022
"""Lengths of strokes, from coarse to fine, in shares of the root of the picture's area."""


def noisy(frames: Float[Tensor, "t 3 h w"], seed: int = 0) -> Float[Tensor, "t 3 h w"]:
    """Independent white noise on each frame."""
    return _each(frames, seed, lambda picture, random: picture + random.normal(0, NOISE, picture.shape))


def flickering(frames: Float[Tensor, "t 3 h w"], seed: int = 0) -> Float[Tensor, "t 3 h w"]:
    """A gain and an offset for each frame."""

    def lit(picture: Array, random: np.random.Generator) -> Array:
        return picture * np.exp(random.normal(0, GAIN)) + random.normal(0, OFFSET)

    return _each(frames, seed, lit)


def lit_in_places(frames: Float[Tensor, "t 3 h w"], seed: int = 0) -> Float[Tensor, "t 3 h w"]:
    """A gain for each frame and colour that differs over the picture, smoothly."""

    def lit(picture: Array, random: np.random.Generator) -> Array:
        height, width = picture.shape[:2]
        light = random.normal(0, GAIN, (*GRID, 1)) + random.normal(0, GAIN / 3, (*GRID, 3))
        return picture * np.exp(cv2.resize(light, (width, height), interpolation=cv2.INTER_CUBIC))

    return _each(frames, seed, lit)


def blurred(frames: Float[Tensor, "t 3 h w"], seed: int = 0) -> Float[Tensor, "t 3 h w"]:
    """Each frame out of focus; the same for any seed."""

    def soft(picture: Array, random: np.random.Generator) -> Array:
        return cv2.GaussianBlur(picture, (0, 0), BLUR * float(np.sqrt(picture.shape[0] * picture.shape[1])))

    return _each(frames, seed, soft)


def compressed(frames: Float[Tensor, "t 3 h w"], seed: int = 0) -> Float[Tensor, "t 3 h w"]:
    """Each frame through a coarse JPEG; the same for any seed."""

    def coarse(picture: Array, random: np.random.Generator) -> Array:
        levels = (picture.clip(0, 1) * 255).round().astype(np.uint8)[..., ::-1]
        written = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        read: Any = cv2.imdecode(written, cv2.IMREAD_COLOR)
        return read[..., ::-1] / 255

    return _each(frames, seed, coarse)


def damaged(frames: Float[Tensor, "t 3 h w"], seed: int = 0) -> Float[Tensor, "t 3 h w"]:
    """Out of focus, then noisy, then through a coarse JPEG."""
    return compressed(noisy(blurred(frames), seed))


def restyled(frames: Float[Tensor, "t 3 h w"], seed: int = 0) -> Float[Tensor, "t 3 h w"]:
    """Each frame painted anew: strokes of three brushes along the contours, a palette, the grain of a canvas.

    Strokes, their colours, the palette's shift and the canvas are drawn for each frame, as image-to-image diffusion
    would draw them; shapes and mean colours are those of the frame.
    """
    return _each(frames, seed, _painted)


DEGRADATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "noise": noisy,
    "flicker": flickering,
    "local flicker": lit_in_places,
    "restyling": restyled,
}
DAMAGES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "blur": blurred,
    "noise": noisy,
    "JPEG": compressed,
    "all three": damaged,
}
"""What there is to restore."""


def _each(frames: Tensor, seed: int, spoil: Callable[[Array, np.random.Generator], Array]) -> Tensor:
    pictures = frames.permute(0, 2, 3, 1).double().numpy()
    spoiled = [spoil(picture, np.random.default_rng([seed, t])) for t, picture in enumerate(pictures)]
    levels = (np.stack(spoiled).clip(0, 1) * 255).round() / 255
    return torch.from_numpy(levels).float().permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class _Brush:
    """Strokes of one length over the whole picture, where the canvas is not yet right."""

    length: float

    def strokes(self, picture: Array, random: np.random.Generator) -> tuple[Float[Array, "n 2"], Array, Array]:
        """Middles, angles and colours, in random order."""
        height, width = picture.shape[:2]
        step = max(1.5, self.length / 2.2)
        rows, columns = np.meshgrid(np.arange(step / 2, height, step), np.arange(step / 2, width, step), indexing="ij")
        middles = np.stack([columns, rows], -1).reshape(-1, 2) + random.uniform(-step / 2, step / 2, (rows.size, 2))
        middles = middles[random.permutation(len(middles))]
        x, y = self.pixels(middles, width, height)
        smooth = cv2.GaussianBlur(picture, (0, 0), max(0.6, self.length / 4))
        grey = cv2.GaussianBlur(picture.mean(-1), (0, 0), max(1.0, self.length / 3))
        across, down = cv2.Sobel(grey, cv2.CV_64F, 1, 0), cv2.Sobel(grey, cv2.CV_64F, 0, 1)
        # Where nothing leads the brush, it goes as it likes.
        lost = np.exp(-np.hypot(across, down)[y, x] / 0.05)
        angles = np.arctan2(down, across)[y, x] + np.pi / 2 + random.normal(0, 0.25, len(x)) * (1 + 4 * lost)
        colours = smooth[y, x] + random.normal(0, 0.03, (len(x), 1)) + random.normal(0, 0.015, (len(x), 3))
        return middles, angles, colours

    @staticmethod
    def pixels(middles: Array, width: int, height: int) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
        """The nearest pixels of places."""
        return middles[:, 0].round().clip(0, width - 1).astype(int), middles[:, 1].round().clip(0, height - 1).astype(
            int
        )

    def paint(self, canvas: Array, picture: Array, random: np.random.Generator) -> None:
        """Each stroke an ellipse on the canvas; fine ones only where the canvas differs from the picture."""
        middles, angles, colours = self.strokes(picture, random)
        x, y = self.pixels(middles, picture.shape[1], picture.shape[0])
        wrong = np.abs(cv2.GaussianBlur(canvas - picture, (0, 0), max(0.6, self.length / 4))).max(-1)[y, x]
        for number in np.flatnonzero(wrong > 0.03):
            centre = tuple((middles[number] * 16).round().astype(int).tolist())
            axes = round(self.length * 8), max(14, round(self.length * 3))
            turned = float(np.degrees(angles[number]))
            colour = tuple(colours[number].tolist())
            cv2.ellipse(canvas, centre, axes, turned, 0, 360, colour, -1, cv2.LINE_AA, 4)


def _painted(picture: Array, random: np.random.Generator) -> Array:
    side = float(np.sqrt(picture.shape[0] * picture.shape[1]))
    canvas = np.ascontiguousarray(cv2.GaussianBlur(picture, (0, 0), BRUSHES[0] * side) + random.normal(0, 0.02, 3))
    canvas = canvas.astype(np.float32)
    for share in BRUSHES:
        _Brush(share * side).paint(canvas, picture.astype(np.float32), random)
    # The palette: seven tones of brightness, whose borders lie elsewhere each time; and colours that lean.
    tone, phase = canvas.mean(-1, keepdims=True), random.uniform()
    steps = (np.floor(tone * 7 + phase) + 0.5 - phase) / 7
    canvas = canvas + 0.45 * (steps - tone)
    canvas = tone + (canvas - tone) * np.exp(random.normal(0.25, 0.08)) + random.normal(0, 0.015, 3)
    grain = cv2.GaussianBlur(random.normal(0, 1, picture.shape[:2]), (0, 0), 0.8)
    return canvas * (1 + 0.07 * grain[..., None])
