"""What the rows of `transition.py` say: its tables, and which claims hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import Tensor

from segue.evaluation.frechet import frechet_by_group
from segue.evaluation.intervals import Interval, jackknife, mean_interval

OURS, FADE = "ours", "cross-fade"
SCORES = {"length": "PPL", "pdv": "PDV x1000", "largest": "largest step", "ghosting": "ghosting"}
COSTS = ("native", "calls", "rows", "seconds")
TITLES = {"rows": "At equal network rows", "time": "At equal time"}
CLAIMED = ("largest", "pdv", "fidelity")
"""In what ours is to be the best of those that draw their frames."""
AGAINST_FADE = ("ghosting", "fidelity")
CHECKS = {
    "other_largest": "largest step, by a distance that placed no frame",
    "other_pdv": "PDV, by that distance",
    "ghosting": "ghosting",
}
"""What is told beside the claims."""
SHORT = {"largest": "largest step", "pdv": "PDV"}
WORDS = {-1: "lower than", 0: "not told apart from", 1: "higher than"}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """The rows of one table, and the Fréchet distance of each method, whole and without each pair.

    Args:
        name: of the table.
        films: by method, then by pair.
        fidelity: by method; empty where there is no corpus.
    """

    name: str
    films: Mapping[str, Mapping[int, Row]]
    fidelity: Mapping[str, tuple[float, tuple[float, ...]]]

    @property
    def pairs(self) -> list[int]:
        """Those that all methods have."""
        return sorted(set.intersection(*(set(films) for films in self.films.values())))

    def score(self, method: str, name: str) -> Interval:
        """A mean over pairs, or a Fréchet distance."""
        if name == "fidelity":
            return jackknife(*self.fidelity[method])
        return mean_interval([float(self.films[method][pair][name]) for pair in self.pairs])

    def difference(self, method: str, name: str) -> Interval:
        """Ours less another's, pair by pair."""
        if name == "fidelity":
            (mine, without), (other, others) = self.fidelity[OURS], self.fidelity[method]
            return jackknife(mine - other, [a - b for a, b in zip(without, others, strict=True)])
        mine, other = self.films[OURS], self.films[method]
        return mean_interval([float(mine[pair][name]) - float(other[pair][name]) for pair in self.pairs])

    def has(self, name: str) -> bool:
        """Whether it was measured."""
        return bool(self.fidelity) if name == "fidelity" else all(name in row for row in self.films[OURS].values())


def tabled(rows: Sequence[Row], name: str, features: Mapping[str, Tensor], corpus: Tensor | None) -> Table:
    """One table; features are those of the in-betweens of each film, and of the corpus, on one scale."""
    films: dict[str, dict[int, Row]] = {}
    for row in rows:
        if row["table"] == name:
            films.setdefault(row["method"], {})[row["number"]] = row
    table = Table(name, films, {})
    if corpus is None or len(table.pairs) < 2:
        return table
    groups = {method: [features[by[pair]["film"]] for pair in table.pairs] for method, by in films.items()}
    return Table(name, films, {method: frechet_by_group(found, corpus) for method, found in groups.items()})


def lines(table: Table) -> list[str]:
    """The table, for a person."""
    columns = {**SCORES, "fidelity": "fidelity"} if table.has("fidelity") else SCORES
    first = next(iter(table.films[OURS].values()))
    said = [f"{TITLES[table.name]}: {len(table.pairs)} pairs, {first['steps']} steps, steps in {first['distance']}"]
    said.append(f"{'':18}" + "".join(f"{title:>15}" for title in columns.values()) + "".join(f"{c:>8}" for c in COSTS))
    for method, films in table.films.items():
        scores = {name: table.score(method, name) for name in columns}
        costs = [fmean(float(films[pair][name]) for pair in table.pairs) for name in COSTS]
        told = "".join(f"{f'{written(n, one.value)} ±{written(n, one.half)}':>15}" for n, one in scores.items())
        said.append(f"{method:18}{told}" + "".join(f"{cost:8.1f}" for cost in costs))
    return said


def written(name: str, value: float, sign: str = "") -> str:
    """A score, with as many digits as it deserves."""
    return f"{value:{sign}.0f}" if name == "fidelity" else f"{value:{sign}.3f}"


def verdict(table: Table) -> list[str]:
    """Which claims hold, by differences pair by pair: ours less each other's, with 95 % intervals."""
    drawing = [method for method in table.films if method not in (OURS, FADE)]
    said: list[str] = []
    for names, methods in ((CLAIMED, drawing), (AGAINST_FADE, [FADE])):
        for name in filter(table.has, names):
            found = {method: table.difference(method, name) for method in methods}
            said.append(f"  {SHORT.get(name, name)}: {status(found.values())}. Ours {compared(name, found)}")
    for name in filter(table.has, CHECKS):
        said.append(f"  {CHECKS[name]}: ours {compared(name, {m: table.difference(m, name) for m in drawing})}")
    return said


def status(found: Iterable[Interval]) -> str:
    """Of a claim that ours is lower than all others."""
    signs = {one.sign for one in found}
    return "holds" if signs == {-1} else "DOES NOT HOLD" if 1 in signs else "not shown"


def compared(name: str, found: Mapping[str, Interval]) -> str:
    """The differences, in words and numbers."""
    return "; ".join(
        f"is {WORDS[one.sign]} {method} ({written(name, one.value, '+')} ±{written(name, one.half)})"
        for method, one in found.items()
    )


def report(rows: Sequence[Row], features: Mapping[str, Tensor], corpus: Tensor | None) -> str:
    """Everything, as text."""
    said: list[str] = []
    for name in TITLES:
        if any(row["table"] == name for row in rows):
            table = tabled(rows, name, features, corpus)
            said += [
                *lines(table),
                "",
                "That ours is lowest, by differences pair by pair with 95 % intervals:",
                *verdict(table),
                "",
            ]
    if corpus is None:
        said.append("without --corpus, and the weights of efficientnet-lite0, fidelity is not measured")
    return "\n".join(said)
