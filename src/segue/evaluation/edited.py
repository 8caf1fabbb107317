"""How much an edit kept of its picture, where it changed it, and whether it went the way that its words say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize

from segue.errors import TaskError
from segue.evaluation.fidelity import psnr, ssim
from segue.evaluation.measure import Measure
from segue.types import Frames, Perceptual, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_BATCH = 8
PLACES = 14
"""Places along a side of which the structure of a picture is made, as those of a ViT of 16 pixels at 224."""


class Maps(Protocol):
    """Deep features that are still places of a picture, such as `EfficientNetFeatures`."""

    @property
    def name(self) -> str:
        """The network, to be written beside every number."""
        ...

    @property
    def side(self) -> int:
        """Pixels along a side of the pictures that it was made for."""
        ...

    def stages(self, pictures: Float[Tensor, "b 3 h w"]) -> Iterator[Tensor]:
        """Maps of pictures in [0, 1], each coarser than the one before."""
        ...


class TextEncoder(Protocol):
    """A network that knows pictures and words, such as `ClipNetwork`."""

    @property
    def name(self) -> str:
        """The network, to be written beside every number."""
        ...

    def __call__(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """One vector of length 1 per picture in [0, 1]."""
        ...

    def texts(self, prompts: list[str]) -> Float[Tensor, "k d"]:
        """One vector of length 1 per text."""
        ...


@dataclass(frozen=True)
class Words:
    """What an edit was to do, in words, and who reads them.

    Args:
        prompt: what the result is to show.
        source_prompt: what the source shows.
        network: that knows pictures and words.
    """

    prompt: str
    source_prompt: str
    network: TextEncoder


@dataclass(frozen=True)
class Edited:
    """Means over the frames of a result and its source.

    Args:
        psnr: between them, in dB; None where all are equal.
        ssim: between them.
        outside_psnr: the same outside the mask; None without a mask, or where nothing differs.
        outside: mean absolute change outside the mask, in levels of 255; None without a mask.
        inside: the same inside.
        distance: a perceptual distance; None if none was given.
        by: its name.
        structure: how much of what is like what within the picture has changed; None without features.
        maps: the name of these.
        direction: the cosine between the way of the pictures and the way of the words; None without an encoder.
        encoder: its name.
    """

    psnr: float | None
    ssim: float
    outside_psnr: float | None = None
    outside: float | None = None
    inside: float | None = None
    distance: float | None = None
    by: str = ""
    structure: float | None = None
    maps: str = ""
    direction: float | None = None
    encoder: str = ""

    def measures(self) -> list[Measure]:
        """All numbers, each with its meaning."""
        found = [
            Measure("PSNR", self.psnr, "higher", "between source and result, in dB; none where both are equal"),
            Measure("SSIM", self.ssim, "higher", "between source and result; 1 for equal ones"),
        ]
        if self.outside is not None:
            found += [
                Measure("kept outside", self.outside, "lower", "mean change outside the mask, in levels of 255"),
                Measure("PSNR outside", self.outside_psnr, "higher", "outside the mask; none where nothing changed"),
                Measure("change inside", self.inside, "neither", "mean change inside the mask, in levels of 255"),
            ]
        if self.distance is not None:
            found.append(Measure("distance", self.distance, "lower", f"between source and result, {self.by}"))
        if self.structure is not None:
            told = f"change of what is like what within the picture, in {self.maps}"
            found.append(Measure("structure", self.structure, "lower", told))
        if self.direction is not None:
            told = f"cosine of the change of pictures and of words, {self.encoder}"
            found.append(Measure("direction", self.direction, "higher", told))
        return found


def edited(
    result: Frames,
    source: Frames,
    masks: Frames | None = None,
    *,
    distance: Perceptual | None = None,
    maps: Maps | None = None,
    words: Words | None = None,
    progress: Progress = silent,
) -> Edited:
    """Measure an edit, a few frames at a time.

    Args:
        result: of it.
        source: what it was made from.
        masks: white (half or more) where it was to change; one for all frames, or each.
        distance: between pictures.
        maps: features in which structure is compared.
        words: in which direction it was to go.
        progress: told of every few frames.

    Raises:
        TaskError: sizes or numbers of frames differ, or a mask leaves nothing, or nothing else, open.
    """
    _check(result, source, masks)
    rows: list[dict[str, float]] = []
    for first in range(0, len(result), _BATCH):
        part = slice(first, min(first + _BATCH, len(result)))
        made, own = result[part], source[part]
        mask = None if masks is None else masks[part if len(masks) > 1 else slice(0, 1)].mean(1, keepdim=True) >= 0.5
        rows += _rows(made, own, mask, distance, maps, words)
        progress("comparing with the source", part.stop, len(result))
    means = {name: fmean(row[name] for row in rows) for name in rows[0]}
    found: dict[str, Any] = {name: None if value == float("inf") else value for name, value in means.items()}
    found |= {"by": distance.name if distance else "", "maps": maps.name if maps else ""}
    return Edited(**found, encoder=words.network.name if words else "")


def directions(before: Float[Tensor, "b d"], after: Float[Tensor, "b d"], words: Words) -> Float[Tensor, " b"]:
    """The cosine between how pictures changed and how words did (Gal et al. 2021, arXiv:2108.00946, eq. 2).

    Args:
        before: features of the sources.
        after: features of the results.
        words: what was said, and by whom the features are.
    """
    target, own = words.network.texts([words.prompt, words.source_prompt]).cpu().double()
    return normalize(after.cpu().double() - before.cpu().double(), dim=1) @ normalize(target - own, dim=0)


def structures(a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"], maps: Maps) -> Float[Tensor, " b"]:
    """How much of what is like what within pictures differs: the mean squared difference of self-similarities.

    As DINO's structure distance (Tumanyan et al. 2022, arXiv:2201.00424, eq. 3), in other features, which are named:
    cosines between all pairs of 14 x 14 places. Colours and textures that change everywhere alike leave it small.
    """
    one, other = (_alike(_resized(pictures, maps.side), maps) for pictures in (a, b))
    return (one - other).square().mean((1, 2))


def _alike(pictures: Tensor, maps: Maps) -> Float[Tensor, "b n n"]:
    """Cosines between all places, in the coarsest map that has as many."""
    found = None
    for stage in maps.stages(pictures):
        if found is None or min(stage.shape[-2:]) >= PLACES:
            found = stage
    assert found is not None
    places = adaptive_avg_pool2d(found.float(), PLACES).flatten(2).double()
    # Without its mean every place is like every other, since features are mostly positive.
    directions = normalize(places - places.mean(2, keepdim=True), dim=1)
    return directions.transpose(1, 2) @ directions


def _resized(pictures: Tensor, side: int) -> Tensor:
    return interpolate(pictures, (side, side), mode="bilinear", antialias=True)


@torch.no_grad()
def _rows(
    made: Tensor, own: Tensor, mask: Tensor | None, distance: Perceptual | None, maps: Maps | None, words: Words | None
) -> list[dict[str, float]]:
    found = {"psnr": psnr(own, made), "ssim": ssim(own, made)}
    if mask is not None:
        apart = (made - own).double()
        for name, where in (("outside", ~mask), ("inside", mask)):
            weights = where.expand(len(made), 3, -1, -1).double()
            count = weights.sum((1, 2, 3))
            found[name] = 255 * (apart.abs() * weights).sum((1, 2, 3)) / count
            if name == "outside":
                found["outside_psnr"] = -10 * ((apart.square() * weights).sum((1, 2, 3)) / count).log10()
    if distance is not None:
        found["distance"] = distance(own, made)
    if maps is not None:
        found["structure"] = structures(own, made, maps)
    if words is not None:
        found["direction"] = directions(words.network(own), words.network(made), words)
    return [{name: float(values[row]) for name, values in found.items()} for row in range(len(made))]


def _check(result: Frames, source: Frames, masks: Frames | None) -> None:
    for what, here, there in (
        ("pixels", "{}x{}".format(*result.size), "{}x{}".format(*source.size)),
        ("frames", str(len(result)), str(len(source))),
    ):
        if here != there:
            raise TaskError(
                f"an edit and its source are compared pixel by pixel: the edit has {here} {what}, the source {there}; "
                "bring both to one size and length"
            )
    if masks is None:
        return
    if masks.size != source.size or len(masks) not in (1, len(source)):
        sizes = "{}x{}".format(*masks.size), "{}x{}".format(*source.size)
        raise TaskError(
            f"expected a mask of {sizes[1]} pixels, one or {len(source)}; got {len(masks)} of {sizes[0]} pixels"
        )
    shares = [float((masks[number : number + 1].mean(1) >= 0.5).float().mean()) for number in range(len(masks))]
    if not all(0 < share < 1 for share in shares):
        raise TaskError("a mask is white where an edit was to change and black where not; this one is of one kind")
