"""Films that are drawn anew by a model, frames that agree."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segue.errors import TaskError
from segue.tasks.contents import sha256_of
from segue.tasks.on_file import OnFile
from segue.tasks.record import first_fault, notes_on
from segue.tasks.sampling import Execution, Sampling, checked_seeds
from segue.tasks.shots import shots_said
from segue.tasks.stylize_controls import OF_LOOKS, OFF, Wanted, wanted
from segue.tasks.stylize_plan import StylizePlan
from segue.tasks.stylize_settings import (
    USUAL_AGREEMENT,
    USUAL_SHAPE,
    Agreement,
    Beginning,
    Preset,
    References,
    Shape,
    filled,
    preset_values,
)
from segue.temporal.wording import Wording
from segue.types import Progress, silent

if TYPE_CHECKING:
    from segue.media.clip import Clip
    from segue.models.bundle import LatentDiffusion
    from segue.tasks.stylize_prepare import Prepared

SMALL = 100_000_000
"""Numbers of a network below which decoding, blending and encoding a frame takes as long as several of its steps."""
OURS = "segue"
"""The method that all settings are about."""


@dataclass(frozen=True)
class Stylize(OnFile):
    """A film that is drawn anew after words and pictures.

    Every frame is denoised in one loop, as one batch: from the same noise, looking at other frames, and blended along
    the movement of the film while it is drawn and once more when it is. What is left out is taken from the preset, and
    then as it is usual.

    Args:
        input: a video, an animation or a folder of pictures.
        prompt: what it is to show.
        preset: text, a style in words; fashion, a pose and a reference; image, the style of a reference; restore, a
            film that is damaged; render3d, a rendered one. It fills in what was left out.
        negative: what is not wanted.
        seed: of the noise.
        method: segue, or another one to compare with: text2video-zero, pix2video, fatezero, tokenflow, codec or
            side-by-side.
        control: what frames are drawn after, KIND[+NETWORK][:VIDEO][=SCALE][@START-STOP]; may be repeated. The kind is
            softedge, lineart, canny, depth, pose, tile, shuffle or palette, found in the film, or in the video, of
            which ::VIDEO says that it holds such pictures already. The network is a folder, a file or a hub
            repository, such as one that you trained; left out, the usual one of the model. A ? after the kind leaves
            it out where this machine has no means for it. off leaves out those of a preset.
        references: pictures that show what the film should look like.
        beginning: where frames begin.
        agreement: how frames are made to agree.
        shape: in which size, and how many at once.
        sampling: steps, guidance, solver, and the size in which frames are drawn: left out, one on the model's grid of
            about the area that the model is made for, and about the film's proportions.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    name: ClassVar[str] = "stylize"
    plan_type: ClassVar[type[StylizePlan]] = StylizePlan

    input: str
    prompt: str | None = field(default=None, metadata={"unnamed": True})
    preset: Preset | None = None
    negative: str | None = None
    seed: int = 0
    method: str = OURS
    control: tuple[str, ...] = ()
    references: References = field(default_factory=References)
    beginning: Beginning = field(default_factory=Beginning)
    agreement: Agreement = field(default_factory=Agreement)
    shape: Shape = field(default_factory=Shape)
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", str(self.input))
        object.__setattr__(self, "control", (self.control,) if isinstance(self.control, str) else tuple(self.control))
        if not self.input:
            raise TaskError("input must be the name of a video or a folder of pictures, got ''")
        for prompt in (self.prompt or "", self.negative or ""):
            if curves := Wording.of(prompt).curves:
                raise TaskError(f"a weight in a prompt of stylize is a number; got the curve {curves[0]}")
        checked_seeds([self.seed])
        wanted(self.control)
        if self.agreement.attention is not None:
            object.__setattr__(self, "agreement", replace(self.agreement, attention=_spelled(self.agreement.attention)))
        if len(self.sampling.guidance_scale) > 1 or any(isinstance(one, str) for one in self.sampling.guidance_scale):
            raise TaskError(
                f"guidance_scale is one number for the whole film, got {list(self.sampling.guidance_scale)}"
            )
        if self.shape.own_size and self.sampling.size is not None:
            raise TaskError(
                f"own_size draws frames as large as they are: leave it out, or size {self.sampling.size[0]}x"
                f"{self.sampling.size[1]}"
            )
        if self.method != OURS:
            self._check_method()
        elif self.beginning.source_prompt is not None and self.beginning.start != "inverted":
            raise TaskError(
                "source_prompt says what the film shows where it is run backwards: take start inverted, or leave it out"
            )

    def _check_method(self) -> None:
        from segue.temporal.rivals.catalogue import RIVALS

        if self.method not in RIVALS:
            raise TaskError(f"method must be one of {', '.join([OURS, *RIVALS])}; got {self.method!r}")
        if self.beginning.start is not None:
            raise TaskError(f"{self.method} has a start of its own: leave out start {self.beginning.start}")
        if self.beginning.detail:
            raise TaskError(f"detail is put back by the method {OURS} alone: leave it out with {self.method}")
        if self.agreement != Agreement():
            said = [name for name, value in vars(self.agreement).items() if value is not None]
            raise TaskError(
                f"{', '.join(said)} say how the method {OURS} makes frames agree, and {self.method} has a way of its "
                "own: leave them out, or leave out the method"
            )

    @property
    def controls(self) -> tuple[Wanted, ...]:
        """What frames are drawn after; those of scale 0 are none."""
        return tuple(one for one in wanted(self.control) if one.scale > 0)

    def filled_in(self) -> Stylize:
        """With what was left out taken from the preset, and then as it is usual; it then names no preset.

        Raises:
            TaskError: there are no words, and no preset that does without.
        """
        task = self if self.preset is None else filled(replace(self, preset=None), self._fitting(self.preset))
        if task.prompt is None:
            raise TaskError("PROMPT is missing: say what the film is to show, or take a preset that does without")
        controlled = any(one.kind not in OF_LOOKS for one in task.controls)
        shape = filled(task.shape, replace(USUAL_SHAPE, fit="pad" if task.shape.own_size else "stretch"))
        if task.shape.overlap is None:
            shape = replace(shape, overlap=min(shape.overlap or 0, (shape.window or 1) // 3))
        agreement = self._agreement(task) if self.method == OURS else Agreement()
        return replace(
            task,
            negative=task.negative or "",
            control=tuple(one.spelled for one in task.controls) or (OFF,),
            beginning=task.beginning.settled(controlled, ours=self.method == OURS),
            agreement=agreement,
            shape=shape,
        )

    def _fitting(self, preset: Preset) -> Stylize:
        """A preset, without what does not go with the things that were asked for.

        Raises:
            TaskError: it goes by a picture, and there is none.
        """
        found, pictures, asked = _read(preset, self.input), self.references.reference, self.agreement
        shape = replace(found.shape, own_size=found.shape.own_size and self.sampling.size is None)
        if preset == "image" and not pictures:
            raise TaskError("the preset image is about the looks of a picture: name one (--reference PICTURE)")
        agreement, beginning = found.agreement, found.beginning
        if agreement.attention is not None:
            words = [word for word in agreement.attention.split(", ") if word != "reference" or pictures]
            agreement = replace(agreement, attention=", ".join([*["bank"] * bool(asked.bank), *words]))
        if self.method != OURS:
            agreement, beginning = Agreement(), replace(beginning, start=None, detail=None)
        if self.beginning.start == "noise" or self.beginning.strength == 1:
            beginning = replace(beginning, strength=None, start=None, detail=None)
        return replace(found, agreement=agreement, beginning=beginning, shape=shape)

    def _agreement(self, task: Stylize) -> Agreement:
        """How frames of a task are made to agree, where it says nothing else.

        Raises:
            TaskError: there are references that nothing goes by.
        """
        pictures, asked = task.references.reference, task.agreement
        attention = asked.attention
        if attention is None:
            seen = ["reference"] * bool(pictures) + ["bank"] * bool(asked.bank)
            attention = ", ".join([*seen, str(USUAL_AGREEMENT.attention)])
        by = any(one.kind in OF_LOOKS and one.source is None for one in task.controls)
        if pictures and not (by or "reference" in attention or task.references.ip_adapter):
            raise TaskError(
                f"there are reference pictures that nothing goes by: add reference to attention {attention!r}, a "
                f"control of the kind {' or '.join(OF_LOOKS)}, or an IP-Adapter"
            )
        if bool(asked.bank) != ("bank" in attention):
            missing = "add bank to it" if asked.bank else "name a bank (--bank FILE)"
            raise TaskError(f"frames look at a bank by attention {attention!r} only if both are there: {missing}")
        if "reference" in attention and not pictures:
            raise TaskError(
                f"attention {attention!r} goes by reference pictures, and there are none: --reference PICTURE"
            )
        return asked.settled(attention)

    def resolved(self, model: LatentDiffusion, size: tuple[int, int]) -> Stylize:
        """The same task with nothing left open, for a model and a film of this (width, height).

        Raises:
            TaskError: the model does not fit the task.
        """
        from segue.media.resize import on_grid, within_grid

        task = self.filled_in()
        model.refuse_negative([task.negative or ""])
        width, height = model.defaults.size
        usual = within_grid(size, model.grid) if task.shape.own_size else on_grid(size, model.grid, area=width * height)
        drawn = task.sampling.size or usual
        settings = replace(task.sampling, size=drawn).resolve(model, 1).pinned()
        return replace(
            task,
            input=str(self.path.absolute()),
            control=tuple(_absolute(one).spelled for one in task.controls) or (OFF,),
            references=replace(task.references, reference=tuple(map(absolute, task.references.reference))),
            agreement=self._settled(task, model),
            shape=replace(task.shape, own_size=False),
            sampling=settings,
        )

    def _settled(self, task: Stylize, model: LatentDiffusion) -> Agreement:
        """How frames are made to agree, for a model: blending them inside the loop must be worth its time."""
        agreement = replace(task.agreement, bank=task.agreement.bank and absolute(task.agreement.bank))
        preset = None if self.preset is None else _read(self.preset, self.input).agreement.deflicker
        if self.method != OURS or self.agreement.deflicker is not None or preset is not None:
            return agreement
        numbers = sum(part.numel() for part in model.backbone.parameters()) if model.backbone else 0
        return replace(agreement, deflicker=0) if numbers < SMALL else agreement

    @property
    def others(self) -> tuple[str, ...]:
        """The names of all other files that the result depends on."""
        sources = [one.source for one in self.controls if one.source is not None]
        bank = [] if self.agreement.bank is None else [self.agreement.bank]
        return tuple(dict.fromkeys([*sources, *self.references.reference, *bank]))

    def contents(self, device: str) -> StylizePlan:
        """What it is made of, and where it would be blended; nothing is looked for."""
        others = {name: sha256_of(Path(name).expanduser()) for name in self.others}
        return StylizePlan(sha256_of(self.path), others, device=device)

    def shots(self, frames: int) -> tuple[int, ...] | None:
        """The first frames of all shots of a film of so many frames; None if they are to be found.

        Raises:
            TaskError: it has fewer frames.
        """
        return shots_said(str(self.shape.cuts or "auto"), frames, self.path.name)

    def notes(self, model: LatentDiffusion) -> tuple[str, ...]:
        """What is good to know about its words before it is run, a line each."""
        task = self.filled_in()
        said = list[str]()
        if task.negative and task.sampling.guidance_scale == (1.0,):
            said.append(f"with a guidance of 1 the negative prompt {task.negative!r} has no effect: raise --guidance")
        return (*(notes_on([task.prompt], model) if task.prompt else ()), *said)

    def prepared(self, model: LatentDiffusion) -> Prepared:
        """The task with all that it takes, opened and found to fit; `run` does so, too.

        Raises:
            TaskError: the film, or another file, does not fit the task or the model.
            ModelError: there is no network for a control.
            MediaError: a file cannot be read.
        """
        from segue.tasks.stylize_prepare import Prepared

        return Prepared.of(self, model)

    def run(
        self,
        model: LatentDiffusion,
        execution: Execution | None = None,
        progress: Progress = silent,
        plan: StylizePlan | None = None,
        *,
        work: Path | None = None,
        save_bank: Path | None = None,
        prepared: Prepared | None = None,
    ) -> Clip:
        """The film drawn anew, with the sound and the rate of the input.

        All frames are made before it returns, and lie on disk without loss.

        Args:
            model: draws the frames.
            execution: batches and threads.
            progress: told of every step.
            plan: of a result that was made before; all files must still be the same.
            work: a folder, best that of the result, in which a hidden one keeps what is done: the same task, run
                again, goes on there. It is removed with the frames of the clip: `clip.frames.discard()`.
            save_bank: a safetensors file to write the frames to that others looked at, for another film to look like
                this one.
            prepared: what `prepared` made of this task and model, if it was called already.

        Raises:
            TaskError: the film, or another file, does not fit the task or the model.
            ModelError: there is no network for a control.
            MediaError: a file cannot be read, or the disk is full.
            InterruptedRunError: on Ctrl-C, with the clip of the frames that are finished.
        """
        from segue.tasks.stylize_run import stylized

        ready = prepared or self.prepared(model)
        return stylized(ready, execution or Execution(), progress, plan, work, save_bank)


def absolute(name: str) -> str:
    """The name of a file that another working folder finds, too."""
    return str(Path(name).expanduser().absolute())


def _spelled(attention: str) -> str:
    from segue.temporal.frame_attention import Pattern

    return str(Pattern.parse(attention))


def _absolute(control: Wanted) -> Wanted:
    network = control.network
    if network is not None and Path(network).expanduser().exists():
        network = absolute(network)
    source = None if control.source is None else absolute(control.source)
    return replace(control, network=network, source=source)


def _read(preset: Preset, source: str) -> Stylize:
    """A preset as a task.

    Raises:
        TaskError: its file says what is none.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Stylize).validate_python({**preset_values(preset), "input": source})
    except ValidationError as error:
        raise TaskError(f"the preset {preset} is not sound: {first_fault(error)}") from error
