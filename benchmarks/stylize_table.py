"""The table of films that were drawn anew: means over clips and prompts, how sure they are, and who comes off best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
            shown_mean([rows[case].get(name) for case in cases], digits, sure=name not in ("s/frame", "rows"))
            for name, digits in MEASURES.items()
        ]
        cost = [rows[case]["s/frame"] / by[ALONE][case]["s/frame"] for case in cases]
        lines.append(f"| {method} | {' | '.join(cells)} | {shown_mean(cost, 2, sure=False)} |")
    return lines


def shown_mean(values: Sequence[float | None], digits: int, *, sure: bool = True) -> str:
    """A mean, and unless it is of no interest how sure it is; nothing where nothing is known."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return ""
    return _shown(bootstrapped(known), digits) if sure else f"{fmean(known):.{digits}f}"


def _shown(found: Bounds, digits: int) -> str:
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def verdict(by: Mapping[str, Rows]) -> list[str]:
    """Ours against frame by frame, case by case; and who has the lowest warp error at 95 % of the sharpness."""
    cases = common(by)
    if OURS not in by or not cases:
        return []
    lines: list[str] = []
    for name in COMPARED:
        pairs = [(by[OURS][case].get(name), by[ALONE][case].get(name)) for case in cases]
        known = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
        if known:
            lines.append(f"{name}: ours less frame by frame: {_shown(bootstrapped(known), MEASURES[name] + 1)}")
    means = {
        method: {name: fmean(rows[case][name] for case in cases) for name in ("warp", "sharpness")}
        for method, rows in by.items()
    }
    sharp = {method: each["warp"] for method, each in means.items() if each["sharpness"] >= LEAST_KEPT}
    least = min(sharp, key=sharp.__getitem__)
    told = f"lowest warp error of those that keep {LEAST_KEPT} % of the sharpness: {least} ({sharp[least]:.2f})"
    return [*lines, told]
