"""The benchmark of correspondence runs, and what it counts is exact."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from segue.motion.patchmatch import PatchMatcher

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "matching.py"


def run(*words: str) -> str:
    """What it prints."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_engines_are_compared_where_the_motion_is_known(tmp_path: Path) -> None:
    words = ["-o", str(tmp_path), "--size", "32", "--intervals", "1", "4", "--plot", str(tmp_path / "matching.svg")]
    first = run(*words)
    rows = [json.loads(line) for line in (tmp_path / "rows-32.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 3 * 4 * 2, "three scenes, four engines, two intervals"
    assert all(0 <= row["right"] <= 1 and row["distance"] >= 0 and row["patches"] > 0 for row in rows)
    assert run(*words) == first, "nothing is measured twice"
    assert (tmp_path / "matching.svg").read_text("utf-8").count("<polyline") == 2 * 4
    near = {row["engine"]: row["right"] for row in rows if row["clip"] == "drawn 1" and row["interval"] == 1}
    assert min(near.values()) > 0.9


def test_operations_are_counted(tmp_path: Path) -> None:
    out = run("-o", str(tmp_path), "--speed", "--sizes", "24", "--repeat", "1")
    assert "matrices" in out
    found = re.search(r"24 px, default: .* ([0-9.]+) candidates a pixel", out)
    assert found is not None
    # One level of 24 pixels and none below it: every round tries radii of 24, 12, ... 1 and 8 neighbours, at most, and
    # begins with what is there, as do the two whose patches are smaller than before.
    rounds = PatchMatcher().rounds[0]
    assert 1 < float(found[1]) <= rounds * (5 + 8) + rounds
