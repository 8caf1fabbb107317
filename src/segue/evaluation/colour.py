"""Which colour an object on a plain ground has, read from the hues of its pixels; no classifier is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

SECTORS = {
    "red": (340.0, 8.0),
    "orange": (8.0, 35.0),
    "yellow": (35.0, 68.0),
    "green": (68.0, 166.0),
    "teal": (166.0, 192.0),
    "blue": (192.0, 240.0),
    "purple": (240.0, 300.0),
    "pink": (300.0, 340.0),
}
"""The hues, in degrees, that each word covers: from, up to. Set by renders whose colour is known: the shaded side of a
yellow thing is nearer to orange than textbooks have it."""

UNLIKE_GROUND = 0.12
"""How much a channel of a pixel must differ from the ground for it to belong to the object."""
COLOURFUL = 0.25
"""The saturation from which on a pixel has a colour."""


@dataclass(frozen=True)
class ObjectColour:
    """The colours of one object.

    Args:
        shares: of the colourful pixels, weighed by how colourful they are, by colour word; they sum to 1 or all are 0.
        area: the share of the picture that the object takes.
        colourful: the share of the object's pixels that have a colour.
    """

    shares: dict[str, float]
    area: float
    colourful: float

    @property
    def word(self) -> str:
        """The colour with the largest share; "" where there is none."""
        best = max(self.shares, key=self.shares.__getitem__)
        return best if self.shares[best] > 0 else ""


def object_colours(pictures: Float[Tensor, "n 3 h w"]) -> list[ObjectColour]:
    """The colours of the object in each picture in [0, 1]."""
    hue, saturation, value = hue_saturation_value(pictures)
    objects = object_pixels(pictures)
    weight = saturation * value * ((saturation >= COLOURFUL) & objects)
    shares = torch.stack([(weight * _within(hue, *sector)).sum((1, 2)) for sector in SECTORS.values()], 1)
    shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-9)
    area = objects.double().mean((1, 2))
    colourful = (weight > 0).double().mean((1, 2)) / area.clamp(min=1e-9)
    return [
        ObjectColour(dict(zip(SECTORS, row, strict=True)), one, other)
        for row, one, other in zip(shares.tolist(), area.tolist(), colourful.tolist(), strict=True)
    ]


def object_pixels(pictures: Float[Tensor, "n 3 h w"]) -> Bool[Tensor, "n h w"]:
    """The pixels that do not look like the ground, whose colour is the median of the picture's edge."""
    edge = torch.cat([pictures[..., 0, :], pictures[..., -1, :], pictures[..., :, 0], pictures[..., :, -1]], -1)
    ground = edge.median(-1).values[..., None, None]
    return (pictures - ground).abs().amax(1) > UNLIKE_GROUND


def hue_saturation_value(
    pictures: Float[Tensor, "n 3 h w"],
) -> tuple[Float[Tensor, "n h w"], Float[Tensor, "n h w"], Float[Tensor, "n h w"]]:
    """Hue in degrees (0 where there is none), saturation and value of pictures in [0, 1]."""
    r, g, b = pictures.unbind(1)
    value, low = pictures.amax(1), pictures.amin(1)
    span = value - low
    safe = span.clamp(min=1e-9)
    sector = torch.where(
        value == r, ((g - b) / safe) % 6, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4)
    )
    hue = torch.where(span > 0, sector * 60, 0.0)
    return hue, span / value.clamp(min=1e-9), value


def _within(hue: Tensor, start: float, stop: float) -> Tensor:
    return (hue >= start) & (hue < stop) if start < stop else (hue >= start) | (hue < stop)
