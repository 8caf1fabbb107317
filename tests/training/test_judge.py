"""The judge of pictures learns from none that a generator has learned from."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segue.training.corpus import build

from .conftest import SMALL, Sources

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("judge")


@pytest.fixture
def other_seed(sources: Sources, tmp_path: Path) -> Path:
    """What a generator learns from: the same concepts, another chance."""
    build(tmp_path, sources.folder, replace(SMALL, seed=SMALL.seed + 92), sources.concepts, sources.packages)
    return tmp_path


@pytest.fixture
def taught(sources: Sources, tmp_path: Path) -> Path:
    """What the judge learns from."""
    folder = tmp_path / "judge"
    build(folder, sources.folder, replace(SMALL, poses="any"), sources.concepts, sources.packages)
    return folder


def looks(shelf: Any, rows: list[int]) -> Iterator[str]:
    for row in rows:
        line = shelf.lines[row]
        yield json.dumps([line[field] for field in ("concept", "colour", "background", "style", "placement")])


def test_the_judge_learns_nothing_that_a_corpus_of_another_seed_shows(
    taught: Path, other_seed: Path, judge: Any
) -> None:
    own, other = judge.Shelf.open(taught), judge.Shelf.open(other_seed)
    everything = range(len(own.lines)), range(len(other.lines))
    shown = set(looks(other, list(everything[1])))
    assert shown & set(looks(own, list(everything[0]))), "pictures in the middle are alike in both"
    rows = judge.learned(own, judge.Scale())
    assert {own.lines[row]["concept"] for row in rows} == {"🍎", "🍏", "🐘", "⭐"}
    assert {own.lines[row]["style"] for row in rows} == {"3d", "flat", "gradient", "line art"}
    assert not shown & set(looks(own, rows))


def test_the_judge_is_measured_on_what_it_did_not_learn(corpus: Path, judge: Any) -> None:
    shelf = judge.Shelf.open(corpus)
    scale = judge.Scale()
    measured = judge.measured(shelf, scale)
    assert set(measured) == {"3d", "flat", "gradient", "line art"}
    kept_back = [row for row in range(len(shelf.lines)) if shelf.canonical(row)]
    assert sum(len(renders.nouns) for renders in measured.values()) == len(kept_back) > 0
    assert not set(looks(shelf, kept_back)) & set(looks(shelf, judge.learned(shelf, scale)))
