"""Attention that rows share: keys attend to the first key, branches to both keys beside them.

What is attended to must be known at the same step, so the keys ride along as passengers: their recorded latents are put
through the network once more at every step where somebody looks at them, and their answers are dropped. They go first,
in calls of their own, and leave what they attend to in a bank; the rows that look at it follow. One call for all would
save nothing but its start, while a batch that is cut, term by term, would part the rows from what they look at: this
way max_batch can be any. Each denoising of n rows costs those of their passengers on top: two for a pair of keys.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import torch

from segue.diffusion.envelope import Envelope
from segue.errors import TaskError
from segue.temporal.crossfeed import Guide
from segue.temporal.structure import Fusion
from segue.types import Call, Condition, Conditioning, Denoiser, Guided, Point, RowId, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_NOTHING = 1e-9
_ALMOST_NOTHING = 1e-12
_SELF = frozenset({"self", "joint"})
Moment = tuple[RowId, int]
"""A row, and the step that it is at."""


class Plain(Protocol):
    """The attention of a site as it is."""

    def __call__(
        self, hidden: Float[Tensor, "b n d"], context: Float[Tensor, "b m e"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Attend from `hidden` to `context`, or to itself if None."""
        ...


class Place(Protocol):
    """A site of a network."""

    @property
    def name(self) -> str:
        """Its name in the network."""
        ...

    @property
    def kind(self) -> str:
        """What is attended to there: "self", "cross", "temporal" or "joint"."""
        ...


@dataclass(frozen=True)
class Look:
    """A look at other rows besides oneself, and the weight of what is seen so among all looks and the plain answer.

    Args:
        weight: in [0, 1]; those of a row's looks add up to 1 at most, and plain attention has the rest.
        rows: whose keys and values are mixed, with shares that add up to 1.
        kinds: of sites where one looks.
    """

    weight: float
    rows: tuple[tuple[RowId, float], ...]
    kinds: frozenset[str] = _SELF


@dataclass
class SharedAttention:
    """An adapter for the sites of a network: a row that looks at others attends to [its own; theirs].

    Keys and values are linear in what they are made of, so that this is what is kept of a passenger, and mixed. It does
    nothing but inside a call of `WithPassengers`, and holds nothing in between.
    """

    _looks: Mapping[Moment, tuple[Look, ...]] = field(init=False, default_factory=dict[Moment, tuple[Look, ...]])
    _seen: frozenset[Moment] = field(init=False, default_factory=frozenset[Moment])
    _bank: dict[tuple[str, int, Moment], Tensor] = field(
        init=False, default_factory=dict[tuple[str, int, Moment], "Tensor"]
    )

    @contextmanager
    def step(self, looks: Mapping[Moment, tuple[Look, ...]]) -> Generator[None]:
        """For one denoising of rows and their passengers; what is banked is forgotten afterwards."""
        self._looks, self._seen = looks, frozenset(seen_by(looks))
        try:
            yield
        finally:
            self._looks, self._seen, self._bank = {}, frozenset(), {}

    def __call__(
        self,
        plain: Plain,
        hidden: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m e"] | None,
        call: Call,
        site: Place,
    ) -> Float[Tensor, "b n d"]:
        """The site's answer: sum over looks of weight * Attn(q, [own; seen]), and the rest of it plain."""
        if not self._looks or hidden.ndim != 3:
            return plain(hidden, context)
        source = hidden if context is None else context
        looks = self._looks_of(call, site, source)
        if not looks:
            return plain(hidden, context)
        rest = torch.ones(len(hidden), dtype=torch.float64)
        for place, own in looks.items():
            rest[place] -= sum(look.weight for look in own)
        mixed = torch.zeros_like(hidden)
        if bool((rest > _NOTHING).any()):
            answer = plain(hidden, context)
            # A row that looks at nothing keeps its answer bit for bit.
            mixed = torch.where(over_rows(rest, answer) == 1, answer, over_rows(rest, answer) * answer)
        for turn in range(max(map(len, looks.values()))):
            places = [place for place, own in looks.items() if len(own) > turn]
            both = [torch.cat([source[place], self._banked(site, call, place, looks[place][turn])]) for place in places]
            answer = plain(hidden[places], torch.stack(both))
            weights = torch.tensor([looks[place][turn].weight for place in places], dtype=torch.float64)
            mixed[places] = mixed[places] + over_rows(weights, answer) * answer
        return mixed

    def _looks_of(self, call: Call, site: Place, source: Tensor) -> dict[int, list[Look]]:
        """What the rows of a call look at here, by their places; those that are looked at are banked."""
        looks: dict[int, list[Look]] = {}
        for place, (row, step, term) in enumerate(zip(call.rows, call.at.index.tolist(), call.term, strict=True)):
            if term < 0:  # fills the batch up
                continue
            if (row, step) in self._seen:
                # Where text and picture are one sequence, the picture is what others see.
                first = call.text_tokens if site.kind == "joint" else 0
                self._bank[site.name, term, (row, step)] = source[place, first:]
            own = [look for look in self._looks.get((row, step), ()) if site.kind in look.kinds]
            if site.kind == "joint" and any("cross" in look.kinds for look in own):
                raise TaskError(
                    "this family attends to text and picture at once: rows can look at the pictures of others, "
                    "not at their texts; leave cross out"
                )
            if own:
                looks[place] = own
        return looks

    def _banked(self, site: Place, call: Call, place: int, look: Look) -> Float[Tensor, "m e"]:
        """What is looked at, of the same guidance term and step as the row that looks."""
        term, step = call.term[place], int(call.at.index[place])
        parts = [self._bank[site.name, term, (row, step)] * share for row, share in look.rows]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class Attending:
    """What one row looks at over its run.

    Args:
        anchor: the first key.
        lean: when, and how strongly, rows at this place attend to it: SharedKeyValue of keys.
        sides: the keys beside a branch, with their shares, which add up to 1; none for a key.
        blend: when, and how strongly, a branch attends to these.
        fusion: "outer" or "inner".
        cross: whether to their texts, too.
    """

    anchor: RowId
    lean: Envelope
    sides: tuple[tuple[RowId, float], ...] = ()
    blend: Envelope = field(default_factory=lambda: Envelope(0.0))
    fusion: Fusion = "outer"
    cross: bool = False

    def looks(self, step: int, count: int) -> tuple[Look, ...]:
        """What is looked at with `step` of `count` steps done.

        The plain answer p and those to others make (1 - s) [(1 - a) p + a blend] + s anchor, so that near a key, where
        attending to it changes nothing, all is as the key itself attends: (1 - s) p + s anchor.
        """
        index = torch.tensor([step])
        lean, blend = (float(envelope.weight(index, count)) for envelope in (self.lean, self.blend))
        kinds = _SELF | {"cross"} if self.cross else _SELF
        sides = tuple((row, share) for row, share in self.sides if share > 0)
        fused = [((row, 1.0),) for row, _ in sides] if self.fusion == "outer" else [sides]
        shares = [share for _, share in sides] if self.fusion == "outer" else [1.0]
        found = [Look((1 - lean) * blend * share, rows, kinds) for rows, share in zip(fused, shares, strict=True)]
        return tuple(look for look in (Look(lean, ((self.anchor, 1.0),)), *found) if look.rows and look.weight > 0)


@dataclass(frozen=True)
class Passenger:
    """A trajectory that is replayed beside others: its recorded latents, and what it was told, one row."""

    latents: Guide
    cond: Condition


@dataclass(frozen=True)
class WithPassengers:
    """A denoiser around another, in whose network `sharing` is attached: passengers first, then the rows.

    Args:
        denoiser: the model.
        sharing: the adapter.
        attending: what rows look at, and passengers, too; those without an entry attend plainly.
        passengers: everyone who is looked at. Passengers may look at such as look at nobody.
    """

    denoiser: Denoiser
    sharing: SharedAttention
    attending: Mapping[RowId, Attending]
    passengers: Mapping[RowId, Passenger]

    @property
    def group(self) -> int:
        """That of the model."""
        return self.denoiser.group

    def __call__(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> Float[Tensor, "b c h w"]:
        """x0 of the rows, float32. Without a look there are no passengers."""
        looks = {
            (row, step): self._looks(row, step, at.count) for row, step in zip(at.rows, at.index.tolist(), strict=True)
        }
        seen = seen_by(looks)
        further = {one: self._looks(*one, at.count) for one in seen}
        first = list(dict.fromkeys([one for one in seen if not further[one]] + seen_by(further)))
        with self.sharing.step({**looks, **further}):
            for riding in (first, [one for one in seen if further[one]]):
                if riding:
                    self._ride(riding, x, at, cond)
            return self.denoiser(x, at, cond)

    def _looks(self, row: RowId, step: int, count: int) -> tuple[Look, ...]:
        rule = self.attending.get(row)
        return rule.looks(step, count) if rule else ()

    def _ride(self, riding: Sequence[Moment], x: Tensor, at: Point, cond: Condition) -> None:
        """Let the network see passengers, at the noise levels of the rows beside them and with the same terms."""
        steps = at.index.tolist()
        levels = at[[steps.index(step) for _, step in riding]]
        latents = [self.passengers[row].latents.at(step).to(x) for row, step in riding]
        told = _alike([self.passengers[row].cond for row, _ in riding], levels, cond, at)
        self.denoiser(torch.stack(latents), replace(levels, rows=tuple(row for row, _ in riding)), told)


def seen_by(looks: Mapping[Moment, tuple[Look, ...]]) -> list[Moment]:
    """Who is looked at, each once, in order."""
    found = [(row, step) for (_, step), own in looks.items() for look in own for row, _ in look.rows]
    return list(dict.fromkeys(found))


def _alike(told: Sequence[Condition], levels: Point, cond: Condition, at: Point) -> Condition:
    """One batch of what passengers are told at their levels; of the guidance terms, those that the rows evaluate."""
    if isinstance(cond, Conditioning):
        return Conditioning.cat([one.terms[-1] if isinstance(one, Guided) else one for one in told])
    guided = [one for one in told if isinstance(one, Guided)]
    if len(guided) < len(told):
        raise ValueError("rows are guided, but passengers are not; they must be told the same terms")
    active, every = cond.weights_at(at).any(1), Guided.cat(guided)
    weights = every.weights_at(levels).double()
    # Answers are dropped, but a term of weight 0 would not be evaluated, and a network may be told the scale.
    weights = torch.where((weights == 0) & active[:, None].to(weights.device), _ALMOST_NOTHING, weights)
    return Guided(every.terms, weights)
