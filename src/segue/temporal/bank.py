"""Anchors that outlive their clip: what the network was shown of them at every step, so that others can look at them.

A row of a bank is replayed as a passenger. It looks at the same rows as when it was recorded, which are in the bank,
too, so that what can be seen of it is what could be seen then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from segue.diffusion.envelope import Envelope
from segue.errors import TaskError
from segue.temporal.attention import Look
from segue.temporal.passengers import Passenger, parts_of
from segue.temporal.statistics import Statistics, Tuning
from segue.types import Condition, Guided, Point, RowId

if TYPE_CHECKING:
    from jaxtyping import Float, Float64
    from torch import Tensor

BANK = "bank"
"""The trajectory that rows of a bank belong to while they ride along."""


@dataclass(frozen=True)
class Watch:
    """Whom a row looks at in every step of its run, all of them alike.

    Args:
        sees: those who are attended to.
        own: how often it attends to itself, too.
        near: those who are attended to where they happen to be in the same call.
    """

    sees: tuple[RowId, ...] = ()
    own: int = 1
    near: tuple[RowId, ...] = ()

    def looks(self, step: int, count: int) -> tuple[Look, ...]:
        """One look that takes everything in; none if there is nobody else."""
        if not self.sees and not self.near:
            return ()
        return (Look(1.0, tuple(((row, 1.0),) for row in self.sees), own=self.own, near=self.near),)


@dataclass(frozen=True)
class Replayed:
    """Latents as the network was shown them, from step `first` on."""

    latents: Float[Tensor, "s c h w"]
    first: int = 0

    def at(self, step: int) -> Float[Tensor, "c h w"]:
        """The latents with `step` steps behind them.

        Raises:
            TaskError: nothing was recorded there.
        """
        if not self.first <= step < self.first + len(self.latents):
            raise TaskError(
                f"the bank was recorded from step {self.first} to {self.first + len(self.latents) - 1}, and this run "
                f"is at step {step}: take the strength and the steps that it was recorded with"
            )
        return self.latents[step - self.first]


@dataclass(frozen=True)
class Anchor:
    """A row of a bank.

    Args:
        name: who it was.
        latents: as the network was shown them at each recorded step.
        cond: what it was told, one row.
        sees: the rows that it looks at, by their places in the bank; all before its own.
        own: how often it attends to itself, too.
    """

    name: RowId
    latents: Float[Tensor, "s c h w"]
    cond: Condition
    sees: tuple[int, ...] = ()
    own: int = 1


@dataclass(frozen=True)
class Bank:
    """Recorded rows, each after those that it looks at.

    Args:
        anchors: the rows.
        count: steps of the schedule.
        first: the first step that was recorded; the others follow up to the last.
        alphas: what multiplied the picture at each of these.
        sigmas: what multiplied the noise.
    """

    anchors: tuple[Anchor, ...]
    count: int
    first: int
    alphas: Float64[Tensor, " s"]
    sigmas: Float64[Tensor, " s"]

    @property
    def rows(self) -> tuple[RowId, ...]:
        """Who they are while they ride along."""
        return tuple(RowId(BANK, place) for place in range(len(self.anchors)))

    def passengers(self) -> dict[RowId, Passenger]:
        """All of them, to be looked at."""
        replayed = (Passenger(Replayed(one.latents, self.first), one.cond) for one in self.anchors)
        return dict(zip(self.rows, replayed, strict=True))

    def watching(self) -> dict[RowId, Watch]:
        """Whom each of them looks at."""
        rows = self.rows
        seen = (Watch(tuple(rows[place] for place in one.sees), one.own) for one in self.anchors)
        return dict(zip(rows, seen, strict=True))

    @property
    def terms(self) -> int:
        """Of guidance."""
        return max(len(one.cond.terms) if isinstance(one.cond, Guided) else 1 for one in self.anchors)

    @property
    def controls(self) -> set[str]:
        """Names of the controls whose pictures its rows were told."""
        conds = (one.cond.terms[-1] if isinstance(one.cond, Guided) else one.cond for one in self.anchors)
        return {name for cond in conds for name in cond.residual_inputs}

    def check(self, at: Point, start: int) -> None:
        """Whether a run has its noise levels, to six digits.

        Args:
            at: all steps of the run.
            start: the first that is run.

        Raises:
            TaskError: it has others.
        """
        if at.count != self.count:
            raise TaskError(f"it was recorded in {self.count} steps, and this run has {at.count}: take as many")
        if start < self.first:
            raise TaskError(
                f"it was recorded from step {self.first} of {self.count} on, and this run begins at step {start}: "
                "take its strength, or less"
            )
        own, other = (self.alphas, self.sigmas), (at.alpha[self.first :], at.sigma[self.first :])
        if not all(torch.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in zip(own, other, strict=True)):
            raise TaskError("it was recorded at other levels of noise: take the solver that it was recorded with")


def tuned(bank: Bank, rows: Sequence[RowId], power: float) -> Statistics:
    """An operator that pulls the colours and the contrast of rows towards those of a bank, step by step.

    Attention takes over what a network attends to; where it attends to small pictures alone, that is not how they are
    coloured. The mean and deviation of each channel of the latents say it (Huang & Belongie 2017, arXiv:1703.06868),
    and are known of the anchors at every step but behind the last, which is left to the model.

    Args:
        bank: whose anchors count alike.
        rows: of the clip.
        power: in [0, 1]; 0 changes nothing.
    """
    guides = tuple((Replayed(one.latents, bank.first), 1 / len(bank.anchors)) for one in bank.anchors)
    tuning = Tuning(guides[0][0], 0.0, guides)
    return Statistics(dict.fromkeys(rows, tuning), Envelope(power, stop=(bank.count - 1) / bank.count))


def bank_bytes(anchors: int, steps: int, shape: Sequence[int], cond: Condition) -> int:
    """Bytes of a bank, in memory and in a file, at most: what rows are told alike is written once.

    Args:
        anchors: how many rows it has, with all that they look at.
        steps: that are run.
        shape: (channels, height, width) of the latents.
        cond: what one row is told.
    """
    terms = cond.terms if isinstance(cond, Guided) else (cond,)
    told = sum(part.nbytes // len(part) for term in terms for part in parts_of(term).values())
    return anchors * (steps * math.prod(shape) * 4 + told)


@dataclass
class Recording:
    """Keeps what the network is shown of the rows that others may look at later: a witness of `frame_attention`.

    Rows are those that go ahead of all others, and passengers. Their latents stay in main memory: anchors times steps
    times those of a frame.
    """

    watching: Mapping[RowId, Watch] = field(default_factory=dict[RowId, Watch])
    """Who is recorded, and whom each looks at; `frame_attention` says so."""
    latents: dict[RowId, dict[int, Tensor]] = field(default_factory=dict[RowId, dict[int, "Tensor"]])
    """By row and step. A run that goes on where another stopped needs those of the steps before."""
    _cond: dict[RowId, Condition] = field(default_factory=dict[RowId, Condition])
    _levels: dict[int, tuple[float, float]] = field(default_factory=dict[int, tuple[float, float]])
    _count: int = 0

    def see(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> None:
        """Rows as they go into the network; those that nobody wants are left out."""
        self._count = at.count
        levels = zip(at.alpha.tolist(), at.sigma.tolist(), strict=True)
        for place, (row, step, level) in enumerate(zip(at.rows, at.index.tolist(), levels, strict=True)):
            if row in self.watching:
                self.latents.setdefault(row, {})[step] = x[place].detach().float().cpu().clone()
                self._cond.setdefault(row, cond[[place]])
                self._levels[step] = level

    def bank(self, rows: Sequence[RowId] | None = None) -> Bank:
        """What was recorded of these rows, all if None, and of those that they look at.

        Raises:
            TaskError: nothing was recorded, or a step of a row is missing.
        """
        order: dict[RowId, int] = {}
        for row in self.latents if rows is None else rows:
            self._add(row, order)
        if not order:
            raise TaskError("there are no anchors to keep: name first, anchors or every K in the attention, and run it")
        steps = sorted(self._levels)
        for row in order:
            if missing := sorted(set(steps) - self.latents[row].keys()):
                raise TaskError(f"frame {row.frame} of {row.trajectory!r} was not recorded at step {missing[0]}")
        anchors = tuple(
            Anchor(
                row,
                torch.stack([self.latents[row][step] for step in steps]),
                self._cond[row],
                tuple(order[other] for other in self.watching[row].sees),
                self.watching[row].own,
            )
            for row in order
        )
        alphas, sigmas = (torch.tensor(part, dtype=torch.float64) for part in zip(*self._in_order(), strict=True))
        return Bank(anchors, self._count, steps[0], alphas, sigmas)

    def _in_order(self) -> list[tuple[float, float]]:
        return [level for _, level in sorted(self._levels.items())]

    def _add(self, row: RowId, order: dict[RowId, int]) -> None:
        """A row, after all that it looks at."""
        if row not in self.latents:
            raise TaskError(f"frame {row.frame} of {row.trajectory!r} is no anchor, so nothing of it was recorded")
        for other in self.watching[row].sees:
            self._add(other, order)
        order.setdefault(row, len(order))
