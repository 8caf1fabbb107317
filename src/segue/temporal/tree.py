"""The diffusion tree: which trajectories a transition is made of, and where each forks from its parents.

A transition through K key pictures lies on a line from position 0 to K - 1, with the keys at the whole numbers. A
branch at position 2.25 is a quarter of the way from key 2 to key 3.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from segue.errors import TaskError
from segue.types import RowId

SAME_PLACE = 1e-9
DISTANCE_DIGITS = 3
"""Decisions compare distances rounded to so many digits, so that no machine's last bit decides."""


@dataclass(frozen=True)
class Node:
    """One trajectory of the tree.

    Args:
        position: where it lies on the line of the keys.
        step: the step at which it forks from its parents; 0 for keys that start from their own noise, and for those
            that are blends of others (see `blend`) where they do.
        parents: the nodes on its left and right whose latents it starts from; none for keys.
        share: how far it lies from the left parent to the right one, in [0, 1].
        stop: the step at which it ends; None is the end of the schedule. Only whole trajectories become frames.
        wave: which round of the growth it belongs to; its parents are of earlier ones.
    """

    position: float
    step: int = 0
    parents: tuple[int, int] | None = None
    share: float = 0.0
    stop: int | None = None
    wave: int = 0

    @property
    def is_key(self) -> bool:
        """Whether it lies on a whole number, and has no parents in the tree."""
        return self.parents is None

    @property
    def bears_after(self) -> int:
        """The step after which others may fork from it. A key's latents are known at all of them, be it a blend."""
        return 0 if self.is_key else self.step

    @property
    def is_frame(self) -> bool:
        """Whether it is run to the end and can be shown."""
        return self.stop is None


@dataclass(frozen=True)
class Tree:
    """All nodes in the order in which they were planned: the keys first. A node's name is its place in this order."""

    nodes: tuple[Node, ...]

    @staticmethod
    def of_keys(count: int, steps: Mapping[int, int] | None = None) -> Tree:
        """A tree that is only its keys; `steps` are those at which blends among them begin."""
        begun = steps or {}
        return Tree(tuple(Node(position=float(k), step=begun.get(k, 0)) for k in range(count)))

    @property
    def keys(self) -> int:
        """How many keys there are."""
        return sum(node.is_key for node in self.nodes)

    def with_nodes(self, nodes: Iterable[Node]) -> Tree:
        """The tree with more nodes at its end."""
        return Tree((*self.nodes, *nodes))

    def frames(self) -> list[int]:
        """The nodes that can be shown, from left to right."""
        return sorted((i for i, node in enumerate(self.nodes) if node.is_frame), key=lambda i: self.nodes[i].position)

    def fork(
        self, positions: Sequence[float], step: int, wave: int, candidates: Iterable[int] | None = None
    ) -> list[Node]:
        """Nodes at positions, forked at a step from the nearest nodes that began earlier and are still running.

        Args:
            positions: on the line of the keys, each left of the last key.
            step: where they fork.
            wave: the round that they belong to; parents are of earlier ones.
            candidates: the nodes that may be parents; None is all.

        Raises:
            TaskError: if the step is not after the start of the keys.
        """
        if step < 1:
            raise TaskError(f"a branch can fork at step 1 or later, got step {step}")
        names = range(len(self.nodes)) if candidates is None else candidates
        able = sorted((node.position, name) for name in names if _can_bear(node := self.nodes[name], step, wave))
        forked: list[Node] = []
        for position in positions:
            right = bisect_right(able, position, key=lambda parent: parent[0])
            (start, left_name), (end, right_name) = able[right - 1], able[right]
            share = (position - start) / (end - start)
            forked.append(Node(position, step, (left_name, right_name), share, wave=wave))
        return forked

    def row(self, name: int) -> RowId:
        """The name of a node as a row of a batch."""
        return RowId("key" if self.nodes[name].is_key else "branch", name)

    def at(self, position: float) -> int | None:
        """The node at this very position, if there is one."""
        near = (i for i, node in enumerate(self.nodes) if abs(node.position - position) < SAME_PLACE)
        return next(near, None)

    def prolonged(self, name: int, stop: int | None) -> Tree:
        """The tree with one node run further."""
        nodes = list(self.nodes)
        nodes[name] = replace(nodes[name], stop=stop)
        return Tree(tuple(nodes))

    def check(self, steps: int) -> None:
        """Parents come first, began earlier and run long enough; positions lie between them.

        Raises:
            TaskError: naming the node that breaks the rule; a hand-made or damaged plan is caught here.
        """
        for name, node in enumerate(self.nodes):
            if node.parents is None:
                if not 0 <= node.step < steps:
                    raise TaskError(f"key {name + 1} of the plan begins at step {node.step} of {steps}")
                continue
            left, right = (self.nodes[parent] if 0 <= parent < name else None for parent in node.parents)
            sound = (
                left is not None
                and right is not None
                and max(left.bears_after, right.bears_after) < node.step < steps
                and _runs_until(left, node.step)
                and _runs_until(right, node.step)
                and left.position <= node.position <= right.position
                and max(left.wave, right.wave) < node.wave
                and 0 <= node.share <= 1
                and (node.stop is None or node.step < node.stop <= steps)
            )
            if not sound:
                raise TaskError(f"branch {name} of the plan does not fit its parents {node.parents}: {node}")


def _can_bear(node: Node, step: int, wave: int) -> bool:
    return node.bears_after < step and _runs_until(node, step) and node.wave < wave


def _runs_until(node: Node, step: int) -> bool:
    return node.stop is None or node.stop >= step


def spread(gaps: Sequence[tuple[float, float, float]], count: int) -> list[float]:
    """Where `count` new branches go: always to the middle of the gap that is largest, as far as is known.

    A gap that has been split counts as two halves of half its size until it is measured again. Ties go left.

    Args:
        gaps: (left position, right position, perceptual distance), from left to right.
        count: how many.
    """
    open_gaps = [(left, right, round(size, DISTANCE_DIGITS)) for left, right, size in gaps]
    chosen: list[float] = []
    for _ in range(count):
        widest = max(range(len(open_gaps)), key=lambda i: (open_gaps[i][2], -i))
        left, right, size = open_gaps[widest]
        middle = (left + right) / 2
        chosen.append(middle)
        open_gaps[widest : widest + 1] = [(left, middle, size / 2), (middle, right, size / 2)]
    return sorted(chosen)


def neighbours(tree: Tree) -> list[tuple[int, int]]:
    """Pairs of nodes that would follow each other as frames, from left to right."""
    return list(pairwise(tree.frames()))
