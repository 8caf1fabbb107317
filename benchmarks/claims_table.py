"""The table of `claims.py`: means over seeds, and the differences that each claim is about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segue.evaluation.intervals import Interval, mean_interval

Numbers = dict[int, dict[str, float]]
"""What was measured, by seed."""


@dataclass(frozen=True)
class Measure:
    """A number of the table.

    Args:
        title: at the head of its column.
        digits: behind the point.
        better: -1 if less is better, 1 if more is.
    """

    title: str
    digits: int
    better: int = -1


MEASURES = {
    "loss": Measure("loss", 4),
    "motion": Measure("motion, px/frame", 2),
    "distance": Measure("Fréchet", 1),
    "psnr": Measure("PSNR, dB", 2, better=1),
    "flicker": Measure("flicker, levels", 2),
}


@dataclass(frozen=True)
class Claim:
    """That one way is better than another, by each measure.

    Args:
        text: the claim.
        better, worse: the ways.
    """

    text: str
    better: str
    worse: str


CLAIMS = (
    Claim("convolution and attention, against attention alone", "both", "attention"),
    Claim("convolution and attention, against recurrence", "both", "recurrence"),
    Claim("frozen image layers, against learning all from random weights", "both", "scratch"),
    Claim("frozen image layers, against learning all from the image model", "both", "all"),
    Claim("few real clips and synthetic ones, against few real clips", "few and drawn", "few"),
    Claim("few real clips and synthetic ones, against synthetic ones", "few and drawn", "drawn"),
    Claim("few real clips augmented, against few real clips", "few, augmented", "few"),
    Claim("temporal decoder, against the same layers without neighbours", "decoder: clips", "decoder: frames"),
    Claim("temporal decoder, against the image decoder", "decoder: clips", "decoder: image"),
    Claim("temporal decoder with the discriminator, against without", "decoder: against", "decoder: clips"),
)


def numbers(folder: Path) -> dict[str, Numbers]:
    """What the runs in a folder measured, by way; those of the decoder are several ways in a file."""
    found: dict[str, Numbers] = {}
    for file in sorted(folder.glob("*.json")):
        name, _, seed = file.stem.rpartition("-")
        said = json.loads(file.read_text("utf-8"))
        ways = said["ways"] if "ways" in said else {said.get("way", name): said}
        for way, measured in ways.items():
            found.setdefault(way, {})[int(seed)] = {key: measured[key] for key in MEASURES if key in measured}
    return found


def table(folder: Path) -> str:
    """Means of every way, and of every claim the differences: plain text of Markdown."""
    found = numbers(folder)
    rows = ["| way | seeds | " + " | ".join(m.title for m in MEASURES.values()) + " |", "| --- " * 7 + "|"]
    for way, seeds in found.items():
        cells = [_cell([one[key] for one in seeds.values() if key in one], m) for key, m in MEASURES.items()]
        rows.append(f"| {way} | {len(seeds)} | " + " | ".join(cells) + " |")
    rows += ["", "| claim | seeds | " + " | ".join(m.title for m in MEASURES.values()) + " |", "| --- " * 7 + "|"]
    for claim in CLAIMS:
        pair = [found.get(way, {}) for way in (claim.better, claim.worse)]
        seeds = sorted(pair[0].keys() & pair[1].keys())
        cells = [_difference(pair[0], pair[1], seeds, key, m) for key, m in MEASURES.items()]
        rows.append(f"| {claim.text} | {len(seeds)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def difference(one: Numbers, other: Numbers, seeds: Sequence[int], key: str) -> Interval | None:
    """Of the first from the second, seed by seed; None if nobody measured it."""
    apart = [one[seed][key] - other[seed][key] for seed in seeds if key in one[seed] and key in other[seed]]
    return mean_interval(apart) if apart else None


def verdict(found: Interval, measure: Measure) -> str:
    """Whether a difference says that the first is better: yes, no, or that it is not known."""
    return {0: "?", measure.better: "yes", -measure.better: "no"}[found.sign]


def _cell(values: list[float], measure: Measure) -> str:
    return _said(mean_interval(values), measure.digits) if values else ""


def _said(found: Interval, digits: int, sign: str = "") -> str:
    half = "" if found.half != found.half else f" ± {found.half:.{digits}f}"
    return f"{found.value:{sign}.{digits}f}{half}"


def _difference(one: Numbers, other: Numbers, seeds: Sequence[int], key: str, measure: Measure) -> str:
    found = difference(one, other, seeds, key)
    return "" if found is None else f"{_said(found, measure.digits, '+')} {verdict(found, measure)}"
