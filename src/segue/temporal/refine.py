"""Reaching a smoothness: branches go where the film steps too far, and of all pictures it shows those that are even.

The number of frames stays, since the film's length is given. Where two frames are too far apart, a branch forks between
them; then the film is chosen anew from all pictures that were drawn, so that elsewhere some are passed over. Where that
did not help, all frames are placed anew by what has been measured in the meantime, and those that are lacking drawn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise

from segue.temporal.choose import POWER, chosen
from segue.temporal.grow import Grower
from segue.temporal.plan import Planner
from segue.temporal.ruler import Ruler
from segue.temporal.timeline import missing
from segue.temporal.tree import DISTANCE_DIGITS, Tree

EVEN = 1.1
"""How much more than an even share of the way the largest step may be, where the number of frames is the limit."""
ROUNDS, IN_VAIN, WORTH = 16, 3, 0.98
"""Rounds after which it is no matter of places: in all, and in a row that left so much of what is made least."""
FILMS = 3
"""How many branches may be run where no limit was given, in numbers of the film's frames."""


@dataclass(frozen=True)
class Target:
    """What is to be reached, and what may be spent on it.

    Args:
        smoothness: the largest step between neighbouring frames, in units of the ruler's distance.
        branches: how many may be run for it; None is three times as many as frames.
        deadline: `time.monotonic()` after which no round is begun; None is no limit.
    """

    smoothness: float
    branches: int | None = None
    deadline: float | None = None


@dataclass
class Refinement:
    """Frames in their order, brought nearer to a target round by round.

    Args:
        grower: runs branches; every node that another may fork from has kept its latents.
        planner: knows where new branches fork.
        ruler: measures the steps.
        tree: with all that has been run.
        order: the node that each frame shows, from left to right; the first and the last stay, and so do keys.
        target: what is wanted.
        place: as many positions as there are frames, evenly spread, given those of pictures and the gaps between.
    """

    grower: Grower
    planner: Planner
    ruler: Ruler
    tree: Tree
    order: list[int]
    target: Target
    place: Callable[[Sequence[float], Sequence[float]], Sequence[float]]
    spent: int = 0
    _why: str = field(default="", init=False)
    """What ended it, where nothing else did."""

    def run(self) -> Iterator[int]:
        """Rounds until it holds or nothing more can be done; yields the row-steps that were just done."""
        if max(self._steps()) > self.target.smoothness:
            self._choose()
        least, vain = math.inf, 0
        for rounds in count():
            steps = self._steps()
            made = _cost(steps)
            least, vain = made, vain + 1 if made > WORTH * least else 0
            aim = self._aim(steps)
            wide = sorted((i for i, step in enumerate(steps) if step > aim), key=lambda i: (-steps[i], i))
            if not wide or rounds == ROUNDS or vain == IN_VAIN:
                self._why = "the frames are as even as they get"
                return
            able = min(len(wide), self._affordable())
            if able <= 0:
                self._why = "the budget was used"
                return
            anew = vain > 0 and self._affordable() >= len(self.order)
            places = self._lacking() if anew else []
            names = self._with(places or self._between(sorted(wide[:able])))
            yield from self.grower.run(self.tree, names, self.planner.forks(self.tree))
            self._choose()

    def _steps(self) -> list[float]:
        pairs = list(pairwise(self.order))
        return [round(step, DISTANCE_DIGITS) for step in self.ruler.measure(self.grower, self.tree, pairs)]

    def _aim(self, steps: Sequence[float]) -> float:
        """The target, or what so many frames can reach at most."""
        return max(self.target.smoothness, EVEN * sum(steps) / len(steps))

    def _affordable(self) -> int:
        if self.target.deadline is not None:
            cost = self.grower.row_seconds * (len(self.grower.schedule) - self._fork_step())
            by_time = math.floor((self.target.deadline - time.monotonic()) / max(cost, 1e-9))
        else:
            by_time = len(self.order)
        most = FILMS * len(self.order) if self.target.branches is None else self.target.branches
        by_count = most - self.spent
        return min(by_time, by_count)

    def _fork_step(self) -> int:
        (node,) = self.planner.fill(self.tree, [self.tree.nodes[self.order[0]].position + 0.5])
        return node.step

    def _between(self, wide: Sequence[int]) -> list[float]:
        """A place in each of these gaps of the film: the middle of the widest there is between pictures in it."""
        names = self.tree.frames()
        found: list[float] = []
        for i in wide:
            first, last = names.index(self.order[i]), names.index(self.order[i + 1])
            inner = list(pairwise(names[first : last + 1]))
            apart = self.ruler.measure(self.grower, self.tree, inner)
            _, left, right = max((round(gap, DISTANCE_DIGITS), *pair) for gap, pair in zip(apart, inner, strict=True))
            found.append((self.tree.nodes[left].position + self.tree.nodes[right].position) / 2)
        return found

    def _lacking(self) -> list[float]:
        """Where frames would be if all were placed anew by what has been measured, and no picture is near."""
        names = self.tree.frames()
        apart = self.ruler.measure(self.grower, self.tree, list(pairwise(names)))
        return missing(self.tree, self.place([self.tree.nodes[name].position for name in names], apart))

    def _choose(self) -> None:
        """As many pictures as the film shows: those between which it steps most evenly, if that is better than now."""
        kept = {name for name in self.order if self.tree.nodes[name].is_key}
        before, order = _cost(self._steps()), self.order
        self.order = chosen(self.tree.frames(), len(order), kept, partial(self.ruler.measure, self.grower, self.tree))
        if _cost(self._steps()) > before:
            self.order = order

    def _with(self, positions: Sequence[float]) -> range:
        """Branches at positions, added to the tree; returns their names."""
        first = len(self.tree.nodes)
        self.tree = self.tree.with_nodes(self.planner.fill(self.tree, positions))
        self.spent += len(positions)
        return range(first, len(self.tree.nodes))

    @property
    def ended(self) -> str:
        """What the film that `order` is has reached, and if it is not what was wanted, why."""
        steps = self._steps()
        name, wanted, largest = self.ruler.distance.name, self.target.smoothness, max(steps)
        if largest <= wanted:
            return f"smoothness {wanted:g} is reached: the largest step is {largest:.3f} ({name})"
        needed = math.ceil(sum(steps) / wanted) + 1
        if needed > len(self.order):
            limit = f"so long a way needs about {needed} frames, and the film has {len(self.order)}"
        else:
            limit = self._why
        return f"smoothness {wanted:g} is not reached: the largest step is {largest:.3f} ({name}); {limit}"


def _cost(steps: Sequence[float]) -> float:
    """What is to be least."""
    return sum(step**POWER for step in steps)
