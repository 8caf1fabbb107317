"""Cheap looks at branches, and depths that are chosen by them.

A preview is what lies half-way between two keys, were the tree to begin at some step. It is a branch like any other,
which forks from trajectories that exist already, under the same texts, operators and attention; but it runs on a
coarser schedule, every so many steps of the whole one. So it comes out much as a branch that forked there would, for a
fraction of the rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from segue.temporal.grow import Grower
from segue.temporal.plan import Adaptive, Growth
from segue.temporal.trajectory import Trajectory
from segue.temporal.tree import Node, Tree

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

COARSE = 8
"""Steps of a preview's schedule, of which a branch takes those after its fork; up to twice as many, since each stands
for a whole number of others."""


def stride_of(steps: int) -> int:
    """How many steps of a run of `steps` one step of its previews stands for."""
    return max(1, steps // COARSE)


@dataclass
class Previews:
    """Branches in the middle between every two keys, one for each step that they could fork at.

    Args:
        grower: has run the keys, and kept their latents at every step but the first. It is not changed.
        forks: the steps at which to fork, multiples of `stride_of` the run's length, each above 0 and below it.
    """

    grower: Grower
    forks: Sequence[int]
    coarse: Grower = field(init=False)
    tree: Tree = field(init=False)
    names: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int], init=False)
    """Nodes of the tree, by the number of the left key and the step of the whole run."""

    def __post_init__(self) -> None:
        steps = len(self.grower.schedule)
        stride = stride_of(steps)
        if odd := [fork for fork in self.forks if not 0 < fork < steps or fork % stride]:
            raise ValueError(f"previews of {steps} steps fork at multiples of {stride} inside the run, got {odd[0]}")
        self.coarse, self.tree = _coarser(self.grower, stride), self.grower.keys_alone
        for fork in self.forks:
            for pair in range(len(self.grower.keys) - 1):
                self.names[pair, fork] = len(self.tree.nodes)
                self.tree = self.tree.with_nodes(self.tree.fork([pair + 0.5], fork // stride, 1))

    def row_steps(self) -> int:
        """How many row-steps they take."""
        return sum(len(self.coarse.schedule) - self.tree.nodes[name].step for name in self.names.values())

    def run(self) -> Iterator[int]:
        """Run them, those of one step together; yields the row-steps that were just done."""
        yield from self.coarse.run(self.tree, list(self.names.values()), frozenset())

    def final(self, pair: int, fork: int) -> Float[Tensor, "c h w"]:
        """The latents that one ended with."""
        return self.coarse.final(self.names[pair, fork])


def _coarser(grower: Grower, stride: int) -> Grower:
    """The same keys and settings on every `stride`-th step; what it runs, the other does not know of."""
    steps, schedule, givens = len(grower.schedule), grower.schedule.every(stride), grower.givens
    if givens is not None:
        trajectories = _strided(givens.trajectories, stride, steps)
        givens = replace(givens, trajectories=trajectories, schedule=schedule, known={})
    return replace(
        grower,
        schedule=schedule,
        givens=givens,
        trajectories=_strided(grower.trajectories, stride, steps),
        row_steps=0,
        seconds=0.0,
    )


def _strided(trajectories: Mapping[int, Trajectory], stride: int, steps: int) -> dict[int, Trajectory]:
    """What is known at every `stride`-th step and at the end, by its number among these."""

    def coarse(run: Trajectory) -> Trajectory:
        kept = (step for step in run.latents if step % stride == 0 or step == steps)
        return Trajectory({-(-step // stride): run.latents[step] for step in kept})

    return {name: coarse(run) for name, run in trajectories.items()}


@dataclass
class Chosen:
    """A tree that grows where the pictures differ most, and whose depth is chosen when its keys have been run.

    Args:
        adaptive: decides all else; its own depth stands for the others until they are known.
        choose: the depths between every two keys, from left to right; asked once.
        depths: the same, once they are known.
    """

    adaptive: Adaptive
    choose: Callable[[], Sequence[float]]
    depths: tuple[float, ...] = ()

    @property
    def _now(self) -> Adaptive:
        return replace(self.adaptive, depth=self._depth_at)

    def _depth_at(self, position: float) -> float:
        return self.depths[min(int(position), len(self.depths) - 1)]

    def forks(self, tree: Tree) -> frozenset[int]:
        """The steps of all rounds; any may be one while the depths are unknown."""
        if not self.depths:
            return frozenset(range(1, self.adaptive.steps))
        now = self._now
        return frozenset(step for pair in range(len(self.depths)) for step in now.levels(float(pair)))

    def first(self, position: float) -> int:
        """At the depth that stands for the others: blends of keys fork before any is chosen."""
        return self.adaptive.first(position)

    def fill(self, tree: Tree, positions: Sequence[float]) -> list[Node]:
        """Where another round would fork."""
        return self._now.fill(tree, positions)

    def wave(self, growth: Growth) -> list[Node]:
        """As many branches as there are gaps, within what is left of the budget; the choice counts in it."""
        if not self.depths:
            begun = time.monotonic()
            self.depths = tuple(self.choose())
            growth = replace(growth, seconds=growth.seconds + time.monotonic() - begun)
        return self._now.wave(growth)
