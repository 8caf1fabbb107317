"""Banks in files: another run reads what one wrote, or is told why it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from segue.errors import CheckpointError, ModelError, TaskError
from segue.tasks.bank import BankUse
from segue.temporal.bank import Anchor, Bank
from segue.types import Conditioning, Guided, RowId
from toy import toy_model

STEPS = 4
USE = BankUse(toy_model(), "ddim", (16, 16))


def bank(use: BankUse = USE, controls: tuple[str, ...] = ()) -> Bank:
    now = use.model.schedule(STEPS, use.size, solver=use.solver).now
    pictures = {name: torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8) for name in controls}
    term = Conditioning(torch.arange(6.0).reshape(1, 2, 3), residual_inputs=pictures)
    cond = Guided((term, replace(term, text=-term.text)), torch.tensor([[-2.0], [3.0]]), start=0.25)
    latents = torch.randn(2, STEPS, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = (Anchor(RowId("clip", 3), latents[0], cond), Anchor(RowId("clip", 9), latents[1], cond, (0,), own=False))
    return Bank(rows, STEPS, 0, now.alpha.double(), now.sigma.double())


def test_a_bank_is_read_as_it_was_written(tmp_path: Path) -> None:
    path, own = tmp_path / "bank.safetensors", bank(controls=("depth",))
    use = replace(USE, controls=("depth",))
    use.save(own, path)
    again = use.load(path, USE.model.schedule(STEPS, (16, 16), solver="ddim"), terms=2)
    assert [item.name for item in tmp_path.iterdir()] == ["bank.safetensors"]
    assert torch.equal(again.alphas, own.alphas)
    for one, other in zip(own.anchors, again.anchors, strict=True):
        assert torch.equal(one.latents, other.latents)
        assert (one.name, one.sees, one.own) == (other.name, other.sees, other.own)
        assert isinstance(one.cond, Guided)
        assert isinstance(other.cond, Guided)
        assert torch.equal(one.cond.weights, other.cond.weights)
        assert (one.cond.rescale, one.cond.start) == (other.cond.rescale, other.cond.start)
        for a, b in zip(one.cond.terms, other.cond.terms, strict=True):
            assert torch.equal(a.text, b.text)
            assert torch.equal(a.residual_inputs["depth"], b.residual_inputs["depth"])
    latents = 2 * STEPS * 12 * 8 * 8 * 4
    assert latents < path.stat().st_size < latents + 4000, "told alike, told once"


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": replace(USE.model, name="other", settings=({"a": 1},))}, "with the model toy"),
        ({"size": (32, 16)}, "at 16x16, and this run is 32x16"),
        ({"solver": "euler"}, "with the solver ddim, and this run takes euler"),
        ({"controls": ("depth",)}, "with control none, and this run has depth"),
        ({"terms": 1}, "2 terms of guidance, and this run has 1"),
        ({"steps": 5}, "in 4 steps, and this run has 5"),
    ],
)
def test_a_run_that_it_does_not_fit_is_told_why(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path, changes = tmp_path / "bank.safetensors", dict(changes)
    USE.save(bank(), path)
    terms, steps = changes.pop("terms", 2), changes.pop("steps", STEPS)
    schedule = USE.model.schedule(steps, (16, 16), solver="ddim")
    with pytest.raises(TaskError, match=said):
        replace(USE, **changes).load(path, schedule, terms=terms)


def test_what_is_no_bank_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    schedule = USE.model.schedule(STEPS, (16, 16), solver="ddim")
    with pytest.raises(ModelError, match="there is no file"):
        USE.load(path, schedule)
    save_file({"latents": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="is no bank of this version of Segue: a bank is what"):
        USE.load(path, schedule)
    USE.save(bank(), path)
    said, tensors = header(path), load_file(path)
    for broken in (
        {name: part for name, part in tensors.items() if name != "told.0"},
        {**tensors, "latents": tensors["latents"][0]},
        {**tensors, "latents": tensors["latents"] * float("nan")},
        {**tensors, "alphas": tensors["alphas"][1:]},
    ):
        save_file(broken, path, said)
        with pytest.raises(CheckpointError, match="no whole bank"):
            USE.load(path, schedule, terms=2)
    save_file(tensors, path, {**said, "run": "[]"})
    with pytest.raises(CheckpointError, match="does not say what run"):
        USE.load(path, schedule)


def test_latents_of_another_size_than_is_said_are_damage(tmp_path: Path) -> None:
    path, whole = tmp_path / "bank.safetensors", bank()
    cut = tuple(replace(one, latents=one.latents[..., :4]) for one in whole.anchors)
    USE.save(replace(whole, anchors=cut), path)
    with pytest.raises(CheckpointError, match=r"expected latents of \(12, 8, 8\)"):
        USE.load(path, USE.model.schedule(STEPS, (16, 16), solver="ddim"), terms=2)
