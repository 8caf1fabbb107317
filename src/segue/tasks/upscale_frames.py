"""The frames of an upscaled clip, by themselves: no more is in memory than the two keys around what is asked for."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import Ancestry, InheritedNoise, noise, start_noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import from_latents
from segue.diffusion.tiles import ALIGNED, TiledDenoiser
from segue.errors import TaskError
from segue.media.clip import as_floats, levels_of
from segue.media.enlarge import BAND, lanczos, mirrored, with_low_band
from segue.tasks.sampling import Execution
from segue.tasks.upscale import Upscale
from segue.tasks.upscale_words import Story
from segue.temporal.keys import ANY_KEY, Keys
from segue.temporal.simplex import Route
from segue.temporal.trajectory import Between, Trajectory
from segue.types import Conditioning, Frames, Guided, Kick, Progress, RowId, State

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion


def padded(task: Upscale, model: LatentDiffusion, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) that a resolved task makes of frames of this size, before they are enlarged."""
    grid, scale = model.grid, task.scale or 1
    # A picture whose enlargement is on the grid of the model need not be on it itself.
    whole = model.upscaling.grid if model.upscaling is not None else grid // math.gcd(grid, scale)
    width, height = (-(-side // whole) * whole for side in size)
    return width, height


@dataclass
class EnlargedFrames:
    """The frames of a clip, made larger when they are asked for.

    The frames between two keys are made together, in batches that do not depend on what is asked for, so that a frame
    is the same in whatever order they are read. Read in order, each is made once.

    Args:
        source: the frames as they are.
        task: with nothing left open.
        model: makes the larger ones.
        story: what is told of each.
        execution: batches and threads.
        progress: told of every step.
    """

    source: Frames
    task: Upscale
    model: LatentDiffusion
    story: Story
    execution: Execution
    progress: Progress
    _keys: dict[int, Trajectory] = field(default_factory=dict[int, Trajectory], init=False)
    _inner: dict[int, Tensor] = field(default_factory=dict[int, "Tensor"], init=False)
    _read: range = field(default=range(0), init=False)
    _levels: UInt8[Tensor, "t 3 h w"] = field(init=False)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        width, height = self.source.size
        return width * self._scale, height * self._scale

    @property
    def pace(self) -> int:
        """How many frames it is worth waiting for: what is made together."""
        return 1

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        numbers = range(len(self))[window]
        if not numbers:
            return torch.zeros(0, 3, *self.size[::-1])
        with self.execution.applied(self.model) as ready:
            return torch.cat([self._picture(ready, number) for number in numbers])

    def check(self) -> None:
        """Find out before long work what would be in its way.

        Raises:
            TaskError: the noise level or the window does not suit the model.
            ScheduleError: nor do the steps or the solver.
        """
        _ = self.schedule, self._tile
        if self.model.upscaling is not None:
            self.model.upscaling.shown(torch.zeros(1, 3, 1, 1), torch.zeros(3, 1, 1), self.task.noise_level or 0)

    def scores(self) -> dict[str, int]:
        """What the result is made of."""
        return {"frames": len(self), "keys": len(self.keys), "row_steps": self._total}

    @cached_property
    def keys(self) -> tuple[int, ...]:
        """The frames that are run wholly."""
        last = len(self) - 1
        return (*range(0, last, self.task.coherence.every or 1), last)

    @cached_property
    def schedule(self) -> Schedule:
        """Of the whole run, at the size that the network sees at a time."""
        sampling = self.task.sampling
        width, height = (side * self._scale for side in self._padded)
        seen = min(width, self._tile * self._pixels), min(height, self._tile * self._pixels)
        return self.model.schedule(sampling.steps or 1, seen, solver=sampling.solver)

    @property
    def _scale(self) -> int:
        return self.task.scale or 1

    @property
    def _pixels(self) -> int:
        return self.model.codec.scale

    @property
    def _padded(self) -> tuple[int, int]:
        return padded(self.task, self.model, self.source.size)

    @cached_property
    def _tile(self) -> int:
        """Side of a window, in latents."""
        asked, pixels = self.task.tiling.window or 0, self._pixels
        tile = asked // pixels
        unit = math.lcm(pixels * ALIGNED, self.model.grid)
        if asked % unit:
            low = max(unit, asked // unit * unit)
            raise TaskError(
                f"window must be a multiple of {unit} pixels for this model, got {asked}; "
                f"the nearest are {low} and {low + unit}"
            )
        return tile

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Of the latents."""
        width, height = (side * self._scale // self._pixels for side in self._padded)
        return self.model.codec.channels, height, width

    @cached_property
    def _fork(self) -> int:
        """The step at which frames between keys begin."""
        return int(len(self.schedule) * (self.task.coherence.depth or 0.0))

    @cached_property
    def _start(self) -> Float[Tensor, "c h w"]:
        """The noise that all frames begin in."""
        return start_noise(self.task.seed, self._shape)

    @cached_property
    def _field(self) -> Float[Tensor, "3 h w"]:
        """What noises all small pictures."""
        return noise(self.task.seed, "low resolution", 0, ANY_KEY, (3, *self._padded[::-1]))

    @cached_property
    def _told(self) -> Keys:
        """Of the points of the story."""
        sampling, prompts = self.task.sampling, self.story.prompts
        texts = self.model.text([*prompts, self.task.negative])
        count = len(prompts)
        scale = (float(sampling.guidance_scale[0]),) * count
        keys = Keys(
            texts[range(count)],
            texts[[count] * count],
            scale,
            (self.task.seed,) * count,
            words=self.story.words,
            guidance_start=sampling.guidance_start or 0.0,
        )
        return keys.along(Route(self.story.points))

    def _picture(self, model: LatentDiffusion, number: int) -> Float[Tensor, "1 3 h w"]:
        width, height = self.size
        made = self._decoded(model, number).float().cpu()[..., :height, :width]
        if self.task.colours == "model":
            return made
        return with_low_band(made, self._small(number), 1 if self.task.colours == "pixels" else BAND)

    def _decoded(self, model: LatentDiffusion, number: int) -> Float[Tensor, "1 3 h w"]:
        return model.codec.decode(self._latents(model, number)[None])

    def _latents(self, model: LatentDiffusion, number: int) -> Float[Tensor, "c h w"]:
        left = bisect_right(self.keys, number) - 1
        if self.keys[left] == number:
            return self._key(model, left).at(len(self.schedule))
        if number not in self._inner:
            self._inner = self._filled(model, left)
        return self._inner[number]

    def _key(self, model: LatentDiffusion, place: int) -> Trajectory:
        """A frame that is run wholly. The last two are kept."""
        if place not in self._keys:
            begun, made = self._begun([self.keys[place]]), Trajectory()
            for state in self._run(model, begun, self._cost(place)):
                if int(state.step[0]) in (self._fork, len(self.schedule)):
                    made.latents[int(state.step[0])] = state.x[0]
            for old in list(self._keys)[:-1]:
                del self._keys[old]
            self._keys[place] = made
        return self._keys[place]

    def _filled(self, model: LatentDiffusion, left: int) -> dict[int, Tensor]:
        """The frames between a key and the next."""
        first, last = self.keys[left], self.keys[left + 1]
        ends = self._key(model, left), self._key(model, left + 1)
        numbers = list(range(first + 1, last))
        x = [Between(*ends, (number - first) / (last - first)).at(self._fork) for number in numbers]
        step = torch.full((len(numbers),), self._fork, dtype=torch.int64)
        begun = State(torch.stack(x), step, _named(numbers))
        states = self._run(model, begun, self._cost(left + 1) + self._wholly)
        return dict(zip(numbers, collect(states, self.schedule), strict=True))

    def _begun(self, numbers: Sequence[int]) -> State:
        """Where frames that are run wholly begin."""
        if self.model.upscaling is not None:
            x = torch.stack([self._start * self.schedule.start_scale] * len(numbers)).to(self.model.device)
            return State(x, torch.zeros(len(numbers), dtype=torch.int64), _named(numbers))
        width, height = self._padded
        large = torch.cat([lanczos(mirrored(self._small(number), (width, height)), self._scale) for number in numbers])
        x0 = torch.cat([self.model.codec.encode(picture[None]) for picture in large]).float().to(self.model.device)
        eps = self._start.to(x0).expand_as(x0)
        return from_latents(x0, eps, self.schedule, self.task.strength or 1.0, _named(numbers))

    def _run(self, model: LatentDiffusion, state: State, before: int) -> Iterable[State]:
        """The loop, whose steps are counted on from what lies before."""
        rows, total = [row.frame for row in state.ids], self._total
        tile, overlap = self._tile, int(self._tile * self.task.tiling.overlap)
        together = max(1, self.execution.max_batch // (2 * len(rows)))
        denoiser = TiledDenoiser(model.denoiser, tile, overlap, together)
        kick = self._kick(state.ids)
        solver, begun = find_solver(self.task.sampling.solver or "ddim").solver, int(state.step[0])
        for now in denoise(denoiser, state, self.schedule, self._cond(rows), solver=solver, kick=kick):
            self.progress("upscaling", before + len(rows) * (int(now.step[0]) - begun), total)
            yield now

    def _kick(self, ids: Sequence[RowId]) -> Kick:
        """What a solver adds on the way: the same to all frames."""
        kin = Ancestry((self.task.seed,), (ANY_KEY,), (1.0,))
        return InheritedNoise(dict.fromkeys(ids, kin))

    def _cond(self, numbers: Sequence[int]) -> Guided:
        """What the network is told of frames."""
        positive, negative = self._told.texts([self.story.positions[number] for number in numbers])
        if self.model.upscaling is not None:
            small = torch.cat([mirrored(self._small(number), self._padded) for number in numbers])
            level = self.task.noise_level or 0
            shown = self.model.upscaling.shown(small, self._field, level).to(self.model.device)
            label = torch.full((len(numbers),), level, dtype=torch.int64, device=self.model.device)
            positive, negative = (_shown(term, shown, label) for term in (positive, negative))
        scales = [float(self._told.guidance_at([0.0])[0])] * len(numbers)
        return classifier_free(positive, negative, scales, start=self._told.guidance_start)

    def _small(self, number: int) -> Float[Tensor, "1 3 h w"]:
        """A frame as it is. What is made together is read at once, in order, as decoders like it best."""
        if number not in self._read:
            self._read = self._beside(number)
            self._levels = levels_of(self.source, slice(self._read.start, self._read.stop))
        place = number - self._read.start
        return as_floats(self._levels[place : place + 1])

    def _beside(self, number: int) -> range:
        """A frame and those that are made together with it: two keys, and what lies between."""
        left = min(bisect_right(self.keys, number) - 1, max(0, len(self.keys) - 2))
        return range(self.keys[left], self.keys[min(left + 1, len(self.keys) - 1)] + 1)

    @property
    def _wholly(self) -> int:
        """Steps of a frame that is run wholly."""
        steps = len(self.schedule)
        return steps if self.model.upscaling is not None else max(1, int(steps * (self.task.strength or 1.0)))

    @property
    def _total(self) -> int:
        """Row-steps of all frames."""
        return self._cost(len(self.keys))

    def _cost(self, place: int) -> int:
        """Row-steps before the key of this place, if frames are read in order; of all, for the number of keys."""
        if place == 0:
            return 0
        # A key comes before the frames that lead to it.
        others = self.keys[place - 1] + 1 - place
        return place * self._wholly + others * (len(self.schedule) - self._fork)


def _named(numbers: Sequence[int]) -> tuple[RowId, ...]:
    return tuple(RowId("frame", number) for number in numbers)


def _shown(term: Conditioning, picture: Tensor, label: Tensor) -> Conditioning:
    return replace(term, concat=picture, label=label)
