"""Ways to make the frames of a film agree, under one face: what `deflickering.py` compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

import blindfilters
import fastblend
import torch
from blindfilters import FlowBlend, GradientFilter
from fastblend import FastBlend
from torch import Tensor
from versions import MOTION, written

from segue.media.clip import TensorFrames
from segue.motion import match as ways
from segue.motion.blend import Blending, Detail, blended
from segue.motion.cuts import cuts
from segue.motion.fields import Fields
from segue.motion.flow_match import FlowMatcher
from segue.motion.guide import Levelled
from segue.motion.match import Match, Matcher
from segue.motion.patchmatch import PatchMatcher


@dataclass(frozen=True)
class Film:
    """What a method is given.

    Args:
        style: the film that flickers, (t, 3, h, w) in [0, 1].
        guide: what its movement is looked for in: the source, or the film itself.
        blind: which of these.
        window: frames on each side, where a method has such a number.
    """

    style: Tensor
    guide: Tensor
    blind: bool
    window: int


@dataclass(frozen=True)
class Made:
    """What a method made of it, and what it took.

    Args:
        frames: (t, 3, h, w) in [0, 1].
        fields: directions between two pictures that were searched.
        remaps: pictures that were brought from one frame to another.
    """

    frames: Tensor
    fields: int
    remaps: int


Method = Callable[[Film], Made]


def nothing(film: Film) -> Made:
    """The film as it is."""
    return Made(film.style, 0, 0)


def fast_blend(mode: fastblend.Mode, repaired: bool) -> Method:
    """FastBlend; see `fastblend.py`."""

    def made(film: Film) -> Made:
        method = FastBlend(film.window, mode, repaired)
        guide, style = (each.permute(0, 2, 3, 1).contiguous() * 255 for each in (film.guide, film.style))
        frames = method(guide, style).permute(0, 3, 1, 2) / 255
        return Made(frames, method.fields, method.fields)

    return made


def flow_blend(occlusion: bool) -> Method:
    """Warped neighbours; see `blindfilters.py`."""

    def made(film: Film) -> Made:
        method = FlowBlend(film.window, occlusion=occlusion)
        frames = method(film.guide, film.style)
        return Made(frames, method.fields, method.fields // (2 if occlusion else 1))

    return made


def gradient_filter(strength: float) -> Method:
    """Bonneel's filter; see `blindfilters.py`."""

    def made(film: Film) -> Made:
        method = GradientFilter(strength)
        frames = method(film.guide, film.style)
        return Made(frames, method.fields, 2 * method.fields)

    return made


def segue(matcher: Matcher, grain: float, detail: Detail = "auto") -> Method:
    """Ours, as `segue deflicker` does it."""

    def made(film: Film) -> Made:
        counted, style, guide = Counted(matcher), TensorFrames.rounded(film.style), TensorFrames.rounded(film.guide)
        shots = cuts(guide)
        fields = Fields(counted, Levelled(guide) if film.blind else guide, cuts=shots)
        remaps = 0
        remap = Match.remap

        def counting(self: Match, there: Tensor) -> Tensor:
            nonlocal remaps
            remaps += len(self)
            return remap(self, there)

        with patch.object(ways.Match, "remap", counting):
            found = blended(style, fields, Blending(film.window, grain=grain, detail=detail))
            frames = torch.stack([picture for _, picture, _ in found])
        return Made(frames, counted.fields, remaps)

    return made


@dataclass
class Counted:
    """An engine of correspondence, and how many fields it was asked for."""

    matcher: Matcher
    fields: int = 0

    @property
    def name(self) -> str:
        """Of the engine."""
        return self.matcher.name

    def __call__(self, a: Tensor, b: Tensor, start: tuple[Match, Match] | None = None) -> tuple[Match, Match]:
        """As the engine."""
        self.fields += 2 * len(a)
        return self.matcher(a, b, start)


_SEARCH = ("patchmatch", "search", "pyramid", "descriptors", "voting")
"""Files of `segue.motion` that optical flow does not need."""
_OURS, _OURS_BY_FLOW = written(*MOTION), written(*(file for file in MOTION if file.stem not in _SEARCH))
_FASTBLEND, _FILTERS = (f"{module.__name__} {module.VERSION}" for module in (fastblend, blindfilters))

METHODS: dict[str, tuple[Method, str]] = {
    "nothing": (nothing, ""),
    "FastBlend, shipped": (fast_blend("fast", False), _FASTBLEND),
    "FastBlend, repaired": (fast_blend("fast", True), _FASTBLEND),
    "FastBlend balanced, repaired": (fast_blend("balanced", True), _FASTBLEND),
    "flow warp": (flow_blend(False), _FILTERS),
    "flow warp, occlusion": (flow_blend(True), _FILTERS),
    "Bonneel": (gradient_filter(1.0), _FILTERS),
    "Bonneel, strong": (gradient_filter(20.0), _FILTERS),
    "ours, PatchMatch": (segue(PatchMatcher(), 1.0), _OURS),
    "ours, flow": (segue(FlowMatcher(), 1.0), _OURS_BY_FLOW),
    "ours, flow, carried": (segue(FlowMatcher(), 1.0, "carried"), _OURS_BY_FLOW),
    "ours, PatchMatch, grain 0": (segue(PatchMatcher(), 0.0), _OURS),
    "ours, flow, grain 0": (segue(FlowMatcher(), 0.0), _OURS_BY_FLOW),
}
"""By name, with what tells one version of it from another."""
