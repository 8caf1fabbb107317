"""Running a tree: rounds of branches, each round in as few batches as fit."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from segue.diffusion.loop import denoise
from segue.diffusion.noise import InheritedNoise
from segue.diffusion.schedule import Schedule
from segue.temporal.alignment import FIRST, Aligned, Alignment
from segue.temporal.blend import Blends
from segue.temporal.crossfeed import Crossfeed, Guide, Pull
from segue.temporal.feed import Feed
from segue.temporal.given import Givens
from segue.temporal.keys import Keys
from segue.temporal.mask import Outside
from segue.temporal.plan import Growth, Planner
from segue.temporal.regions import RegionPull, Regions, Staggered, Timing
from segue.temporal.ruler import Ruler
from segue.temporal.trajectory import Between, Trajectory
from segue.temporal.tree import Node, Tree, neighbours
from segue.types import Denoiser, Operator, RowId, Solver, State

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass
class Grower:
    """Runs nodes of a tree and keeps what later nodes need. This is the one place of a transition that has state.

    Args:
        denoiser: the model.
        schedule: its noise levels.
        solver: how it steps.
        keys: what it is told at every position.
        shape: (channels, height, width) of the latents.
        device: where they live.
        batch: rows that are run together; a round of more is run in several batches, each to its end.
        from_parents: crossfeed of branches from the mix of their parents.
        from_first: crossfeed of each key from the key before it.
        givens: keys that are not run, because their trajectories are given.
        blends: keys that are mixes of others, and who runs these.
        same: keys that are others once more, by the number of the other: a loop ends at its first key.
        alignment: how keys take after the first of them, and how branches are mixed and attend to keys.
        operators: any others.
        whole: keep the latents of all steps, so that anything may fork anywhere later.
        mask: of latents; outside it, all nodes stay on the first key.
        timing: when each region changes; all at the same time without it.
    """

    denoiser: Denoiser
    schedule: Schedule
    solver: Solver
    keys: Keys
    shape: tuple[int, int, int]
    device: torch.device
    batch: int = 16
    from_parents: Feed = field(default_factory=Feed)
    from_first: Feed = field(default_factory=Feed)
    givens: Givens | None = None
    blends: Blends | None = None
    same: Mapping[int, int] = field(default_factory=dict[int, int])
    alignment: Alignment = field(default_factory=Alignment)
    operators: Sequence[Operator] = ()
    whole: bool = False
    mask: Float[Tensor, "h w"] | None = None
    timing: Timing | None = None
    trajectories: dict[int, Trajectory] = field(default_factory=dict[int, Trajectory])
    row_steps: int = 0
    seconds: float = 0.0

    def final(self, name: int) -> Float[Tensor, "c h w"]:
        """The clean latents of a node that was run to its end."""
        return self.trajectories[name].at(len(self.schedule))

    def __post_init__(self) -> None:
        if self.givens is not None:
            self.trajectories.update(self.givens.trajectories)

    @property
    def keys_alone(self) -> Tree:
        """The tree before anything has grown."""
        return Tree.of_keys(len(self.keys), self.blends.steps if self.blends else None)

    @property
    def row_seconds(self) -> float:
        """Measured seconds of one row for one step."""
        return self.seconds / max(self.row_steps, 1)

    def needed(self, tree: Tree, forks: frozenset[int]) -> frozenset[int]:
        """The steps whose latents must be kept, besides the last, if later nodes may fork at `forks`."""
        only_keys = len(tree.nodes) == len(self.keys)
        if self.whole or (only_keys and (self.from_first.power > 0 or self.mask is not None)):
            return frozenset(range(len(self.schedule)))
        return self._for_children(forks)

    def _for_children(self, forks: frozenset[int]) -> frozenset[int]:
        """Children that are held to their parents as they run need all of their steps."""
        held = self.from_parents.power > 0 or self.timing is not None
        return frozenset(range(len(self.schedule))) if forks and held else forks

    def run(self, tree: Tree, names: Sequence[int], keep: frozenset[int]) -> Iterator[int]:
        """Run nodes whose parents have been run; yields the number of row-steps that were just done.

        Nodes that begin together share batches. Whatever was yielded last, the trajectories of all nodes that ended
        before are complete.

        Args:
            tree: where the nodes stand.
            names: the nodes.
            keep: the steps whose latents are kept, besides each node's last.
        """
        keep, levels = self._for_children(keep), defaultdict[int, list[int]](list)
        for name in names:
            if name not in self.trajectories and name not in self.same:
                levels[tree.nodes[name].step].append(name)
        for _, level in sorted(levels.items()):
            level.sort(key=lambda name: self._stop(tree.nodes[name]))
            for batch in self._batches(level):
                yield from self._run_batch(tree, batch, keep)
        self.trajectories.update({name: self.trajectories[self.same[name]] for name in names if name in self.same})

    def run_parts(self, keep: frozenset[int]) -> Iterator[int]:
        """Run the keys that blends are mixed of, and those of the path with them; yields row-steps."""
        if self.blends is None:
            return
        yield from self.blends.run(self._for_children(keep) | self.alignment.kept(len(self.schedule)))
        self.trajectories.update(self.blends.corners())

    def _batches(self, level: Sequence[int]) -> Iterator[Sequence[int]]:
        """Nodes that begin together, cut so that keys wait for those that they take after."""
        keys = level[0] < len(self.keys) and not self._is_blend(level[0])
        size = 1 if self.from_first.power > 0 and keys else self.batch
        ahead = 1 if self.alignment.structure.leans and level[0] == FIRST else 0
        yield from [level[:ahead]] if ahead else []
        for first in range(ahead, len(level), size):
            yield level[first : first + size]

    def _run_batch(self, tree: Tree, names: Sequence[int], keep: frozenset[int]) -> Iterator[int]:
        """Nodes that begin together, in the order of their ends; those that end leave the batch."""
        operators = self._operators(tree, names)
        recorded = {tree.row(name): Trajectory() for name in names}
        latest, left = self._start(tree, names), list(names)
        if tree.nodes[names[0]].is_key:
            keep |= self.alignment.kept(len(self.schedule))
            for name, row, latents in zip(names, latest.ids, latest.x, strict=True):
                recorded[row].latents.update(self._begun(name, latents, keep))
        while left:
            stop = self._stop(tree.nodes[left[0]])
            ended = [name for name in left if self._stop(tree.nodes[name]) == stop]
            for state in self._stretch(tree, left, latest, stop, operators):
                latest, now = state, int(state.step[0])
                if now in keep or now == stop:
                    for row, latents in zip(state.ids, state.x, strict=True):
                        recorded[row].latents[now] = latents
                if now == stop:
                    self.trajectories.update({name: recorded[tree.row(name)] for name in ended})
                yield len(left)
            latest, left = latest.fork(range(len(ended), len(left))), left[len(ended) :]

    def _stretch(
        self, tree: Tree, names: Sequence[int], state: State, stop: int, operators: Sequence[Operator]
    ) -> Iterator[State]:
        """The states of a batch after each step until `stop`; the time that they take is counted."""
        nodes = [tree.nodes[name] for name in names]
        kin = {row: self.keys.ancestry(node.position) for row, node in zip(state.ids, nodes, strict=True)}
        run = denoise(
            self._aligned.around(self.denoiser, dict(zip(state.ids, nodes, strict=True))),
            state,
            self.schedule,
            self.keys.at([node.position for node in nodes]),
            solver=self.solver,
            operators=operators,
            kick=InheritedNoise(kin),
        )
        next(run)
        for _ in range(int(state.step[0]), stop):
            begun = time.perf_counter()
            state = next(run)
            self.seconds, self.row_steps = self.seconds + time.perf_counter() - begun, self.row_steps + len(names)
            yield state

    def _stop(self, node: Node) -> int:
        return len(self.schedule) if node.stop is None else node.stop

    def _start(self, tree: Tree, names: Sequence[int]) -> State:
        ids = tuple(tree.row(name) for name in names)
        step = tree.nodes[names[0]].step
        if tree.nodes[names[0]].is_key and not self._is_blend(names[0]):
            return self._aligned.start(names, self.shape, self.device)
        mixed = torch.stack([self._between(tree, tree.nodes[name]).at(step) for name in names])
        return State(mixed, torch.full((len(names),), step, dtype=torch.int64), ids)

    def _is_blend(self, name: int) -> bool:
        return self.blends is not None and name in self.blends.steps

    def _begun(self, name: int, latents: Tensor, keep: frozenset[int]) -> dict[int, Tensor]:
        """What a key has before it runs, as far as others need it: a blend has the mix at each of its steps."""
        first = 0 if 0 in self.alignment.kept(len(self.schedule)) else 1
        if self.blends is None or not self._is_blend(name):
            return {0: latents} if first == 0 else {}
        guide = self.blends.guide(name)
        return {step: guide.at(step) for step in sorted(keep) if first <= step <= self.blends.steps[name]}

    def _between(self, tree: Tree, node: Node) -> Guide:
        if node.parents is None:
            if self.blends is None:
                raise ValueError("a key has no parents")
            return self.blends.guide(round(node.position))
        left, right = (self.trajectories[parent] for parent in node.parents)
        if self.timing is None:
            return Between(left, right, node.share, self.alignment.mix)
        ends = (tree.nodes[parent].position for parent in node.parents)
        return Staggered(left, right, self.timing.between(node.position, *ends))

    @property
    def _aligned(self) -> Aligned:
        given = self.givens.trajectories if self.givens is not None else {}
        return Aligned(self.alignment, self.keys, self.schedule, self.trajectories, given, self.same)

    def _operators(self, tree: Tree, names: Sequence[int]) -> list[Operator]:
        operators = list(self.operators)
        if pulls := dict(self._pulls(tree, names)):
            operators.insert(0, Crossfeed(pulls))
        branches = not tree.nodes[names[0]].is_key
        if self.timing is not None and branches:
            operators.append(self._regions(tree, names, self.timing))
        if self.givens is not None and branches:
            positions = [tree.nodes[name].position for name in names]
            rows = [tree.row(name) for name in names]
            operators.append(self.givens.homing(rows, positions, tree.nodes[names[0]].step))
        if tuned := self._aligned.statistics({tree.row(name): tree.nodes[name] for name in names}):
            # After all others, as what arrives at a key has its statistics already.
            operators.append(tuned)
        if self.mask is not None:
            # The last word: what is kept is the source's own, whatever others have added.
            operators.append(Outside(self.mask, self.trajectories))
        return operators

    def _regions(self, tree: Tree, names: Sequence[int], timing: Timing) -> Regions:
        nodes = {tree.row(name): tree.nodes[name] for name in names}
        return Regions(
            {row: RegionPull(self._between(tree, node), timing.strength(node.position)) for row, node in nodes.items()}
        )

    def _pulls(self, tree: Tree, names: Sequence[int]) -> Iterator[tuple[RowId, Pull]]:
        steps = len(self.schedule)
        # A blend is a key, which branches must arrive at, and none that has one before it.
        for name in (name for name in names if not self._is_blend(name)):
            node, row = tree.nodes[name], tree.row(name)
            if node.is_key and name > 0 and self.from_first.power > 0:
                yield row, Pull(self.trajectories[name - 1], self.from_first.envelope(0, steps, node.position))
            elif not node.is_key and self.from_parents.power > 0:
                yield row, Pull(self._between(tree, node), self.from_parents.envelope(node.step, steps, node.position))


@dataclass(frozen=True)
class Grown:
    """How far a growth has come: the tree whose nodes are complete, and the row-steps that were just done."""

    tree: Tree
    row_steps: int


def grow(grower: Grower, planner: Planner, ruler: Ruler, started: float) -> Iterator[Grown]:
    """Run the keys, and then round after round of what the planner wants; yields after every step of every batch.

    Args:
        grower: runs the nodes and keeps their latents.
        planner: decides on each round from the gaps that were measured.
        ruler: what the gaps are measured with.
        started: `time.monotonic()` when the work began, for planners with a budget of seconds.
    """
    tree = grower.keys_alone
    names = list(range(len(grower.keys)))
    for done in grower.run_parts(grower.needed(tree, planner.forks(tree))):
        yield Grown(tree, done)
    while names:
        for done in grower.run(tree, names, grower.needed(tree, planner.forks(tree))):
            yield Grown(tree, done)
        gaps = ruler.measure(grower, tree, neighbours(tree))
        growth = Growth(tree, tuple(gaps), time.monotonic() - started, grower.row_seconds)
        wave = planner.wave(growth)
        names = list(range(len(tree.nodes), len(tree.nodes) + len(wave)))
        tree = tree.with_nodes(wave)
