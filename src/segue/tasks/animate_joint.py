"""The frames of a clip by a model that was made for films: all are denoised together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segue.diffusion.frame_guidance import linear
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import ClipNoise, start_noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import from_clip_seed, from_latents, from_seeds
from segue.errors import TaskError
from segue.models.clip_rows import dialled
from segue.models.families.animatediff import with_strength
from segue.models.families.svd import LEAST_SCALE, bucket_of, guided
from segue.models.families.videoldm import context_of, told
from segue.models.temporal_codec import TemporalCodec
from segue.models.time_carried import Course, Paced, put_back
from segue.models.time_decoder import at_dial
from segue.models.time_inserted import PART, with_motion
from segue.tasks.animate import Animate
from segue.tasks.animate_told import Over
from segue.tasks.animate_zero_shot import CLIP, FRAMES, kept
from segue.tasks.key_pictures import KeyPicture
from segue.tasks.sampling import Execution
from segue.temporal.both_ends import BothEnds
from segue.temporal.curve import Curve
from segue.temporal.keys import ANY_KEY
from segue.temporal.overlapping import Overlapping
from segue.types import Codec, Denoiser, Guided, Progress, RowId, State

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

OVERLAP = 4
"""One frame in so many of a window is in the one beside it, too."""


@dataclass
class Joint:
    """Frames that are denoised together.

    Args:
        task: with nothing left open.
        model: ready to run.
        execution: how many are decoded together.
        folder: where states are kept.
        progress: told of every step of every frame.
        numbers: by which the noise of its frames is named, where they are some of a longer clip's.
        given: pictures of frames, by their place, besides those that the task names.
        whole: the longer clip's task, by whose time they are told words and numbers; None if this is all of it.
        course: of the longer clip's first picture, and the places of these frames on it; None begins one here.
    """

    task: Animate
    model: LatentDiffusion
    execution: Execution
    folder: Path
    progress: Progress
    numbers: tuple[int, ...] | None = None
    given: Mapping[int, Float[Tensor, "3 h w"]] = field(default_factory=dict[int, "Tensor"])
    whole: Animate | None = None
    course: tuple[Paced, Sequence[int]] | None = None

    @property
    def scores(self) -> Mapping[str, Any]:
        """What makes frames agree, and in how long windows."""
        assert self.model.moving is not None
        return {"engine": self.model.moving.engine or "joint", "window": min(self._window, self.task.frames)}

    def pictures(self, first: int) -> Iterator[Float[Tensor, "t 3 h w"]]:
        """See `segue.tasks.animate_run.Maker`."""
        for start, made in self._decoded(first):
            skipped = max(0, first - start)
            # A loop is decoded up to where it begins again, which is shown once.
            shown = made[skipped : max(0, self.task.frames - start)].cpu()
            if len(shown):
                yield self._finished(shown, start + skipped)

    def _finished(self, drawn: Float[Tensor, "n 3 h w"], first: int) -> Float[Tensor, "n 3 h w"]:
        """Frames from this one on with what drawing lost of the picture that is carried, and this as it is."""
        if self._way is None or self._context is None:
            return drawn
        carried = self._carried(range(first, first + len(drawn)))
        known = self._context[first : first + len(drawn), -1, 0, 0].bool()[:, None, None, None]
        return torch.where(known.to(carried.device), carried, put_back(drawn, carried))

    def _decoded(self, first: int) -> Iterator[tuple[int, Float[Tensor, "n 3 h w"]]]:
        """Pictures from about this frame on, and which of them is the first."""
        latents, codec, done = self._latents(), self._codec, 0
        if isinstance(codec, TemporalCodec):
            for made in codec.pieces(latents):
                yield done, made
                done += len(made)
            return
        together = self.execution.decoded_at_once(self.model, self._size)
        for start in range(first, len(latents), together):
            yield start, codec.decode(latents[start : start + together]).float()

    def _latents(self) -> Float[Tensor, "t c h w"]:
        count, steps = self._drawn, len(self._schedule)
        shared = self.model.moving.shared_noise if self.model.moving is not None and count > 1 else 0.0
        solver, kick = find_solver(str(self.task.sampling.solver)).solver, ClipNoise(self.task.seed, shared)
        # A clip of one frame is a picture of the image model.
        rows = (ANY_KEY,) if count == 1 else tuple(RowId(CLIP, frame) for frame in self.numbers or range(count))

        def begun() -> State:
            return self._begun(rows, shared)

        def run(state: State) -> Iterator[State]:
            return denoise(self._denoiser(), state, self._schedule, self._cond(), solver=solver, kick=kick)

        def tell(state: State) -> None:
            self.progress("drawing frames", int(state.step[0]) * count, steps * count)

        return kept(self.folder / FRAMES, rows, self._shape, begun, run, tell, self.model.device).x

    def _begun(self, rows: tuple[RowId, ...], shared: float) -> State:
        """The first state of these frames, which have so much of their noise in common."""
        device = self.model.device
        if len(rows) == 1:
            return from_seeds([self.task.seed], rows, self._schedule, self._shape, device)
        noise = from_clip_seed(self.task.seed, rows, self._schedule, self._shape, device, shared)
        if self._way is None:
            return noise
        strength, together = self.task.movement.strength or 1.0, self.execution.decoded_at_once(self.model, self._size)
        parts = [range(start, min(start + together, len(rows))) for start in range(0, len(rows), together)]
        encode = self.model.codec.encode
        moved = torch.cat([encode(self._carried(part)).float() for part in parts]).to(device)
        return from_latents(moved, noise.x / self._schedule.start_scale, self._schedule, strength, rows)

    def _carried(self, frames: range) -> Float[Tensor, "n 3 h w"]:
        """Some frames as the one that is known, carried along."""
        assert self._way is not None
        course, numbers = self._way
        return course.carried(numbers[frames.start : frames.stop])

    @cached_property
    def _way(self) -> tuple[Course, Float[Tensor, "t 4"]] | None:
        """What is carried, and the way's numbers at each frame; None where all is drawn from noise alone.

        Between two given pictures either is carried half of the way, and would jump. Frames that do not move at all are
        those of the image model.
        """
        if self.task.movement.strength in (None, 1.0) or self.task.frames == 1:
            return None
        context, dials = self._context, self._over.dials(self._frames)
        if context is None or min(dials) <= 0 or context[:, -1, 0, 0].sum() != 1:
            return None
        if self.course is not None:
            paced, places = self.course
            return paced.course, paced.numbers(places) * torch.tensor(dials)[:, None]
        place = int(context[:, -1, 0, 0].argmax())
        picture = self._known.get(place)
        if picture is None:
            picture = self.model.codec.decode(context[place : place + 1, :-1])[0].float()
        return self._way_from(place, picture.clamp(0, 1).cpu(), dials)

    def _way_from(
        self, place: int, picture: Float[Tensor, "3 h w"], dials: Sequence[float]
    ) -> tuple[Course, Float[Tensor, "t 4"]]:
        """What is carried from a frame to all others, and how."""
        frames, fps, looped = self.task.frames, float(self.task.fps or 1), self.task.movement.loop
        if self._over.is_even:
            paced = course_of(self.model, self._over, picture, fps)
            if looped:
                return paced.course, paced.course.looped(frames, paced.pace, dials[0]).roll(place, 0)
            return paced.course, paced.numbers(range(-place, frames - place)) * dials[0]
        seconds = [(frame - place) / fps for frame in range(frames)]
        course = Course.of(self.model, self._over.texts(self.model, self._frames)[0], picture, seconds)
        numbers = course.numbers * torch.tensor(dials)[:, None]
        if looped:
            # What the last frame leads to is taken from all, little by little.
            led = 2 * numbers[-1] - numbers[-2] - numbers[0]
            numbers = numbers - (torch.arange(frames) - place)[:, None] / frames * led
        return course, numbers

    def _denoiser(self) -> Denoiser:
        """Of the whole clip; longer ones than the model looks at are cut into windows that overlap."""
        model, count, window = self._dialled(), self._drawn, self._window
        loop = self.task.movement.loop and self.model.family != "svd"
        if count == 1 or (self.task.frames <= window and not loop):
            whole = model.over(count).denoiser
            last = self._known.get(count - 1) if self.model.family == "svd" and count > 1 else None
            return whole if last is None else BothEnds(whole, self._shown(last), count)
        if self.model.family == "svd":
            raise TaskError(
                f"{self.model.name} makes up to {window} frames of a picture, got {count}: take long parts, each of "
                "which goes on from the last frame of the one before"
            )
        length = min(window, count)
        return Overlapping(model.over(length).denoiser, min(length - 1, max(1, length // OVERLAP)), loop)

    def _dialled(self) -> LatentDiffusion:
        """The model with its motion as it is wanted, if that is one number; else each row is told."""
        motion = self._motion
        if motion in (None, 1.0) or self.model.family == "svd":
            return self.model
        return with_motion(self.model, motion) if self._is_videoldm else with_strength(self.model, motion)

    @property
    def _codec(self) -> Codec:
        """Whose layers along time, if it has any, act as much as those of the network."""
        codec = self._dialled().codec
        return at_dial(codec, self._over.dials(self._frames)) if self._motion is None else codec

    def _cond(self) -> Guided:
        told = self._said()
        return dialled(told, self._over.dials(self._frames)) if self._motion is None else told

    def _said(self) -> Guided:
        """Words, and pictures."""
        if self.model.family == "svd":
            return self._shown(self._known[0])
        numbers, over = self._frames, self._over
        scale, began = over.scales(numbers), self.task.sampling.guidance_start or 0.0
        wanted, unwanted = over.texts(self.model, numbers)
        if not self._is_videoldm:
            return classifier_free(wanted, unwanted, scale, start=began)
        held = self.task.movement.context_guidance
        return told(
            wanted, unwanted, scale, float(self.task.fps or 1),
            context=self._told_of, context_scale=1.0 if held is None else held, start=began,
        )  # fmt: skip

    def _shown(self, picture: Float[Tensor, "3 h w"]) -> Guided:
        """What frames of Stable Video Diffusion are told that begin with a picture."""
        count, most = self._drawn, float(self.task.sampling.guidance_scale[0])
        scales = linear(count, min(LEAST_SCALE, most), most)
        noise, fps = start_noise(self.task.seed, (3, *self._size[::-1])), float(self.task.fps or 1)
        bucket = bucket_of(1.0 if self._motion is None else self._motion)
        seen = guided(self.model, picture, count, noise=noise, scales=scales, fps=fps, bucket=bucket)
        return replace(seen, start=self.task.sampling.guidance_start or 0.0)

    @property
    def _told_of(self) -> Float[Tensor, "t c+1 h w"] | None:
        """The same, of what is denoised: in a loop what is carried goes another way to its first frame than from it."""
        led_back = self.task.movement.loop and self._way is not None
        return None if led_back else self._context

    @cached_property
    def _context(self) -> Float[Tensor, "t c+1 h w"] | None:
        """What layers along time are told of given frames."""
        known = {frame: self.model.codec.encode(picture[None])[0] for frame, picture in self._known.items()}
        if not known and self.model.moving is not None and self.model.moving.from_still and self.task.frames > 1:
            known = {0: self._still()}
        return context_of(known, self.task.frames, self._shape) if known else None

    def _still(self) -> Float[Tensor, "c h w"]:
        """The latents of a first frame, as the image model draws one picture of these words from this seed."""
        model, sampling = self.model.over(1), self.task.sampling
        numbers, over = self._frames[:1], self._over
        wanted, unwanted = over.texts(model, numbers)
        cond = classifier_free(wanted, unwanted, over.scales(numbers), start=sampling.guidance_start or 0.0)
        state = from_seeds([self.task.seed], (ANY_KEY,), self._schedule, self._shape, model.device)
        kick = ClipNoise(self.task.seed, 0.0)
        states = denoise(
            model.denoiser, state, self._schedule, cond, solver=find_solver(str(sampling.solver)).solver, kick=kick
        )
        return collect(states, self._schedule)[0]

    @cached_property
    def _known(self) -> Mapping[int, Float[Tensor, "3 h w"]]:
        """Pictures of frames, by their place."""
        named = {0: self.task.image, self.task.frames - 1: self.task.last_image}
        wanted = {frame: name for frame, name in named.items() if name is not None and frame not in self.given}
        read = {frame: KeyPicture(0, Path(name)).load(self._size) for frame, name in wanted.items()}
        if self._drawn > self.task.frames:
            read[self.task.frames] = read[0]
        return {**read, **self.given}

    @property
    def _drawn(self) -> int:
        """Frames that are denoised: a loop of a picture has it once more behind its last frame."""
        closed = self.task.movement.loop and self.model.family == "svd" and self.task.last_image is None
        return self.task.frames + (closed and self.task.frames > 1)

    @property
    def _is_videoldm(self) -> bool:
        return hasattr(self.model.parts.get("unet"), PART)

    @property
    def _over(self) -> Over:
        return Over.of(self.whole or self.task)

    @property
    def _frames(self) -> Sequence[int]:
        """The numbers of its frames in the longer clip, or in this."""
        return self.numbers or range(self.task.frames)

    @property
    def _motion(self) -> float | None:
        """How strongly it moves; None if that changes over the clip."""
        curve = Curve.of(self._over.motion)
        return curve.low if curve.is_constant else None

    @property
    def _window(self) -> int:
        moving, window = self.model.moving, self.task.movement.window
        assert moving is not None and window is not None
        return window if moving.most is None else min(window, moving.most)

    @cached_property
    def _schedule(self) -> Schedule:
        sampling = self.task.sampling
        assert sampling.steps
        return self.model.schedule(sampling.steps, self._size, solver=sampling.solver)

    @property
    def _size(self) -> tuple[int, int]:
        assert self.task.sampling.size is not None
        return self.task.sampling.size

    @property
    def _shape(self) -> tuple[int, int, int]:
        (width, height), codec = self._size, self.model.codec
        return codec.channels, height // codec.scale, width // codec.scale


def course_of(model: LatentDiffusion, over: Over, picture: Float[Tensor, "3 h w"], fps: float) -> Paced:
    """The course of the thing in a clip's first picture.

    Args:
        model: that carries it.
        over: what all frames are told alike.
        picture: in [0, 1].
        fps: of the clip.
    """
    moving = model.moving
    assert moving is not None
    wanted = over.texts(model, [0] * moving.frames)[0]
    # As it was learned, whatever frames there are: what is told of other times is a guess.
    seconds = [frame / moving.fps for frame in range(moving.frames)]
    return Course.of(model, wanted, picture, seconds).paced(moving.fps / fps)
