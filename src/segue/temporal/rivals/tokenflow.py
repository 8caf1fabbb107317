"""TokenFlow: a few frames attend jointly, and all others take over what these answered, token by token.

Geyer et al. 2023, arXiv:2307.10373, section 4. See docs/rivals.md for what is left out.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from segue.diffusion.noise import noise
from segue.errors import TaskError
from segue.temporal.rivals.inputs import CLIP, SOURCE, Outcome, Replay, RivalInputs, Site, one_step
from segue.types import Call, Condition, Denoiser, Point, Progress, RowId, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.temporal.attention import Place, Plain

NAME = "TokenFlow"


@dataclass(frozen=True)
class TokenFlow:
    """Inversion; at every step key frames drawn anew, one of each chunk, whose tokens the other frames take over.

    Args:
        span: frames of a chunk.
        rounds: of the inversion, see `segue.temporal.inversion`; the paper inverts in ten times as many steps.
    """

    span: int = 8
    rounds: int = 1

    def __post_init__(self) -> None:
        if self.span < 1:
            raise TaskError(f"a chunk of {NAME} has 1 or more frames, got {self.span}")

    def keys(self, frames: int) -> int:
        """How many key frames a clip has, which attend to each other in one call."""
        return -(-frames // self.span)

    def held(self, frames: int, terms: int) -> tuple[int, int]:
        """What waits for others in a step: rows of the network, and places for every token of a row.

        Of each key frame what its source was told, and its answer for each term of guidance; of each other frame the
        places in the two nearest keys, or the only one, that its tokens are like.
        """
        keys = self.keys(frames)
        return keys * (1 + terms), min(2, keys) * (frames - keys)

    def check_calls(self, frames: int, terms: int, max_batch: int) -> None:
        """Whether the key frames, of each term of guidance, are in one call, in which they attend to each other.

        Args:
            frames: of the clip.
            terms: of guidance.
            max_batch: network rows in one call.

        Raises:
            TaskError: they do not.
        """
        keys = self.keys(frames)
        # Calls take all key frames of one term, then those of the next.
        if any(first // max_batch != (first + keys - 1) // max_batch for first in range(0, keys * terms, keys)):
            raise TaskError(
                f"{NAME} lets {keys} key frames attend to each other in one call, {terms} rows each: expected "
                f"--max-batch {keys * terms} or more, got {max_batch}; or take a smaller --window, of which one "
                f"frame in {self.span} is a key"
            )

    def run(self, inputs: RivalInputs, progress: Progress = silent) -> Outcome:
        """The restyled clip.

        Raises:
            TaskError: the model has no self-attention of its own; max_batch is less than the key frames.
        """
        inputs.need_sites(NAME)
        if inputs.max_batch is not None:
            self.check_calls(len(inputs), inputs.terms, inputs.max_batch)
        way = inputs.inversion(inputs.denoiser, self.rounds, progress)
        tokens = Propagation()
        with tokens.attached(inputs.sites):
            denoiser = Propagating(inputs.denoiser, tokens, Replay(way, inputs.source.cond), self.span, inputs.seed)
            start = way.state.fork(range(len(inputs)), inputs.rows)
            return Outcome(inputs.run(denoiser, start, "denoising", progress))


Near = tuple[tuple[int, float], ...]
"""The key frames that a frame takes its tokens from, with shares that add up to 1."""


@dataclass(frozen=True)
class Turn:
    """Who is who at one step: the key frames, and whom each other frame takes over."""

    keys: tuple[int, ...]
    near: Mapping[int, Near]

    @staticmethod
    def of(frames: Sequence[int], span: int, seed: int, step: int) -> Turn:
        """One frame of each chunk is a key; all others are near two, or one at the ends."""
        chunks = [frames[start : start + span] for start in range(0, len(frames), span)]
        keys = tuple(chunk[_drawn(len(chunk), seed, step, number)] for number, chunk in enumerate(chunks))
        return Turn(keys, {frame: nearest(frame, keys) for frame in frames if frame not in keys})


def nearest(frame: int, keys: Sequence[int]) -> Near:
    """The two nearest keys; the nearer one counts sigmoid(d2 / (d1 + d2)), d being how far they are."""
    near = sorted(keys, key=lambda key: (abs(key - frame), key))[:2]
    if len(near) == 1:
        return ((near[0], 1.0),)
    first, second = (abs(key - frame) for key in near)
    share = float(torch.sigmoid(torch.tensor(second / (first + second), dtype=torch.float64)))
    return (near[0], share), (near[1], 1 - share)


def _drawn(count: int, seed: int, step: int, chunk: int) -> int:
    even = float(torch.special.ndtr(noise(seed, "tokenflow", step, RowId(CLIP, chunk), (1,)).double()))
    return min(int(even * count), count - 1)


@dataclass
class Propagation:
    """An adapter for self-attention: it banks what it needs of one row after the other, and forgets it after a step.

    Rows of the source say, by the cosine of what they are told there, which token of a key each of their tokens is
    like. Key frames attend to all key frames, and their answers are kept. All others answer with these.
    """

    _turn: Turn | None = field(init=False, default=None)
    _features: dict[tuple[str, int], Tensor] = field(init=False, default_factory=dict[tuple[str, int], "Tensor"])
    _places: dict[tuple[str, int, int], Tensor] = field(
        init=False, default_factory=dict[tuple[str, int, int], "Tensor"]
    )
    _answers: dict[tuple[str, int, int], Tensor] = field(
        init=False, default_factory=dict[tuple[str, int, int], "Tensor"]
    )

    @contextmanager
    def attached(self, sites: Sequence[Site]) -> Generator[None]:
        """Let it answer wherever pictures attend to themselves.

        Raises:
            TaskError: they do so together with their text.
        """
        if any(site.kind == "joint" for site in sites):
            raise TaskError(f"{NAME} takes over self-attention, and this family attends to text and picture at once")
        with ExitStack() as stack:
            for site in sites:
                if site.kind == "self":
                    stack.enter_context(site.wrap(self))
            yield

    @contextmanager
    def step(self, turn: Turn) -> Generator[None]:
        """For one denoising: keys of the source, the rest of it, key frames, all others."""
        self._turn = turn
        try:
            yield
        finally:
            self._turn, self._features, self._places, self._answers = None, {}, {}, {}

    def __call__(
        self,
        plain: Plain,
        hidden: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m e"] | None,
        call: Call,
        site: Place,
    ) -> Float[Tensor, "b n d"]:
        """The site's answer."""
        if self._turn is None or hidden.ndim != 3:
            return plain(hidden, context)
        rows = [(row, term) for row, term in zip(call.rows, call.term, strict=True) if term >= 0]
        if all(row.trajectory == SOURCE for row, _ in rows):
            self._compare(hidden, [row.frame for row, _ in rows], site, self._turn)
            return plain(hidden, context)
        frames = [(row.frame, term) for row, term in rows]
        answer = torch.zeros_like(hidden)  # rows that fill the batch up are dropped
        if all(frame in self._turn.keys for frame, _ in frames):
            answer[: len(frames)] = self._joint(plain, hidden[: len(frames)], frames, site, self._turn)
        else:
            for place, (frame, term) in enumerate(frames):
                answer[place] = self._taken(frame, term, site, self._turn)
        return answer

    def _compare(self, hidden: Tensor, frames: Sequence[int], site: Place, turn: Turn) -> None:
        features = normalize(hidden, dim=2)
        for place, frame in enumerate(frames):
            if frame in turn.keys:
                self._features[site.name, frame] = features[place]
                continue
            for key, _ in turn.near[frame]:
                alike = features[place] @ self._features[site.name, key].T
                self._places[site.name, frame, key] = alike.argmax(1)

    def _joint(
        self, plain: Plain, hidden: Tensor, frames: Sequence[tuple[int, int]], site: Place, turn: Turn
    ) -> Float[Tensor, "b n d"]:
        answer = torch.empty_like(hidden)
        for term in dict.fromkeys(term for _, term in frames):
            places = [place for place, (_, own) in enumerate(frames) if own == term]
            if len(places) < len(turn.keys):
                raise TaskError(
                    f"the {len(turn.keys)} key frames of {NAME} attend to each other in one call, which was cut in "
                    "two: raise max_batch to that times the terms of guidance, or take longer chunks"
                )
            together = hidden[places].flatten(0, 1)[None].expand(len(places), -1, -1)
            answer[places] = plain(hidden[places], together)
            for place in places:
                self._answers[site.name, term, frames[place][0]] = answer[place]
        return answer

    def _taken(self, frame: int, term: int, site: Place, turn: Turn) -> Float[Tensor, "n d"]:
        parts = [
            share * self._answers[site.name, term, key][self._places[site.name, frame, key]]
            for key, share in turn.near[frame]
        ]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


@dataclass(frozen=True)
class Propagating:
    """A denoiser around another, in whose network `tokens` is attached.

    Args:
        denoiser: the model.
        tokens: the adapter.
        source: whose frames ride along.
        span: frames of a chunk.
        seed: of the keys.
    """

    denoiser: Denoiser
    tokens: Propagation
    source: Replay
    span: int
    seed: int

    @property
    def group(self) -> int:
        """That of the model."""
        return self.denoiser.group

    def __call__(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> Float[Tensor, "b c h w"]:
        """x0 of all frames of the clip."""
        step = one_step(at, NAME)
        frames = [row.frame for row in at.rows]
        turn = Turn.of(frames, self.span, self.seed, step)
        keys = [place for place, frame in enumerate(frames) if frame in turn.keys]
        rest = [place for place, frame in enumerate(frames) if frame not in turn.keys]
        out = torch.empty_like(x, dtype=torch.float32)
        with self.tokens.step(turn):
            # A clip whose frames are all keys has nobody to take anything over.
            for places in (keys, rest) if rest else ():
                self.source.ride(self.denoiser, at[places], x)
            for places in (keys, rest):
                if places:
                    out[places] = self.denoiser(x[places], at[places], cond[places])
        return out
