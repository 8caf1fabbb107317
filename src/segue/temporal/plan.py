"""Who decides where the tree branches: fixed levels, the largest perceptual gap, or a plan that was stored."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

from segue.errors import TaskError
from segue.temporal.feed import Feed
from segue.temporal.keys import Along
from segue.temporal.tree import SAME_PLACE, Node, Tree, spread

LATEST_FORK = 0.6
"""Share of the run after which no round forks: later ones come nearer to a cross-fade (docs/transitions.md)."""
CLIFF, CLIFF_FORK = 1 / 64, 0.9
"""Where branches had to come so near each other, in distances of keys, the network answers with one picture or another,
and nothing between. What forks there later is between them: a level later with each halving, up to this share."""


@dataclass(frozen=True)
class Growth:
    """What a planner may look at: the tree so far, the gaps between its frames, and the time.

    Args:
        tree: all nodes that have been run.
        gaps: perceptual distance between neighbouring frames, in the order of `neighbours(tree)`.
        seconds: how long the growth has taken so far.
        row_seconds: measured seconds that one row takes for one step.
    """

    tree: Tree
    gaps: tuple[float, ...]
    seconds: float
    row_seconds: float


class Planner(Protocol):
    """Decides what is run next."""

    def wave(self, growth: Growth) -> list[Node]:
        """The next nodes to run together; none when the tree is complete."""
        ...

    def forks(self, tree: Tree) -> frozenset[int]:
        """The steps at which nodes may fork that are not in this tree yet: what latents must be kept of."""
        ...

    def fill(self, tree: Tree, positions: Sequence[float]) -> list[Node]:
        """Nodes that serve single frames at these positions, once the tree is complete."""
        ...

    def first(self, position: float) -> int:
        """The step at which the first branches fork at a position; keys that are blends of others do so there."""
        ...


@dataclass(frozen=True)
class Level:
    """A layer of a fixed tree: `branches` trajectories in all, evenly spaced, from step `step` on."""

    step: int
    branches: int


@dataclass(frozen=True)
class Fixed:
    """The tree of given levels, between every two keys.

    The branches of one level end where those of the next begin, except where the two lie at the same position; there
    one trajectory serves both. The last level is what can be shown.

    Args:
        levels: from the keys on.
        steps: length of the schedule.
        feed: the crossfeed from parents, for whose sake inner branches run on.
    """

    levels: tuple[Level, ...]
    steps: int
    feed: Feed = field(default_factory=Feed)

    def __post_init__(self) -> None:
        steps, counts = [level.step for level in self.levels], [level.branches for level in self.levels]
        if steps[:1] != [0] or counts[:1] != [2]:
            raise TaskError(f"a tree begins with 2 branches (the keys) at step 0, got {counts} at {steps}")
        if any(a >= b for a, b in pairwise(steps)) or steps[-1] >= self.steps:
            raise TaskError(f"the steps of a tree must increase and stay below {self.steps}, got {steps}")
        if any(a >= b for a, b in pairwise(counts)):
            raise TaskError(f"the branches of a tree must increase from level to level, got {counts}")

    def forks(self, tree: Tree) -> frozenset[int]:
        """The steps of the levels."""
        return frozenset(level.step for level in self.levels) | {self._fill_step()}

    def fill(self, tree: Tree, positions: Sequence[float]) -> list[Node]:
        """Where the last level forks, from the same parents, so that its pictures and these are of one kind."""
        last = len(self.levels) - 1
        parents = {name for node in tree.nodes if node.wave == last for name in node.parents or ()}
        return tree.fork(positions, self._fill_step(), max(node.wave for node in tree.nodes) + 1, parents or None)

    def first(self, position: float) -> int:
        """That of the second level, the keys being the first."""
        return self.levels[min(1, len(self.levels) - 1)].step or self._fill_step()

    def _fill_step(self) -> int:
        return self.levels[-1].step or math.ceil(self.steps / 10)

    def wave(self, growth: Growth) -> list[Node]:
        """The whole next level, between all keys at once."""
        done = max(node.wave for node in growth.tree.nodes)
        return [node for node in self.resolve(growth.tree.keys).nodes if node.wave == done + 1]

    def resolve(self, keys: int) -> Tree:
        """The complete tree: nothing in it depends on what the pictures show."""
        tree = Tree.of_keys(keys)
        alive = list(range(keys))
        for wave, level in enumerate(self.levels[1:], start=1):
            stop = self.levels[wave + 1].step if wave + 1 < len(self.levels) else None
            current = list(range(keys))
            for pair in range(keys - 1):
                for k in range(1, level.branches - 1):
                    position = pair + k / (level.branches - 1)
                    known = tree.at(position)
                    if known is not None:
                        tree = tree.prolonged(known, stop)
                        current.append(known)
                        continue
                    (node,) = tree.fork([position], level.step, wave, alive)
                    tree = tree.with_nodes([replace(node, stop=stop)])
                    current.append(len(tree.nodes) - 1)
            alive = current
        return tree if self.feed.power == 0 else self._fed(tree)

    def _fed(self, tree: Tree) -> Tree:
        """The tree with inner branches run for as long as others are pulled towards them; the last are seen first."""
        for node in reversed(tree.nodes):
            for parent in node.parents or ():
                stop = tree.nodes[parent].stop
                # The last level's own need covers that of the frames that are filled in beside it.
                end = min(self.feed.end(node.step, self.steps), self.steps if node.stop is None else node.stop)
                if stop is not None and stop < end - 1:
                    tree = tree.prolonged(parent, end - 1)
        return tree


@dataclass(frozen=True)
class Adaptive:
    """Branches go where the pictures differ most. Each round doubles the tree and, until it is late, forks later.

    Args:
        steps: length of the schedule.
        depth: share of the run before the first fork, in [0, 1), small for invention, large for restraint; one for the
            whole line, or one at every position.
        max_branches: how many branches in all.
        budget: seconds; no round is begun that would end beyond it by the measured speed. None is no limit.
    """

    steps: int
    depth: float | Along
    max_branches: int
    budget: float | None = None

    def levels(self, position: float = 0.0) -> list[int]:
        """The steps at which successive rounds fork, at a position."""
        depth = self.depth(position) if callable(self.depth) else self.depth
        # Depths that were chosen are shares of whole steps, which a last digit must not lower by one.
        first = min(max(1, math.floor(self.steps * depth + 1e-9)), self.steps - 1)
        last = max(first, min(self.steps - 1, math.floor(self.steps * LATEST_FORK)))
        return list(range(first, last + 1, self._stride))

    @property
    def _stride(self) -> int:
        """Steps from a level to the next."""
        return max(1, math.ceil(self.steps / 10))

    def _latest(self, last: int) -> int:
        """The step after which nothing forks even at a cliff, where the last round forks at a step."""
        return max(last, min(self.steps - 1, math.floor(self.steps * CLIFF_FORK)))

    def forks(self, tree: Tree) -> frozenset[int]:
        """The steps of all rounds, and of those at cliffs; any step may be one where the depth varies."""
        if callable(self.depth):
            return frozenset(range(1, self.steps))
        levels = self.levels()
        return frozenset([*levels, *range(levels[-1], self._latest(levels[-1]) + 1, self._stride)])

    def fill(self, tree: Tree, positions: Sequence[float]) -> list[Node]:
        """Where another round would fork."""
        return self._forked(tree, positions)

    def first(self, position: float) -> int:
        """At the depth."""
        return self.levels(position)[0]

    def wave(self, growth: Growth) -> list[Node]:
        """As many branches as there are gaps, within what is left of the budget."""
        tree = growth.tree
        count = min(len(growth.gaps), self.max_branches - (len(tree.nodes) - tree.keys))
        order = tree.frames()
        places = [tree.nodes[name].position for name in order]
        gaps = list(zip(places, places[1:], growth.gaps, strict=False))
        if self.budget is not None:
            earliest = min(self._step(tree, position) for position in places)
            cost = growth.row_seconds * (self.steps - earliest)
            count = min(count, math.floor((self.budget - growth.seconds) / max(cost, 1e-9)))
        return self._forked(tree, spread(gaps, count)) if count > 0 else []

    def _forked(self, tree: Tree, positions: Sequence[float]) -> list[Node]:
        wave = max(node.wave for node in tree.nodes) + 1
        return [node for place in positions for node in tree.fork([place], self._step(tree, place), wave)]

    def _step(self, tree: Tree, position: float) -> int:
        levels = self.levels(position)
        step = levels[min(max(node.wave for node in tree.nodes), len(levels) - 1)]
        places = [tree.nodes[name].position for name in tree.frames()]
        right = min(max(bisect_right(places, position), 1), len(places) - 1)
        width = places[right] - places[right - 1]
        later = 0 if width > CLIFF else 1 + math.floor(math.log2(CLIFF / max(width, SAME_PLACE)))
        return min(step + later * self._stride, self._latest(step))


@dataclass(frozen=True)
class Replay:
    """A tree that was stored is run again as it is, whatever is measured."""

    tree: Tree

    def forks(self, tree: Tree) -> frozenset[int]:
        """The steps at which the rest of it forks."""
        return frozenset(node.step for node in self.tree.nodes[len(tree.nodes) :])

    def fill(self, tree: Tree, positions: Sequence[float]) -> list[Node]:
        """None is needed: what served single frames is stored too.

        Raises:
            TaskError: always.
        """
        raise TaskError("a stored plan has no room for more branches")

    def first(self, position: float) -> int:
        """Where the stored key begins."""
        return self.tree.nodes[round(position)].step

    def wave(self, growth: Growth) -> list[Node]:
        """The next stored round."""
        first = len(growth.tree.nodes)
        if first >= len(self.tree.nodes):
            return []
        number = self.tree.nodes[first].wave
        return [node for node in self.tree.nodes[first:] if node.wave == number]


def levels_from(branches: Sequence[int], at: Sequence[float], steps: int) -> tuple[Level, ...]:
    """Levels from two lists: whole numbers in `at` are steps, numbers below 1 are shares of the run.

    Raises:
        TaskError: if the lists differ in length, or steps and shares are mixed.
    """
    if len(branches) != len(at):
        raise TaskError(f"branches and at must be of one length, got {len(branches)} and {len(at)}")
    whole = all(float(value).is_integer() for value in at)
    if not whole and not all(0 <= value < 1 for value in at):
        raise TaskError(f"at must be steps (whole numbers) or shares of the run (below 1), got {list(at)}")
    spots = [round(value) if whole else round(value * steps) for value in at]
    return tuple(Level(step, count) for step, count in zip(spots, branches, strict=True))


PRESETS: dict[str, int] = {"lowest": 5, "low": 7, "medium": 13, "high": 25, "ultra": 50}
"""Branches of the last level, keys included."""


def preset_levels(name: str, steps: int, depth: float) -> tuple[Level, ...]:
    """The levels of a preset: branches multiply evenly (in the logarithm) from 2 to the preset's last count.

    The first fork is at `depth`, the last three steps before the end; levels closer than three steps are left out.

    Raises:
        TaskError: if there is no such preset, or too few steps for it.
    """
    if name not in PRESETS:
        raise TaskError(f"preset must be one of {', '.join(PRESETS)}; got {name!r}")
    final = PRESETS[name]
    first, last = max(1, round(steps * depth)), max(1, steps - 3)
    between = max(1, steps // 5 - 1)
    levels = [Level(0, 2)]
    for k in range(between):
        share = k / max(between - 1, 1)
        step = round(first + share * (last - first))
        count = round(2 * (final / 2) ** ((k + 1) / between))
        if (step - levels[-1].step >= 3 or len(levels) == 1) and count > levels[-1].branches and step < steps:
            levels.append(Level(step, count))
    if len(levels) == 1:
        raise TaskError(f"preset {name!r} needs more than {steps} steps at depth {depth}")
    levels[-1] = Level(levels[-1].step, final)
    return tuple(levels)
