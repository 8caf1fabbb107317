"""The table of films that were drawn anew: means over clips and prompts, how sure they are, and who comes off best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from segue.evaluation.intervals import Bounds, bootstrapped

ALONE = "frame by frame"
OURS = "ours"
MEASURES = {
    "Pixel-MSE": 2, "warp": 2, "at 8": 2, "sharpness": 0, "shared": 0, "prompt": 3, "fits": 2, "likeness": 3,
    "changed": 3, "PSNR": 1, "s/frame": 2, "rows": 1,
}  # fmt: skip
"""The columns, with the digits behind the point."""
LEAST_KEPT = 95
"""Percent of the sharpness of the film that was drawn frame by frame, from which on a warp error counts."""
COMPARED = ("warp", "prompt", "changed", "likeness")
NO_LOWER = ("prompt", "changed")
"""What ours is not to have less of than frame by frame, in the mean."""
MOST_COST = 1.25

Rows = Mapping[str, Mapping[str, Any]]
"""What is known of a method's films, by case."""


def common(by: Mapping[str, Rows]) -> list[str]:
    """The cases that all methods have."""
    return [case for case in by.get(ALONE, {}) if all(case in rows for rows in by.values())]


def table(by: Mapping[str, Rows]) -> list[str]:
    """As markdown: means over all cases that every method has, with their intervals."""
    cases = common(by)
    lines = [f"| {len(cases)} cases | {' | '.join(MEASURES)} | cost |", "|---" * (len(MEASURES) + 2) + "|"]
    for method, rows in by.items():
        cells = [
            shown_mean({case: rows[case].get(name) for case in cases}, digits, sure=name not in ("s/frame", "rows"))
            for name, digits in MEASURES.items()
        ]
        lines.append(f"| {method} | {' | '.join(cells)} | {cost(by, method):.2f} |")
    return lines


def cost(by: Mapping[str, Rows], method: str) -> float:
    """The mean of the seconds over those of frame by frame."""
    return fmean(by[method][case]["s/frame"] / by[ALONE][case]["s/frame"] for case in common(by))


def shown_mean(values: Mapping[str, float | None], digits: int, *, sure: bool = True) -> str:
    """A mean over cases, and unless it is of no interest how sure it is; nothing where nothing is known."""
    known = {case: value for case, value in values.items() if value is not None and not math.isnan(value)}
    if not known:
        return ""
    return _shown(_bounds(known), digits) if sure else f"{fmean(known.values()):.{digits}f}"


def _bounds(values: Mapping[str, float]) -> Bounds:
    """Clips are drawn, and prompts of each: those of one clip are no independent cases."""
    return bootstrapped([*values.values()], [case.partition(":")[0] for case in values])


def _shown(found: Bounds, digits: int) -> str:
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def verdict(by: Mapping[str, Rows]) -> list[str]:
    """Ours against frame by frame, case by case, and against what is asked of it."""
    cases = common(by)
    if OURS not in by or not cases:
        return []
    lines: list[str] = []
    for name in COMPARED:
        pairs = {case: (by[OURS][case].get(name), by[ALONE][case].get(name)) for case in cases}
        known = {case: a - b for case, (a, b) in pairs.items() if a is not None and b is not None}
        if known:
            found = _bounds(known)
            told = f"; no lower: {_judged(found.value >= 0)}" if name in NO_LOWER else ""
            lines.append(f"{name}: ours less frame by frame: {_shown(found, MEASURES[name] + 1)}{told}")
    means = {
        method: {name: fmean(rows[case][name] for case in cases) for name in ("warp", "sharpness")}
        for method, rows in by.items()
    }
    sharp = {method: each["warp"] for method, each in means.items() if each["sharpness"] >= LEAST_KEPT}
    least, spent = min(sharp, key=sharp.__getitem__), cost(by, OURS)
    return [
        *lines,
        f"lowest warp error of those that keep {LEAST_KEPT} % of the sharpness: {least} ({sharp[least]:.2f})",
        f"cost of ours {spent:.2f}, at most {MOST_COST}: {_judged(spent <= MOST_COST)}",
    ]


def _judged(held: bool) -> str:
    return "held" if held else "missed"


def scaled(value: float | None, by: float) -> float:
    """A measure in other units; nan where there is none."""
    return math.nan if value is None else by * value
