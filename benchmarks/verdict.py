"""What the rows of `transition.py` say: its tables, and which claims hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
WORDS = {-1: "lower", 0: "not told apart", 1: "higher"}
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
    """One table; features are those of the in-betweens of each film."""
    films: dict[str, dict[int, Row]] = {}
    for row in rows:
        if row["table"] == name:
            films.setdefault(row["method"], {})[row["number"]] = row
    table = Table(name, films, {})
    if corpus is None or len(table.pairs) < 2:
        return table
    mean, scale = corpus.mean(0), corpus.std(0).clamp(min=1e-3)
    groups = {
        method: [(features[by[pair]["film"]] - mean) / scale for pair in table.pairs] for method, by in films.items()
    }
    renders = (corpus - mean) / scale
    return Table(name, films, {method: frechet_by_group(found, renders) for method, found in groups.items()})


def lines(table: Table) -> list[str]:
    """The table, for a person."""
    columns = {**SCORES, "fidelity": "fidelity"} if table.has("fidelity") else SCORES
    first = next(iter(table.films[OURS].values()))
    said = [f"{TITLES[table.name]}: {len(table.pairs)} pairs, {first['steps']} steps, steps in {first['distance']}"]
    said.append(f"{'':18}" + "".join(f"{title:>18}" for title in columns.values()) + "".join(f"{c:>9}" for c in COSTS))
    for method, films in table.films.items():
        scores = [table.score(method, name) for name in columns]
        costs = [fmean(float(films[pair][name]) for pair in table.pairs) for name in COSTS]
        said.append(
            f"{method:18}"
            + "".join(f"{one.value:10.3f} ±{one.half:6.3f}" for one in scores)
            + "".join(f"{cost:9.1f}" for cost in costs)
        )
    return said


def verdict(table: Table) -> list[str]:
    """Which claims hold, by the paired differences."""
    rivals = [method for method in table.films if method not in (OURS, FADE)]
    said: list[str] = []
    for names, methods in ((CLAIMED, rivals), (AGAINST_FADE, [FADE])):
        for name in names:
            if table.has(name):
                found = {method: table.difference(method, name) for method in methods}
                holds = all(one.sign < 0 for one in found.values())
                told = "; ".join(
                    f"{WORDS[one.sign]} than {method} ({one.value:+.3f} ±{one.half:.3f})".replace(
                        "told apart than", "told apart from"
                    )
                    for method, one in found.items()
                )
                said.append(f"  {name}: {'holds' if holds else 'DOES NOT HOLD'}. Ours is {told}")
    for name in ("other_largest", "other_pdv"):
        if table.has(name):
            found = {method: table.difference(method, name) for method in rivals}
            told = ", ".join(
                f"{WORDS[one.sign]} ({method}, {one.value:+.3f} ±{one.half:.3f})" for method, one in found.items()
            )
            said.append(f"  checked by a distance that placed no frame, {name.removeprefix('other_')}: {told}")
    return said


def report(rows: Sequence[Row], features: Mapping[str, Tensor], corpus: Tensor | None) -> str:
    """Everything, as text."""
    said: list[str] = []
    for name in TITLES:
        table = tabled(rows, name, features, corpus)
        if table.films:
            said += [*lines(table), "", "Claims, by paired differences:", *verdict(table), ""]
    if corpus is None:
        said.append("without --corpus, and the weights of efficientnet-lite0, fidelity is not measured")
    return "\n".join(said)
