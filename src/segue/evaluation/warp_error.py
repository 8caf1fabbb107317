"""How much what moves changes its look on the way: frames brought along a flow and held against one another."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from segue.evaluation.measure import Measure
from segue.evaluation.movement import ENOUGH
from segue.evaluation.windows import reduced, reduced_size
from segue.motion.flow_match import FlowMatcher
from segue.motion.match import Match, Matcher
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

AREA = 512 * 512
"""Pixels of a picture that is compared: larger ones are reduced first."""
INTERVALS = (1, 8)
"""Frames between those that are compared: neighbours, and some that a flow can still follow in most films."""
BELIEVED = 0.5
"""The confidence from which on a pixel counts."""


@dataclass(frozen=True)
class Change:
    """What changed between an earlier frame and a later one, where the flow can be followed.

    Args:
        absolute: the mean absolute difference of colours, of a full range of 1; None if less than a third of the
            picture is followed, as over a cut.
        squared: the mean of its square; of a full range of 1, and 255 x 255 times as much of levels.
        followed: the share of the picture that counts.
        own: `absolute` of the film that the flow is of, along the same flow.
    """

    absolute: float | None
    squared: float | None
    followed: float
    own: float | None


@dataclass(frozen=True)
class Changes:
    """All pairs of frames that lie so far apart.

    Args:
        interval: how many frames; None if every frame is compared with the first.
        absolute, squared, own: means over the pairs that can be followed; None if there are none. See `Change`.
        followed: the mean share of the picture.
        pairs: in the order of the later frame.
    """

    interval: int | None
    absolute: float | None
    squared: float | None
    own: float | None
    followed: float
    pairs: tuple[Change, ...]

    @staticmethod
    def of(interval: int | None, pairs: Sequence[Change]) -> Changes:
        """Of pairs, each counting alike."""
        share = fmean(pair.followed for pair in pairs) if pairs else 0.0
        absolute, squared, own = (
            _mean([getattr(pair, name) for pair in pairs]) for name in ("absolute", "squared", "own")
        )
        return Changes(interval, absolute, squared, own, share, tuple(pairs))


@dataclass(frozen=True)
class WarpError:
    """How far a film is from looking the same along its motion, over short and long times.

    Args:
        matcher: what found the flow.
        of_source: it is that of another film; otherwise the film's own, which its flicker disturbs.
        compared_at: (width, height) of the pictures.
        spans: by the time between frames.
    """

    matcher: str
    of_source: bool
    compared_at: tuple[int, int]
    spans: tuple[Changes, ...]

    def at(self, interval: int | None) -> Changes:
        """Those at one interval, or, with None, to the first frame.

        Raises:
            KeyError: they were not measured.
        """
        found = {span.interval: span for span in self.spans}
        if interval not in found:
            raise KeyError(f"changes were measured at the intervals {list(found)}, not at {interval}")
        return found[interval]

    def measures(self) -> list[Measure]:
        """All numbers, each with its meaning."""
        return [Measure(_name(span), span.absolute, "lower", self._told(span)) for span in self.spans]

    def _told(self, span: Changes) -> str:
        which = {None: "from the first frame", 1: "from frame to frame"}.get(
            span.interval, f"in {span.interval} frames"
        )
        whose = "the source's flow" if self.of_source else "its own flow"
        about = f"mean change of colours {which} along {whose}"
        if not span.pairs:
            return f"{about}; the film has no frames so far apart"
        share = f"{about}; {span.followed:.0%} is followed"
        return share if not self.of_source or span.own is None else f"{share}; source: {span.own:.4g}"


def warp_error(
    frames: Frames,
    source: Frames | None = None,
    *,
    intervals: Sequence[int] = INTERVALS,
    to_first: bool = True,
    every: int = 1,
    matcher: Matcher | None = None,
    progress: Progress = silent,
) -> WarpError:
    """Bring the earlier frame of each pair to the later one along a flow, and compare their colours.

    The mean over pairs of the mean absolute difference over what is not occluded: E_warp as Lei et al. 2020 have it
    ("Blind video temporal consistency via deep video prior", arXiv:2010.11838), who take neighbours and the first
    frame; the squares are E_warp as Lai et al. 2018 have it (arXiv:1808.00449). Ours is of pictures reduced to 512x512
    pixels' area, and pairs of which less than a third is followed are left out.

    Args:
        frames: two or more.
        source: the film whose flow is taken, of the same size and length, so that films are compared along one
            flow. Left out, the film's own: that of a flickering film is worse, and less of it is followed.
        intervals: frames between those of a pair.
        to_first: also compare every frame with the first.
        every: of pairs that are no neighbours, one in so many frames is taken, as those in between say nearly the same.
        matcher: what finds the flow; left out, dense inverse search.
        progress: told of every frame.

    Raises:
        ValueError: the films differ in size or length, there are fewer than two frames, or an interval is below 1.
    """
    if len(frames) < 2 or min([*intervals, every]) < 1:
        asked = f"{len(frames)}, {[*intervals]} and {every}"
        raise ValueError(f"expected 2 frames or more, intervals from 1 on and one in 1 or more pairs; got {asked}")
    if source is not None and (len(source), source.size) != (len(frames), frames.size):
        raise ValueError(f"the source has {len(source)} frames of {source.size}, not {len(frames)} of {frames.size}")
    matcher = matcher or FlowMatcher(alike=False)
    found: dict[int | None, list[Change]] = {interval: [] for interval in intervals}
    if to_first:
        found[None] = []
    held: deque[tuple[Tensor, Tensor]] = deque(maxlen=max(intervals, default=0) + 1)
    first: tuple[Tensor, Tensor] | None = None
    with torch.no_grad():
        for number in range(len(frames)):
            here = _pair(frames, source, number)
            held.append(here)
            first = first or here
            for interval, changes in found.items():
                apart = interval or 1
                if number < apart or (number - apart) % (1 if interval == 1 else every):
                    continue
                earlier = first if interval is None else held[-1 - interval]
                changes.append(_change(earlier, here, matcher, of_source=source is not None))
            progress("warping", number + 1, len(frames))
    size = reduced_size(frames.size, AREA)
    spans = tuple(Changes.of(interval, pairs) for interval, pairs in found.items())
    return WarpError(matcher.name, source is not None, size, spans)


def _pair(frames: Frames, source: Frames | None, number: int) -> tuple[Tensor, Tensor]:
    """A frame, and the one whose motion counts; the same one if there is no source."""
    picture = reduced(frames[number : number + 1], AREA)
    return picture, picture if source is None else reduced(source[number : number + 1], AREA)


def _change(
    earlier: tuple[Tensor, Tensor], later: tuple[Tensor, Tensor], matcher: Matcher, *, of_source: bool
) -> Change:
    back, _ = matcher(later[1], earlier[1])
    found = change(earlier[0], later[0], back)
    if not of_source or found.absolute is None:
        return found
    return replace(found, own=change(earlier[1], later[1], back).absolute)


def change(earlier: Float[Tensor, "1 3 h w"], later: Float[Tensor, "1 3 h w"], back: Match) -> Change:
    """What changed between two frames along the ways from the later one to the earlier."""
    known = back.confidence[0] >= BELIEVED
    share = float(known.float().mean())
    if share < ENOUGH:
        return Change(None, None, share, None)
    apart = _apart(back.remap(earlier), later, known)
    return Change(float(apart.abs().mean()), float(apart.square().mean()), share, None)


def _apart(brought: Tensor, there: Tensor, known: Tensor) -> Tensor:
    """The differences of colours where they count; bicubic may leave the range of colours, which no picture does."""
    return (brought.clamp(0, 1) - there)[0][:, known].double()


def _name(span: Changes) -> str:
    if span.interval == 1:
        return "warp error"
    return "warp error to the first" if span.interval is None else f"warp error at {span.interval}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
