"""An endless walk from key to key, one picture a tick: rows at different steps share a batch.

After "Stream Batch" of StreamDiffusion (Kodaira et al. 2023, arXiv:2312.12491, section 3.1), whose rows are the frames
of a camera. Here they are branches between two keys, each forked from the keys' mix one tick after the one before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import denoise
from segue.diffusion.noise import Ancestry, InheritedNoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.starts import from_seeds
from segue.temporal.keys import ANY_KEY, Keys
from segue.temporal.mix import Mix, mixed
from segue.temporal.texts import Words
from segue.types import Conditioning, Denoiser, Guided, Point, RowId, Solver, State

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

FORGOTTEN = 1 / 256
"""The share of a seed in the noise of a place below which it is left out: who turns again and again on the way would
gather seeds without end."""


@dataclass(frozen=True)
class Place:
    """A key, or a point on the way between two: what the network is told there, one row each.

    Args:
        positive: what is wanted.
        negative: what is not.
        guidance_scale: 1 is unguided.
        seeds: the share of each seed in its noise; they add up to 1. A key has one.
    """

    positive: Conditioning
    negative: Conditioning
    guidance_scale: float
    seeds: Mapping[int, float]

    @property
    def ancestry(self) -> Ancestry:
        """Whose noise a stochastic solver adds."""
        return Ancestry(tuple(self.seeds), (ANY_KEY,) * len(self.seeds), tuple(self.seeds.values()))

    def forgetful(self) -> Place:
        """The same without seeds of which hardly anything is left."""
        kept = {seed: share for seed, share in self.seeds.items() if share >= FORGOTTEN}
        if len(kept) == len(self.seeds):
            return self
        total = sum(kept.values())
        return replace(self, seeds={seed: share / total for seed, share in kept.items()})


@dataclass(frozen=True)
class Leg:
    """The way from a place to a key.

    Args:
        start: where it begins.
        goal: the key.
        left: latents at its start, with as many steps behind them as branches have where they fork.
        right: those of the key.
        mix: how latents are mixed.
        words: how texts are mixed.
    """

    start: Place
    goal: Place
    left: Float[Tensor, "c h w"]
    right: Float[Tensor, "c h w"]
    mix: Mix = "whole"
    words: Words = "tokens"

    def at(self, share: float) -> tuple[Place, Float[Tensor, "c h w"]]:
        """A point on the way, as a transition between two keys has it, and the latents that a branch starts from."""
        seeds = tuple(dict.fromkeys([*self.start.seeds, *self.goal.seeds]))
        ends = (self.start, self.goal)
        keys = Keys(
            Conditioning.cat([end.positive for end in ends]),
            Conditioning.cat([end.negative for end in ends]),
            tuple(end.guidance_scale for end in ends),
            seeds,
            shares=tuple(tuple(end.seeds.get(seed, 0.0) for seed in seeds) for end in ends),
            words=self.words,
        )
        positive, negative = keys.texts([share])
        kin = dict(zip(seeds, keys.ancestry(share).shares, strict=True))
        place = Place(positive, negative, float(keys.guidance_at([share])), kin)
        part = torch.tensor([share], dtype=torch.float64)
        return place, mixed(self.left[None], self.right[None], part, self.mix)[0]


@dataclass
class _Row:
    """One row of the batch, between two ticks."""

    state: State
    told: Guided
    kin: Ancestry


@dataclass
class _Key:
    """A key on its way to the step where branches fork, where it waits for its turn."""

    place: Place
    row: _Row


@dataclass
class Estimates:
    """An operator that changes nothing, and knows what the network took the clean latents of every row to be."""

    latest: Float[Tensor, "b c h w"] | None = None

    def on_latents(self, x: Float[Tensor, "b c h w"], at: Point) -> Float[Tensor, "b c h w"]:
        """As they are."""
        return x

    def on_denoised(self, x0: Float[Tensor, "b c h w"], at: Point) -> Float[Tensor, "b c h w"]:
        """Remember, and leave them as they are."""
        self.latest = x0
        return x0

    def on_stepped(
        self, x: Float[Tensor, "b c h w"], x0: Float[Tensor, "b c h w"], at: Point
    ) -> Float[Tensor, "b c h w"]:
        """As they are."""
        return x


@dataclass
class Stream:
    """Runs rows at different steps together, and lets one begin and one leave at every tick.

    A key that is wanted is run beside the branches until the step at which they fork. From then on its latents are
    known there, and the stream turns: branches start, one a tick, from the mix of the key and the place where the
    last branch began, ever nearer to the key, which goes on itself as the last of them. So each picture is one that a
    transition between the two would have, and a key is what it is alone.

    A key that is asked for before tick t changes the picture of tick t + steps - 1, and is itself the picture of tick
    t + steps + frames - 2. Another key that is still on its way to the fork is waited for: at most `fork` - 1 ticks.

    Args:
        denoiser: the model.
        schedule: its noise levels.
        solver: how it steps.
        fork: the step at which branches begin, from 1 to one below the last.
        frames: ticks from one key to the next, 1 or more.
        shape: (channels, height, width) of the latents.
        device: where they live.
        queue: whether each key is reached before the stream turns to the next. Otherwise it turns as soon as it can,
            and of several keys that wait, only the last is ever run.
        idle: asked for a key when none waits and the stream is about to arrive; None lets it stand still. On the way
            to such a key the stream turns to one that is asked for, queue or not.
        guidance_start: share of the run, in [0, 1), before guidance sets in.
        mix: how latents are mixed.
        words: how texts are mixed.

    Raises:
        ValueError: `fork` or `frames` is out of range.
    """

    denoiser: Denoiser
    schedule: Schedule
    solver: Solver
    fork: int
    frames: int
    shape: tuple[int, int, int]
    device: torch.device
    queue: bool = False
    idle: Callable[[], Place | None] = field(default=lambda: None)
    guidance_start: float = 0.0
    mix: Mix = "whole"
    words: Words = "tokens"
    ticks: int = field(default=0, init=False)
    asked: int = field(default=0, init=False)
    estimates: Estimates = field(default_factory=Estimates, init=False)
    _waiting: deque[tuple[Place, RowId]] = field(default_factory=deque[tuple[Place, RowId]], init=False)
    _ahead: _Key | None = field(default=None, init=False)
    _spare: _Key | None = field(default=None, init=False)
    _goal: _Key | None = field(default=None, init=False)
    _here: tuple[Place, Tensor] | None = field(default=None, init=False)
    _leg: Leg | None = field(default=None, init=False)
    _done: int = field(default=0, init=False)
    _line: list[_Row] = field(default_factory=list[_Row], init=False)
    _drifted: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.fork < len(self.schedule):
            raise ValueError(f"branches must fork at a step from 1 to {len(self.schedule) - 1}, got {self.fork}")
        if self.frames < 1:
            raise ValueError(f"frames must be 1 or more, got {self.frames}")

    @property
    def rows(self) -> int:
        """How many are on their way: at most one for each step after the fork, and two keys."""
        return len(self._running())

    def ask(self, place: Place) -> RowId:
        """Turn to a key; counts from the next tick on. Returns the name under which its own picture will leave."""
        row = RowId("key", self.asked)
        self.asked += 1
        if not self.queue:
            self._waiting.clear()
        self._waiting.append((place, row))
        return row

    def tick(self) -> tuple[RowId, Float[Tensor, "c h w"]] | None:
        """One step of all rows, in one batch: the clean latents of the row that ended, if one did, and its name.

        None does while the first key is on its way, and where the stream stands still.
        """
        self._turn()
        self._prepare()
        self._admit()
        ended = self._step()
        self.ticks += 1
        return ended

    def _turn(self) -> None:
        """Set out for a key that is ready, and nothing has to be reached before."""
        arrived = self._goal is None
        if self._ahead and not self._runs(self._ahead) and (arrived or self._idles or not self.queue):
            self._goal, self._ahead, self._spare = self._ahead, None, None
        elif self._spare and not self._runs(self._spare) and arrived:
            self._goal, self._spare = self._spare, None
        else:
            return
        self._done, self._leg = 0, None
        if self._here is not None:
            start, latents = self._here
            goal, there = self._goal.place, self._goal.row.state.x[0]
            self._leg = Leg(start.forgetful(), goal, latents, there, self.mix, self.words)

    def _prepare(self) -> None:
        """Let the next key begin, in time for the stream to go on without a stop."""
        if self._ahead is None and self._waiting:
            self._ahead = self._begun(*self._waiting.popleft())
        elif self._ahead is None and self._spare is None and self._left <= self.fork:
            place = self.idle()
            if place is not None:
                self._spare = self._begun(place, RowId("drift", self._drifted))
                self._drifted += 1

    def _admit(self) -> None:
        """Let the next branch begin, or the key itself go on where it is the last of them."""
        if self._goal is None:
            return
        self._done += 1
        if self._leg is None or self._done == self.frames:
            # It begins where the key stands, and has the solver's memory of the way there.
            row = self._goal.row
            self._here, self._goal, self._leg = (self._goal.place, row.state.x[0]), None, None
            self._line.append(row)
            return
        self._here = self._leg.at(self._done / self.frames)
        place, latents = self._here
        state = State(latents[None], torch.tensor([self.fork]), (RowId("branch", self.ticks),))
        self._line.append(self._row(place, state))

    def _step(self) -> tuple[RowId, Float[Tensor, "c h w"]] | None:
        rows = self._running()
        if not rows:
            return None
        kick = InheritedNoise({row.state.ids[0]: row.kin for row in rows})
        told = Guided.cat([row.told for row in rows])
        state, operators = State.cat([row.state for row in rows]), (self.estimates,)
        run = denoise(self.denoiser, state, self.schedule, told, solver=self.solver, operators=operators, kick=kick)
        after = next(islice(run, 1, None))
        for place, row in enumerate(rows):
            row.state = after.fork([place])
        if not self._line or int(self._line[0].state.step) < len(self.schedule):
            return None
        ended = self._line.pop(0).state
        return ended.ids[0], ended.x[0]

    def _running(self) -> list[_Row]:
        return [*self._line, *(key.row for key in (self._ahead, self._spare) if key and self._runs(key))]

    def _begun(self, place: Place, name: RowId) -> _Key:
        (seed,) = place.seeds
        return _Key(place, self._row(place, from_seeds([seed], [name], self.schedule, self.shape, self.device)))

    def _row(self, place: Place, state: State) -> _Row:
        told = classifier_free(place.positive, place.negative, [place.guidance_scale], start=self.guidance_start)
        return _Row(state, told, place.ancestry)

    def _runs(self, key: _Key) -> bool:
        """Whether it is still on its way to the fork."""
        return int(key.row.state.step) < self.fork

    @property
    def _idles(self) -> bool:
        """Whether it is on its way to a key that nobody asked for."""
        return self._goal is not None and self._goal.row.state.ids[0].trajectory == "drift"

    @property
    def _left(self) -> int:
        """How many rows will begin before the stream has arrived; the first key begins alone."""
        if self._goal is None:
            return 0
        return 1 if self._leg is None else self.frames - self._done
