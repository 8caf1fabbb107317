"""Optical flow as an engine of correspondence: exact to parts of a pixel, at short intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import torch

from segue.motion.detail import low
from segue.motion.flow import flow
from segue.motion.match import Match, inside
from segue.motion.occlusion import followed
from segue.motion.warp import stepped, warp

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


_AROUND = 1.5
"""Standard deviation, in pixels, of the area whose error is looked at."""
_ALIKE = 0.001
"""The error around a pixel at which it is believed to 1/e although its way does not lead back."""


@dataclass(frozen=True)
class FlowMatcher:
    """Dense inverse search (see `segue.motion.flow`), believed where it leads there and back again.

    Plain areas have no flow, so that theirs does not come back. To blend them, a way there is believed as far as what
    lies around its ends looks the same. A measure of how alike pictures are must not choose its pixels by that.

    Args:
        alike: whether what looks alike is believed, too.
    """

    alike: bool = True

    @property
    def begins_anew(self) -> bool:
        """Of what is believed so far it makes no use, so that nobody need find it out."""
        return True

    @property
    def name(self) -> str:
        """What it is; optical flow is OpenCV's, and not the same in all of its versions."""
        return f"dis-medium-2 alike={self.alike} opencv={cv2.__version__}"

    def __call__(
        self,
        a: Float[Tensor, "b 3 h w"],
        b: Float[Tensor, "b 3 h w"],
        start: tuple[Match, Match] | None = None,
    ) -> tuple[Match, Match]:
        """From `a` to `b`, and from `b` to `a`. What is believed so far is not used: the search begins coarsely.

        Raises:
            ValueError: the shapes differ, or a side is shorter than 16 pixels.
        """
        there, back = stepped(flow(a, b)), stepped(flow(b, a))
        # Both directions at once, as rows: small pictures take as long to call for as to work on.
        ways, returning = torch.cat([there, back]), torch.cat([back, there])
        both = self._match(torch.cat([a, b]), torch.cat([b, a]), ways, followed(ways, returning))
        return both[: len(a)], both[len(a) :]

    def _match(self, here: Tensor, there: Tensor, way: Tensor, believed: Bool[Tensor, "b h w"]) -> Match:
        error = (warp(there, way) - here).square().mean(1)
        confidence = believed.to(way)
        if self.alike:
            around = low(error[:, None], _AROUND)[:, 0]
            confidence = torch.maximum(confidence, (-around / _ALIKE).exp()) * inside(way)
        return Match(way, error, confidence, whole=False)
