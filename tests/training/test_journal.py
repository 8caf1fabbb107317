"""The log of a run that was cut has every line once; the line of progress says what a person asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from segue.training.journal import Journal
from segue.training.tally import Tally


def lines(log: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()]


def test_lines_beyond_the_checkpoint_are_dropped_and_so_is_a_torn_one(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"step": 2, "loss": 1.0}\n{"step": 2, "psnr": 9.0}\n{"step": 4, "loss": 2.0}\n{"step": 6, "lo', "utf-8"
    )
    with Journal(log, 10, start=2, spent=5.0, every=2) as journal:
        for step in range(3, 7):
            journal.step(step, loss=float(step))
    assert [(line["step"], line.get("loss")) for line in lines(log)] == [(2, 1.0), (2, None), (4, 3.5), (6, 5.5)]
    assert lines(log)[2]["seconds"] >= 5.0


def test_a_tally_that_goes_on_forgets_no_step() -> None:
    """0.1 + 0.2 + 0.3 depends on the order; the mean of a cut interval must not."""
    whole, before, after = Tally(), Tally(), Tally()
    for loss in (0.1, 0.2, 0.3):
        whole.add({"loss": torch.tensor(loss)})
    before.add({"loss": torch.tensor(0.1)})
    after.load(json.loads(json.dumps(before.state())))
    for loss in (0.2, 0.3):
        after.add({"loss": torch.tensor(loss)})
    assert whole.read() == after.read() == {"loss": pytest.approx(0.3)}
    assert whole.means() == after.means()
    after.load({})
    assert after.means() == {}


def test_where_nobody_watches_each_entry_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(tmp_path / "log.jsonl", 100, start=0, spent=0.0, every=2, batch=4) as journal:
        for step in (1, 2, 3, 4):
            journal.step(step, loss=0.25)
    shown = capsys.readouterr()
    assert shown.out == ""
    said = shown.err.splitlines()
    assert len(said) == 2
    assert said[1].startswith("step 4/100  loss 0.2500  ")
    assert "samples/s" in said[1] and said[1].endswith(" left")


def test_a_silent_journal_leaves_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(tmp_path / "log.jsonl", 4, start=0, spent=0.0, every=1, silent=True) as journal:
        journal.step(1, loss=1.0)
        journal.note(1, psnr=1.0)
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().err == ""
