"""One transition made twice: one row at a time, as latent blending orders it, and by waves, as Segue does.

Both make the same number of pictures of the same model at the same size, steps and guidance, and measure gaps with the
same distance. Latent blending (Lunar Ring, 2022-2024) runs everything alone, one after the other: the two keys; then
branch by branch, each into the widest gap of those that are there, forked from its nearest neighbours of an earlier
level, decoded by itself before the next is begun. A call of its network holds one picture (two rows with guidance).
Few-step models run every branch for the last two steps, and then replace what the first of these gave by the mix of the
keys: so of 28 calls for 12 pictures in 4 steps, 10 are for nothing. Segue forks where that replacement is, runs a level
in as few calls as fit, and decodes a level together where that helps.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from segue.diffusion.loop import denoise
from segue.diffusion.solvers import find_solver
from segue.evaluation.distances import PixelDistance
from segue.models.bundle import LatentDiffusion
from segue.tasks.album import Album
from segue.tasks.sampling import Execution
from segue.temporal.grow import Grower, grow
from segue.temporal.keys import Keys
from segue.temporal.plan import Growth
from segue.temporal.ruler import Ruler
from segue.temporal.trajectory import Between
from segue.temporal.tree import Node, Tree, neighbours, spread
from segue.types import Call, Conditioning, State

PROMPTS = ("a red apple", "a castle on a hill")
FEW = 8
"""Steps below which latent blending takes a model for one of few steps, whose branches all begin at one level."""


@dataclass(frozen=True)
class Course:
    """What is to be made.

    Args:
        steps: of a run.
        branches: between the two keys.
        depth: share of the run before the first fork; of few-step models, latent blending's is fixed.
    """

    steps: int
    branches: int
    depth: float = 0.5

    @property
    def is_short(self) -> bool:
        """Whether all branches begin at one level."""
        return self.steps < FEW

    def levels(self) -> list[tuple[int, int]]:
        """(step, branches) of each level: latent blending's, for a number of branches that is given.

        Levels are a tenth of the run apart. Each has a branch; the others go, one by one, to the first level that has
        no more than the next, or else to the last.
        """
        if self.is_short:
            return [(max(1, self.steps - 2), self.branches)]
        steps = list(range(math.floor(self.steps * self.depth), self.steps, math.ceil(self.steps / 10)))
        if self.branches < len(steps):
            steps = [steps[round(i * (len(steps) - 1) / max(1, self.branches - 1))] for i in range(self.branches)]
        counts = [1] * len(steps)
        while sum(counts) < self.branches:
            level = next((i for i in range(len(steps) - 1) if counts[i + 1] >= counts[i]), len(steps) - 1)
            counts[level] += 1
        return list(zip(steps, counts, strict=True))


@dataclass
class Spent:
    """What one way of making it took; seconds by a clock that is handed in.

    Args:
        calls: of the network.
        rows: over all calls, guidance terms counted.
        unused: rows whose result nobody used.
        decoded: pictures.
        network: seconds inside the network.
        decoding: seconds inside the decoder.
        seconds: in all.
        pictures: that are there in the end.
        memory: bytes, the most that were in use; of the device if it has memory of its own, else of the process.
        sizes: rows of each call.
    """

    clock: Callable[[], float] = time.process_time
    calls: int = 0
    rows: int = 0
    unused: int = 0
    decoded: int = 0
    network: float = 0.0
    decoding: float = 0.0
    seconds: float = 0.0
    pictures: int = 0
    memory: int = 0
    sizes: list[int] = field(default_factory=list[int])

    @property
    def overhead(self) -> float:
        """Share of the seconds that were spent outside the network and the decoder."""
        return 1 - (self.network + self.decoding) / self.seconds if self.seconds else 0.0

    def table(self) -> dict[str, Any]:
        """As plain values."""
        names = ("calls", "rows", "unused", "decoded", "network", "decoding", "seconds", "pictures", "memory")
        return {name: getattr(self, name) for name in names} | {
            "largest_call": max(self.sizes),
            "overhead": self.overhead,
            "pictures_per_second": self.pictures / self.seconds if self.seconds else 0.0,
        }


@dataclass
class Watch:
    """A Network and a decoder whose calls are counted and timed."""

    model: LatentDiffusion
    spent: Spent

    def __call__(self, x: Tensor, at: Tensor, cond: Conditioning, call: Call) -> Tensor:
        """The network's own answer."""
        start = self._now()
        raw = self.model.denoiser.network(x, at, cond, call)
        self.spent.network += self._now() - start
        self.spent.calls, self.spent.rows = self.spent.calls + 1, self.spent.rows + len(x)
        self.spent.sizes.append(len(x))
        return raw

    def develop(self, latents: Tensor, names: Sequence[int], positions: Sequence[float]) -> Tensor:
        """Pictures in [0, 1] on the CPU."""
        start = self._now()
        pictures = self.model.codec.decode(latents).float().cpu()
        self.spent.decoding += self._now() - start
        self.spent.decoded += len(latents)
        return pictures

    def _now(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return self.spent.clock()


@dataclass(frozen=True)
class Waves:
    """A Planner: each level is placed at once, into the widest gaps that the last one left."""

    levels: Sequence[tuple[int, int]]

    def forks(self, tree: Tree) -> frozenset[int]:
        """The steps of all levels."""
        return frozenset(step for step, _ in self.levels)

    def wave(self, growth: Growth) -> list[Node]:
        """The next level."""
        tree, done = growth.tree, max(node.wave for node in growth.tree.nodes)
        if done == len(self.levels):
            return []
        step, count = self.levels[done]
        places = [tree.nodes[name].position for name in tree.frames()]
        gaps = list(zip(places, places[1:], growth.gaps, strict=False))
        return tree.fork(spread(gaps, count), step, done + 1)

    def fill(self, tree: Tree, positions: Sequence[float]) -> list[Node]:
        """No frames are filled in."""
        return []

    def first(self, position: float) -> int:
        """The first level's."""
        return self.levels[0][0]


def begun(model: LatentDiffusion, course: Course, max_batch: int, spent: Spent) -> tuple[Grower, Watch]:
    """Who runs rows, and counts them.

    Args:
        model: any.
        course: what is to be made.
        max_batch: network rows of one call; with 1, the guidance terms of one picture still share a call.
        spent: what is counted into.
    """
    watch, scale = Watch(model, spent), model.defaults.guidance_scale
    size = model.defaults.size
    solver, shape = find_solver("ddim"), (model.codec.channels, size[1] // 8, size[0] // 8)
    texts = model.text([*PROMPTS, "", ""])
    grower = Grower(
        replace(model.denoiser, network=watch, max_batch=max(max_batch, 1 if scale == 1 else 2)),
        model.schedule(course.steps, size),
        solver.solver,
        Keys(texts[[0, 1]], texts[[2, 3]], (scale, scale), (1, 2)),
        shape,
        model.device,
        batch=max(1, max_batch // (1 if scale == 1 else 2)),
    )
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    return grower, watch


def by_waves(model: LatentDiffusion, course: Course, max_batch: int, clock: Callable[[], float]) -> Spent:
    """Segue's way. A branch forks where its own part begins, so that no row is for nothing."""
    spent = Spent(clock)
    grower, watch = begun(model, course, max_batch, spent)
    levels = [(step + 1 if course.is_short else step, count) for step, count in course.levels()]
    album = Album(watch.develop, Execution(max_batch).decoded_at_once(model, model.defaults.size))
    tree, start = grower.keys_alone, clock()
    with torch.no_grad():
        ruler = Ruler(PixelDistance(), album)
        for grown in grow(grower, Waves(levels), ruler, time.monotonic()):
            tree = grown.tree
        frames = tree.frames()
        places = {name: tree.nodes[name].position for name in frames}
        shown = album.levels(frames, {name: grower.final(name) for name in frames}, places)
    return _ended(spent, clock() - start, len(shown), model)


def one_by_one(model: LatentDiffusion, course: Course, clock: Callable[[], float]) -> Spent:
    """Latent blending's way."""
    spent = Spent(clock)
    grower, watch = begun(model, course, 1, spent)
    distance, tree, start = PixelDistance(), grower.keys_alone, clock()
    pictures: dict[int, Tensor] = {}
    known: dict[tuple[int, int], float] = {}

    def measured(pair: tuple[int, int]) -> float:
        if pair not in known:
            known[pair] = float(distance(*(pictures[name][None] for name in pair)))
        return known[pair]

    with torch.no_grad():
        for key in (0, 1):
            _exhaust(grower.run(tree, [key], grower.needed(tree, frozenset(range(course.steps)))))
            pictures[key] = watch.develop(grower.final(key)[None], [key], [float(key)])[0]
        for wave, (step, count) in enumerate(course.levels(), start=1):
            for _ in range(count):
                order = tree.frames()
                left, right = max(neighbours(tree), key=measured)
                middle = (tree.nodes[left].position + tree.nodes[right].position) / 2
                parents = [name for name in order if tree.nodes[name].bears_after < step]
                (node,) = tree.fork([middle], step, wave, parents)
                tree = tree.with_nodes([node])
                name = len(tree.nodes) - 1
                if course.is_short:
                    before = spent.rows
                    _thrown_away(grower, tree, name, step)
                    spent.unused += spent.rows - before
                    tree = Tree((*tree.nodes[:-1], replace(node, step=step + 1)))
                _exhaust(grower.run(tree, [name], frozenset(range(course.steps))))
                pictures[name] = watch.develop(grower.final(name)[None], [name], [middle])[0]
        shown = [(255 * pictures[name]).round().byte() for name in tree.frames()]
    return _ended(spent, clock() - start, len(shown), model)


def _thrown_away(grower: Grower, tree: Tree, name: int, step: int) -> None:
    """One step of a branch whose result is then replaced by the mix of its parents."""
    node = tree.nodes[name]
    left, right = (grower.trajectories[parent] for parent in node.parents or ())
    begin = Between(left, right, node.share, grower.alignment.mix).at(step)
    state = State(begin[None], torch.tensor([step]), (tree.row(name),))
    run = denoise(grower.denoiser, state, grower.schedule, grower.keys.at([node.position]), solver=grower.solver)
    for _ in (0, 1):
        next(run)


def _exhaust(work: Any) -> None:
    for _ in work:
        pass


def _ended(spent: Spent, seconds: float, pictures: int, model: LatentDiffusion) -> Spent:
    spent.seconds, spent.pictures = seconds, pictures
    if model.device.type == "cuda":
        spent.memory = torch.cuda.max_memory_allocated(model.device)
    else:
        spent.memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return spent
