"""The frames of a clip by a model of single pictures: the first one moved, and drawn anew in part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import denoise
from segue.diffusion.noise import NamedNoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import first_step, from_latents, from_seeds
from segue.models.attended import model_sites
from segue.models.paused import pause, resumed
from segue.tasks.animate import Animate
from segue.tasks.animate_controls import Controls
from segue.tasks.animate_told import Over
from segue.tasks.key_pictures import KeyPicture
from segue.tasks.sampling import Execution
from segue.temporal.curve import Curve
from segue.temporal.frame_attention import Pattern, frame_attention
from segue.temporal.keys import ANY_KEY
from segue.temporal.moved_noise import Placed, PlacedKick
from segue.temporal.passengers import Noised, Passenger
from segue.temporal.pinned import pinned
from segue.temporal.zero_shot import Moved
from segue.temporal.zero_shot_motion import Course, carried, placed_at
from segue.types import Denoiser, Guided, Progress, RowId, State

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

CLIP = "clip"
ALIKE = 0.1
"""How far colours may be apart, of a full range of 1, for two drawings of one place to count as the same thing."""
FIRST, FRAMES = "first.safetensors", "frames.safetensors"


def course_of(task: Animate) -> Float[Tensor, "t 3 3"]:
    """Of each frame of a clip with nothing left open, where what is in its first one goes."""
    over, way = Over.of(task), task.movement.way or "still"
    motion = Curve.of(over.motion)
    level = motion.is_constant or way == "still"
    strength = motion.low if level else tuple(over.dials(range(over.frames)))
    return Course(way, strength, task.movement.loop).maps(over.frames, over.fps)


def kept(
    path: Path,
    rows: tuple[RowId, ...],
    shape: tuple[int, int, int],
    begin: Callable[[], State],
    run: Callable[[State], Iterator[State]],
    tell: Callable[[State], None],
    device: torch.device,
) -> State:
    """The end of a run whose state is written after every step, and gone on with if it is there.

    Args:
        path: where.
        rows: of the run.
        shape: (channels, height, width) of latents.
        begin: makes the first state.
        run: the loop.
        tell: told of each state.
        device: where latents live.
    """
    found = resumed(path, rows, shape, device)
    started = state = found[0] if found else begin()
    for place, state in enumerate(run(started)):
        if place or found is None:
            pause(path, state)
        tell(state)
    return state


@dataclass
class ZeroShot:
    """Frames of a picture that is moved; see `segue.temporal.zero_shot`.

    With a picture P as the first frame, and R_k what the model draws of it moved by W_k, frame k is R_k + W_k(P - R_0)
    where R_k and W_k R_0 agree: so the first frame is the picture itself, what is lost by drawing anew comes along, and
    nothing is drawn around what the model has put elsewhere.

    Args:
        task: with nothing left open.
        model: ready to run.
        controls: what frames are drawn after.
        execution: how many are decoded together.
        folder: where states are kept.
        progress: told of every step of every frame.
        numbers: of the frames that are drawn, of those of the clip; None for all. The first moves as far as the clip
            has come by then.
        picture: what the first of them shows, in place of the task's.
        pin: how much of what drawing does to mean and contrast of the first is taken from all, in [0, 1].
    """

    task: Animate
    model: LatentDiffusion
    controls: Controls
    execution: Execution
    folder: Path
    progress: Progress
    numbers: tuple[int, ...] | None = None
    picture: Float[Tensor, "3 h w"] | None = None
    pin: float = 0.0

    @property
    def scores(self) -> Mapping[str, Any]:
        """How it was begun, and where all of it goes."""
        return {"engine": "zero-shot", "way": self.task.movement.way, "begun": self.task.movement.begun}

    def pictures(self, first: int) -> Iterator[Float[Tensor, "t 3 h w"]]:
        """See `segue.tasks.animate_run.Maker`."""
        movement, count = self.task.movement, len(self._numbers)
        picture = self._given() if self.task.image or self.picture is not None else None
        if movement.begun == "picture" and picture is None:
            picture = self._decoded(self._first())[0]
        if count == 1 and picture is not None:
            yield picture[None]
            return
        latents = self._moved(picture) if picture is not None else self._from_latents()
        drawn_first = None if picture is None else self._decoded(latents[:1])
        together = self.execution.decoded_at_once(self.model, self._size)
        for start in range(first, count, together):
            stop = min(count, start + together)
            drawn = self._decoded(latents[start:stop])
            if picture is not None and drawn_first is not None:
                both = pinned(torch.cat([drawn_first, drawn]), {0: picture}, self.pin)
                again, drawn = both[:1], both[1:]
                moved, lost = (carried(one, self._maps[start:stop]) for one in (again, picture[None] - again))
                apart = (drawn - moved).abs().mean(1, keepdim=True)
                drawn = (drawn + (-((apart / ALIKE) ** 2)).exp() * lost).clamp(0, 1)
                if start == 0:
                    drawn[0] = picture
            yield drawn

    def _given(self) -> Float[Tensor, "3 h w"]:
        return KeyPicture(0, Path(str(self.task.image))).load(self._size) if self.picture is None else self.picture

    def _first(self) -> Float[Tensor, "1 c h w"]:
        """The latents of the picture that the model makes of the words: that of `segue image`."""
        rows, solver = (ANY_KEY,), find_solver(str(self.task.sampling.solver)).solver

        def begun() -> State:
            return from_seeds([self.task.seed], rows, self._schedule, self._shape, self.model.device)

        def run(state: State) -> Iterator[State]:
            kick = NamedNoise(self.task.seed)
            return denoise(self.model.denoiser, state, self._schedule, self._cond[[0]], solver=solver, kick=kick)

        def tell(state: State) -> None:
            self.progress("drawing the first frame", int(state.step[0]), len(self._schedule))

        path = self.folder / FIRST
        return kept(path, rows, self._shape, begun, run, tell, self.model.device).x

    def _moved(self, picture: Float[Tensor, "3 h w"]) -> Float[Tensor, "t c h w"]:
        """Latents of frames that begin as the moved picture, part of the way into noise."""
        strength = self.task.movement.strength or 1.0
        noises = self._placed.start(self.task.seed, self._shape[0], CLIP).to(self.model.device)
        still = self._encoded(picture[None])

        def begun() -> State:
            moved = [self._encoded(carried(picture[None], self._maps[[k]])) for k in range(len(self._numbers))]
            return from_latents(torch.cat(moved), noises, self._schedule, strength, self._rows)

        rides = Passenger(Noised(still[0], noises[0], self._schedule), self._cond[[0]])
        pattern = Pattern.parse(str(self.task.movement.attention))
        references = (rides,) if pattern.references != () else ()
        return self._drawn(begun, self._looking(pattern, references), first_step(self._schedule, strength))

    def _from_latents(self) -> Float[Tensor, "t c h w"]:
        """Latents of frames that begin where the first one's are moved to, early in the run."""
        solver = find_solver(str(self.task.sampling.solver)).solver
        moved = Moved(self._schedule, solver, self.task.seed)
        if self.controls.steering:
            # What moves is seen in the controls: all frames begin in the first one's noise, as in the paper.
            moved = Moved(self._schedule, solver, self.task.seed, until=0.0, back=0.0)

        def begun() -> State:
            cond, maps = self._cond, self._maps
            return moved.begun(self.model.denoiser, cond, maps, self._rows, self._shape, self.model.device)

        pattern = Pattern.parse(str(self.task.movement.attention))
        return self._drawn(begun, self._looking(pattern), round(moved.back * len(self._schedule)))

    def _looking(self, pattern: Pattern, references: Sequence[Passenger] = ()) -> AbstractContextManager[Denoiser]:
        """The denoiser, whose frames look at others; "self" alone is the model as it is."""
        if pattern == Pattern(own=True):
            return nullcontext(self.model.denoiser)
        sites = model_sites(self.model)
        return frame_attention(self.model.denoiser, sites, pattern, self._rows, references=references)

    def _drawn(
        self, begun: Callable[[], State], looking: AbstractContextManager[Denoiser], behind: int
    ) -> Float[Tensor, "t c h w"]:
        solver, kick = (
            find_solver(str(self.task.sampling.solver)).solver,
            PlacedKick(self._placed, self.task.seed, CLIP),
        )
        steps = len(self._schedule) - behind

        def tell(state: State) -> None:
            self.progress("drawing frames", (int(state.step[0]) - behind) * len(self._rows), steps * len(self._rows))

        with looking as denoiser:

            def run(state: State) -> Iterator[State]:
                return denoise(denoiser, state, self._schedule, self._cond, solver=solver, kick=kick)

            return kept(self.folder / FRAMES, self._rows, self._shape, begun, run, tell, self.model.device).x

    @cached_property
    def _rows(self) -> tuple[RowId, ...]:
        return tuple(RowId(CLIP, place) for place in range(len(self._numbers)))

    @property
    def _numbers(self) -> Sequence[int]:
        return range(self.task.frames) if self.numbers is None else self.numbers

    @cached_property
    def _schedule(self) -> Schedule:
        sampling = self.task.sampling
        assert sampling.steps
        return self.model.schedule(sampling.steps, self._size, solver=sampling.solver)

    @cached_property
    def _course(self) -> Float[Tensor, "t 3 3"]:
        return course_of(self.task)

    @cached_property
    def _maps(self) -> Float[Tensor, "t 3 3"]:
        """Of each frame that is drawn, where what is in the first of these goes."""
        if self.numbers is None:
            return self._course
        found = self._course[[number % self.task.frames for number in self.numbers]]
        return found if self.numbers[0] == 0 else found @ torch.linalg.inv(found[0])

    @cached_property
    def _placed(self) -> Placed:
        return placed_at(self._course, self._numbers, (self._shape[2], self._shape[1]))

    @cached_property
    def _cond(self) -> Guided:
        numbers, over = self._numbers, Over.of(self.task)
        wanted, unwanted = over.texts(self.model, numbers)
        began = self.task.sampling.guidance_start or 0.0
        cond = classifier_free(wanted, unwanted, over.scales(numbers), start=began)
        return self.controls.shown(cond, self.progress) if self.controls.steering else cond

    @property
    def _size(self) -> tuple[int, int]:
        assert self.task.sampling.size is not None
        return self.task.sampling.size

    @property
    def _shape(self) -> tuple[int, int, int]:
        (width, height), codec = self._size, self.model.codec
        return codec.channels, height // codec.scale, width // codec.scale

    def _encoded(self, pictures: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t c h w"]:
        return self.model.codec.encode(pictures).float().to(self.model.device)

    def _decoded(self, latents: Float[Tensor, "t c h w"]) -> Float[Tensor, "t 3 h w"]:
        return self.model.codec.decode(latents).float().cpu()
