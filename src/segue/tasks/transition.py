"""A film that passes from prompt to prompt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from segue.errors import TaskError
from segue.tasks.branching import Branching
from segue.tasks.key_pictures import KeyPicture, key_pictures
from segue.tasks.likeness import Likeness
from segue.tasks.masks import Area
from segue.tasks.pace import Pace
from segue.tasks.record import notes_on
from segue.tasks.sampling import Execution, Sampling, checked_prompt, checked_seeds, per_key
from segue.tasks.transition_plan import TransitionPlan
from segue.temporal.simplex import Route, Weights, weights_of
from segue.temporal.wording import Wording
from segue.types import Progress, silent

if TYPE_CHECKING:
    from segue.media.clip import Clip
    from segue.models.bundle import LatentDiffusion
    from segue.tasks.transition_stream import TransitionStream

MAX_FRAMES = 100_000


@dataclass(frozen=True)
class Transition:
    """A film that passes through the pictures of two or more prompts.

    Args:
        prompts: of the key pictures, in order; (words:1.3) are weighted, and a weight may be a curve over the film,
            (words:0s:1, 2s:1.6). A key that is a given picture may do without ("").
        negative: what is not wanted; one for all keys, or one per key.
        seeds: of the key pictures; one for all, which aligns them, or one per key.
        seconds: how long the film plays.
        fps: frames per second.
        sampling: steps, guidance, solver and size.
        tree: where branches fork, and how strongly they are held to their parents.
        likeness: what keys take from the first of them, and how branches are mixed.
        pace: easing, loops and sound.
        key_image: pictures that are keys as they are, each KEY=FILE or KEY=VIDEO@SECONDS, such as first=photo.jpg,
            where KEY counts the prompts from 1, or is first or last. A FILE.safetensors is a trajectory, which
            `segue image --trajectory` has written: the key is the run that it holds.
        area: where the film changes, and when each region does.
        weights: points that the film passes in place of the pictures of single prompts, each a weight for every
            prompt: "1,0,0; 1,1,1; 0,0,1" goes from the first to the third by way of a mix of all three.
        fill: where frames beyond the tree come from: "branches" renders each by the model, "blend" mixes the pixels
            of its neighbours.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    name: ClassVar[str] = "transition"
    plan_type: ClassVar[type[TransitionPlan]] = TransitionPlan

    prompts: tuple[str, ...]
    negative: tuple[str, ...] = ("",)
    seeds: tuple[int, ...] = (0,)
    seconds: float = 4.0
    fps: float = 30.0
    sampling: Sampling = field(default_factory=Sampling)
    tree: Branching = field(default_factory=Branching)
    likeness: Likeness = field(default_factory=Likeness)
    pace: Pace = field(default_factory=Pace)
    key_image: tuple[str, ...] = ()
    area: Area = field(default_factory=Area)
    weights: Weights = ""
    fill: Literal["branches", "blend"] = "branches"

    def __post_init__(self) -> None:
        for name in ("prompts", "negative", "seeds", "key_image"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str | int) else tuple(value))
        for name in ("seconds", "fps"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if len(self.prompts) < 2:
            raise TaskError(f"a transition needs two or more prompts, got {len(self.prompts)}")
        object.__setattr__(self, "weights", weights_of(self.weights))
        given = key_pictures(self.key_image, len(self.prompts))
        for number, prompt in enumerate(self.prompts):
            if number not in given or prompt:
                checked_prompt(prompt, f"prompt {number + 1}")
        for prompt in (*self.prompts, *self.negative):
            Wording.of(prompt)
        per_key(self.negative or ("",), len(self.prompts), "negative")
        per_key(checked_seeds(self.seeds), len(self.prompts), "seeds")
        if not 0 < self.fps <= 1000:
            raise TaskError(f"fps must be above 0 and at most 1000, got {self.fps}")
        if not self.seconds > 0 or not self.seconds * self.fps <= MAX_FRAMES:
            raise TaskError(f"seconds must be above 0 and make at most {MAX_FRAMES} frames, got {self.seconds}")
        self._check_path()
        self._check_pace()
        self._check_area()
        if self.fill not in ("branches", "blend"):
            raise TaskError(f'fill must be "branches" or "blend", got {self.fill!r}')
        if self.fill == "blend" and self.tree.corrects:
            raise TaskError(
                "smoothness and ghosting are reached with frames that the model makes: "
                'leave them out, or fill "branches"'
            )

    def _check_path(self) -> None:
        if self.route.blends and any(isinstance(value, str) for value in self.likeness.curves):
            raise TaskError(
                "with weights, keys are mixed before it is known when they are shown: give structure, interpolation "
                "and what is shared as numbers, no curves"
            )
        if self.route.corner(0) == 0:
            return
        aligned = self.likeness.structure or self.likeness.shared_attention or self.likeness.shared_statistics
        for what, given in (("structure", aligned), ("a mask", self.area.mask)):
            if given:
                raise TaskError(f"{what} keeps to the picture of the first prompt: begin the weights with it, 1,0,...")

    def _check_area(self) -> None:
        if self.area.timing is not None and self.likeness.mix != "whole":
            raise TaskError(
                f"timing mixes regions by the angle of whole latents, and mix is {self.likeness.mix}: leave one out"
            )

    def _check_pace(self) -> None:
        from segue.temporal.timeline import check_timing

        check_timing(len(self.route), self.frames, self.pace.curve(), self.pace.loop)
        if self.tree.smoothness is not None and self.pace.easing != "linear":
            raise TaskError(
                f"smoothness evens out what easing {self.pace.easing!r} is to make uneven: leave one of them out"
            )

    @property
    def counts_beats(self) -> bool:
        """Whether a curve has times in beats."""
        from segue.temporal.curve import Curve

        values = (*self.sampling.guidance_scale, *self.tree.curves, *self.likeness.curves)
        worded = (curve for prompt in (*self.prompts, *self.negative) for curve in Wording.of(prompt).curves)
        return any(knot.unit == "b" for value in (*values, *worded) for knot in Curve.of(value).knots)

    @property
    def route(self) -> Route:
        """The points that the film passes, which are its keys: each prompt in turn, or by weights; a loop ends at the
        first.
        """
        route = Route.of(self.weights, len(self.prompts))
        return route.closed() if self.pace.loop == "loop" else route

    @property
    def frames(self) -> int:
        """How many frames the film has."""
        return round(self.seconds * self.fps)

    def resolved(self, model: LatentDiffusion) -> Transition:
        """The same task with a model's defaults written out and every list one per key."""
        keys = len(self.prompts)
        return replace(
            self,
            negative=per_key(self.negative or ("",), keys, "negative"),
            seeds=per_key(self.seeds, keys, "seeds"),
            sampling=self.sampling.resolve(model, keys).pinned(),
        )

    def notes(self, model: LatentDiffusion) -> tuple[str, ...]:
        """What is good to know before it is run, a line each; the record of the result has the same."""
        size = self.sampling.resolve(model, len(self.prompts)).size
        given = key_pictures(self.key_image, len(self.prompts))
        files = (
            file.note(size) if isinstance(file, KeyPicture) else file.note(self.prompts[key])
            for key, file in given.items()
        )
        said = (*files, *self.area.notes(size))
        prompts = [Wording.of(prompt).at_first for prompt in self.prompts if prompt]
        return (*notes_on(prompts, model), *(note for note in said if note))

    def run(
        self,
        model: LatentDiffusion,
        execution: Execution | None = None,
        progress: Progress = silent,
        plan: TransitionPlan | None = None,
    ) -> Clip:
        """The film. Its pictures are latents until they are asked for.

        Args:
            model: makes the pictures.
            execution: batches and threads.
            progress: told of every step.
            plan: of a film that was made before, to make it again.

        Raises:
            TaskError: if the task does not fit the model, or the plan not the task.
            ScheduleError: for a solver or a number of steps that the model cannot take.
            InterruptedRunError: on Ctrl-C, with the pictures that are finished.
        """
        from segue.tasks.transition_run import TransitionRun

        run = TransitionRun(self.resolved(model), model, execution or Execution(), progress, plan)
        return run.clip()

    def stream(
        self,
        model: LatentDiffusion,
        execution: Execution | None = None,
        progress: Progress = silent,
        plan: TransitionPlan | None = None,
        *,
        glimpses: bool = True,
    ) -> TransitionStream:
        """The same film, whose pictures can be seen while it is made: iterate it. Nothing is done before that.

        Args:
            model: makes the pictures.
            execution: batches and threads.
            progress: told of every step.
            plan: of a film that was made before, to make it again.
            glimpses: whether pictures are shown before it is known which frames the film has.

        Raises:
            TaskError: if the task does not fit the model.
            ScheduleError: for a solver or a number of steps that the model cannot take.
        """
        from segue.tasks.transition_run import TransitionRun
        from segue.tasks.transition_stream import TransitionStream

        run = TransitionRun(self.resolved(model), model, execution or Execution(), progress, plan)
        return TransitionStream(run, glimpses)
