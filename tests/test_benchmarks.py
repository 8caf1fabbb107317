"""The benchmarks run, and what they count is exact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "transition.py"


def test_a_tree_by_levels_takes_fewer_calls_for_the_same_rows() -> None:
    small = ["--branches", "3", "--steps", "5", "--depth", "0.4", "--batch", "4", "--json"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *small],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    table = json.loads(done.stdout)
    single, levels = table["branch_by_branch"], table["by_levels"]
    assert table["frames"] == 5
    assert table["every_frame_alone_calls"] == 25
    # Two keys of 5 steps, one branch from step 2 on and two from step 3 on; each row is evaluated with both prompts.
    assert single["calls"] == 2 * 5 + 3 + 2 * 2
    assert levels["calls"] == 5 + 3 + 2
    assert single["rows"] == levels["rows"] == 2 * single["calls"]


def test_the_embedded_model_is_there_in_under_a_second() -> None:
    """The call itself; importing the libraries is told apart."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARK.with_name("load.py")), "--repeat", "3", "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    parts = json.loads(done.stdout)
    assert parts["import torch"] > 0
    assert 0 < parts["segue.load, quickest"] < 1
