"""Pictures and films made larger by a model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from segue.errors import ModelError, TaskError
from segue.tasks.contents import sha256_of
from segue.tasks.on_file import OnFile
from segue.tasks.record import notes_on
from segue.tasks.sampling import Execution, Sampling, checked_prompt, checked_seeds
from segue.tasks.upscale_words import Story, found_story, record_beside
from segue.temporal.wording import Wording
from segue.types import Progress, silent

if TYPE_CHECKING:
    from segue.media.clip import Clip
    from segue.models.bundle import LatentDiffusion

Method = Literal["upscaler", "same-model"]
Colours = Literal["input", "pixels", "model"]
UPSCALER = "emoji-x4"
"""The embedded model that is taken where none is asked for."""

MAX_SCALE = 8
STRENGTH, SCALE, WINDOW = 0.2, 2, 2
"""What a model that draws is used with by default: share of the run, times larger, and how many times its own size it
is given at once. With more strength it draws folds that were not there, with a larger scale it mottles what was smooth,
and in smaller windows, which see nothing but ground, it smudges that: docs/upscaling.md has the measurements."""
EVERY, DEPTH = 4, 0.3
"""By default, one frame in so many is run wholly, and of the others all but this share."""
UPSCALED_WINDOW = 512
"""Pixels, a side, that an upscaler is given at once, unless its own size is larger: it looks at details."""


@dataclass(frozen=True)
class Tiling:
    """Parts that are denoised by themselves, so that memory stays the same at any size.

    Args:
        window: side of such a part, in pixels of the result; left out, what suits the model.
        overlap: share of a window that its neighbours have in common with it, from 0, below 0.9.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    window: int | None = None
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise TaskError(f"window must be a number of pixels from 1, got {self.window}")
        if not 0 <= self.overlap < 0.9:
            raise TaskError(f"overlap must be in [0, 0.9), got {self.overlap}")


@dataclass(frozen=True)
class Coherence:
    """What frames have in common: with which of them those between begin, or which are denoised together.

    Args:
        every: one frame in so many is run wholly, and the last one; 1 runs all. Left out, 4 for an upscaler of
            pictures, and 1 for one with layers along time.
        depth: share of the run, in [0, 1), that frames between two of these do not repeat: they begin from a mix of
            both there, and go on by what their own small picture shows. Left out, 0.3 for an upscaler of pictures, and
            with every 1, where there are none, nothing.
        together: frames that an upscaler with layers along time denoises together, from 2; left out, as many as these
            learned from. Longer films are cut into windows that overlap and fade into each other.
        motion: the dial of layers along time: how much of what they learned is added; 1, if left out, is as they were
            trained, and 0 the upscaler of pictures, frame by frame.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    every: int | None = None
    depth: float | None = None
    together: int | None = None
    motion: float | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise TaskError(f"every must be a number of frames from 1, got {self.every}")
        if self.depth is not None and not 0 <= self.depth < 1:
            raise TaskError(f"depth must be in [0, 1), got {self.depth}")
        if self.together is not None and self.together < 2:
            raise TaskError(f"together must be a number of frames from 2, got {self.together}")
        if self.motion is not None and not 0 <= self.motion < math.inf:
            raise TaskError(f"motion must be a number from 0, got {self.motion}")

    def of(self, model: LatentDiffusion) -> Coherence:
        """With nothing left open, for an upscaler.

        Raises:
            TaskError: something is said that is not for this model.
        """
        if model.moving is None:
            said = [f"{name} {value:g}" for name, value in self._along_time.items() if value is not None]
            if said:
                raise TaskError(
                    f"{model.name} enlarges frames one by one: leave out {' and '.join(said)}, or give it layers along "
                    "time (--motion-adapter FILE; segue train time_upscaler makes them)"
                )
            every = self.every or EVERY
            return Coherence(every, DEPTH if self.depth is None and every > 1 else self.depth)
        _check_looks_along_time(model)
        if self.every not in (None, 1) or self.depth is not None:
            said = f"every {self.every}" if self.every not in (None, 1) else f"depth {self.depth}"
            raise TaskError(
                f"{model.name} denoises frames together, and runs all of them wholly; none begins from a mix: "
                f"leave out {said}"
            )
        together, motion = self.together or max(2, model.moving.frames), self.motion
        return Coherence(1, None, together, 1.0 if motion is None else motion)

    @property
    def _along_time(self) -> dict[str, float | None]:
        return {"together": self.together, "motion": self.motion}


def _check_looks_along_time(model: LatentDiffusion) -> None:
    from segue.models.time_inserted import time_layers

    try:
        time_layers(model)
    except ModelError:
        raise TaskError(
            f"{model.name} has a motion adapter for models that draw from words: expected layers along time of an "
            "upscaler, as segue train time_upscaler makes them"
        ) from None


@dataclass(frozen=True)
class UpscalePlan:
    """What was read before any frame was made.

    Args:
        sha256: of the input.
        points: what the film passes, each a share of every prompt.
        positions: of each frame on the line of these points.
        words: how texts are mixed.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    sha256: str
    points: list[list[float]]
    positions: list[float]
    words: Literal["tokens", "line"] = "tokens"


@dataclass(frozen=True)
class Upscale(OnFile):
    """A picture or a film made larger.

    All frames begin in the same noise, or share what layers along time learned to share; and what noises their small
    pictures is one field that stands still, so that frames which are alike stay alike.

    Args:
        input: a picture, a video, an animation or a folder of pictures.
        prompt: what it shows; several are passed in order, at even speed. Left out, what the record beside a result of
            Segue says of each frame.
        negative: what is not wanted.
        seed: of the noise.
        method: "upscaler" takes a model that was made for it; "same-model" enlarges by Lanczos, and lets a model that
            draws pictures go over the result.
        scale: how many times larger, along a side: what the upscaler was made for; 2 to 8 for the other method, 2 if
            left out.
        noise_level: of an upscaler: how much its small picture is noised, so that it invents more; left out, its own.
        strength: of the other method: share of the run, in (0, 1], that goes over the picture; left out, 0.2.
        colours: "input" gives the result the lowest band of what it was made of, a number for 8 x 8 pixels; "pixels"
            the mean of each of its pixels, which is better where every one of them is right, as in what was filmed, and
            worse where a model drew them; "model" leaves it as it is.
        tiling: parts that are denoised by themselves.
        coherence: which frames are run wholly, or denoised together.
        sampling: steps, guidance and solver; the size follows from the input.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    name: ClassVar[str] = "upscale"
    plan_type: ClassVar[type[UpscalePlan]] = UpscalePlan

    input: str
    prompt: tuple[str, ...] = ()
    negative: str = ""
    seed: int = 0
    method: Method = "upscaler"
    scale: int | None = None
    noise_level: int | None = None
    strength: float | None = None
    colours: Colours = "input"
    tiling: Tiling = field(default_factory=Tiling)
    coherence: Coherence = field(default_factory=Coherence)
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", str(self.input))
        object.__setattr__(self, "prompt", (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt))
        if not self.input:
            raise TaskError("input must be the name of a picture, a video or a folder, got ''")
        for number, prompt in enumerate(self.prompt, start=1):
            # What is known of a film may be nothing, which its record says as one empty prompt.
            if self.prompt != ("",):
                checked_prompt(prompt, f"prompt {number}")
        for prompt in (*self.prompt, self.negative):
            if curves := Wording.of(prompt).curves:
                raise TaskError(f"a weight in a prompt of upscale is a number; got the curve {curves[0]}")
        checked_seeds([self.seed])
        if self.sampling.size is not None:
            raise TaskError(f"the size follows from the input and the scale; leave out size {self.sampling.size}")
        for name, kinds in (("method", get_args(Method)), ("colours", get_args(Colours))):
            if getattr(self, name) not in kinds:
                raise TaskError(f"{name} must be {' or '.join(kinds)}, got {getattr(self, name)!r}")
        self._check_method()

    def _check_method(self) -> None:
        if self.method == "upscaler":
            if self.strength is not None:
                raise TaskError('strength is for the method "same-model": an upscaler begins in noise; leave it out')
            return
        if self.noise_level is not None:
            raise TaskError('noise_level is for the method "upscaler": use strength, or leave it out')
        if self.coherence.every not in (None, 1):
            raise TaskError(
                'with the method "same-model" each frame begins from its own picture, and all are run wholly: '
                f"leave out every {self.coherence.every}"
            )
        if self.coherence.depth is not None and self.coherence.every is None:
            raise TaskError(
                'with the method "same-model" each frame begins from its own picture, and none from a mix of others: '
                f"leave out depth {self.coherence.depth}"
            )
        if along := [name for name in ("together", "motion") if getattr(self.coherence, name) is not None]:
            raise TaskError(
                f'{" and ".join(along)}: with the method "same-model" frames are gone over one by one; leave this out'
            )
        if self.strength is not None and not 0 < self.strength <= 1:
            raise TaskError(f"strength must be in (0, 1], got {self.strength}")
        if self.scale is not None and not 2 <= self.scale <= MAX_SCALE:
            raise TaskError(f"scale must be between 2 and {MAX_SCALE}, got {self.scale}")

    def usual_model(self) -> str | None:
        """The model to take where none is asked for: an upscaler, or the one that made the input; None if unknown."""
        if self.method == "upscaler":
            return UPSCALER
        record = record_beside(self.path)
        return None if record is None or record.model is None else record.model.name

    def check(self, frames: int) -> None:
        """Find out whether a film of so many frames can have all that is asked for.

        Raises:
            TaskError: it has fewer frames than prompts, or a depth where no frame lies between two others. Records have
                had the latter, which nobody asked for, and are made again without this question.
        """
        if self.coherence.every == 1 and self.coherence.depth is not None:
            raise TaskError(
                "with every 1 all frames are run wholly, and none begins from a mix of others: "
                f"leave out depth {self.coherence.depth}, or take every 2 or more"
            )
        if len(self.prompt) > frames:
            raise TaskError(
                f"there are {len(self.prompt)} prompts, and {self.path.name} has {frames} frame{'s'[: frames > 1]}: "
                "give at most one prompt for each frame"
            )

    def story(self, frames: int) -> Story:
        """What each of so many frames shows."""
        return Story.spread(self.prompt, frames) if self.prompt else found_story(self.path, frames)

    def resolved(self, model: LatentDiffusion, story: Story) -> Upscale:
        """The same task with nothing left open.

        Raises:
            TaskError: the method is not for this model, or it cannot enlarge so much.
        """
        upscaling, sampling = model.upscaling, self.sampling
        model.refuse_negative([self.negative])
        own = replace(model, upscaling=None)
        settings = sampling.resolve(own, 1).pinned()
        common = replace(
            self,
            input=str(self.path.absolute()),
            prompt=story.prompts,
            sampling=replace(settings, size=None),
        )
        if self.method == "same-model":
            if upscaling is not None:
                raise TaskError(
                    f'{model.name} is an upscaler, and the method "same-model" goes over pictures with a model that '
                    "draws them: leave the method out, or take another model"
                )
            strength = STRENGTH if self.strength is None else self.strength
            window = self.tiling.window or WINDOW * min(model.defaults.size)
            coherence = replace(self.coherence, every=1)
            return replace(
                common,
                scale=self.scale or SCALE,
                strength=strength,
                tiling=replace(self.tiling, window=window),
                coherence=coherence,
            )
        if upscaling is None:
            raise TaskError(
                f"{model.name} draws pictures from words, and is no upscaler: take one ({UPSCALER} comes with Segue), "
                "or let the model go over the enlarged picture (--method same-model)"
            )
        if self.scale not in (None, upscaling.factor):
            raise TaskError(f"{model.name} enlarges {upscaling.factor} times, got scale {self.scale}; leave it out")
        level = upscaling.noise_level if self.noise_level is None else self.noise_level
        window = self.tiling.window or max(min(model.defaults.size), UPSCALED_WINDOW)
        coherence = self.coherence.of(model)
        tiling = replace(self.tiling, window=window)
        return replace(common, scale=upscaling.factor, noise_level=level, tiling=tiling, coherence=coherence)

    def notes(self, model: LatentDiffusion) -> tuple[str, ...]:
        """What is good to know before it is run, a line each; the record of the result has the same."""
        clip = self.source()
        story = self.story(len(clip))
        said = [story.note] if story.note else []
        if story.prompts == ("",):
            said.append(f"nothing says what {self.path.name} shows; --prompt helps the model")
        return (
            *notes_on([prompt for prompt in story.prompts if prompt], model),
            *said,
            *self._without_effect(model, len(clip)),
            *self._padding(model, clip.size),
        )

    def _without_effect(self, model: LatentDiffusion, frames: int) -> list[str]:
        """Of what was asked for."""
        task, said = self.resolved(model, Story.spread([""], 1)), list[str]()
        steps = task.sampling.steps or 1
        if task.method == "same-model" and model.moving is not None and frames > 1:
            said.append(f'with the method "same-model" frames are gone over one by one: {model.name} sees no film')
        if model.moving is not None and frames == 1:
            along = {"together": (None, model.moving.frames), "motion": (None, 1.0)}
            asked = [f"--{name}" for name, values in along.items() if getattr(self.coherence, name) not in values]
            if asked:
                said.append(f"one frame is a picture, which the upscaler makes alone: {', '.join(asked)} has no effect")
        if self.negative.strip() and task.sampling.guidance_scale == (1.0,):
            said.append(f"with a guidance of 1 the negative prompt {self.negative!r} has no effect: raise --guidance")
        # A rerun has the defaults written out, and is to say the same.
        usual = {"every": (None, 1, EVERY), "depth": (None, DEPTH)}
        asked = [name for name, values in usual.items() if getattr(self.coherence, name) not in values]
        if task.method == "upscaler" and frames > 1 and asked and int(steps * (task.coherence.depth or 0.0)) == 0:
            said.append(
                f"--{' and --'.join(asked)} leave no step out: of {steps}, none lies before depth "
                f"{task.coherence.depth}, and all frames are run wholly"
            )
        return said

    def _padding(self, model: LatentDiffusion, size: tuple[int, int]) -> tuple[str, ...]:
        from segue.tasks.upscale_frames import padded

        task = self.resolved(model, Story.spread([""], 1))
        inner = padded(task, model, size)
        if inner == size:
            return ()
        whole = f"{size[0]}x{size[1]} pixels are no multiples of what the model takes"
        return (f"{whole}: it is shown {inner[0]}x{inner[1]}, mirrored at the edge, and the rest is cut off again",)

    def run(
        self,
        model: LatentDiffusion,
        execution: Execution | None = None,
        progress: Progress = silent,
        plan: UpscalePlan | None = None,
    ) -> Clip:
        """The larger clip, with the sound and the rate of the input. Its frames are made when they are asked for.

        Args:
            model: an upscaler, or for the method "same-model" any other.
            execution: batches and threads.
            progress: told of every step.
            plan: of a result that was made before; the input must still be the same.

        Raises:
            TaskError: if the task does not fit the model or the input.
            MediaError: if the input cannot be read.
            ScheduleError: for a solver or a number of steps that the model cannot take.
        """
        from segue.tasks.upscale_run import enlarged

        return enlarged(self, model, execution or Execution(), progress, plan)

    def sha256(self) -> str:
        """Of the input; of a folder, of the names and contents of its pictures."""
        return sha256_of(self.path)
