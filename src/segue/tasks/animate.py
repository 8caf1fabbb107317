"""Clips from words or from a picture: what is there begins to move."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segue.errors import TaskError
from segue.tasks.animate_choice import chosen, movement_of
from segue.tasks.animate_long_choice import long_of
from segue.tasks.animate_long_settings import Long
from segue.tasks.animate_settings import OF_ZERO_SHOT, Movement
from segue.tasks.animate_told import Over, unreached
from segue.tasks.contents import sha256_of
from segue.tasks.record import notes_on
from segue.tasks.sampling import Execution, Sampling, checked_prompt, checked_seeds
from segue.temporal.clock import Clock
from segue.temporal.prompts import Prompts
from segue.types import Progress, silent

if TYPE_CHECKING:
    from segue.media.clip import Clip
    from segue.models.bundle import LatentDiffusion

FPS, SECONDS = 8.0, 2.0
"""Of a clip by a model that was made for pictures."""
MAX_FRAMES = 100_000
MOVED = "emoji-motion"


@dataclass(frozen=True)
class AnimatePlan:
    """What a clip was made of, besides words.

    Args:
        files: sha256 of all files that it depends on, by the name that the task has for them.
        networks: a hash of the control networks; "" if there are none.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    files: dict[str, str] = field(default_factory=dict[str, str])
    networks: str = ""

    def check_unchanged(self, now: AnimatePlan) -> None:
        """Raise TaskError if a file, or a network, is another one now."""
        for name, sha256 in self.files.items():
            if now.files.get(name) != sha256:
                raise TaskError(f"{name} is not what this was made with: its contents have changed")
        if now.networks != self.networks:
            raise TaskError("the networks of the controls are not those that this was made with")


@dataclass(frozen=True)
class Animate:
    """A clip in which something moves.

    A model that was made for films denoises all frames together. By any other model, the first frame is made, moved,
    and drawn anew in part, all frames looking at it.

    Args:
        prompt: what it shows, and how that moves; or times and prompts, "0s: a red apple, 2s: a green apple", between
            which words are mixed. Models that go by a picture alone take none.
        image: a picture that is the first frame.
        last_image: a picture that is the last frame, for models that can be given one.
        negative: what is not wanted, likewise.
        seed: of the noise.
        seconds: how long it plays. Left out, what the model was made for, or else 2; or up to the last prompt's time.
        fps: frames per second. Left out, what the model was made for, or else 8.
        control: what frames are drawn after, KIND:VIDEO[=SCALE][@START-STOP], of zero-shot; may be repeated. See
            stylize. The clip is then as long as the video, and moves as that does.
        movement: how it moves.
        long: how it is made, if it is long.
        sampling: steps, guidance, solver, and the size: left out, the model's own, in the picture's proportions.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    name: ClassVar[str] = "animate"
    plan_type: ClassVar[type[AnimatePlan]] = AnimatePlan

    prompt: str | None = field(default=None, metadata={"unnamed": True})
    image: str | None = None
    last_image: str | None = None
    negative: str = ""
    seed: int = 0
    seconds: float | None = None
    fps: float | None = None
    control: tuple[str, ...] = ()
    movement: Movement = field(default_factory=Movement)
    long: Long = field(default_factory=Long)
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        object.__setattr__(self, "control", (self.control,) if isinstance(self.control, str) else tuple(self.control))
        for name in ("image", "last_image"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else str(value))
            if value == "":
                raise TaskError(f"{name} must be the name of a picture, got ''")
        if self.prompt is not None:
            checked_prompt(self.prompt)
        elif self.image is None:
            raise TaskError(
                'say what is to move: a PROMPT such as "a bouncing red ball", or a picture (--image PICTURE)'
            )
        for prompt in (self.prompt or "", self.negative):
            Prompts.of(prompt)
        checked_seeds([self.seed])
        for name in ("seconds", "fps"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(value))
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise TaskError(f"fps must be above 0 and at most 1000, got {self.fps}")
        if self.seconds is not None and not 0 < self.seconds * (self.fps or FPS) <= MAX_FRAMES:
            raise TaskError(f"seconds must be above 0 and make at most {MAX_FRAMES} frames, got {self.seconds}")
        scales = self.sampling.guidance_scale
        if len(scales) > 1:
            raise TaskError(f"guidance_scale is one number for the whole clip, or one curve, got {list(scales)}")
        self._check_control()

    def _check_control(self) -> None:
        from segue.tasks.stylize_controls import wanted

        for one in wanted(self.control):
            if one.source is None:
                raise TaskError(
                    f"control {one.kind} is found in a video: name it, as {one.kind}:dance.mp4; "
                    "to draw a whole film anew, take segue stylize"
                )
        if self.control and self.movement.engine == "joint":
            raise TaskError("control acts on frames that are drawn one by one: take engine zero-shot, or leave it out")
        if self.control and (self.movement.way is not None or self.movement.motion is not None):
            raise TaskError("a clip that is drawn after a control moves as that does: leave out way and motion")

    @property
    def frames(self) -> int:
        """How many frames a clip has of which seconds and fps are said."""
        assert self.seconds is not None and self.fps is not None
        return max(1, round(self.seconds * self.fps))

    def usual_model(self) -> str | None:
        """The model to take where none is asked for; None for the usual one of all tasks, moved by what is said."""
        said = any(getattr(self.movement, name) is not None for name in OF_ZERO_SHOT)
        return None if said or self.control or self.movement.engine == "zero-shot" else MOVED

    @property
    def pictures(self) -> tuple[str, ...]:
        """The names of the pictures that are given."""
        return tuple(name for name in (self.image, self.last_image) if name is not None)

    @property
    def others(self) -> tuple[str, ...]:
        """The names of all files that the result depends on."""
        from segue.tasks.stylize_controls import wanted

        sources = [one.source for one in wanted(self.control) if one.source is not None]
        return tuple(dict.fromkeys([*self.pictures, *sources]))

    def check_result(self, path: Path) -> None:
        """Find out whether a result, or its record, would replace what it is made of.

        Raises:
            TaskError: it would.
            MediaError: its suffix names no format.
        """
        from segue.tasks.on_file import check_result

        for name in self.others:
            check_result(Path(name).expanduser(), path)

    def contents(self) -> AnimatePlan:
        """What it is made of; nothing is looked for.

        Raises:
            MediaError: there is no such file.
        """
        from segue.errors import MediaError

        for name in self.others:
            if not Path(name).expanduser().exists():
                raise MediaError(f"{name}: there is no such file")
        return AnimatePlan({name: sha256_of(Path(name).expanduser()) for name in self.others})

    def resolved(self, model: LatentDiffusion) -> Animate:
        """The same task with nothing left open, for a model.

        Raises:
            TaskError: the model does not fit the task.
            MediaError: a picture, or a control's video, cannot be read.
        """
        engine = chosen(self, model)
        model.refuse_negative([self.negative])
        moving = model.moving if engine == "joint" else None
        fps = self.fps or (moving.fps if moving else FPS)
        seconds = self.seconds or max(moving.frames / fps if moving else SECONDS, self._told_until(fps))
        if self.control:
            seconds, fps = self._timed()
        task = replace(self, seconds=float(seconds), fps=float(fps), movement=movement_of(self, model, engine))
        if task.frames < 2 and self.last_image is not None:
            raise TaskError("a clip with a first and a last picture has two frames or more: raise seconds or fps")
        sampling = replace(self.sampling, size=self._size(model)).resolve(model, self._keys).pinned()
        Over.of(replace(task, sampling=sampling)).check()
        return replace(
            task,
            long=long_of(task, model),
            image=self.image and _absolute(self.image),
            last_image=self.last_image and _absolute(self.last_image),
            control=tuple(_absolute_control(one) for one in self.control),
            sampling=sampling,
        )

    def _told_until(self, fps: float) -> float:
        """Seconds of a clip whose last frame is told the last prompt alone; 0 for one prompt."""
        prompts = Prompts.of(self.prompt or "")
        return (math.floor(prompts.last(Clock(fps)) * fps) + 1) / fps if len(prompts) > 1 else 0.0

    @property
    def _keys(self) -> int:
        """Sampling takes what has no time for a picture's."""
        return 2 if any(isinstance(one, str) for one in self.sampling.guidance_scale) else 1

    def _timed(self) -> tuple[float, float]:
        """Seconds and frames per second of the first control's video."""
        from segue.media.reader import read
        from segue.tasks.stylize_controls import wanted

        source = wanted(self.control)[0].source
        assert source is not None
        video = read(Path(source).expanduser())
        if len(video) == 1:
            raise TaskError(f"a clip moves as its control does, and {source} is one picture: give a video")
        fps = self.fps or float(video.fps)
        if self.seconds is not None and round(self.seconds * fps) != len(video):
            raise TaskError(f"{source} has {len(video)} frames, and so has the clip: leave out seconds")
        return len(video) / fps, fps

    def _size(self, model: LatentDiffusion) -> tuple[int, int]:
        """In which frames are drawn: the model's area, in the proportions of the picture."""
        from segue.media.reader import read
        from segue.media.resize import on_grid

        width, height = model.defaults.size
        name = self.image or self.last_image
        if self.sampling.size is not None or name is None:
            return self.sampling.size or (width, height)
        return on_grid(read(Path(name).expanduser()).size, model.grid, area=width * height)

    def notes(self, model: LatentDiffusion) -> tuple[str, ...]:
        """What is good to know before it is run, a line each; the record of the result has the same."""
        from segue.media.pictures import simplified
        from segue.tasks.key_pictures import KeyPicture

        task = self.resolved(model)
        size = task.sampling.size
        assert size is not None
        said = [KeyPicture(0, Path(name)).note(size) for name in task.pictures]
        said += [note for name in task.pictures for note in simplified(Path(name))]
        return (
            *(notes_on(task.prompts.at_first, model) if self.prompt else ()),
            *unreached(task),
            *(note for note in said if note),
        )

    def outlook(self, model: LatentDiffusion, execution: Execution | None = None) -> tuple[str, ...]:
        """What was decided of what was left open, how many evaluations it takes, and how much memory, a line each."""
        from segue.tasks.animate_outlook import outlook

        return outlook(self.resolved(model), model, execution or Execution())

    @property
    def prompts(self) -> Prompts:
        """What the network is told: of zero-shot, without the words that say how it moves."""
        if self.movement.engine != "zero-shot" or self.prompt is None:
            return Prompts.of(self.prompt or "")
        from segue.temporal.zero_shot_motion import without_way

        return Prompts.of(self.prompt, without_way)

    def run(
        self,
        model: LatentDiffusion,
        execution: Execution | None = None,
        progress: Progress = silent,
        plan: AnimatePlan | None = None,
        *,
        work: Path | None = None,
        workers: int = 1,
    ) -> Clip:
        """The clip. All frames are made before it returns, and lie on disk without loss.

        Args:
            model: makes the frames.
            execution: batches and threads.
            progress: told of every step.
            plan: of a result that was made before; all files must still be the same.
            work: a folder, best that of the result, in which a hidden one keeps what is done: the same task, run
                again, goes on there. It is removed with the frames of the clip: `clip.frames.discard()`.
            workers: processes that share a clip whose key frames are made first; the bytes are the same.

        Raises:
            TaskError: the task does not fit the model, or a file has changed.
            ModelError: there is no network for a control.
            MediaError: a file cannot be read, or the disk is full.
            InterruptedRunError: on Ctrl-C.
        """
        from segue.tasks.animate_run import animated

        return animated(self, model, execution or Execution(), progress, plan, work, workers)


def _absolute(name: str) -> str:
    return str(Path(name).expanduser().absolute())


def _absolute_control(spelled: str) -> str:
    from segue.tasks.stylize_controls import Wanted

    one = Wanted.of(spelled)
    return replace(one, source=one.source and _absolute(one.source)).spelled
