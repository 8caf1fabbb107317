"""How the tree of a transition is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from segue.errors import TaskError
from segue.temporal.curve import Curve, Value, value_of

if TYPE_CHECKING:
    from segue.temporal.feed import Feed
    from segue.temporal.keys import Along
    from segue.temporal.plan import Planner
    from segue.types import Perceptual

PROBES_PER_PAIR = 7
AUTO = "auto"
MOTION = 0.05
"""The limit of `depth` "auto": widths of the picture that a pixel moves on average from a key to the middle."""
USUAL_DEPTH = 0.4
_FEED = ("power", "range", "decay")
DISTANCES = ("pixels", "latents", "lpips-alex", "lpips-vgg", "efficientnet-lite0")


@dataclass(frozen=True)
class Branching:
    """Where the tree of a transition branches. Left alone, it grows where the pictures differ most.

    Args:
        depth: share of the run before the first fork, in [0, 1): small invents, large restrains motion. May
            be a curve over the film, or auto: chosen for every two keys from cheap previews of what lies between them,
            the one with the least ghosting of those that move no more than 0.05 widths of the picture (auto:0.03 is
            another limit).
        crossfeed: pull of branches towards their parents, as power, range and decay, each in [0, 1]: power at the
            fork, falling to power * decay at the end of the range, which is a share of the branch's own steps. The
            power may be a curve over the film.
        first_crossfeed: pull of each key towards the key before it, likewise over its whole run.
        damper: what the guidance is multiplied with half-way between two keys, above 0: less than 1 lets go there, more
            holds on to what neither text says alone. 1 is constant. May be a curve over the film.
        branches: for a fixed tree, how many branches there are at each level, keys included: 2 3 7 10.
        at: where those levels begin: steps (0 3 6 9), or shares of the run (0 0.25 0.5 0.75).
        preset: a fixed tree by name: lowest, low, medium, high or ultra.
        max_branches: how many branches the measured gaps may place; without it, 7 for every two keys, and no more
            than half of the frames (but one for every two keys at least).
        budget: seconds for placing branches by measured gaps. Frames that are filled in come on top: they are what
            `fill` says. What was done is stored, and repeats exactly.
        smoothness: the largest perceptual step allowed between neighbouring frames, in units of `distance`. Branches
            are added where the film steps too far, and of all pictures those are shown that make it even, until it
            holds, or max_branches (without it, 3 for every frame) or the budget end it; the result says which.
        ghosting: how much of a double exposure a frame may be, from 0 to 1 (a cross-fade's middle has about 0.6 to 1).
            Frames that are more fork again, earlier, just where they are found, within max_branches (without it, 3 for
            every frame). Left out, they stay.
        distance: what steps are measured with: pixels, latents (quicker, and a worse judge), lpips-alex, lpips-vgg or
            efficientnet-lite0 (`segue models --fetch` gets the weights of these three).
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    depth: Value = USUAL_DEPTH
    crossfeed: tuple[Value, float, float] = (0.0, 0.6, 0.9)
    first_crossfeed: tuple[Value, float, float] = (0.0, 0.6, 0.9)
    damper: Value = 1.0
    branches: tuple[int, ...] = ()
    at: tuple[float, ...] = ()
    preset: str | None = None
    max_branches: int | None = None
    budget: float | None = None
    smoothness: float | None = None
    ghosting: float | None = None
    distance: str = "pixels"

    def __post_init__(self) -> None:
        object.__setattr__(self, "branches", tuple(self.branches))
        object.__setattr__(self, "at", tuple(float(value) for value in self.at))
        for name in ("crossfeed", "first_crossfeed"):
            object.__setattr__(self, name, _feed_of(getattr(self, name), name))
        object.__setattr__(self, "depth", _depth_of(self.depth))
        object.__setattr__(self, "damper", value_of(self.damper, "damper"))
        if not Curve.of(self.damper).low > 0:
            raise TaskError(f"damper must be above 0, got {self.damper}")
        if self.max_branches is not None and self.max_branches < 0:
            raise TaskError(f"max_branches must be 0 or more, got {self.max_branches}")
        if self.budget is not None and not self.budget > 0:
            raise TaskError(f"budget must be above 0 seconds, got {self.budget}")
        if self.smoothness is not None and not self.smoothness > 0:
            raise TaskError(f"smoothness must be above 0, in units of the distance, got {self.smoothness}")
        if self.ghosting is not None and not 0 < self.ghosting <= 1:
            raise TaskError(f"ghosting must be in (0, 1], got {self.ghosting}")
        if self.distance not in DISTANCES:
            raise TaskError(f"distance must be one of {', '.join(DISTANCES)}; got {self.distance!r}")
        self.feed("crossfeed")
        self.feed("first_crossfeed")
        self._check_form()

    def _check_form(self) -> None:
        fixed = bool(self.branches or self.at)
        if fixed and self.preset is not None:
            raise TaskError("a tree is given by branches and at, or by a preset, not by both")
        if bool(self.branches) != bool(self.at):
            raise TaskError("a fixed tree needs both branches and at, such as branches 2 3 7 10 at 0 3 6 9")
        if self.preset is not None and isinstance(self.depth, str):
            raise TaskError(f"a preset has one depth, got {self.depth!r}: give a number, or leave the preset out")
        if fixed and self.motion_limit is not None:
            raise TaskError(f"at says where the levels of a fixed tree begin: leave it out, or depth {self.depth!r}")
        if (fixed or self.preset is not None) and not (self.max_branches is None and self.budget is None):
            raise TaskError("max_branches and budget are for trees that grow; leave out branches, at and preset")

    def feed(self, name: str, along: Callable[[Value], Along] | None = None) -> Feed:
        """One of the two crossfeeds, of a film over which curves are known, or with the largest power that it has.

        Raises:
            TaskError: if it is not three numbers in [0, 1].
        """
        from segue.temporal.feed import Feed

        power, *rest = getattr(self, name)
        varying = along(power) if along and isinstance(power, str) else None
        return Feed(Curve.of(power).high, *rest, along=varying)

    def planner(self, steps: int, keys: int, frames: int, along: Callable[[str], Along] | None = None) -> Planner:
        """Who decides where the tree branches.

        Args:
            steps: of the run.
            keys: how many.
            frames: of the film.
            along: makes numbers at positions of the tree from the text of a curve; needed where the depth is one.
                Where the depth is "auto", the usual one stands for those that will be chosen.

        Raises:
            TaskError: if the tree does not fit the number of steps.
        """
        from segue.temporal.plan import Adaptive, Fixed, levels_from, preset_levels

        if steps < 2:
            # A single step leaves nothing to share: every branch would be a cross-fade of noise.
            raise TaskError(f"a transition needs 2 or more steps, got {steps}")
        if self.branches:
            return Fixed(levels_from(self.branches, self.at, steps), steps, self.feed("crossfeed"))
        if self.preset is not None:
            return Fixed(preset_levels(self.preset, steps, float(self.depth)), steps, self.feed("crossfeed"))
        pairs = keys - 1
        usual = max(pairs, min(PROBES_PER_PAIR * pairs, (frames - keys) // 2))
        most = usual if self.max_branches is None else self.max_branches
        if self.motion_limit is not None:
            return Adaptive(steps, USUAL_DEPTH, most, self.budget)
        if not isinstance(self.depth, str):
            return Adaptive(steps, self.depth, most, self.budget)
        if along is None:
            raise TaskError(f"the depth {self.depth!r} changes over a film, and none was named")
        return Adaptive(steps, along(self.depth), most, self.budget)

    @property
    def motion_limit(self) -> float | None:
        """The most motion of a preview, in widths of the picture, if depths are chosen by previews; else None."""
        return _motion_limit(self.depth)

    @property
    def curves(self) -> tuple[Value, ...]:
        """The fields that may change over the film."""
        depth = () if self.motion_limit is not None else (self.depth,)
        return (*depth, self.damper, self.crossfeed[0], self.first_crossfeed[0])

    @property
    def looks(self) -> bool:
        """Whether anything about the tree is decided by pictures, which are decoded for it."""
        return self.distance != "latents" or self.motion_limit is not None

    @property
    def corrects(self) -> bool:
        """Whether frames are looked at again once they are rendered."""
        return self.smoothness is not None or self.ghosting is not None

    def perceptual(self) -> Perceptual:
        """What steps are measured with.

        Raises:
            ModelNotFoundError: its weights are not here; the message says how to get them.
        """
        from segue.evaluation.distances import PixelDistance
        from segue.models.perceptual import EfficientNetDistance, LatentDistance, Lpips

        if self.distance in ("pixels", "latents"):
            return PixelDistance() if self.distance == "pixels" else LatentDistance()
        if self.distance == "efficientnet-lite0":
            return EfficientNetDistance.load()
        return Lpips.load("alex" if self.distance == "lpips-alex" else "vgg")


def _motion_limit(depth: Value) -> float | None:
    """The limit in "auto" or "auto:LIMIT"; None if the depth is none of them.

    Raises:
        TaskError: the limit is no number above 0.
    """
    name, colon, limit = str(depth).partition(":")
    if name.strip() != AUTO:
        return None
    try:
        widths = float(limit) if colon else MOTION
    except ValueError:
        widths = 0.0
    if not 0 < widths < math.inf:
        raise TaskError(f"depth auto:LIMIT takes widths of the picture above 0, such as auto:{MOTION:g}; got {depth!r}")
    return widths


def _feed_of(values: Sequence[Value], name: str) -> tuple[Value, ...]:
    """Power, range and decay in their one spelling.

    Raises:
        TaskError: they are not three, or range and decay no numbers.
    """
    given = tuple(value_of(value, f"{part} of {name}") for part, value in zip(_FEED, values, strict=False))
    if len(given) != len(_FEED) or len(values) != len(_FEED):
        raise TaskError(f"{name} must be power, range and decay, such as 0.3 0.6 0.9; got {list(values)}")
    for part, value in zip(_FEED[1:], given[1:], strict=True):
        if isinstance(value, str):
            raise TaskError(f"the {part} of {name} is one number for the whole film, got {value!r}; its power may vary")
    if Curve.of(given[0]).low < 0:
        raise TaskError(f"the power of a crossfeed must be in [0, 1] at all times, got {given[0]}")
    return given


def _depth_of(depth: Value) -> Value:
    """The depth in its one spelling.

    Raises:
        TaskError: it is neither a number in [0, 1), a curve of them, nor auto.
    """
    limit = _motion_limit(depth)
    if limit is not None:
        return AUTO if limit == MOTION else f"{AUTO}:{limit!r}"
    value = value_of(depth, "depth")
    if not 0 <= Curve.of(value).low <= Curve.of(value).high < 1:
        raise TaskError(f"depth must be in [0, 1), or auto; got {depth}")
    return value
