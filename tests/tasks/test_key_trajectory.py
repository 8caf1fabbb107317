"""Keys that are trajectories: the run of the same prompt and seed makes the same film, and any other is arrived at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segue.errors import ModelNotFoundError, TaskError
from segue.models.bundle import LatentDiffusion
from segue.tasks.branching import Branching
from segue.tasks.image import Image
from segue.tasks.key_pictures import key_pictures
from segue.tasks.pace import Pace
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Sampling
from segue.tasks.transition import Transition
from shown import pixels
from toy import toy_model

FILM = Transition(("one", "two", "three"), seconds=1.0, fps=20, seeds=(1, 2, 3))


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return toy_model()


def recorded(model: LatentDiffusion, folder: Path, prompt: str = "two", seed: int = 2, **sampling: Any) -> Path:
    path = folder / "walk.safetensors"
    Image(prompt, seed=seed, sampling=Sampling(**sampling)).run(model, trajectory=path)
    return path


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "euler", "euler_ancestral", "lcm"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pace": Pace(loop="loop")},
        {"weights": "1,0,0; 1,1,1; 0,1,0; 0,0,1"},
        {"tree": Branching(crossfeed=(0.4, 0.6, 0.9), ghosting=0.01)},
    ],
)
def test_the_run_of_the_same_prompt_and_seed_makes_the_same_film(
    model: LatentDiffusion, tmp_path: Path, solver: str, changes: dict[str, Any]
) -> None:
    plain = replace(FILM, sampling=Sampling(solver=solver), **changes)
    path = recorded(model, tmp_path, solver=solver)
    given = replace(plain, key_image=(f"2={path}",))
    assert torch.equal(pixels(given.run(model)), pixels(plain.run(model)))
    assert given.notes(model) == plain.notes(model)


def test_a_picture_is_the_same_whether_its_run_is_recorded_or_not(model: LatentDiffusion, tmp_path: Path) -> None:
    shown = Image("two", seed=2).run(model, trajectory=tmp_path / "walk.safetensors")
    assert torch.equal(pixels(shown), pixels(Image("two", seed=2).run(model)))


@pytest.mark.parametrize("prompt", ["two", ""])
@pytest.mark.parametrize("solver", ["ddim", "euler_ancestral"])
def test_another_run_is_shown_and_arrived_at(model: LatentDiffusion, tmp_path: Path, solver: str, prompt: str) -> None:
    path = recorded(model, tmp_path, "a boat", 7, solver=solver)
    sampling = Sampling(solver=solver)
    film = replace(FILM, prompts=("one", "three", prompt), key_image=(f"last={path}",), sampling=sampling)
    shown = pixels(film.run(model))
    assert torch.equal(shown[-1:], pixels(Image("a boat", seed=7, sampling=sampling).run(model)))
    steps = (shown[1:] - shown[:-1]).square().mean((1, 2, 3)).sqrt()
    assert float(steps[-1]) < 1.3 * float(steps.median())
    assert film.notes(model)[-1] == f"{path} is of 'a boat'; near it, the model is told {prompt!r}"


def test_a_film_with_a_trajectory_repeats_until_the_file_changes(model: LatentDiffusion, tmp_path: Path) -> None:
    path = recorded(model, tmp_path)
    film = replace(FILM, key_image=(f"2={path}",)).run(model)
    film.save(tmp_path / "film")
    assert torch.equal(pixels(Rerun.read(tmp_path / "film.json").run(model)), pixels(film))
    recorded(model, tmp_path, "a boat")
    with pytest.raises(TaskError, match="contents have changed"):
        Rerun.read(tmp_path / "film.json").run(model)


def test_what_does_not_fit_is_refused(model: LatentDiffusion, tmp_path: Path) -> None:
    def said(expected: str, film: Transition = FILM, by: LatentDiffusion = model) -> None:
        with pytest.raises(TaskError, match=expected):
            replace(film, key_image=(f"2={tmp_path / 'walk.safetensors'}",)).run(by)

    recorded(model, tmp_path, size=(24, 16))
    said("latents of 12 x 8 x 12 .* and this film's are 12 x 8 x 8")
    recorded(model, tmp_path, steps=7)
    said("has 7 steps, and this film's runs 10")
    recorded(model, tmp_path, solver="euler")
    other = replace(model, scheduler={**model.scheduler, "timestep_spacing": "leading"})
    said("was made by toy .* and this film is made by toy", by=other)
    recorded(other, tmp_path, solver="lcm")
    said("was made with lcm, whose noise levels are not those of ddim", by=other)


def test_bad_entries_are_told(model: LatentDiffusion, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="leave out @2"):
        key_pictures(["first=walk.safetensors@2"], 2)
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        replace(FILM, key_image=(f"2={tmp_path / 'nothing.safetensors'}",)).run(model)
