"""All frames of a clip from a few that were made: those between two keys from both, those beyond from one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from math import cos, pi
from typing import TYPE_CHECKING

import torch

from segue.motion.carried import Paths, loud, with_energies
from segue.motion.detail import low, split, whole
from segue.motion.kept import Shelf
from segue.types import Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.motion.fields import Fields
    from segue.types import Frames

_TOLERANCE = 0.004
"""Mean squared difference of the guides, beyond the usual, by which a way is believed 1/e as much."""
_LEAST = 1e-4
"""What is left of a weight where nothing is believed, so that the better of two bad ways still counts."""
_AROUND = 1.5


def keyed(
    keys: Frames,
    places: Sequence[int],
    fields: Fields,
    *,
    numbers: Iterable[int] | None = None,
    progress: Progress = silent,
) -> Iterator[tuple[int, Float[Tensor, "3 h w"], Float[Tensor, "h w"]]]:
    """The number of each frame, the frame as the keys beside it would have it, and how far that can be trusted.

    A frame takes from the last key before it and the first after it, in its shot, whatever lies there along the way
    from frame to frame; weighted by how near the key is, how much the way is believed and how alike the guide is at its
    two ends. The low band is the mean of both; detail, too, in two bands, each with the energy that it has in the keys,
    so that frames between are as sharp as they are. At a key, the frame is the key, bit for bit. Beyond the first and
    last key of a shot, there is one to take from; one key is enough for a shot.

    Args:
        keys: pictures in [0, 1], of the size of the fields.
        places: the frame that each is of, ascending.
        fields: over the frames of the clip that the keys were made from.
        numbers: which frames; all by default. One after the other they are quickest.
        progress: told of each frame.

    Raises:
        ValueError: the places are none, or a shot that is asked for has no key; when it comes to it, a key has values
            that are not finite, which would spread over all that are made from it.
    """
    asked = list(range(len(fields)) if numbers is None else numbers)
    _check(keys, places, fields, asked)
    return _keyed(keys, places, fields, asked, progress)


def neighbours(places: Sequence[int], fields: Fields, number: int) -> tuple[int, ...]:
    """The last key up to a frame and the first from it on, of its shot: one if it is a key, or if there is only one."""
    after = bisect_left(places, number)
    beside = places[after - 1 : after] if after else ()
    found = (*beside, *places[after : after + 1])
    if number in found:
        return (number,)
    return tuple(key for key in found if fields.joined(number, key))


def _keyed(
    keys: Frames, places: Sequence[int], fields: Fields, asked: list[int], progress: Progress
) -> Iterator[tuple[int, Tensor, Tensor]]:
    span = max((b - a for a, b in zip((0, *places), (*places, len(fields)), strict=True)), default=0)
    paths = Paths(fields, span)
    leaves: Shelf[Tensor] = Shelf(0, least=3)
    # Of the stretch between two keys, each pair is asked for from both of its ends.
    fields.hold(span + 4)

    def key(place: int) -> Tensor:
        at = places.index(place)
        picture = keys[at : at + 1].to(fields.device, torch.float32)
        if not bool(picture.isfinite().all()):
            raise ValueError(
                f"the key at frame {place} has values that are not finite: expected all in [0, 1]; mend it"
            )
        return picture

    def leaf(place: int) -> Tensor:
        """Its low band, the bands of its detail, and their energies."""
        found = leaves.get(place)
        if found is None:
            picture = key(place)
            base = low(picture)
            found = torch.cat([base, with_energies(split(picture - base))], 1)
            leaves.put(place, found, 1)
        return found

    for done, number in enumerate(asked):
        beside = neighbours(places, fields, number)
        if beside == (number,):
            picture = key(number)
            yield number, picture[0], torch.ones_like(picture[0, 0])
        else:
            length = max(beside) - min(beside)
            sides = [_side(paths, number, place, leaf(place), length) for place in beside]
            picture, trust = _mixed(sides)
            yield number, picture[0], trust[0, 0]
        progress("filling in between keys", done + 1, len(asked))


def _side(paths: Paths, number: int, key: int, leaf: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """What a key says of a frame; with what weight; and how far to trust it."""
    way = paths.way(number, key)
    here, there = (paths.fields.picture(place) for place in (number, key))
    apart = low((way.remap(there) - here).square().mean(1, keepdim=True), _AROUND)
    # By how much more than half of the picture: that is noise, which says nothing against a way.
    alike = (-(apart - apart.median()).clamp(min=0) / _TOLERANCE).exp()
    trust = way.confidence[:, None] * alike
    near = cos(pi / 2 * abs(number - key) / length) if length else 1.0
    return way.remap(leaf), near * (trust + _LEAST * alike + _LEAST * _LEAST), trust


def _mixed(sides: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Float[Tensor, "1 3 h w"], Float[Tensor, "1 1 h w"]]:
    (one, weight, trust), (other, weight_other, trust_other) = sides[0], sides[-1]
    # About the middle of both, so that what is equal stays so, and neither comes first.
    middle = (one + other) / 2
    total = weight + weight_other
    mixed = middle + (weight * (one - middle) + weight_other * (other - middle)) / total
    picture = mixed[:, :3] + whole(loud(mixed[:, 3:]))
    return picture.clamp(0, 1), torch.maximum(trust, trust_other)


def _check(keys: Frames, places: Sequence[int], fields: Fields, asked: list[int]) -> None:
    if len(keys) != len(places) or not places or list(places) != sorted(set(places)):
        raise ValueError(f"expected one place for each of {len(keys)} keys, 1 or more, ascending; got {list(places)}")
    if keys.size != fields.size or not 0 <= places[0] <= places[-1] < len(fields):
        raise ValueError(
            f"expected keys of {fields.size[0]}x{fields.size[1]} at frames 0 to {len(fields) - 1}; "
            f"got {keys.size[0]}x{keys.size[1]} at {list(places)}"
        )
    for number in asked:
        if number not in range(len(fields)):
            raise ValueError(f"frames are 0 to {len(fields) - 1}; asked for {number}")
        if not neighbours(places, fields, number):
            first, last = fields.shot(number)
            raise ValueError(f"the shot of frames {first} to {last} has no key: expected one or more in every shot")
