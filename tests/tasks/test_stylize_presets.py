"""Presets on a machine that has nothing but what comes with the installation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from counted import counting
from flickers import saved, textured
from segue.errors import ModelError
from segue.models.annotate.kinds import NETWORKED
from segue.models.annotate.mediapipe import VARIABLE
from segue.models.bundle import LatentDiffusion
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_controls import wanted
from segue.tasks.stylize_settings import PRESETS, Beginning, Preset, References, preset_values
from segue.zoo.load import load
from shown import pixels, record

SIZE = (64, 64)
MISSING = "is not on this machine, or not all of it, and the hub cannot be asked for it"


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return load("emoji-fast")


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was ever downloaded, and MediaPipe is not here."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path / "film.apng", textured(2, SIZE))


def task(film: str, preset: Preset, **changes: Any) -> Stylize:
    folder = Path(film).parent
    pictures = (saved(folder / "looks.png", textured(1, SIZE, seed=4)),) if preset == "image" else ()
    return Stylize(film, "a fox", preset, references=References(pictures), **changes)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_and_says_what_it_left_out(
    preset: Preset, film: str, model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = counting(monkeypatch)
    asked = wanted(tuple(preset_values(preset)["control"]))
    missing, there = ([one.kind for one in asked if (one.kind in NETWORKED) == out] for out in (True, False))
    prepared = task(film, preset).prepared(model)
    said = prepared.outlook(Execution())
    assert [line for line in said if preset in line]
    lines = [line for line in said if line.startswith("without the control ")]
    assert len(lines) == len(missing)
    for kind, line in zip(missing, lines, strict=True):
        assert line.startswith(f"without the control {kind}: ") and MISSING in line
    clip = prepared.task.run(model, prepared=prepared)
    assert [one.kind for one in wanted(record(clip)["fields"]["control"])] == there
    # None of those that are there acts at no step.
    assert {kind for kind, found in steps.items() if found} == set(there)
    assert (len(clip), clip.size) == (2, SIZE) and pixels(clip).std() > 0.01


def test_damaged_films_are_drawn_in_their_own_size_unless_another_is_said(film: str, model: LatentDiffusion) -> None:
    assert task(film, "restore").prepared(model).task.sampling.size == SIZE
    asked = task(film, "restore", sampling=Sampling(size=(128, 64))).prepared(model).task
    assert (asked.sampling.size, asked.shape.fit, asked.beginning.detail) == ((128, 64), "stretch", 1.0)
    # Where nothing is left of the film, there is nothing to put its detail on.
    assert task(film, "restore", beginning=Beginning(1.0)).filled_in().beginning == Beginning(
        1.0, "noise", "shared", detail=0.0
    )


@pytest.mark.parametrize("kind", NETWORKED)
def test_what_was_asked_for_without_a_question_mark_is_missed(kind: str, film: str, model: LatentDiffusion) -> None:
    with pytest.raises(ModelError, match=MISSING):
        task(film, "text", control=(kind,)).prepared(model)
    left = task(film, "text", control=(f"{kind}?",)).prepared(model)
    assert left.controls == () and left.task.control == ("off",)


@pytest.mark.parametrize("preset", PRESETS)
def test_controls_of_a_preset_make_its_film(preset: Preset, film: str, model: LatentDiffusion) -> None:
    without = task(film, preset, control=("off",)).run(model)
    assert not pixels(task(film, preset).run(model)).equal(pixels(without))
