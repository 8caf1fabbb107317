"""The benchmark of correspondence runs, and what it counts is exact."""

from __future__ import annotations

import argparse
import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarked import BENCHMARKS, run
from segue.media import Clip, TensorFrames
from segue.motion.match import Match, Matcher
from segue.motion.patchmatch import PatchMatcher


def test_engines_are_compared_where_the_motion_is_known(tmp_path: Path) -> None:
    words = ["-o", str(tmp_path), "--size", "32", "--intervals", "1", "4", "--plot", str(tmp_path / "matching.svg")]
    first = run("matching", *words)
    rows = [json.loads(line) for line in (tmp_path / "rows-32.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 3 * 4 * 2, "three scenes, four engines, two intervals"
    assert all(0 <= row["right"] <= 1 and row["distance"] >= 0 and row["patches"] > 0 for row in rows)
    assert run("matching", *words) == first, "nothing is measured twice"
    assert (tmp_path / "matching.svg").read_text("utf-8").count("<polyline") == 2 * 4
    near = {row["engine"]: row["right"] for row in rows if row["clip"] == "drawn 1" and row["interval"] == 1}
    assert min(near.values()) > 0.9


def test_rows_are_of_the_same_pictures_and_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another still, a changed source or a matcher of another name is measured by itself, and told alone."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    bench = importlib.import_module("matching")
    monkeypatch.setattr(bench, "DRAWN", 1)
    (tmp_path / "clips").mkdir()

    def swept(clips: Path | None = None) -> tuple[int, int]:
        """Rows that are told, and those on file."""
        given = argparse.Namespace(clips=clips, size=32, intervals=[1], out=tmp_path)
        told = bench.sweep(given)
        assert len({tuple(row[name] for name in ("clip", "interval", "engine")) for row in told}) == len(told)
        return len(told), len((tmp_path / "rows-32.jsonl").read_text("utf-8").splitlines())

    assert swept() == swept() == (4, 4)
    still = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    Clip(TensorFrames.rounded(still), fps=5).save(tmp_path / "clips" / "wolf.mp4")
    assert swept(tmp_path / "clips") == swept(tmp_path / "clips") == (8, 12)
    flow = bench.FlowMatcher
    with monkeypatch.context() as patched:
        patched.setattr(bench, "FlowMatcher", lambda: Renamed(flow()))
        assert swept() == swept() == (4, 14), "two of the engines are flow"
    with monkeypatch.context() as patched:
        patched.setattr(bench, "VERSION", "another")
        assert swept() == swept() == (4, 18)
    assert swept() == (4, 18)


@dataclass(frozen=True)
class Renamed:
    """A matcher of another name."""

    matcher: Matcher
    name: str = "another"

    def __call__(self, a: Tensor, b: Tensor, start: tuple[Match, Match] | None = None) -> tuple[Match, Match]:
        return self.matcher(a, b, start)


def test_operations_are_counted(tmp_path: Path) -> None:
    out = run("matching", "-o", str(tmp_path), "--speed", "--sizes", "24", "--repeat", "1")
    assert "matrices" in out
    found = re.search(r"24 px, default: .* ([0-9.]+) candidates a pixel", out)
    assert found is not None
    # One level of 24 pixels and none below it: every round tries radii of 24, 12, ... 1 and 8 neighbours, at most, and
    # begins with what is there, as do the two whose patches are smaller than before.
    rounds = PatchMatcher().rounds[0]
    assert 1 < float(found[1]) <= rounds * (5 + 8) + rounds
