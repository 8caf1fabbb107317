"""Fewer ghosts: frames that are double exposures fork again, earlier, just where they are found.

A branch that forks late can only mix what its parents show. Between two sound frames, a stretch of ghosts is replaced
by branches at the same places that fork from these two sooner, so that they can decide for themselves what is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from segue.temporal.grow import Grower
from segue.temporal.refine import FILMS
from segue.temporal.tree import Tree

ROUNDS = 8


@dataclass(frozen=True)
class Stretch:
    """Frames in a row that are to fork again.

    Args:
        first: the place of the first of them in the order.
        last: that of the last.
        step: where they are to fork.
    """

    first: int
    last: int
    step: int

    def __len__(self) -> int:
        return self.last - self.first + 1


@dataclass
class Rebranching:
    """Frames in their order, with fewer double exposures among them round by round.

    Args:
        grower: runs branches; every node that another may fork from has kept its latents.
        tree: with all that has been run.
        order: the node that each frame shows, from left to right.
        scores: how much of a double exposure each node of such an order is, in [0, 1].
        limit: how much is allowed.
        branches: how many may be run for it; None is three times as many as frames.
    """

    grower: Grower
    tree: Tree
    order: list[int]
    scores: Callable[[Sequence[int]], Sequence[float]]
    limit: float
    branches: int | None = None
    spent: int = 0
    ended: str = field(default="", init=False)
    _tried: dict[int, int] = field(default_factory=dict[int, int], init=False)
    """The earliest step at which something was forked in place of a node, and was no better."""

    def run(self) -> Iterator[int]:
        """Rounds until no frame is a ghost or nothing helps; yields the row-steps that were just done."""
        before = list(self.scores(self.order))
        for _ in range(ROUNDS):
            stretches = self._stretches(before)
            if not stretches:
                break
            for stretch in stretches:
                order = list(self.order)
                names = self._forked(stretch)
                yield from self.grower.run(self.tree, names, frozenset(range(stretch.step, len(self.grower.schedule))))
                self.order[stretch.first : stretch.last + 1] = names
                after = list(self.scores(self.order))
                if max(after[stretch.first : stretch.last + 1]) < max(before[stretch.first : stretch.last + 1]):
                    before = after
                else:
                    self._tried.update(dict.fromkeys(order[stretch.first : stretch.last + 1], stretch.step))
                    self.order = order
        worst = max(before, default=0.0)
        state = "is kept" if worst <= self.limit else "is not kept"
        self.ended = f"ghosting {self.limit:g} {state}: the worst frame has {worst:.2f}"

    def _stretches(self, scores: Sequence[float]) -> list[Stretch]:
        """What is to fork again in one round: no two share a frame or an end, and all can be paid for."""
        chosen: list[Stretch] = []
        for ends in self._ghosts(scores):
            stretch = self._widened(*ends)
            if stretch is None or (chosen and stretch.first - 1 < chosen[-1].last + 1):
                continue
            if self.spent + sum(map(len, [*chosen, stretch])) <= self._most:
                chosen.append(stretch)
        return chosen

    @property
    def _most(self) -> int:
        return FILMS * len(self.order) if self.branches is None else self.branches

    def _ghosts(self, scores: Sequence[float]) -> list[tuple[int, int]]:
        """First and last place of every stretch of ghosts, from left to right."""
        found: list[tuple[int, int]] = []
        for i, (name, score) in enumerate(zip(self.order, scores, strict=True)):
            if score <= self.limit or self.tree.nodes[name].is_key:
                continue
            if found and i - found[-1][1] == 1:
                found[-1] = (found[-1][0], i)
            else:
                found.append((i, i))
        return found

    def _widened(self, first: int, last: int) -> Stretch | None:
        """The stretch with as many of its neighbours as must go, too, for something to fork earlier; None: nothing."""
        nodes = self.tree.nodes
        now = min(self._tried.get(name, nodes[name].step) for name in self.order[first : last + 1])
        wanted = now - max(1, math.ceil(len(self.grower.schedule) / 10))
        while True:
            left, right = self.order[first - 1], self.order[last + 1]
            kept = self.grower.trajectories[left].latents.keys() & self.grower.trajectories[right].latents.keys()
            able = [step for step in kept if max(nodes[left].step, nodes[right].step, 0) < step <= wanted]
            if able:
                return Stretch(first, last, max(able))
            if nodes[left].step >= nodes[right].step and not nodes[left].is_key:
                first -= 1
            elif not nodes[right].is_key:
                last += 1
            else:
                return None

    def _forked(self, stretch: Stretch) -> range:
        ends = (self.order[stretch.first - 1], self.order[stretch.last + 1])
        places = [self.tree.nodes[name].position for name in self.order[stretch.first : stretch.last + 1]]
        wave = max(node.wave for node in self.tree.nodes) + 1
        first = len(self.tree.nodes)
        self.tree = self.tree.with_nodes(self.tree.fork(places, stretch.step, wave, ends))
        self.spent += len(places)
        return range(first, len(self.tree.nodes))
