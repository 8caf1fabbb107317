"""FateZero: what each part of a frame attends to is taken from the source, for as long as the layout is decided.

Qi et al. 2023, arXiv:2303.09535, section 3.2. The maps are not stored during inversion, as there, but made again from
its latents, which ride along at the same step: that costs one unguided evaluation for each frame and step, and no disk.
See docs/rivals.md for what is left out.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segue.errors import TaskError
from segue.temporal.attention import SharedAttention
from segue.temporal.bank import Watch
from segue.temporal.passengers import WithPassengers
from segue.temporal.rivals.inputs import CLIP, SOURCE, Outcome, Reader, Replay, RivalInputs, Site, one_step
from segue.types import Call, Condition, Denoiser, Point, Progress, RowId, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.temporal.attention import Place, Plain

NAME = "FateZero"


@dataclass(frozen=True)
class FateZero:
    """Inversion, attention to the middle frame, and the source's attention maps for most of the run.

    Args:
        self_until: share of the steps that are run with the source's maps of self-attention; 0.8 to 0.9 in the paper.
        cross_until: share with its maps of the words that both prompts have; 0.8 in the paper.
        most: tokens of a site, up to which its maps are taken: 32x32 in the paper.
        rounds: of the inversion, see `segue.temporal.inversion`; the paper has 0, and 50 steps.
    """

    self_until: float = 0.85
    cross_until: float = 0.8
    most: int = 32 * 32
    rounds: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.self_until <= 1 and 0 <= self.cross_until <= 1):
            raise TaskError(f"{NAME} fuses for shares of the run, got {self.self_until} and {self.cross_until}")

    def held(self, frames: int) -> tuple[int, int]:
        """What waits for the frames in a step: rows at all sites whose maps are taken over, and more where self alone.

        Of each frame what its source asked there, with the words and without; and what the middle frame is.
        """
        return frames, 1

    def run(self, inputs: RivalInputs, progress: Progress = silent) -> Outcome:
        """The restyled clip.

        Raises:
            TaskError: attention maps of this model cannot be read.
        """
        inputs.need_sites(NAME)
        if inputs.reader is None or any(site.kind == "joint" for site in inputs.sites):
            raise TaskError(f"{NAME} takes over attention maps, and those of this family are not read: take a UNet")
        middle, sharing = len(inputs) // 2, SharedAttention()
        looking = {
            row: Watch((rows[middle],), own=False)
            for rows in (inputs.rows, inputs.source_rows)
            for row in rows
            if row.frame != middle
        }
        stops = (inputs.first + round(share * inputs.steps) for share in (self.self_until, self.cross_until))
        fusing = Fusing(inputs.reader, inputs.source.kept_words, middle, *stops, most=self.most)
        with ExitStack() as stack:
            for site in inputs.sites:
                stack.enter_context(site.wrap(sharing))
            stack.enter_context(fusing.attached(inputs.sites))
            watched = WithPassengers(inputs.denoiser, sharing, looking, {})
            way = inputs.inversion(watched, self.rounds, progress)
            denoiser = Fused(watched, fusing, Replay(way, inputs.source.cond))
            start = way.state.fork(range(len(inputs)), inputs.rows)
            return Outcome(inputs.run(denoiser, start, "denoising", progress))


@dataclass
class Fusing:
    """An adapter over that which lets frames look at the middle one: the wanted term attends where the source does.

    In self-attention the source's map is applied to what the frames now are; in cross-attention the columns of words
    that are kept are the source's. Rows of the source are run first, and what is known of them forgotten after a step.

    Args:
        reader: of maps.
        words: tokens that are kept, of the prompt and of the source's.
        middle: the frame that all look at.
        self_stop: the first step without the source's self-attention.
        cross_stop: the first step without its cross-attention.
        most: tokens of a site, up to which maps are taken over.
    """

    reader: Reader
    words: tuple[tuple[int, int], ...]
    middle: int
    self_stop: int
    cross_stop: int
    most: int
    _asked: dict[tuple[str, int], Tensor] = field(init=False, default_factory=dict[tuple[str, int], "Tensor"])
    _told: dict[tuple[str, int], Tensor] = field(init=False, default_factory=dict[tuple[str, int], "Tensor"])
    _seen: dict[str, Tensor] = field(init=False, default_factory=dict[str, "Tensor"])
    _step: int = field(init=False, default=-1)

    @contextmanager
    def attached(self, sites: Sequence[Site]) -> Generator[None]:
        """Let it answer at all sites within pictures, and at those to the text."""
        with ExitStack() as stack:
            for site in sites:
                if site.kind in ("self", "cross"):
                    stack.enter_context(site.wrap(self))
            yield

    @contextmanager
    def step(self, step: int) -> Generator[None]:
        """For one denoising: the source, then the clip."""
        self._step = step
        try:
            yield
        finally:
            self._step, self._asked, self._told, self._seen = -1, {}, {}, {}

    def __call__(
        self,
        plain: Plain,
        hidden: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m e"] | None,
        call: Call,
        site: Place,
    ) -> Float[Tensor, "b n d"]:
        """The site's answer."""
        answer = plain(hidden, context)
        stop = self.cross_stop if site.kind == "cross" else self.self_stop
        if not 0 <= self._step < stop or hidden.ndim != 3 or hidden.shape[1] > self.most:
            return answer
        rows = list(zip(call.rows, call.term, strict=True))
        for place, (row, term) in enumerate(rows):
            if row.trajectory == SOURCE and term >= 0:
                self._asked[site.name, row.frame] = hidden[place]
                if context is not None:
                    self._told[site.name, row.frame] = context[place]
            elif row.frame == self.middle and term == call.terms - 1 and context is None:
                self._seen[site.name] = hidden[place].clone()  # a part of the batch would hold all of it
        mine = [(place, row.frame) for place, (row, term) in enumerate(rows) if _is_wanted(row, term, call)]
        if mine:
            answer = answer.clone()
        for place, frame in mine:
            if site.kind == "self":
                answer[place] = self._laid_out(frame, site)
            elif context is not None and self.words:
                # Added to what was said, so that whatever else is attached to this site is still heard.
                answer[place] += self._worded(hidden[[place]], context[[place]], frame, site)
        return answer

    def _laid_out(self, frame: int, site: Place) -> Float[Tensor, "n d"]:
        asked, told = (self._asked[site.name, one][None] for one in (frame, self.middle))
        return self.reader.answer(site, self.reader.weights(site, asked, told), self._seen[site.name][None])[0]

    def _worded(self, hidden: Tensor, context: Tensor, frame: int, site: Place) -> Float[Tensor, "n d"]:
        own = self.reader.weights(site, hidden, context)
        kept = self.reader.weights(site, self._asked[site.name, frame][None], self._told[site.name, frame][None])
        new, old = (list(places) for places in zip(*self.words, strict=True))
        fused = own.clone()
        fused[..., new] = kept[..., old]
        return self.reader.answer(site, fused, context)[0] - self.reader.answer(site, own, context)[0]


def _is_wanted(row: RowId, term: int, call: Call) -> bool:
    """Whether a row is the wanted term of a frame of the clip."""
    return row.trajectory == CLIP and term == call.terms - 1


@dataclass(frozen=True)
class Fused:
    """A denoiser around another: the source as it was inverted first, then the frames.

    Args:
        denoiser: the model, whose frames look at the middle one.
        fusing: the adapter.
        source: whose frames ride along.
    """

    denoiser: Denoiser
    fusing: Fusing
    source: Replay

    @property
    def group(self) -> int:
        """That of the model."""
        return self.denoiser.group

    def __call__(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> Float[Tensor, "b c h w"]:
        """x0 of all frames of the clip."""
        step = one_step(at, NAME)
        with self.fusing.step(step):
            if step < max(self.fusing.self_stop, self.fusing.cross_stop):
                self.source.ride(self.denoiser, at, x)
            return self.denoiser(x, at, cond)
