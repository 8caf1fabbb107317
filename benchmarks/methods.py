"""Five ways from one picture to another, at one price: what `transition.py` compares.

All make the same two keys (the same seeds, steps, guidance and solver) and show 17 frames, the keys among them. A
budget is a number of network rows; one that a method cannot spend, it leaves. A frame for which the rows do not suffice
is mixed from the pixels of the pictures beside it, as the reference does it, and is not counted as native.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

import segue
from segue.diffusion.envelope import Envelope
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import InheritedNoise
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import from_seeds
from segue.models.attention import attached, sites
from segue.models.bundle import Defaults, LatentDiffusion
from segue.tasks.branching import Branching
from segue.tasks.sampling import Sampling
from segue.temporal.alignment import Alignment
from segue.temporal.attention import SharedAttention
from segue.temporal.feed import Feed
from segue.temporal.grow import Grower
from segue.temporal.keys import Keys
from segue.temporal.mix import mixed
from segue.temporal.plan import Adaptive
from segue.temporal.ruler import Ruler
from segue.temporal.statistics import Statistics, Tuning
from segue.temporal.structure import Interpolation
from segue.temporal.timeline import Shot, even_positions, missing, shots
from segue.temporal.tree import Node, Tree, neighbours
from segue.types import Perceptual, RowId, State

FRAMES = 17
BATCH = 8
REFERENCE_DEPTH, REFERENCE_FEED = 0.5, (0.3, 0.6, 0.9)
"""Of the reference for models that take many steps: where it forks first; power, range and decay of its crossfeed."""
ATTENDED = 0.6
"""The share of the run in which DiffMorpher's frames attend to the keys."""


@dataclass(frozen=True)
class Case:
    """What is to be shown, the same for all methods."""

    prompts: tuple[str, str]
    seeds: tuple[int, int]
    steps: int


@dataclass(frozen=True)
class Drawn:
    """Frames (17, 3, h, w) in [0, 1] on the CPU, and how many of them are pictures that the model drew."""

    frames: Tensor
    native: int


@dataclass
class Stage:
    """A case on a model: what the small methods below are made of.

    Args:
        case: what is to be shown.
        model: draws it.
        distance: between pictures, by which frames are placed.
        placing: its name, as `Branching` has it.
    """

    case: Case
    model: LatentDiffusion
    distance: Perceptual
    placing: str
    keys: Keys = field(init=False)
    pictures: dict[int, Tensor] = field(default_factory=dict[int, Tensor], init=False)

    def __post_init__(self) -> None:
        texts, scale = self.model.text([*self.case.prompts, "", ""]), self.model.defaults.guidance_scale
        began = self.model.defaults.guidance_start
        self.keys = Keys(texts[[0, 1]], texts[[2, 3]], (scale, scale), self.case.seeds, guidance_start=began)
        self.size = self.model.defaults.size
        self.schedule = self.model.schedule(self.case.steps, self.size)
        self.solver = find_solver(self.model.defaults.solver).solver
        scale = self.model.codec.scale
        self.shape = (self.model.codec.channels, self.size[1] // scale, self.size[0] // scale)
        self.ruler = Ruler(self.distance, self.develop, BATCH)

    def rows_between(self, first: int, last: int | None = None) -> int:
        """Network rows of one picture from a step to another, or to the end."""
        return rows_of(self.model.defaults, self.case.steps, first, last)

    @property
    def picture_rows(self) -> int:
        """Network rows of one picture that is drawn from noise."""
        return self.rows_between(0)

    def grower(self, alignment: Alignment | None = None) -> Grower:
        """The library's own, which runs nodes of a tree in the one denoising loop."""
        return Grower(
            self.model.denoiser, self.schedule, self.solver, self.keys, self.shape, self.model.device, BATCH,
            alignment=alignment or Alignment(),
        )  # fmt: skip

    def develop(self, latents: Tensor, names: Sequence[int], positions: Sequence[float]) -> Tensor:
        """Pictures of nodes; each is decoded once, whoever asks."""
        new = [place for place, name in enumerate(names) if name not in self.pictures]
        if new:
            decoded = self.model.codec.decode(latents[new]).float().clamp(0, 1).cpu()
            self.pictures.update(zip([names[place] for place in new], decoded, strict=True))
        return torch.stack([self.pictures[name] for name in names])

    def shown(self, grower: Grower, film: Sequence[Shot]) -> Drawn:
        """A film of nodes that were run."""
        names = sorted({name for shot in film for name in (shot.left, shot.right)})
        for first in range(0, len(names), BATCH):
            part = names[first : first + BATCH]
            self.develop(torch.stack([grower.final(name) for name in part]), part, [0.0] * len(part))
        frames = [self.pictures[shot.left].lerp(self.pictures[shot.right], shot.share) for shot in film]
        return Drawn(torch.stack(frames), sum(shot.is_native for shot in film))


def rows_of(defaults: Defaults, steps: int, first: int = 0, last: int | None = None) -> int:
    """Network rows of one picture from a step of a run to another: two a step where there is guidance, else one."""
    guided = steps if defaults.guidance_scale == 1 else math.ceil(steps * defaults.guidance_start)
    return sum(1 if step < guided else 2 for step in range(first, steps if last is None else last))


def even(count: int) -> list[float]:
    """So many places from 0 to 1."""
    return [i / (count - 1) for i in range(count)]


def played(order: Sequence[int]) -> list[Shot]:
    """17 frames of a film that gives all its pictures the same time: the nearest where there are enough of them, or
    else mixes of two.
    """
    film: list[Shot] = []
    for place in even(FRAMES):
        at = place * (len(order) - 1)
        left = min(int(at), len(order) - 2)
        share = at - left if len(order) < FRAMES else float(round(at - left))
        film.append(Shot(order[left], order[left + 1], share))
    return film


def done(work: Iterable[object]) -> None:
    """Let it run to its end."""
    for _ in work:
        pass


def cross_fade(stage: Stage, rows: int) -> Drawn:
    """The pixels of both keys, mixed. It has no use for more rows than two pictures take."""
    grower = stage.grower()
    done(grower.run(Tree.of_keys(2), range(2), frozenset()))
    return stage.shown(grower, played([0, 1]))


def walk(stage: Stage, rows: int) -> Drawn:
    """Noise mixed spherically, texts linearly, and every picture drawn from the start."""
    places = even(min(FRAMES, rows // stage.picture_rows))
    ends = from_seeds(
        stage.keys.seeds, [RowId("key", 0), RowId("key", 1)], stage.schedule, stage.shape, stage.model.device
    )
    latents: list[Tensor] = []
    for first in range(0, len(places), BATCH):
        part = places[first : first + BATCH]
        x = mixed(ends.x[[0] * len(part)], ends.x[[1] * len(part)], torch.tensor(part, dtype=torch.float64))
        ids = tuple(RowId("branch", first + i) for i in range(len(part)))
        kin = {row: stage.keys.ancestry(place) for row, place in zip(ids, part, strict=True)}
        state = State(x, torch.zeros(len(part), dtype=torch.int64), ids)
        run = denoise(
            stage.model.denoiser, state, stage.schedule, stage.keys.at(part), solver=stage.solver,
            kick=InheritedNoise(kin),
        )  # fmt: skip
        latents.append(collect(run, stage.schedule))
    names = range(len(places))
    pictures = torch.cat([stage.develop(x, list(names)[i * BATCH :][: len(x)], []) for i, x in enumerate(latents)])
    film = played(names)
    frames = [pictures[shot.left].lerp(pictures[shot.right], shot.share) for shot in film]
    return Drawn(torch.stack(frames), sum(shot.is_native for shot in film))


def reference(stage: Stage, rows: int) -> Drawn:
    """Latent blending as its code has it for models of many steps (revision of March 2024), re-stated.

    One branch at a time, always in the middle of the gap that LPIPS calls the largest, forks from the nearest pictures
    that forked earlier. There is a level every tenth of the run from half of it on, with falling numbers of branches,
    and a pull towards the mix of the parents up to 0.6 of the run. All pictures of its film play equally long.

    Repaired: the clock (levels are planned by counted rows, and the budget is not overshot); the crossfeed (the values
    are its own, and arrive); guidance (its damper adds 1 in the middle, and is left on for what follows: here it is
    that of all methods).
    """
    levels = list(range(int(stage.case.steps * REFERENCE_DEPTH), stage.case.steps, -(-stage.case.steps // 10)))
    grower, tree = stage.grower(), Tree.of_keys(2)
    done(grower.run(tree, range(2), frozenset(range(stage.case.steps))))
    for level, count in zip(levels, stems(stage, levels, rows), strict=True):
        grower.from_parents = reference_feed(level, stage.case.steps)
        for _ in range(count):
            gaps = stage.ruler.measure(grower, tree, neighbours(tree))
            order = [tree.nodes[name].position for name in tree.frames()]
            _, left, right = max((gap, *ends) for gap, ends in zip(gaps, pairwise(order), strict=True))
            tree = tree.with_nodes(tree.fork([(left + right) / 2], level, len(tree.nodes)))
            done(grower.run(tree, [len(tree.nodes) - 1], frozenset(range(stage.case.steps))))
    return stage.shown(grower, played(tree.frames()))


def stems(stage: Stage, levels: Sequence[int], rows: int) -> list[int]:
    """How many branches fork at each level: while there is room, one more where there are not more than at the next."""

    def cost(counts: Sequence[int]) -> int:
        run = sum(count * stage.rows_between(level) for level, count in zip(levels, counts, strict=True))
        return run + 2 * stage.picture_rows

    counts = [0] * len(levels)
    for level in range(len(levels)):
        more = [count + (i == level) for i, count in enumerate(counts)]
        counts = more if cost(more) <= rows else counts
    while True:
        level = next((i for i, (a, b) in enumerate(pairwise(counts)) if b >= a), len(levels) - 1)
        more = [count + (i == level) for i, count in enumerate(counts)]
        if cost(more) > rows:
            return counts
        counts = more


def reference_feed(level: int, steps: int) -> Feed:
    """Its range counts from the start of the run, and that of a Feed from the fork."""
    power, until, decay = REFERENCE_FEED
    share = (round(until * steps) - level) / (steps - level)
    return Feed(power, share, decay) if share > 0 else Feed()


def diffmorpher(stage: Stage, rows: int) -> Drawn:
    """DiffMorpher (arXiv:2312.07409) without its LoRA: attention interpolation, AdaIN, rescheduling.

    Every frame is drawn from the spherical mix of both noises, brought to the mix of their statistics. In the decoder's
    self-attention it attends, for 0.6 of the run, to the mix of what both keys attend to (beside its own, which the
    published code leaves out; to that end the keys ride along). A third of the rows goes into frames at even places;
    by their LPIPS distances the film's frames are placed anew, and those that are lacking are drawn.
    """
    sharing = SharedAttention()
    interpolation = Interpolation(1.0, ATTENDED, "inner")
    decoder = [site for site in sites(stage.model.parts["unet"]) if site.name.startswith("up_blocks")]
    riding = 2 * stage.rows_between(0, round(ATTENDED * stage.case.steps))
    with attached(decoder, sharing):
        grower, tree = stage.grower(Alignment(interpolation=interpolation, sharing=sharing)), Tree.of_keys(2)
        grower.batch = FRAMES
        done(grower.run(tree, range(2), frozenset({1})))
        afford = (rows - 2 * stage.picture_rows - 2 * riding) // stage.picture_rows
        tree = drawn_at(grower, tree, even(afford // 3 + 2)[1:-1])
        places = even_places(stage, grower, tree)
        lacking = missing(tree, places)
        able = min(len(lacking), afford - afford // 3)
        tree = drawn_at(grower, tree, [lacking[round(i)] for i in spaced(len(lacking), able)])
        return stage.shown(grower, shots(tree, places))


def spaced(count: int, chosen: int) -> list[int]:
    """So many of `count` numbers, evenly."""
    return [(2 * i + 1) * count // (2 * chosen) for i in range(chosen)]


def even_places(stage: Stage, grower: Grower, tree: Tree) -> list[float]:
    """Where the frames lie at even speed, by the distances of the pictures that are there."""
    gaps = stage.ruler.measure(grower, tree, neighbours(tree))
    return even_positions([tree.nodes[name].position for name in tree.frames()], gaps, [0.0, 1.0], FRAMES)


def drawn_at(grower: Grower, tree: Tree, places: Sequence[float]) -> Tree:
    """The tree with pictures that begin in the mix of both noises."""
    if not places:
        return tree
    first = len(tree.nodes)
    tree = tree.with_nodes(Node(place, 0, (0, 1), place, wave=first) for place in places)
    names = range(first, len(tree.nodes))
    guides = [grower.trajectories[key] for key in range(2)]
    tunings = {
        tree.row(name): Tuning(guides[0], 0.0, ((guides[0], 1 - place), (guides[1], place)))
        for name, place in zip(names, places, strict=True)
    }
    # After the first step: before it there is nothing but the noise, whose statistics are those of noise.
    grower.operators = [Statistics(tunings, Envelope(1.0, 0.0, 1 / len(grower.schedule)))]
    done(grower.run(tree, names, frozenset()))
    return tree


PROBES, DEPTH, DAMPER, SMOOTHNESS = 21, 0.5, 1.5, 0.02
"""Branches that measured gaps place at most, where the first forks, what guidance is multiplied with in the middle, and
a smoothness that asks for the most even film there is: chosen on other pairs than those that are measured."""


def ours(stage: Stage, rows: int) -> Drawn:
    """`segue.Transition`: a tree by measured gaps, and every frame drawn where it is even; with less of a tree if its
    rows might not do.
    """
    probes = max(n for n in range(1, PROBES + 1) if n == 1 or most_rows(stage, n) <= rows)
    task = segue.Transition(
        stage.case.prompts,
        seeds=stage.case.seeds,
        seconds=FRAMES,
        fps=1,
        sampling=Sampling(stage.case.steps),
        tree=Branching(depth=DEPTH, damper=DAMPER, max_branches=probes, smoothness=SMOOTHNESS, distance=stage.placing),
    )
    clip = task.run(stage.model)
    native = clip.provenance.record["scores"]["native_frames"] if clip.provenance else 0
    return Drawn(clip.frames[:], native)


def most_rows(stage: Stage, probes: int) -> int:
    """Network rows of a tree of so many branches, and of all its frames, if none of them serves as one."""
    levels = Adaptive(stage.case.steps, DEPTH, probes).levels()
    left, run, wave = probes, 0, 0
    while left > 0:
        count = min(2**wave, left)
        run += count * stage.rows_between(levels[min(wave, len(levels) - 1)])
        left, wave = left - count, wave + 1
    run += (FRAMES - 2) * stage.rows_between(levels[min(wave, len(levels) - 1)])
    return run + 2 * stage.picture_rows


METHODS: dict[str, Callable[[Stage, int], Drawn]] = {
    "cross-fade": cross_fade,
    "walk": walk,
    "reference": reference,
    "DiffMorpher-style": diffmorpher,
    "ours": ours,
}
