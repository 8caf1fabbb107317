"""A part of a film, drawn in one loop: a row a frame, each step kept on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segue.diffusion.loop import denoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import from_latents
from segue.media.clip import Excerpt
from segue.media.spool import Spool
from segue.models.paused import pause, resumed
from segue.models.preview import QuickCodec
from segue.motion.blend import Blending
from segue.motion.fields import Fields
from segue.motion.flow import SMALLEST
from segue.motion.flow_match import FlowMatcher
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_look import Looking
from segue.tasks.stylize_plan import StylizePlan
from segue.tasks.stylize_told import Telling
from segue.temporal.along import Along, Smaller
from segue.temporal.bank import tuned
from segue.temporal.deflicker import Deflickering, Moments
from segue.temporal.inversion import inverted
from segue.temporal.moved_noise import Placed, PlacedKick, independent, moved, shared
from segue.types import Denoiser, Frames, Guided, Operator, Progress, RowId, State
from segue.zoo.load import small_decoder

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

STAGE = "drawing frames"
CLIP = "clip"
"""The trajectory of the film's own frames."""
LEVELS = 3
"""Sizes at which frames are blended in the run: whole, a half, a quarter."""
UNTIL = 0.35
"""Share of a run after which frames are not blended in it, unless it is asked for so often: the model draws sharply
what was made to agree. Later, a pass takes more of the detail than of the differences (docs/stylize.md)."""
AT_MOST = 0.9
"""The same, however often it is asked for."""
FEW = 8
"""Steps of a run below which its model was made for few."""
ENCODED = 4
FIELDS_HELD = 1 << 28
"""Bytes of ways that are held of each size."""


@dataclass
class Drawing:
    """Draws parts of a film.

    Args:
        task: with nothing left open.
        model: ready to run.
        source: the film in the size that is drawn.
        telling: what the network is told of frames.
        looking: what they look at.
        plan: where shots begin, and what is drawn at once.
        folder: where what is found, and what is drawn so far, is kept.
        progress: told of all work in one number: a step of a frame each.
    """

    task: Stylize
    model: LatentDiffusion
    source: Spool
    telling: Telling
    looking: Looking
    plan: StylizePlan
    folder: Path
    progress: Progress
    _done: int = field(default=0, init=False)

    def __call__(self, number: int) -> Float[Tensor, "t c h w"]:
        """The latents of a part, drawn, or as they were kept."""
        part = range(*self.plan.parts[number])
        path, rows = self.path(number), [RowId(CLIP, frame) for frame in part]
        self.recall(number)
        kept, cond = resumed(path, rows, self.shape, self.model.device), self.telling.frames(part)
        start, recorded = kept or (self._begun(part, number), {})
        with self.looking.during(rows, number) as denoiser:
            state, done, records = start, range(self.first, int(start.step[0])), self.looking.records(number)
            if records:
                self.looking.restore(number, recorded, rows, cond, done, self.schedule)
            for place, state in enumerate(self._states(denoiser, start, cond, part)):
                if place or kept is None:
                    pause(path, state, self.looking.kept(number) if records else None)
                self.tell(number, int(state.step[0]) - self.first)
        return state.x

    def recall(self, number: int) -> None:
        """Draw, or read, the parts that a part looks at, if that was not done yet."""
        for earlier in self.looking.unknown(number):
            self(earlier)

    def _states(self, denoiser: Denoiser, state: State, cond: Guided, part: range) -> Iterator[State]:
        solver, kick = find_solver(self.task.sampling.solver or "ddim").solver, self._kick
        operators = self._operators(part)
        return denoise(denoiser, state, self.schedule, cond, solver=solver, operators=operators, kick=kick)

    def path(self, number: int) -> Path:
        """Where the state of a part is kept."""
        return self.folder / f"part-{number:04d}.safetensors"

    @cached_property
    def schedule(self) -> Schedule:
        """Of the whole run."""
        sampling = self.task.sampling
        assert sampling.steps and sampling.size
        return self.model.schedule(sampling.steps, sampling.size, solver=sampling.solver)

    @cached_property
    def first(self) -> int:
        """The first step that is run."""
        beginning, count = self.task.beginning, len(self.schedule)
        return 0 if beginning.start == "noise" else count - max(1, int(count * (beginning.strength or 1)))

    @property
    def steps(self) -> int:
        """How many are run."""
        return len(self.schedule) - self.first

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of latents."""
        (width, height), codec = self.source.size, self.model.codec
        return codec.channels, height // codec.scale, width // codec.scale

    def fields(self, guide: Frames, cuts: Sequence[int] = ()) -> Fields:
        """What is found where in frames of the film; found again by other parts, and by another run."""
        folder = self.folder / "fields"
        return Fields(FlowMatcher(), guide, cuts=cuts, folder=folder, memory=FIELDS_HELD, device=self.model.device)

    @cached_property
    def moments(self) -> tuple[int, ...]:
        """The steps at which frames are blended."""
        return moments(self.task.agreement.deflicker or 0, self.first, len(self.schedule))

    @cached_property
    def _kick(self) -> PlacedKick:
        return PlacedKick(self.placed, self.task.seed, CLIP)

    @cached_property
    def placed(self) -> Placed:
        """Whose noise each latent of the film has."""
        size = self.shape[2], self.shape[1]
        kind, count = self.task.beginning.noise, len(self.source)
        if kind == "moved":
            return moved(self.fields(self.source, self.plan.shots[1:]), size)
        return (shared if kind == "shared" else independent)(count, size)

    def tell(self, number: int, step: int) -> None:
        """So many steps of a part are done."""
        lengths = [stop - first for first, stop in self.plan.parts]
        self._done = max(self._done, sum(lengths[:number]) * self.steps + lengths[number] * step)
        self.progress(STAGE, self._done, sum(lengths) * self.steps)

    def _begun(self, part: range, number: int) -> State:
        """Where the frames of a part begin."""
        device, rows = self.model.device, [RowId(CLIP, frame) for frame in part]
        strength = self.task.beginning.strength or 1.0
        if self.task.beginning.start == "inverted":
            told, latents = self.telling.source(part), self.encoded(part)
            with self.looking.during(rows, number, records=False) as denoiser:
                back = inverted(denoiser, latents, self.schedule, told, rows, strength=strength, rounds=self._rounds)
            return back.state
        noise = self.placed[part.start : part.stop].start(self.task.seed, self.shape[0], CLIP).to(device)
        if self.task.beginning.start == "noise":
            step = torch.zeros(len(rows), dtype=torch.int64)
            return State(noise * self.schedule.start_scale, step, tuple(rows))
        return from_latents(self.encoded(part), noise, self.schedule, strength, rows)

    def encoded(self, part: range) -> Float[Tensor, "t c h w"]:
        """Latents of frames of the film as they are."""
        firsts = range(part.start, part.stop, ENCODED)
        parts = [self.source[first : min(part.stop, first + ENCODED)] for first in firsts]
        return torch.cat([self.model.codec.encode(pictures).float().to(self.model.device) for pictures in parts])

    def lost(self, part: range) -> Float[Tensor, "t 3 h w"]:
        """What the codec cannot hold of frames of the film: they are what it makes of their latents, and this."""
        known = self.model.codec.decode(self.encoded(part)).float().cpu()
        return self.source[part.start : part.stop].cpu() - known

    @property
    def _rounds(self) -> int:
        """How often each step back is asked again; a model of few steps is no contraction, and gets worse by it."""
        return int(len(self.schedule) >= FEW)

    def _operators(self, part: range) -> list[Operator]:
        guide, agreement, bank = Excerpt(self.source, part), self.task.agreement, self.looking.given
        rows = [RowId(CLIP, frame) for frame in part]
        found: list[Operator] = [tuned(bank, rows, agreement.bank_power)] if bank and agreement.bank_power else []
        if len(part) < 2 or not self.moments:
            return found
        smaller = [Smaller(guide, level) for level in range(1, LEVELS)]
        guides = [guide, *(one for one in smaller if min(one.size) >= SMALLEST)]
        blending = Blending(min(agreement.around or 1, len(part) - 1), grain=agreement.grain or 0.0)
        along = Along([self.fields(one) for one in guides], blending)
        spool = partial(Spool.temporary, near=self.folder)
        small, together = small_decoder(self.model), ENCODED if self.model.device.type != "cpu" else 1
        codec = self.model.codec if small is None else QuickCodec(self.model.codec, small)
        return [Deflickering(codec, along, Moments(steps=self.moments), CLIP, batch=together, spool=spool), *found]


def moments(count: int, first: int, steps: int) -> tuple[int, ...]:
    """`count` steps of a run that begins at `first` of `steps`, evenly spread over its first part.

    Where these are too few they are spread over as much of it as so many take, but for its end.
    """
    run = steps - first
    most = min(round(AT_MOST * run), run - 1)
    span = max(min(most, max(1, round(UNTIL * run))), min(count, most))
    count = min(count, span)
    return tuple(first - (-(number + 1) * span // count) - 1 for number in range(count))
