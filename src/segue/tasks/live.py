"""A film without an end, which turns to new prompts while it is shown."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from segue.errors import TaskError
from segue.tasks.branching import USUAL_DEPTH
from segue.tasks.image import NoPlan
from segue.tasks.record import notes_on
from segue.tasks.sampling import Execution, Sampling, checked_prompt, checked_seeds
from segue.temporal.wording import Wording
from segue.types import Progress, silent

if TYPE_CHECKING:
    from segue.media.clip import Clip
    from segue.models.bundle import LatentDiffusion
    from segue.tasks.live_stream import LiveStream

MAX_FRAMES = 100_000
_SAID = re.compile(r"\s*(\d+)\s*(?:@\s*(\d+)\s*)?=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Said:
    """A prompt that is said while a stream runs.

    Args:
        after: how many pictures have been handed out by then, 1 or more.
        prompt: what is wanted from then on.
        seed: of its picture; None is that of the stream.
    """

    after: int
    prompt: str
    seed: int | None = None

    @staticmethod
    def of(text: str) -> Said:
        """From its spelling, PICTURES=PROMPT or PICTURES@SEED=PROMPT.

        Raises:
            TaskError: it is none.
        """
        match = _SAID.fullmatch(text)
        if match is None or int(match[1]) < 1:
            raise TaskError(f"say must be PICTURES=PROMPT, such as 24=a lemon, from 1 picture on; got {text!r}")
        said = Said(int(match[1]), spoken(match[3].strip()), None if match[2] is None else int(match[2]))
        checked_seeds([said.seed or 0])
        return said

    def __str__(self) -> str:
        return f"{self.after}{'' if self.seed is None else f'@{self.seed}'}={self.prompt}"


@dataclass(frozen=True)
class Live:
    """A film without an end, which turns to new prompts while it is shown.

    With S steps, a prompt changes the S-th picture after it was said, and `between` - 1 pictures later it is reached.
    If another prompt has just been said, it may take up to depth x S - 1 pictures more.

    Args:
        prompt: of the first picture; (words:1.3) are weighted.
        say: prompts that are said later, each PICTURES=PROMPT, where PICTURES is how many have been shown by then; in
            their order, and with a seed of its own as PICTURES@SEED=PROMPT. This is how a stream that was recorded is
            repeated.
        negative: what is not wanted, whatever is said.
        seed: of the pictures.
        between: pictures from one prompt to the next, the latter's included.
        depth: share of the run before branches fork, in [0, 1).
        idle: what happens when nothing new is said: drift goes on to the next seed of the same prompt, hold stands
            still.
        queue: reach each prompt before turning to the next. Otherwise the stream turns on the way, and of prompts that
            come too fast, the latest wins.
        seconds: how long a film of it plays; left out, it has no end.
        fps: pictures per second.
        sampling: steps, guidance, solver and size.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    name: ClassVar[str] = "live"
    plan_type: ClassVar[type[NoPlan]] = NoPlan

    prompt: str
    say: tuple[str, ...] = ()
    negative: str = ""
    seed: int = 0
    between: int = 24
    depth: float = USUAL_DEPTH
    idle: Literal["drift", "hold"] = "drift"
    queue: bool = False
    seconds: float | None = None
    fps: float = 12.0
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        object.__setattr__(self, "say", (self.say,) if isinstance(self.say, str) else tuple(self.say))
        for name in ("fps", "depth"):
            object.__setattr__(self, name, float(getattr(self, name)))
        spoken(self.prompt)
        _numbered(self.negative)
        checked_seeds([self.seed])
        if self.between < 1:
            raise TaskError(f"between must be 1 or more pictures, got {self.between}")
        if not 0 <= self.depth < 1:
            raise TaskError(f"depth must be in [0, 1), got {self.depth}")
        if self.idle not in ("drift", "hold"):
            raise TaskError(f'idle must be "drift" or "hold", got {self.idle!r}')
        if not 0 < self.fps <= 1000:
            raise TaskError(f"fps must be above 0 and at most 1000, got {self.fps}")
        if self.seconds is not None:
            object.__setattr__(self, "seconds", float(self.seconds))
            if not 0.5 <= self.seconds * self.fps <= MAX_FRAMES:
                raise TaskError(f"seconds must make from 1 to {MAX_FRAMES} frames, got {self.seconds}")
        if len(self.sampling.guidance_scale) > 1 or any(isinstance(g, str) for g in self.sampling.guidance_scale):
            raise TaskError(f"guidance_scale of a stream is one number, got {list(self.sampling.guidance_scale)}")
        order = [said.after for said in self.script]
        if order != sorted(order):
            raise TaskError(f"what is said must be in order; got pictures {order}")

    @property
    def script(self) -> tuple[Said, ...]:
        """What is said, and when."""
        return tuple(Said.of(text) for text in self.say)

    @property
    def frames(self) -> int | None:
        """How many pictures there are; None is no end."""
        return None if self.seconds is None else round(self.seconds * self.fps)

    def fork(self, steps: int) -> int:
        """The step at which branches fork in a run of so many.

        Raises:
            TaskError: there are too few.
        """
        if steps < 2:
            raise TaskError(f"a stream needs 2 or more steps, got {steps}")
        return min(max(1, math.floor(steps * self.depth + 1e-9)), steps - 1)

    def rows(self, model: LatentDiffusion) -> int:
        """How many rows of the network a tick has at most: branches, a key that was said, and one to drift to."""
        settings = self.sampling.resolve(model, 1)
        guided = 1 if settings.guidance_scale == (1.0,) or model.denoiser.embeds_guidance else 2
        return guided * (settings.steps - self.fork(settings.steps) + 2)

    def resolved(self, model: LatentDiffusion) -> Live:
        """The same task with a model's defaults written out."""
        model.refuse_negative([self.negative])
        return replace(self, sampling=self.sampling.resolve(model, 1).pinned())

    def notes(self, model: LatentDiffusion) -> tuple[str, ...]:
        """What is good to know before it is run, a line each; the record of the result has the same."""
        return notes_on([self.prompt, *(said.prompt for said in self.script)], model)

    def start(self, model: LatentDiffusion, execution: Execution | None = None) -> LiveStream:
        """The running stream: iterate it for pictures, and `say` prompts to it. It ends after `seconds`, or never.

        Args:
            model: makes the pictures.
            execution: batches and threads; left out, all rows of a tick are one call of the network.

        Raises:
            TaskError: if the task does not fit the model.
            ScheduleError: for a solver or a number of steps that the model cannot take.
        """
        from segue.tasks.live_stream import LiveStream

        return LiveStream(self.resolved(model), model, execution)

    def run(
        self,
        model: LatentDiffusion,
        execution: Execution | None = None,
        progress: Progress = silent,
        plan: NoPlan | None = None,
    ) -> Clip:
        """A film of the stream, in which nothing is said but what `say` states; its record repeats it.

        Args:
            model: makes the pictures.
            execution: batches and threads; left out, all rows of a tick are one call of the network.
            progress: told of every picture.
            plan: of a film that was made before; there is nothing in it.

        Raises:
            TaskError: if there is no end to it, or the task does not fit the model.
            ScheduleError: for a solver or a number of steps that the model cannot take.
            InterruptedRunError: on Ctrl-C, or as memory ran out, with the pictures that are finished.
        """
        if self.frames is None:
            raise TaskError("a film has an end: give seconds, or start the stream and take its pictures as they come")
        return self.start(model, execution).film(progress)


def spoken(prompt: str) -> str:
    """A prompt that can be said.

    Raises:
        TaskError: it is empty, or a weight in it is a curve.
    """
    return _numbered(checked_prompt(prompt))


def _numbered(prompt: str) -> str:
    if curves := Wording.of(prompt).curves:
        raise TaskError(f"a weight in a prompt of a stream is a number, since it has no end; got {curves[0]}")
    return prompt
