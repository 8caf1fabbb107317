"""A patch around every pixel as a few numbers, so that two patches are compared by one gather."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from torch import Tensor

# Orthonormal, so that distances between colours stay as they are: brightness, red against blue, green against both.
_OPPONENTS = tuple(
    tuple(part / math.sqrt(sum(part * part for part in row)) for part in row)
    for row in ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
)

# The share of each that photographs have, roughly; and how far their power falls with the frequency: by its square.
_POWER = (1.0, 0.05, 0.02)


def described(pictures: Float[Tensor, "b 3 h w"], patch: int, terms: int) -> Float[Tensor, "b h*w terms"]:
    """The patch of `patch` x `patch` pixels around every pixel, as its `terms` strongest parts in an orthonormal basis.

    The squared distance of two descriptors is the mean squared difference of the two patches, per value, as far as
    these parts go: never more, and with all of 3 * patch**2 terms exactly that. The basis is the discrete cosine
    transform of the three opponent colours, in the order of the power that photographs have in each. Beyond the border
    the picture is mirrored.

    Each value is a sum in one order, of products rounded one by one: it does not depend on the other pictures, on the
    shape of the batch or on the kind of processor.

    Args:
        pictures: in [0, 1].
        patch: pixels along a side; odd.
        terms: 1 to 3 * patch**2.
    """
    height, width = pictures.shape[-2:]
    across, down = _mirrored(width, patch, pictures.device), _mirrored(height, patch, pictures.device)
    padded = pictures.index_select(3, across).index_select(2, down)
    scale = 1 / math.sqrt(3 * patch * patch)
    chosen = basis(patch, terms)
    planes: dict[tuple[int, int, int], Tensor] = {}
    for colour, mix in enumerate(_OPPONENTS):
        if not any(term[0] == colour for term in chosen):
            continue
        plane = weighted([padded[:, channel] for channel in range(3)], mix)
        for u in sorted({term[1] for term in chosen if term[0] == colour}):
            row = _filtered(plane, _cosine(patch, u), 2, width)
            for v in sorted(term[2] for term in chosen if term[:2] == (colour, u)):
                kernel = tuple(value * scale for value in _cosine(patch, v))
                planes[colour, u, v] = _filtered(row, kernel, 1, height)
    return torch.stack([planes[term] for term in chosen], -1).flatten(1, 2)


@cache
def basis(patch: int, terms: int) -> tuple[tuple[int, int, int], ...]:
    """(colour, frequency across, frequency down) of the strongest functions, strongest first."""
    every = [(colour, u, v) for colour in range(3) for u in range(patch) for v in range(patch)]
    every.sort(key=lambda term: (-_POWER[term[0]] / (0.25 + term[1] ** 2 + term[2] ** 2), term))
    return tuple(every[:terms])


@cache
def _cosine(patch: int, frequency: int) -> tuple[float, ...]:
    scale = math.sqrt((1 if frequency == 0 else 2) / patch)
    return tuple(scale * math.cos(math.pi * (place + 0.5) * frequency / patch) for place in range(patch))


def _mirrored(length: int, patch: int, device: torch.device) -> Tensor:
    """The places that a border of half a patch on both sides repeats, edges included, however short the side is."""
    places = torch.arange(-(patch // 2), length + patch // 2, device=device) % (2 * length)
    return torch.minimum(places, 2 * length - 1 - places)


def _filtered(planes: Tensor, kernel: Sequence[float], dim: int, length: int) -> Tensor:
    """The correlation with a kernel that is even or odd: its two halves are one."""
    reach = len(kernel) // 2
    sign = 1 if kernel[0] * kernel[-1] > 0 else -1
    parts = []
    for place in range(reach):
        one, other = planes.narrow(dim, place, length), planes.narrow(dim, 2 * reach - place, length)
        parts.append(one + other if sign > 0 else one - other)
    if sign > 0:
        parts.append(planes.narrow(dim, reach, length))
    return weighted(parts, kernel)


def weighted(parts: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    """The sum of the parts, each times its factor, in this order."""
    # One product, one sum: fused, the vectors of a processor and the rest of a row would round differently.
    total = parts[0] * factors[0]
    for part, factor in zip(parts[1:], factors[1:], strict=False):
        if factor != 0:
            total.add_(part * factor)
    return total
