"""Attention that rows share: frames attend to each other, keys to the first key, branches to both keys beside them.

Every row is evaluated once a step. What others attend to of it waits in a bank, for as long as somebody is to come who
wants it, so that a batch may be cut into calls anywhere, as long as rows come after those that they look at:
`WithPassengers` sees to that.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from segue.diffusion.envelope import Envelope
from segue.errors import TaskError
from segue.temporal.structure import Fusion
from segue.types import Call, RowId, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_NOTHING = 1e-9
_SELF = frozenset({"self", "joint"})
Moment = tuple[RowId, int]
"""A row, and the step that it is at."""
Source = tuple[tuple[RowId, float], ...]
"""Rows whose keys and values are mixed into one context, with shares that add up to 1."""
_Known = dict[tuple[int, Moment], "Tensor"]
"""What can be attended to at a site, by guidance term and moment."""


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
        sources: what is attended to, one after the other.
        kinds: of sites where one looks.
        own: how often one attends to oneself, too: twice weighs as much as another row that shows the same.
        near: rows that are attended to where they happen to be in the same call, and else are not.
    """

    weight: float
    sources: tuple[Source, ...]
    kinds: frozenset[str] = _SELF
    own: int = 1
    near: tuple[RowId, ...] = ()

    @property
    def rows(self) -> tuple[RowId, ...]:
        """Everyone who must have been run before."""
        return tuple(row for source in self.sources for row, _ in source)


@dataclass
class SharedAttention:
    """An adapter for the sites of a network: a row that looks at others attends to [its own; theirs].

    Keys and values are linear in what they are made of, so that this is what is kept of a row, and mixed. It does
    nothing but inside a call of `WithPassengers`, and holds nothing in between.
    """

    held: int = field(init=False, default=0)
    """Bytes that wait in the bank."""
    most_held: int = field(init=False, default=0)
    """The most that they have been."""
    _looks: Mapping[Moment, tuple[Look, ...]] = field(init=False, default_factory=dict[Moment, tuple[Look, ...]])
    _turn: Mapping[Moment, int] = field(init=False, default_factory=dict[Moment, int])
    _last: Mapping[Moment, int] = field(init=False, default_factory=dict[Moment, int])
    _near: frozenset[Moment] = field(init=False, default_factory=frozenset[Moment])
    _kinds: frozenset[str] = field(init=False, default_factory=frozenset[str])
    _bank: dict[str, _Known] = field(init=False, default_factory=dict[str, _Known])

    @contextmanager
    def step(self, looks: Mapping[Moment, tuple[Look, ...]]) -> Generator[None]:
        """For one denoising of rows and their passengers; what is banked is forgotten afterwards.

        Args:
            looks: of everyone who looks, in the order in which they are run.
        """
        self._looks, self._turn = looks, {one: turn for turn, one in enumerate(looks)}
        self._last = {seen: self._turn[one] for one, own in looks.items() for seen in seen_by({one: own})}
        self._kinds = frozenset(kind for own in looks.values() for look in own for kind in look.kinds)
        self._near = frozenset((row, one[1]) for one, own in looks.items() for look in own for row in look.near)
        try:
            yield
        finally:
            self._looks, self._turn, self._last = {}, {}, {}
            self._near, self._kinds = frozenset(), frozenset()
            self._bank, self.held = {}, 0

    def __call__(
        self,
        plain: Plain,
        hidden: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m e"] | None,
        call: Call,
        site: Place,
    ) -> Float[Tensor, "b n d"]:
        """The site's answer: sum over looks of weight * Attn(q, [own; seen]), and the rest of it plain."""
        if site.kind not in self._kinds or hidden.ndim != 3:
            return plain(hidden, context)
        source = hidden if context is None else context
        # Where text and picture are one sequence, the picture is what others see.
        text = call.text_tokens if site.kind == "joint" else 0
        names = [
            (term, (row, step)) for row, step, term in zip(call.rows, call.at.index.tolist(), call.term, strict=True)
        ]
        wanted = self._last.keys() | self._near
        seen = [place for place, (term, one) in enumerate(names) if term >= 0 and one in wanted]  # -1 fills up
        here: _Known = {names[place]: source[place, text:] for place in seen}
        if len(here) < len(seen):
            raise ValueError("a row that others look at is twice in one call: they cannot tell which one to see")
        bank = self._bank.setdefault(site.name, {})
        contexts: dict[int, list[tuple[float, list[Tensor]]]] = {}
        for place, name in enumerate(names):
            looks = [look for look in self._looks.get(name[1], ()) if name[0] >= 0 and site.kind in look.kinds]
            if site.kind == "joint" and any("cross" in look.kinds for look in looks):
                raise TaskError(
                    "this family attends to text and picture at once: rows can look at the pictures of others, "
                    "not at their texts; leave cross out"
                )
            if looks:
                own = source[place], source[place, :text]
                contexts[place] = [(look.weight, _context(look, own, name, here, bank)) for look in looks]
        self._keep(bank, here, names)
        return _answered(plain, hidden, context, contexts) if contexts else plain(hidden, context)

    def _keep(self, bank: _Known, here: _Known, names: Sequence[tuple[int, Moment]]) -> None:
        """Bank what later calls want of this one, and let go of what nobody wants any more."""
        reached: dict[int, int] = {}
        for term, one in names:
            reached[term] = max(reached.get(term, -1), self._turn.get(one, -1))
        for name in [name for name in bank if self._last[name[1]] <= reached.get(name[0], -1)]:
            self.held -= bank.pop(name).nbytes
        for name, tokens in here.items():
            if self._last.get(name[1], -1) > reached[name[0]]:
                self.held += tokens.nbytes - (bank[name].nbytes if name in bank else 0)
                bank[name] = tokens.clone()  # a part of the batch would hold all of it
        self.most_held = max(self.most_held, self.held)


def _context(
    look: Look, own: tuple[Tensor, Tensor], name: tuple[int, Moment], here: _Known, bank: _Known
) -> list[Tensor]:
    """What one look attends to, of the same guidance term and step as the row that looks.

    Args:
        look: of a row.
        own: all tokens of this row, and those of them that are text.
        name: its guidance term, its name and its step.
        here: what can be seen in this call.
        bank: what can be seen of calls before.
    """
    term, (_, step) = name
    parts = [own[0] if look.own else own[1], *[own[0][len(own[1]) :]] * (look.own - 1)]
    for source in look.sources:
        found = [here.get((term, (row, step)), bank.get((term, (row, step)))) for row, _ in source]
        # A passenger that is told of no control picture leaves nothing in the control network.
        mixed = [tokens * share for tokens, (_, share) in zip(found, source, strict=True) if tokens is not None]
        if len(source) == 1 and found[0] is not None:
            parts.append(found[0])
        elif len(mixed) == len(source):
            parts.append(torch.stack(mixed).sum(0))
    seen = set(look.rows)
    parts += [here[term, (row, step)] for row in look.near if row not in seen and (term, (row, step)) in here]
    return [part for part in parts if len(part)] or [own[0]]


def _answered(
    plain: Plain, hidden: Tensor, context: Tensor | None, contexts: Mapping[int, Sequence[tuple[float, list[Tensor]]]]
) -> Float[Tensor, "b n d"]:
    """The answers to rows, some of which attend to contexts of their own: one plain call for each length of these."""
    rest = torch.ones(len(hidden), dtype=torch.float64)
    alike: dict[tuple[int, int], list[tuple[int, float, list[Tensor]]]] = {}
    for place, looks in contexts.items():
        for turn, (weight, parts) in enumerate(looks):
            rest[place] -= weight
            alike.setdefault((turn, sum(map(len, parts))), []).append((place, weight, parts))
    mixed = torch.zeros_like(hidden)
    plainly = torch.nonzero(rest > _NOTHING)[:, 0].tolist()
    if plainly:
        whole = len(plainly) == len(hidden)
        told = context if context is None or whole else context[plainly]
        answer = plain(hidden if whole else hidden[plainly], told)
        # A row that looks at nothing keeps its answer bit for bit.
        share = over_rows(rest[plainly], answer)
        mixed[plainly] = torch.where(share == 1, answer, share * answer)
    for group in alike.values():
        places = [place for place, _, _ in group]
        answer = plain(hidden[places], torch.stack([torch.cat(parts) for _, _, parts in group]))
        weights = torch.tensor([weight for _, weight, _ in group], dtype=torch.float64)
        mixed[places] = mixed[places] + over_rows(weights, answer) * answer
    return mixed


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
        found = [Look((1 - lean) * blend * share, (rows,), kinds) for rows, share in zip(fused, shares, strict=True)]
        first = Look(lean, (((self.anchor, 1.0),),))
        return tuple(look for look in (first, *found) if look.rows and look.weight > 0)


def seen_by(looks: Mapping[Moment, tuple[Look, ...]]) -> list[Moment]:
    """Who is looked at, each once, in order."""
    found = [(row, step) for (_, step), own in looks.items() for look in own for row in look.rows]
    return list(dict.fromkeys(found))
