"""What every way of restyling a clip is given, and what it gives: the same for all, so that they can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from segue.diffusion.loop import denoise
from segue.diffusion.noise import NamedNoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import ddim
from segue.diffusion.starts import first_step, from_latents
from segue.errors import TaskError
from segue.temporal.attention import Place
from segue.temporal.inversion import Inversion, inverted
from segue.types import (
    Call,
    Codec,
    Condition,
    Conditioning,
    Denoiser,
    Frames,
    Guided,
    Kick,
    Operator,
    Point,
    Progress,
    RowId,
    Solver,
    State,
    silent,
)

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.motion.fields import Fields
    from segue.temporal.attention import Plain

CLIP, SOURCE = "clip", "source"
"""The trajectories of the frames that are made, and of those that they are made from."""


class Adapter(Protocol):
    """What answers at a site in place of attention; see `segue.models.attention.Adapter`."""

    def __call__(
        self,
        plain: Plain,
        hidden: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m e"] | None,
        call: Call,
        site: Place,
    ) -> Float[Tensor, "b n d"]:
        """The site's answer."""
        ...


class Site(Place, Protocol):
    """A place in a network that can be stepped into: `segue.models.attention.Site`."""

    def wrap(self, adapter: Adapter) -> AbstractContextManager[None]:
        """Let `adapter` answer there until the end of the block."""
        ...


class Reader(Protocol):
    """What reads and applies the attention maps of a site: `segue.models.attention_maps.MapReader`."""

    def weights(
        self, site: Place, hidden: Float[Tensor, "b n d"], context: Float[Tensor, "b m e"]
    ) -> Float[Tensor, "b heads n m"]:
        """How much each token of `hidden` attends to each of the context."""
        ...

    def answer(
        self, site: Place, weights: Float[Tensor, "b heads n m"], context: Float[Tensor, "b m e"]
    ) -> Float[Tensor, "b n d"]:
        """What a site says that attends to the context so."""
        ...


@dataclass(frozen=True)
class Source:
    """The clip that is restyled.

    Args:
        latents: of its frames, clean.
        cond: what they show, one row per frame, unguided: the source's prompt, and the same control pictures.
        fields: its motion, over the same frames, at the size of the pictures; None where nobody needs it.
        kept_words: tokens of the prompt that mean what a token of the source's prompt means: pairs of their places.
    """

    latents: Float[Tensor, "t c h w"]
    cond: Conditioning
    fields: Fields | None = None
    kept_words: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class RivalInputs:
    """A clip, and the model, prompts, steps, controls and guidance that are the same whatever restyles it.

    Args:
        denoiser: of the model, its control networks in it.
        schedule: all steps.
        cond: what the frames are to be, one row per frame.
        noise: standard noise for each frame, for those that begin noised.
        source: the clip.
        strength: in (0, 1]: the share of the steps that is run.
        codec: pictures and back.
        sites: where the model's networks attend.
        reader: of attention maps; None where nobody needs it.
        solver: how steps are taken.
        kick: noise of solvers that want some.
        seed: of whatever else is drawn.
        max_batch: network rows in one call, where that is known.
    """

    denoiser: Denoiser
    schedule: Schedule
    cond: Condition
    noise: Float[Tensor, "t c h w"]
    source: Source
    strength: float
    codec: Codec
    sites: Sequence[Site]
    reader: Reader | None = None
    solver: Solver = ddim
    kick: Kick = field(default_factory=NamedNoise)
    seed: int = 0
    max_batch: int | None = None

    def __post_init__(self) -> None:
        counts = len(self.source.latents), len(self.noise), len(self.cond), len(self.source.cond)
        if len(set(counts)) > 1 or not counts[0]:
            raise ValueError(f"expected one or more frames, each with noise and what it is told; got {counts}")

    def __len__(self) -> int:
        return len(self.noise)

    @cached_property
    def rows(self) -> tuple[RowId, ...]:
        """The frames that are made."""
        return tuple(RowId(CLIP, number) for number in range(len(self)))

    @cached_property
    def source_rows(self) -> tuple[RowId, ...]:
        """The frames that they are made from."""
        return tuple(RowId(SOURCE, number) for number in range(len(self)))

    @property
    def terms(self) -> int:
        """Of guidance."""
        return len(self.cond.terms) if isinstance(self.cond, Guided) else 1

    @property
    def first(self) -> int:
        """The step at which the run begins."""
        return first_step(self.schedule, self.strength)

    @property
    def steps(self) -> int:
        """How many steps are run."""
        return len(self.schedule) - self.first

    def noised(self) -> State:
        """The start from noise, or from noised frames."""
        return from_latents(self.source.latents, self.noise, self.schedule, self.strength, self.rows)

    def inversion(self, denoiser: Denoiser, rounds: int, progress: Progress = silent) -> Inversion:
        """The clip's own way into noise; its rows are the source's."""
        x0, told, rows = self.source.latents, self.source.cond, self.source_rows
        return inverted(
            denoiser, x0, self.schedule, told, rows, strength=self.strength, rounds=rounds, progress=progress
        )

    def run(
        self,
        denoiser: Denoiser,
        state: State,
        what: str,
        progress: Progress,
        *,
        operators: Sequence[Operator] = (),
        cond: Condition | None = None,
    ) -> Float[Tensor, "t c h w"]:
        """A whole run: final latents in the order of the rows."""
        for last in self.states(denoiser, state, operators, cond):
            done = int(last.step[0]) - self.first
            if done:
                progress(what, done, self.steps)
            state = last
        return state.x

    def states(
        self, denoiser: Denoiser, state: State, operators: Sequence[Operator] = (), cond: Condition | None = None
    ) -> Iterator[State]:
        """The loop."""
        told = self.cond if cond is None else cond
        return denoise(denoiser, state, self.schedule, told, solver=self.solver, operators=operators, kick=self.kick)

    def need_sites(self, what: str) -> None:
        """Refuse a model whose frames cannot look at each other.

        Raises:
            TaskError: there are no sites, or it denoises groups of frames together.
        """
        if self.denoiser.group > 1:
            raise TaskError(f"{what} is for models of pictures; this one denoises {self.denoiser.group} frames at once")
        if not any(site.kind in ("self", "joint") for site in self.sites):
            raise TaskError(f"{what} changes self-attention, and no place where this model attends is known")

    def need_fields(self, what: str) -> Fields:
        """The clip's motion.

        Raises:
            TaskError: it was not given.
        """
        if self.source.fields is None:
            raise TaskError(f"{what} follows the motion of the clip, and was given no fields")
        return self.source.fields


@dataclass(frozen=True)
class Outcome:
    """A restyled clip.

    Args:
        latents: final, one per frame.
        pictures: the frames themselves, where they were made as pictures; the latents are then only near them.
    """

    latents: Float[Tensor, "t c h w"]
    pictures: Frames | None = None

    def frames(self, codec: Codec, batch: int = 4) -> Iterator[Float[Tensor, "t 3 h w"]]:
        """The frames, in [0, 1], some at a time."""
        for start in range(0, len(self.latents), batch):
            window = slice(start, start + batch)
            yield codec.decode(self.latents[window]) if self.pictures is None else self.pictures[window]


class Rival(Protocol):
    """A way to restyle a clip."""

    def run(self, inputs: RivalInputs, progress: Progress = silent) -> Outcome:
        """The restyled clip.

        Raises:
            TaskError: it needs something that this model has not, or was not given.
        """
        ...


def wanted(cond: Condition) -> Conditioning:
    """What is wanted, of whatever guides towards it."""
    return cond.terms[-1] if isinstance(cond, Guided) else cond


def one_step(at: Point, what: str) -> int:
    """The step that all rows of a batch are at.

    Raises:
        ValueError: they are at several.
    """
    steps = set(at.index.tolist())
    if len(steps) != 1:
        raise ValueError(f"{what} expects all frames at one step, got {sorted(steps)}")
    return steps.pop()


@dataclass(frozen=True)
class Replay:
    """The source's frames, shown to the network once more at the steps of those that are made of them.

    Args:
        way: their latents at every step.
        told: what they show, a row a frame.
    """

    way: Inversion
    told: Conditioning

    def ride(self, denoiser: Denoiser, at: Point, like: Float[Tensor, "b c h w"]) -> None:
        """Let it see the source of the frames that stand there, all at one step; its answers are dropped."""
        frames = [row.frame for row in at.rows]
        rows = tuple(RowId(SOURCE, frame) for frame in frames)
        latents = self.way.at(one_step(at, "a replay"))[frames]
        denoiser(latents.to(like), replace(at, rows=rows), self.told[frames])
