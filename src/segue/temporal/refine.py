"""Reaching a smoothness: a frame is put where two are too far apart, and one that is hardly missed goes.

The number of frames stays, since the film's length is given. So does every frame that was not touched, and with it what
it cost. Only when no frame is left that could go, all are placed anew, by what has been measured in the meantime.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise

from segue.temporal.grow import Grower
from segue.temporal.plan import Planner
from segue.temporal.ruler import Ruler
from segue.temporal.timeline import missing, shots
from segue.temporal.tree import DISTANCE_DIGITS, Tree, neighbours

EVEN = 1.1
"""How much more than an even share of the way the largest step may be, where the number of frames is the limit."""
ROUNDS, SLIDES = 16, 3
"""After so many, what is left is no matter of places."""


@dataclass(frozen=True)
class Target:
    """What is to be reached, and what may be spent on it.

    Args:
        smoothness: the largest step between neighbouring frames, in units of the ruler's distance.
        branches: how many may be run for it; None is no limit.
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
    ended: str = field(default="", init=False)

    def run(self) -> Iterator[int]:
        """Rounds until it holds or nothing more can be done; yields the row-steps that were just done."""
        slides = 0
        for rounds in count():
            steps = self._steps()
            aim = self._aim(steps)
            wide = sorted((i for i, step in enumerate(steps) if step > aim), key=lambda i: (-steps[i], i))
            if not wide or rounds == ROUNDS:
                self.ended = self._said(steps, "the frames are as even as they get")
                return
            able = min(len(wide), len(self._spare(aim, wide)), self._affordable())
            if able > 0:
                yield from self._round(wide[:able], self._spare(aim, wide)[:able])
            elif slides < SLIDES and self._affordable() >= len(self.order):
                slides += 1
                yield from self._slide()
            else:
                self.ended = self._said(steps, "the budget was used")
                return

    def _steps(self) -> list[float]:
        pairs = list(pairwise(self.order))
        return [round(step, DISTANCE_DIGITS) for step in self.ruler.measure(self.grower, self.tree, pairs)]

    def _aim(self, steps: Sequence[float]) -> float:
        """The target, or what so many frames can reach at most."""
        return max(self.target.smoothness, EVEN * sum(steps) / len(steps))

    def _spare(self, aim: float, wide: Sequence[int]) -> list[int]:
        """Places whose frames can go, the least missed first: no two are neighbours, none is beside a wide gap."""
        kept = {place for i in wide for place in (i, i + 1)} | {0, len(self.order) - 1}
        inner = [i for i, name in enumerate(self.order) if i not in kept and not self.tree.nodes[name].is_key]
        around = self.ruler.measure(self.grower, self.tree, [(self.order[i - 1], self.order[i + 1]) for i in inner])
        fine = sorted((round(step, DISTANCE_DIGITS), i) for step, i in zip(around, inner, strict=True) if step <= aim)
        chosen: list[int] = []
        for _, i in fine:
            if not {i - 1, i + 1} & set(chosen):
                chosen.append(i)
        return chosen

    def _affordable(self) -> int:
        if self.target.deadline is not None:
            cost = self.grower.row_seconds * (len(self.grower.schedule) - self._fork_step())
            by_time = math.floor((self.target.deadline - time.monotonic()) / max(cost, 1e-9))
        else:
            by_time = len(self.order)
        by_count = len(self.order) if self.target.branches is None else self.target.branches - self.spent
        return min(by_time, by_count)

    def _fork_step(self) -> int:
        (node,) = self.planner.fill(self.tree, [self.tree.nodes[self.order[0]].position + 0.5])
        return node.step

    def _round(self, wide: Sequence[int], spare: Sequence[int]) -> Iterator[int]:
        """One branch in the middle of each wide gap, and as many frames away; all in few batches."""
        places = [self.tree.nodes[name].position for name in self.order]
        gaps = sorted(wide)
        names = self._with([(places[i] + places[i + 1]) / 2 for i in gaps])
        yield from self.grower.run(self.tree, names, self.planner.forks(self.tree))
        between = dict(zip(gaps, names, strict=True))
        gone = set(spare)
        order: list[int] = []
        for i, name in enumerate(self.order):
            order += [] if i in gone else [name]
            order += [between[i]] if i in between else []
        self.order = order

    def _slide(self) -> Iterator[int]:
        """All frames placed anew, by all that was ever run; what is near enough to a place serves it."""
        places = [self.tree.nodes[name].position for name in self.tree.frames()]
        wanted = self.place(places, self.ruler.measure(self.grower, self.tree, neighbours(self.tree)))
        lacking = missing(self.tree, wanted)
        if lacking:
            names = self._with(lacking)
            yield from self.grower.run(self.tree, names, self.planner.forks(self.tree))
        self.order = [shot.left for shot in shots(self.tree, wanted)]

    def _with(self, positions: Sequence[float]) -> range:
        """Branches at positions, added to the tree; returns their names."""
        first = len(self.tree.nodes)
        self.tree = self.tree.with_nodes(self.planner.fill(self.tree, positions))
        self.spent += len(positions)
        return range(first, len(self.tree.nodes))

    def _said(self, steps: Sequence[float], why: str) -> str:
        name, wanted, largest = self.ruler.distance.name, self.target.smoothness, max(steps)
        if largest <= wanted:
            return f"smoothness {wanted:g} is reached: the largest step is {largest:.3f} ({name})"
        needed = math.ceil(sum(steps) / wanted) + 1
        if needed > len(self.order):
            limit = f"so long a way needs about {needed} frames, and the film has {len(self.order)}"
        else:
            limit = why
        return f"smoothness {wanted:g} is not reached: the largest step is {largest:.3f} ({name}); {limit}"
