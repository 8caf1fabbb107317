"""Pictures and films of which something is changed, and the rest is kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segue.errors import TaskError
from segue.tasks.contents import sha256_of
from segue.tasks.edit_settings import METHODS, Change, EditArea, MaskFile, Method
from segue.tasks.on_file import OnFile
from segue.tasks.sampling import Execution, Sampling, checked_prompt, checked_seeds
from segue.tasks.stylize import Stylize, absolute
from segue.tasks.stylize_plan import StylizePlan
from segue.tasks.stylize_settings import Agreement, Beginning, Shape
from segue.temporal.wording import Wording
from segue.types import Progress, silent

if TYPE_CHECKING:
    from segue.media.clip import Clip
    from segue.models.bundle import LatentDiffusion
    from segue.tasks.edit_prepare import PreparedEdit

ALONE = Agreement("self", deflicker=0, around=1, blend=0.0, grain=0.0)
"""Of a picture, which nothing has to agree with."""
INSTRUCTED = "emoji-instruct"
"""The embedded model that follows instructions."""
STEPPED = {"cycle": "ddim", "ddib": "ddim"}
"""The solver of methods that go into noise first, where none is named."""
THERE_AND_BACK = ("ddim", "euler")
"""Solvers whose steps ddib takes backwards."""


@dataclass(frozen=True)
class EditPlan(StylizePlan):
    """What was found out before a picture was changed.

    Args:
        strength: that keeps the picture as near as was asked for; None if one was said.
        seed: of the best candidate; None if there was one alone.
        tried: evaluations of the network that it took to find these.
    """

    strength: float | None = None
    seed: int | None = None
    tried: int = 0


@dataclass(frozen=True)
class Edit(OnFile):
    """A picture or a film of which something is changed, and the rest is kept.

    Frames of a film are drawn in one loop, as `Stylize` draws them: from shared noise, looking at each other, and
    blended along the film's movement. A picture is a film of one frame.

    Args:
        input: a picture, a video, an animation or a folder of pictures.
        prompt: what it is to show; for instruct, what is to be done, such as "make it green".
        method: sdedit noises the picture in part; cycle finds the noise that it is made of, and replays it; ddib runs
            the model backwards; instruct is told what to do, by a model that was made for it; inpaint fills in what a
            mask leaves open, by a model that was made for it or by any.
        negative: what is not wanted.
        seed: of the noise.
        control: what pictures are drawn after, KIND[:VIDEO][=SCALE][@START-STOP]; may be repeated. See stylize.
        change: how far it is changed, and by what it is held on to.
        area: where it is changed.
        agreement: how frames are made to agree.
        shape: in which size, and how many at once.
        sampling: steps, guidance, solver, and the size in which frames are drawn: left out, one on the model's grid of
            about the area that the model is made for, and about the picture's proportions.
        freeu: four factors of FreeU: b1, b2, by which the UNet's own features count more, and s1, s2, by which those
            that it hands over count less, such as 1.2 1.4 0.9 0.2. Left out, none.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    name: ClassVar[str] = "edit"
    plan_type: ClassVar[type[EditPlan]] = EditPlan

    input: str
    prompt: str
    method: Method = "sdedit"
    negative: str | None = None
    seed: int = 0
    control: tuple[str, ...] = ()
    change: Change = field(default_factory=Change)
    area: EditArea = field(default_factory=EditArea)
    agreement: Agreement = field(default_factory=Agreement)
    shape: Shape = field(default_factory=Shape)
    sampling: Sampling = field(default_factory=Sampling)
    freeu: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", str(self.input))
        object.__setattr__(self, "control", (self.control,) if isinstance(self.control, str) else tuple(self.control))
        if not self.input:
            raise TaskError("input must be the name of a picture, a video or a folder of pictures, got ''")
        checked_prompt(self.prompt)
        for prompt in (self.prompt, self.negative or "", self.change.source_prompt or ""):
            if curves := Wording.of(prompt).curves:
                raise TaskError(f"a weight in a prompt of an edit is a number; got the curve {curves[0]}")
        checked_seeds([self.seed])
        if self.method not in METHODS:
            raise TaskError(f"method must be {', '.join(METHODS[:-1])} or {METHODS[-1]}, got {self.method!r}")
        self.change.settled(self.method)
        if self.method == "inpaint" and not self.area.mask:
            raise TaskError("inpaint fills in what a mask leaves open: give one (--mask PICTURE), white where to paint")
        if self.agreement.bank is not None:
            raise TaskError("an edit looks like what it is made of: leave out bank, or take stylize")
        self._check_solver()
        if self.freeu is not None:
            from segue.models.freeu import check_freeu

            object.__setattr__(self, "freeu", tuple(map(float, self.freeu)))
            check_freeu(self.freeu)
        object.__setattr__(self, "agreement", self.drawn(2).agreement)

    def _check_solver(self) -> None:
        solver = self.sampling.solver
        if self.method == "ddib" and solver not in (None, *THERE_AND_BACK):
            raise TaskError(
                f"ddib goes the way back that it came, by {' or '.join(THERE_AND_BACK)}: leave out solver {solver}"
            )
        if self.method == "cycle" and solver not in (None, "ddim"):
            from segue.diffusion.solvers import find_solver

            if find_solver(str(solver)).name in ("euler", "dpmpp_2m"):
                raise TaskError(
                    f"cycle keeps a picture in the noise of its steps, and {solver} adds none: take ddim (with eta), "
                    "euler_ancestral, dpmpp_2m_sde or lcm"
                )
            if self.change.eta is not None:
                raise TaskError(f"eta is how much noise ddim adds, and {solver} has its own: leave out one of them")

    def drawn(self, frames: int) -> Stylize:
        """The same as a film that is drawn anew: all that methods have in common.

        Args:
            frames: of the input.

        Raises:
            TaskError: a control, the attention or the guidance is none.
        """
        change = self._settled
        strength = change.strength or 1.0
        if self.method == "ddib":
            beginning = Beginning(strength, "inverted")
        elif self.method == "instruct" or (self.method == "inpaint" and strength == 1):
            beginning = Beginning(1.0, "noise", change.noise)
        else:
            beginning = Beginning(strength, "noised", change.noise)
        sampling = self.sampling
        if sampling.solver is None:
            sampling = replace(sampling, solver=STEPPED.get(self.method))
        return Stylize(
            self.input, self.prompt, negative=self.negative, seed=self.seed, control=self.control, beginning=beginning,
            agreement=self.agreement if frames > 1 else self._alone(), shape=self.shape, sampling=sampling,
        )  # fmt: skip

    @property
    def _settled(self) -> Change:
        change = self.change.settled(self.method)
        # Solvers that add noise add as much as they do; eta is of DDIM.
        return change if self.sampling.solver in (None, "ddim") else replace(change, eta=self.change.eta)

    def _alone(self) -> Agreement:
        said = {name: value for name, value in vars(self.agreement).items() if value is not None}
        return replace(ALONE, **said)

    def like(self, drawn: Stylize) -> Edit:
        """The edit with nothing left open, as a film that is drawn anew has it."""
        files = (MaskFile(absolute(one.file), one.frame).spelled for one in self.area.files)
        return replace(
            self,
            input=drawn.input,
            negative=drawn.negative,
            control=drawn.control,
            change=replace(self._settled, latent=self.change.latent and absolute(self.change.latent)),
            area=replace(self.area, mask=tuple(files)),
            agreement=drawn.agreement,
            shape=drawn.shape,
            sampling=drawn.sampling,
        )

    def usual_model(self) -> str | None:
        """The model to take where none is asked for; None for the usual one of all tasks."""
        return INSTRUCTED if self.method == "instruct" else None

    @property
    def others(self) -> tuple[str, ...]:
        """The names of all other files that the result depends on."""
        controls = [one.source for one in self.drawn(2).controls if one.source is not None]
        latent = [] if self.change.latent is None else [self.change.latent]
        return tuple(dict.fromkeys([*controls, *(one.file for one in self.area.files), *latent]))

    def contents(self, device: str) -> EditPlan:
        """What it is made of, and where it would be blended; nothing is looked for."""
        others = {name: sha256_of(Path(name).expanduser()) for name in self.others}
        return EditPlan(sha256_of(self.path), others, device=device)

    def prepared(self, model: LatentDiffusion) -> PreparedEdit:
        """The task with all that it takes, opened and found to fit; `run` does so, too.

        Raises:
            TaskError: the picture, a mask or another file does not fit the task or the model; or the method the model.
            ModelError: there is no network for a control.
            MediaError: a file cannot be read.
        """
        from segue.tasks.edit_prepare import PreparedEdit

        return PreparedEdit.opened(self, model)

    def run(
        self,
        model: LatentDiffusion,
        execution: Execution | None = None,
        progress: Progress = silent,
        plan: EditPlan | None = None,
        *,
        work: Path | None = None,
        save_latent: Path | None = None,
        prepared: PreparedEdit | None = None,
    ) -> Clip:
        """The changed picture, or the changed film with the sound and the rate of the input.

        Args:
            model: draws it.
            execution: batches and threads.
            progress: told of every step.
            plan: of a result that was made before; all files must still be the same.
            work: a folder in which a hidden one keeps what is done; see `Stylize.run`.
            save_latent: a safetensors file to write the noise to that ddib goes into, for another model to come out of
                (`Change.latent`).
            prepared: what `prepared` made of this task and model, if it was called already.

        Raises:
            TaskError: see `prepared`; or there is no noise to be saved.
            ModelError: there is no network for a control.
            MediaError: a file cannot be read, or the disk is full.
            InterruptedRunError: on Ctrl-C, with the clip of the frames that are finished.
        """
        from segue.tasks.edit_run import edited

        if save_latent is not None:
            check_saved(self)
        ready = prepared or self.prepared(model)
        return edited(ready, execution or Execution(), progress, plan, work, save_latent)


def check_saved(edit: Edit) -> None:
    """Find out whether an edit goes into noise that can be saved.

    Raises:
        TaskError: it does not.
    """
    if edit.method != "ddib":
        raise TaskError(f"the noise that a picture goes into is that of ddib, and {edit.method} has none: leave it out")
    if edit.change.latent is not None:
        raise TaskError(
            f"nothing goes into noise: that of {edit.change.latent} is there already; leave out one of them"
        )
