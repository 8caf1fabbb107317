"""Clips whose motion is known: a camera that moves over a still, and things that move in front of it.

    scene = moving_clip(seed=1, size=(512, 288), frames=48)
    scene.frames[0:8]         pictures, streamed
    scene.flow(0, 32)         exact, between any two frames
    scene.visible(0, 32)      what both of them show

Stills and things may be any pictures; where none are given, textures and shapes are drawn, so that nothing is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import interpolate

from segue.errors import TrainingError
from segue.training.scene import Layer, Scene

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_SHAKES = 3


@dataclass(frozen=True)
class Camera:
    """How the window moves over the scene; at the first frame it does nothing.

    Args:
        pan: pixels per frame, x then y, in which it goes.
        zoom: how many times larger things become at most, or, below 1, smaller; they come and go as a sine does.
        period: frames after which the zoom begins again.
        turn: degrees per frame.
        shake: about how many pixels it is off its way, as a hand that holds it would be.

    Raises:
        TrainingError: the zoom or its period is not above 0, or any number not finite.
    """

    pan: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    period: float = 48.0
    turn: float = 0.0
    shake: float = 0.0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.pan, self.zoom, self.period, self.turn, self.shake))):
            raise TrainingError(f"a camera's numbers must be finite, got {self}")
        if min(self.zoom, self.period) <= 0:
            raise TrainingError(f"a zoom and its period are above 0, got {self.zoom} and {self.period}")

    @staticmethod
    def drawn(rng: np.random.Generator, speed: float) -> Camera:
        """One of all kinds of moves, of about `speed` pixels per frame."""
        angle = rng.uniform(0, 2 * math.pi)
        pan = speed * rng.uniform(0.3, 1)
        return Camera(
            pan=(pan * math.cos(angle), pan * math.sin(angle)),
            zoom=2 ** rng.uniform(-0.25, 0.4),
            period=rng.uniform(32, 96),
            turn=rng.uniform(-0.4, 0.4),
            shake=speed * rng.uniform(0, 0.3),
        )

    def poses(self, size: tuple[int, int], frames: int, rng: np.random.Generator) -> Float[Tensor, "t 3 3"]:
        """The maps from the first frame to every frame, in homogeneous pixels; float64."""
        time = torch.arange(frames, dtype=torch.float64)
        scale = self.zoom ** (0.5 - 0.5 * torch.cos(2 * math.pi * time / self.period))
        off = torch.stack([_shake(time, rng) for _ in range(2)], 1) * self.shake
        centre = torch.tensor([(side - 1) / 2 for side in size], dtype=torch.float64)
        way = torch.tensor(self.pan, dtype=torch.float64) * time[:, None]
        return _around(centre, centre + off, scale, self.turn * time) @ _shifted(-way)


def moving_clip(
    seed: int,
    size: tuple[int, int],
    frames: int,
    *,
    still: Float[Tensor, "3 h w"] | None = None,
    sprites: int | Sequence[Float[Tensor, "4 h w"]] = 3,
    camera: Camera | None = None,
    speed: float = 0.01,
) -> Scene:
    """A scene in which everything moves, by parts of pixels, and all of it is known; the same for the same seed.

    The first frames of a longer clip are those of a shorter one. Things go around over the still, turn, grow and
    shrink, the later ones before the earlier; the camera moves over all of them.

    Args:
        seed: of everything that is not given.
        size: (width, height) in pixels.
        frames: how many.
        still: what is behind, in [0, 1]; scaled until it covers the window, and mirrored beyond its borders.
        sprites: what moves before it, in [0, 1], alpha last and not multiplied in (`segue.training.pictures` has
            them rows first: `torch.from_numpy(picture).permute(2, 0, 1)`); or how many shapes to draw.
        camera: left out, one that is drawn.
        speed: of everything that is drawn, in longer sides of the window per frame.

    Raises:
        TrainingError: sides or frames below 1, fewer than no sprites, or pictures of other shapes.
    """
    if min(*size, frames) < 1:
        raise TrainingError(f"a clip needs sides and frames of 1 or more, got {size} and {frames}")
    if isinstance(sprites, int) and sprites < 0:
        raise TrainingError(f"expected pictures of things or how many to draw, got {sprites}")
    pixels = speed * max(size)
    rng = np.random.default_rng((seed, 0))
    camera = camera or Camera.drawn(rng, pixels)
    seen = camera.poses(size, frames, rng)
    layers = [_ground(still, size, seen, seed)]
    for number in range(sprites if isinstance(sprites, int) else len(sprites)):
        own = np.random.default_rng((seed, 1, number))
        given = shape(own, round(0.4 * min(size)) + 8) if isinstance(sprites, int) else sprites[number]
        picture = _thing(given, size, own)
        layers.append(Layer(picture, (seen @ _path(picture, size, frames, pixels, own))[:, :2]))
    return Scene(size, tuple(layers))


def texture(rng: np.random.Generator, size: tuple[int, int]) -> Float[Tensor, "3 h w"]:
    """A picture in [0, 1] of soft spots of all sizes from 4 pixels on, with something to hold on to everywhere."""
    width, height = size
    fields = torch.zeros(3, height, width)
    wave = 4
    while wave <= max(8, min(size) // 2):
        noise = rng.standard_normal((1, 3, height // wave + 2, width // wave + 2), np.float32)
        finer = interpolate(torch.from_numpy(noise), scale_factor=wave, mode="bicubic")[0]
        fields += (wave**0.5) * finer[:, :height, :width]
        wave *= 2
    fields = (fields - fields.mean((1, 2), keepdim=True)) / fields.std().clamp(min=1e-6)
    mixed = 0.7 * fields + 0.7 * fields[:1]  # Colours that have much of their brightness in common, as things do.
    tint = torch.from_numpy(rng.uniform(-0.5, 0.5, (3, 1, 1)).astype(np.float32))
    return 0.5 + 0.45 * torch.tanh(0.6 * mixed + tint)


def shape(rng: np.random.Generator, side: int) -> Float[Tensor, "4 h w"]:
    """A rounded thing of random outline in a square, textured, with soft edges; alpha is not multiplied in."""
    y, x = torch.meshgrid(*[torch.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    angle, radius = torch.atan2(y, x), (x * x + y * y).sqrt()
    outline = torch.ones_like(angle)
    for waves in range(2, 6):
        outline += 0.35 / waves * rng.uniform(-1, 1) * torch.cos(waves * angle + rng.uniform(0, 2 * math.pi))
    outline *= (side / 2 - 2) / outline.max()
    return torch.cat([texture(rng, (side, side)), (outline - radius + 0.5).clamp(0, 1)[None]])


def _ground(still: Tensor | None, size: tuple[int, int], seen: Tensor, seed: int) -> Layer:
    if still is None:
        still = texture(np.random.default_rng((seed, 2)), (2 * size[0], 2 * size[1]))
        shift = (-size[0] / 2, -size[1] / 2)
    else:
        _check(still, 3)
        still = _scaled(still, max(size[0] / still.shape[2], size[1] / still.shape[1]))
        shift = ((size[0] - still.shape[2]) / 2, (size[1] - still.shape[1]) / 2)
    picture = torch.cat([still.clamp(0, 1), torch.ones_like(still[:1])])
    placed = seen @ _shifted(torch.tensor([shift], dtype=torch.float64))
    return Layer(picture, placed[:, :2], endless=True)


def _thing(sprite: Tensor, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """A sprite of a size that is drawn, its colours multiplied by alpha."""
    _check(sprite, 4)
    picture = torch.cat([sprite[:3] * sprite[3:], sprite[3:]])
    return _scaled(picture, rng.uniform(0.25, 0.45) * min(size) / max(sprite.shape[1:])).clamp(0, 1)


def _path(picture: Tensor, size: tuple[int, int], frames: int, speed: float, rng: np.random.Generator) -> Tensor:
    """A thing's way through the first frame's plane: it goes around, turns, and comes nearer and goes again."""
    time = torch.arange(frames, dtype=torch.float64)
    places: list[Tensor] = []
    for side in size:
        reach = rng.uniform(0.15, 0.35) * side
        rate = speed * rng.uniform(0.5, 1) / reach
        middle = (side - 1) / 2 + rng.uniform(-0.2, 0.2) * side
        places.append(middle + reach * torch.sin(rate * time + rng.uniform(0, 2 * math.pi)))
    scale = 1 + rng.uniform(0, 0.15) * torch.sin(2 * math.pi * time / rng.uniform(24, 96))
    own = torch.tensor([(side - 1) / 2 for side in (picture.shape[2], picture.shape[1])], dtype=torch.float64)
    return _around(own, torch.stack(places, 1), scale, rng.uniform(-1.5, 1.5) * time)


def _around(centre: Tensor, target: Tensor, scale: Tensor, degrees: Tensor) -> Float[Tensor, "t 3 3"]:
    """Maps that scale and turn around a centre, which ends at a target."""
    angle = torch.deg2rad(degrees)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    turned = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    return _homogeneous(turned, target - turned @ centre)


def _shifted(by: Float[Tensor, "t 2"]) -> Float[Tensor, "t 3 3"]:
    return _homogeneous(torch.eye(2, dtype=torch.float64).expand(len(by), 2, 2), by)


def _homogeneous(turned: Tensor, shift: Tensor) -> Tensor:
    last = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(len(shift), 1, 3)
    return torch.cat([torch.cat([turned, shift[:, :, None]], 2), last], 1)


def _shake(time: Tensor, rng: np.random.Generator) -> Tensor:
    """About 1 in root mean square, and 0 at first."""
    way = torch.zeros_like(time)
    for _ in range(_SHAKES):
        rate, phase = rng.uniform(0.3, 2), rng.uniform(0, 2 * math.pi)
        way += torch.sin(rate * time + phase) - math.sin(phase)
    return way / _SHAKES**0.5


def _scaled(picture: Tensor, factor: float) -> Tensor:
    height, width = (max(2, math.ceil(side * factor)) for side in picture.shape[1:])
    if picture.shape[1:] == (height, width):
        return picture
    return interpolate(picture[None].float(), (height, width), mode="bicubic", antialias=True)[0]


def _check(picture: Tensor, channels: int) -> None:
    if picture.ndim != 3 or len(picture) != channels or not picture.is_floating_point():
        raise TrainingError(
            f"expected a picture of shape ({channels}, h, w) as floats in [0, 1], "
            f"got {picture.dtype} {tuple(picture.shape)}"
        )
