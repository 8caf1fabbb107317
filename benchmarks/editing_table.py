"""The table and the curves of edits: what is hit against what is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from segue.evaluation.intervals import bootstrapped

RIGHT = "right"
MEASURES = {RIGHT: 2, "PSNR": 1, "SSIM": 3, "ground": 1, "from right": 3, "rows": 0}
"""The columns, with the digits behind the point."""
COLOURS = {
    "sdedit": "#b5651d",
    "cycle": "#2a7f62",
    "ddib": "#3b5b92",
    "inpaint": "#8a3f7a",
    "instruct": "#c0392b",
}
Row = Mapping[str, Any]


def of(found: Sequence[Row], method: str, value: float) -> list[Row]:
    """The rows of a setting."""
    return [row for row in found if row["method"] == method and row["value"] == value]


def table(
    found: Sequence[Row], perfect: Sequence[Row], knobs: Mapping[Any, tuple[str, tuple[float, ...]]]
) -> list[str]:
    """As markdown: a line for each value of each knob, the kinds of edits apart in the first column."""
    kinds = list(dict.fromkeys(row["kind"] for row in perfect))
    lines = [f"| method | knob | {' | '.join(MEASURES)} | {' | '.join(f'right, {kind}' for kind in kinds)} |"]
    lines.append("|---" * (len(MEASURES) + len(kinds) + 2) + "|")
    for method, (knob, values) in knobs.items():
        for value in values:
            if some := of(found, method, value):
                lines.append(f"| {method} | {knob} {value:g} | {_cells(some, kinds)} |")
    return [*lines, f"| the right answers | | {_cells(perfect, kinds)} |"]


def _cells(rows: Sequence[Row], kinds: Sequence[str]) -> str:
    whole = [_shown([row[name] for row in rows], digits, sure=name != "rows") for name, digits in MEASURES.items()]
    parts = [[row[RIGHT] for row in rows if row["kind"] == kind] for kind in kinds]
    return " | ".join([*whole, *(f"{fmean(part):.2f}" if part else "" for part in parts)])


def _shown(values: Sequence[float], digits: int, *, sure: bool) -> str:
    if not sure:
        return f"{fmean(values):.{digits}f}"
    found = bootstrapped([*map(float, values)])
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def plot(found: Sequence[Row], perfect: Sequence[Row], path: Path) -> None:
    """The share of edits that are right over how much of the source is kept, a curve a method, as SVG."""
    wide, high, edge = 640, 400, 48
    curves = {
        method: [
            _mean(of(found, method, value)) for value in sorted({r["value"] for r in found if r["method"] == method})
        ]
        for method in dict.fromkeys(str(row["method"]) for row in found)
    }
    ideal = _mean(perfect)
    every = [point for line in curves.values() for point in line] + [ideal]
    low, most = min(x for x, _ in every) - 1, max(x for x, _ in every) + 1

    def at(kept: float, hit: float) -> tuple[float, float]:
        return edge + (kept - low) / (most - low) * (wide - 2 * edge), high - edge - hit * (high - 2 * edge)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="12">',
        f'<rect width="{wide}" height="{high}" fill="white"/>',
        f'<text x="{wide / 2}" y="{high - 10}" text-anchor="middle">PSNR to the source, dB</text>',
    ]
    for hit in (0, 0.25, 0.5, 0.75, 1):
        (x, y), (end, _) = at(low, hit), at(most, hit)
        parts.append(f'<line x1="{x:.1f}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{hit:.0%}</text>')
    for kept in range(int(low) + 1, int(most) + 1, 2):
        x, y = at(kept, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{kept}</text>')
    for number, (method, line) in enumerate(curves.items()):
        colour, places = COLOURS[method], [at(*point) for point in line]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(
            f'<text x="{wide - edge}" y="{24 + 16 * number}" text-anchor="end" fill="{colour}">{method}</text>'
        )
    x, y = at(*ideal)
    parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">&#9733;</text>')
    parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">right answers</text>')
    path.write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")


def _mean(rows: Sequence[Row]) -> tuple[float, float]:
    return fmean(row["PSNR"] for row in rows), fmean(row[RIGHT] for row in rows)
