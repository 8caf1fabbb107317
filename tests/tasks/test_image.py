"""One picture from one prompt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.starts import from_seeds
from segue.errors import TaskError
from segue.tasks.image import Image
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Sampling
from segue.types import RowId
from toy import toy_model

PICTURE = Image("a boat", seed=3)


def test_it_is_the_loop_and_nothing_else() -> None:
    model = toy_model()
    clip = PICTURE.run(model)
    schedule = model.schedule(10, (16, 16))
    texts = model.text(["a boat", ""])
    state = from_seeds([3], [RowId("x")], schedule, (12, 8, 8), model.device)
    latents = collect(denoise(model.denoiser, state, schedule, classifier_free(texts[[0]], texts[[1]], 2.0)), schedule)
    assert torch.equal(clip.frames[0:1], model.codec.decode(latents))


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a house"},
        {"negative": "water"},
        {"seed": 4},
        {"sampling": Sampling(steps=4)},
        {"sampling": Sampling(guidance_scale=(5.0,))},
        {"sampling": Sampling(solver="euler_ancestral")},
        {"sampling": Sampling(size=(24, 16))},
    ],
)
def test_every_field_changes_the_picture(change: dict[str, Any]) -> None:
    model = toy_model()
    before, after = (task.run(model).frames[0:1] for task in (PICTURE, replace(PICTURE, **change)))
    assert before.shape != after.shape or not torch.equal(before, after)


def test_a_rerun_is_the_same_file(tmp_path: Path) -> None:
    model = toy_model()
    clip = replace(PICTURE, sampling=Sampling(solver="euler_ancestral")).run(model)
    first = clip.save(tmp_path / "boat.png").read_bytes()
    assert json.loads((tmp_path / "boat.json").read_text())["fields"]["sampling"]["steps"] == 10
    assert Rerun.read(tmp_path / "boat.json").run(model).save(tmp_path / "again.png").read_bytes() == first


def test_empty_prompts_and_bad_seeds_are_refused() -> None:
    with pytest.raises(TaskError, match="words that describe"):
        Image("  ")
    with pytest.raises(TaskError, match="seed"):
        Image("a", seed=-1)
