"""What drifts is pinned: mean and contrast of pictures, held where they are known twice, or over the time of a film.

Whoever goes on from a picture, or fills between two, draws these once more: what comes out has other colours and
another contrast, by a little, which adds up where parts follow each other. What has become of the known frames is
measured channel by channel, and undone in the frames beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

MOST = 1.25
"""By how much contrast is raised or lowered at most: a frame in which a thing has vanished must not be blown up."""
_FLAT = 1e-3
"""Contrast, of a full range of 1, below which there is none to compare."""


@dataclass(frozen=True)
class Tone:
    """Mean and contrast of the channels of pictures; float64.

    Args:
        mean: in [0, 1].
        std: standard deviation over the picture.
    """

    mean: Float[Tensor, "t 3"]
    std: Float[Tensor, "t 3"]

    @staticmethod
    def of(pictures: Float[Tensor, "t 3 h w"]) -> Tone:
        """That of each picture."""
        values = pictures.double().flatten(2)
        return Tone(values.mean(2), values.std(2, correction=0))

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, frames: Sequence[int]) -> Tone:
        return Tone(self.mean[list(frames)], self.std[list(frames)])

    @staticmethod
    def cat(parts: Sequence[Tone]) -> Tone:
        """Of all their pictures."""
        return Tone(torch.cat([part.mean for part in parts]), torch.cat([part.std for part in parts]))

    def apart(self, other: Tone) -> Float[Tensor, " t"]:
        """Root mean square difference of means and contrasts, over the channels."""
        both = (self.mean - other.mean).square() + (self.std - other.std).square()
        return both.mean(1).sqrt()


def brought(
    pictures: Float[Tensor, "t 3 h w"], own: Tone, wanted: Tone, weight: float = 1.0
) -> Float[Tensor, "t 3 h w"]:
    """Pictures whose channels get other means and contrasts; those that have them come back as they are.

    Args:
        pictures: in [0, 1].
        own: what counts as theirs.
        wanted: what that becomes.
        weight: how much of the way, in [0, 1].
    """
    ratio = (wanted.std / own.std.clamp(min=_FLAT)).clamp(1 / MOST, MOST)
    ratio = torch.where(own.std < _FLAT, torch.ones_like(ratio), ratio)
    scale = 1 + weight * (ratio - 1)
    shift = own.mean + weight * (wanted.mean - own.mean) - scale * own.mean
    moved = (pictures * _each(scale, pictures) + _each(shift, pictures)).clamp(0, 1)
    same = (scale == 1).all(1) & (shift.abs() < 1e-12).all(1)
    return torch.where(same[:, None, None, None].to(pictures.device), pictures, moved)


def pinned(
    pictures: Float[Tensor, "t 3 h w"],
    known: Mapping[int, Float[Tensor, "3 h w"]],
    weight: float = 1.0,
    shares: Sequence[float] | None = None,
) -> Float[Tensor, "t 3 h w"]:
    """Pictures from which is taken what drawing has done to those that were known.

    Between two known ones it is what lies between both, in a straight line; beyond, that of the nearest.

    Args:
        pictures: as they were drawn, known ones, too, in order.
        known: what some of them should be, by their place; one or more.
        weight: how much of it is taken, in [0, 1]; 0 gives the pictures as they are.
        shares: where each picture stands in time; their places, if it is left out.
    """
    if weight == 0:
        return pictures
    own, places = Tone.of(pictures), sorted(known)
    real = Tone.of(torch.stack([known[place] for place in places]))
    made = own[places]
    ratio = (real.std / made.std.clamp(min=_FLAT)).clamp(1 / MOST, MOST)
    ratio = torch.where(made.std < _FLAT, torch.ones_like(ratio), ratio)
    rise = real.mean - made.mean
    times = list(shares) if shares is not None else [float(place) for place in range(len(pictures))]
    mix = _between([times[place] for place in places], times)
    wanted = Tone(own.mean + mix @ rise, own.std * (mix @ ratio))
    return brought(pictures, own, wanted, weight)


def trend(tones: Tone, times: Sequence[float]) -> Tone:
    """What grows over time of means and contrasts: the straight line of least squares, 0 at the first picture.

    Args:
        tones: of the pictures of a film, three or more; fewer have no trend.
        times: when they are, increasing.
    """
    if len(tones) < 3:
        return Tone(torch.zeros_like(tones.mean), torch.zeros_like(tones.std))
    at = torch.tensor(list(times), dtype=torch.float64)
    centred = (at - at.mean())[:, None]
    lines = [(centred * part).sum(0) / centred.square().sum() for part in (tones.mean, tones.std)]
    return Tone(*((at - at[0])[:, None] * line for line in lines))


def _between(known: Sequence[float], times: Sequence[float]) -> Float[Tensor, "t k"]:
    """How much each known one counts at each time."""
    mix = torch.zeros(len(times), len(known), dtype=torch.float64)
    for row, time in enumerate(times):
        right = sum(one <= time for one in known)
        if right in (0, len(known)):
            mix[row, max(right - 1, 0)] = 1
            continue
        share = (time - known[right - 1]) / (known[right] - known[right - 1])
        mix[row, right - 1], mix[row, right] = 1 - share, share
    return mix


def _each(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like)[:, :, None, None]
