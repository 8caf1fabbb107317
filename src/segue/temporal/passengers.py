"""Rows that ride along with others, to be looked at: recorded trajectories, and pictures from elsewhere.

What is attended to must be known at the same step. Whoever is no row of the batch rides along as a passenger: recorded
latents are put through the network once more at every step where somebody looks at them, and the answers are dropped.
That costs as much as one more row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from typing import TYPE_CHECKING, Protocol, cast

import torch

from segue.diffusion.schedule import Schedule
from segue.temporal.attention import Look, Moment, SharedAttention, seen_by
from segue.temporal.crossfeed import Guide
from segue.types import Condition, Conditioning, Denoiser, Guided, Point, RowId

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

_ALMOST_NOTHING = 1e-12


@dataclass(frozen=True)
class Passenger:
    """A trajectory that is replayed beside others: its recorded latents, and what it was told, one row."""

    latents: Guide
    cond: Condition


@dataclass(frozen=True)
class Noised:
    """A picture from elsewhere, which runs along nothing: at each step it is noised to the level of the frames.

    Args:
        x0: its latents.
        noise: standard noise; that of the frames, where they share one.
        schedule: of the frames.
    """

    x0: Float[Tensor, "c h w"]
    noise: Float[Tensor, "c h w"]
    schedule: Schedule

    def at(self, step: int) -> Float[Tensor, "c h w"]:
        """The latents at the level of frames that have `step` steps behind them."""
        now, _ = self.schedule.step(torch.tensor([step]))
        return now.noised(self.x0[None], self.noise[None])[0]


class Rule(Protocol):
    """What one row looks at over its run: `Attending`, or always the same."""

    def looks(self, step: int, count: int) -> tuple[Look, ...]:
        """What is looked at with `step` of `count` steps done."""
        ...


class Witness(Protocol):
    """Who is told what the network is shown."""

    def see(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> None:
        """Rows as they go into the network."""
        ...


@dataclass(frozen=True)
class WithPassengers:
    """A denoiser around another, in whose network `sharing` is attached: passengers first, then the rows.

    Rows that others in the batch look at go before these, all else keeps its order.

    Args:
        denoiser: the model.
        sharing: the adapter.
        attending: what rows look at, and passengers, too; those without an entry attend plainly.
        passengers: everyone who is looked at and is no row of the batch. They look at passengers alone.
        chunk: rows that are handed to `denoiser` at once, with all their guidance terms; None for all. It matters for
            `Look.near` and for memory alone.
        witness: told of all rows, passengers among them.
    """

    denoiser: Denoiser
    sharing: SharedAttention
    attending: Mapping[RowId, Rule]
    passengers: Mapping[RowId, Passenger]
    chunk: int | None = None
    witness: Witness | None = None

    @property
    def group(self) -> int:
        """That of the model."""
        return self.denoiser.group

    def __call__(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> Float[Tensor, "b c h w"]:
        """x0 of the rows, float32. Passengers ride while somebody looks at them.

        Raises:
            ValueError: somebody is looked at who is neither in the batch, at the same step, nor a passenger; or rows
                look at each other in a circle.
        """
        rows: list[Moment] = list(zip(at.rows, at.index.tolist(), strict=True))
        looks = {one: self._looks(one, at.count) for one in rows}

        def seen(one: Moment) -> list[Moment]:
            if one not in looks:
                if one[0] not in self.passengers:
                    raise ValueError(f"{one[0]} is looked at in step {one[1]}, and is neither there nor a passenger")
                looks[one] = self._looks(one, at.count)
            return seen_by({one: looks[one]})

        order = ordered(rows, seen)
        wanted = set(seen_by(looks))
        riding = [one for one in order if one in wanted and one[0] in self.passengers]
        with self.sharing.step({one: looks[one] for one in (*riding, *order) if looks[one]}):
            if riding:
                self._ride(riding, x, at, cond)
            if self.witness is not None:
                self.witness.see(x, at, cond)
            places = {one: place for place, one in enumerate(rows)}
            return self._denoised([places[one] for one in order if one in places], x, at, cond)

    def _looks(self, one: Moment, count: int) -> tuple[Look, ...]:
        rule = self.attending.get(one[0])
        return rule.looks(one[1], count) if rule else ()

    def _ride(self, riding: Sequence[Moment], x: Tensor, at: Point, cond: Condition) -> None:
        """Let the network see passengers, at the noise levels of the rows beside them and with the same terms."""
        steps, active = at.index.tolist(), cond.weights_at(at).any(1) if isinstance(cond, Guided) else None
        levels = replace(at[[steps.index(step) for _, step in riding]], rows=tuple(row for row, _ in riding))
        latents = torch.stack([self.passengers[row].latents.at(step).to(x) for row, step in riding])
        told = [_told(self.passengers[row].cond, levels[[place]], active) for place, (row, _) in enumerate(riding)]
        if self.witness is not None:
            for place, row in enumerate(levels.rows):
                self.witness.see(latents[[place]], levels[[place]], self.passengers[row].cond)
        # Rows of one call are told the same kinds of things.
        for _, group in groupby(range(len(told)), lambda place: _form(told[place])):
            part = list(group)
            self.denoiser(latents[part], levels[part], _cat([told[place] for place in part]))

    def _denoised(self, order: Sequence[int], x: Tensor, at: Point, cond: Condition) -> Tensor:
        """x0 of the rows, which are run in this order."""
        if self.chunk is None and list(order) == list(range(len(x))):
            return self.denoiser(x, at, cond)
        out = torch.empty_like(x, dtype=torch.float32)
        size = self.chunk or len(order)
        for part in (list(order[start : start + size]) for start in range(0, len(order), size)):
            out[part] = self.denoiser(x[part], at[part], cond[part])
        return out


def ordered(wanted: Iterable[Moment], seen: Callable[[Moment], Iterable[Moment]]) -> list[Moment]:
    """Everyone in their order, but those who are seen by somebody before this one.

    Raises:
        ValueError: somebody sees himself through others.
    """
    done: dict[Moment, None] = {}
    for one in wanted:
        waiting: dict[Moment, None] = {} if one in done else {one: None}
        while waiting:
            last = next(reversed(waiting))
            missing = next((other for other in seen(last) if other not in done), None)
            if missing is None:
                del waiting[last]
                done[last] = None
            elif missing in waiting:
                raise ValueError(f"{missing[0]} is looked at by somebody whom it looks at")
            else:
                waiting[missing] = None
    return list(done)


def _told(cond: Condition, level: Point, active: Bool[Tensor, " k"] | None) -> Condition:
    """What one passenger is told at its level; of the guidance terms, those that the rows evaluate.

    Args:
        cond: what it was told in its own run.
        level: where it stands.
        active: which terms the rows evaluate; None if these are not guided.
    """
    if active is None:
        return cond.terms[-1] if isinstance(cond, Guided) else cond
    if not isinstance(cond, Guided) or len(cond.terms) != len(active):
        raise ValueError("rows are guided, but passengers are not so; they must be told the same terms")
    weights = cond.weights_at(level).double()
    # Answers are dropped, but a term of weight 0 would not be evaluated, and a network may be told the scale.
    weights = torch.where((weights == 0) & active[:, None].to(weights.device), _ALMOST_NOTHING, weights)
    return Guided(cond.terms, weights)


def _form(cond: Condition) -> object:
    """The same for conditions that can share a call."""
    if isinstance(cond, Guided):
        return tuple(map(_form, cond.terms))
    return tuple((name, part.shape[1:], part.dtype) for name, part in sorted(parts_of(cond).items()))


def _cat(conds: Sequence[Condition]) -> Condition:
    guided = [one for one in conds if isinstance(one, Guided)]
    return Guided.cat(guided) if guided else Conditioning.cat([one for one in conds if isinstance(one, Conditioning)])


def parts_of(cond: Conditioning) -> dict[str, Tensor]:
    """All tensors of a conditioning, by names such as "text" and "residual_inputs.depth"."""
    found: dict[str, Tensor] = {}
    for item in fields(cond):
        value = getattr(cond, item.name)
        if isinstance(value, Mapping):
            found |= {f"{item.name}.{name}": part for name, part in cast("Mapping[str, Tensor]", value).items()}
        elif value is not None:
            found[item.name] = value
    return found
