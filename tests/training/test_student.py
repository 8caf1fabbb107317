"""A student is right when its one step lands where its guided teacher's many do; it learns that, and can be cut."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import write_model
from torch import Tensor

from segue.diffusion.noise import NamedNoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import ddim
from segue.errors import TrainingError
from segue.training.journal import Journal
from segue.training.ranks import Ranks
from segue.training.recipes import student
from segue.training.recipes.student import Config, Phases, lesson_from, step_loss, x0_between
from segue.training.recipes.t2i import SCHEDULER
from segue.types import Condition, Guided, Point
from segue.zoo import load
from toy import GaussianDenoiser, text_of

STEPS, GUIDANCE = 4, 3.0
TAUGHT = Config(guidance=GUIDANCE, guidance_start=0.0)
ONE = Ranks(0, 1, torch.device("cpu"))
CAPTIONS = [["apple", "red apple"], ["cat"], ["a cat", "red cat"]]


def phases(few: int, many: int) -> Phases:
    return Phases(*(Schedule.from_config(SCHEDULER, steps) for steps in (few, many)))


@dataclass(frozen=True)
class Told:
    """The exact denoiser of pixels around the number that its text says: guidance moves that number."""

    group: int = 1

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        if isinstance(cond, Guided):
            return sum(
                (
                    w.float()[:, None, None, None] * self(x, at, term)
                    for term, w in zip(cond.terms, cond.weights_at(at), strict=True)
                ),
                torch.zeros_like(x),
            )
        means = cond.text.flatten(1).mean(1).tolist()
        rows = [GaussianDenoiser(mean)(x[[i]], at[[i]], cond[[i]]) for i, mean in enumerate(means)]
        return torch.cat(rows)


@dataclass(frozen=True)
class Exact:
    """Steps as the probability-flow ODE of `Told` runs with guidance, in closed form."""

    schedule: Schedule
    blank: float
    guidance: float = GUIDANCE
    group: int = 1

    def __call__(self, x: Tensor, at: Point, cond: Any) -> Tensor:
        now, then = self.schedule.step(at.index)
        landed: list[Tensor] = []
        for i, told in enumerate(cond.text.flatten(1).mean(1).tolist()):
            mean = (1 - self.guidance) * self.blank + self.guidance * told
            ends = [(float(level.alpha[i]), float(level.sigma[i])) for level in (now, then)]
            landed.append(GaussianDenoiser(mean).solution(x[[i]], ends[0], ends[1]))
        return x0_between(x, torch.cat(landed), now, then)


def loss_of(pupil: Any, both: Phases) -> float:
    noise = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    cond, blank = text_of(0.5, -0.2), text_of(0.1)
    lesson = lesson_from(Told(), pupil, both, noise, cond, blank, TAUGHT)
    return float(step_loss(pupil, lesson))


def test_the_jump_of_the_guided_flow_is_the_fixed_point() -> None:
    """The more steps its teacher takes, the less is left to learn for a student that follows the flow exactly."""
    coarse, fine = (loss_of(Exact(both.student, 0.1), both) for both in (phases(4, 40), phases(4, 200)))
    assert fine < 1e-3 and coarse > 3 * fine


def test_other_students_are_not_fixed_points() -> None:
    both = phases(4, 200)
    assert loss_of(Told(), both) > 0.1, "the teacher itself, without guidance and with large steps"
    assert loss_of(Exact(both.student, 0.1, guidance=1.0), both) > 0.1, "right steps, guidance forgotten"


def test_the_teacher_has_no_guidance_before_it_sets_in() -> None:
    """Of four steps the first is unguided, and the others are not."""
    both, noise, cond, blank = phases(4, 40), torch.randn(2, 1, 4, 4), text_of(0.5, -0.2), text_of(0.1)
    settings = (TAUGHT, replace(TAUGHT, guidance_start=0.25), replace(TAUGHT, guidance=1.0))
    always, late, never = (lesson_from(Told(), Told(), both, noise, cond, blank, each).wanted for each in settings)
    assert late[:2].equal(never[:2])
    assert late[2:].equal(always[2:])
    assert not always[:2].allclose(never[:2])


def test_states_are_the_students_own() -> None:
    both, noise, cond = phases(4, 12), torch.randn(2, 1, 4, 4), text_of(0.5, -0.2)
    lesson = lesson_from(Told(), Told(), both, noise, cond, text_of(0.1), TAUGHT)
    x = noise
    for i in range(4):
        now, then = both.student.step(torch.tensor([i, i]))
        assert lesson.x[2 * i : 2 * i + 2].equal(x)
        assert lesson.at.time[2 * i : 2 * i + 2].equal(now.time)
        x, _ = ddim(x, Told()(x, now, cond), now, then, (), NamedNoise())


def test_x0_between_leads_where_it_was_asked_to() -> None:
    x, landed = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    now, then = phases(4, 12).student.step(torch.tensor([0, 2, 3]))
    found, _ = ddim(x, x0_between(x, landed, now, then), now, then, (), NamedNoise())
    assert found.allclose(landed, atol=1e-4)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("teacher"), prediction="v_prediction", length=24, vae="tiny")
    settings = folder / "scheduler" / "scheduler_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text("utf-8")), "timestep_spacing": "trailing"}))
    return folder


@pytest.fixture(scope="module")
def config(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    corpus = tmp_path_factory.mktemp("corpus")
    lines = [json.dumps({"weight": 1, "captions": captions}) for captions in CAPTIONS]
    (corpus / "manifest.jsonl").write_text("\n".join(lines), "utf-8")
    np.save(corpus / "pictures.npy", np.zeros((len(lines), 8, 8, 3), np.uint8))
    digest = hashlib.sha256((corpus / "pictures.npy").read_bytes()).hexdigest()
    (corpus / "sources.json").write_text(json.dumps({"pictures_sha256": digest}), "utf-8")
    return Config(
        teacher=str(teacher),
        corpus=corpus,
        out=tmp_path_factory.mktemp("student"),
        rank=4,
        steps=STEPS,
        batch=2,
        warmup=1,
        decay=2,
        sheet_prompts=("a red apple", "a cat", "apple"),
        teacher_steps=8,
        sheet_steps=8,
        log_every=1,
        save_every=2,
        sheet_every=STEPS,
    )


@pytest.fixture(scope="module")
def lora(config: Config) -> Path:
    return student.main(config)


def test_training_brings_few_steps_nearer_to_many(config: Config, tmp_path: Path) -> None:
    longer = dataclasses.replace(
        config, out=tmp_path, steps=24, sheet_every=24, save_every=24, decay=10, ema=0.9, bf16=False
    )
    student.main(longer)
    taught = json.loads((tmp_path / "log.jsonl").read_text("utf-8").splitlines()[-1])["gap"]
    plain = student.read_teacher(longer, ONE)
    aim, few = (student.drawn(plain, longer, steps, scale) for steps, scale in ((8, GUIDANCE), (4, 1.0)))
    assert taught < 0.75 * float((few - aim).square().mean().sqrt())


class CutError(Exception):
    """Stands for the kill that comes at the worst moment."""


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(
    config: Config, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Journal.step

    def until(self: Journal, now: int, **values: float) -> None:
        plain(self, now, **values)
        if now == STEPS - 1:
            raise CutError

    again = dataclasses.replace(config, out=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "step", until)
        with pytest.raises(CutError):
            student.main(again)
    found = student.main(again)
    for one, other in ((lora, found), *((c.out / "checkpoint.safetensors" for c in (config, again)),)):
        expected, resumed = load_file(one), load_file(other)
        assert expected.keys() == resumed.keys()
        assert [key for key in expected if not expected[key].equal(resumed[key])] == []


def test_the_file_is_there_whatever_was_cut_or_deleted(config: Config, lora: Path, tmp_path: Path) -> None:
    """It is made of the checkpoint, whether or not steps are left."""
    shutil.copy(config.out / "checkpoint.safetensors", tmp_path)
    for steps in (STEPS, 1):
        again = student.main(dataclasses.replace(config, out=tmp_path, steps=steps))
        assert again.read_bytes() == lora.read_bytes()
        again.unlink()


def test_the_file_changes_the_unet_and_nothing_else(config: Config, lora: Path) -> None:
    before, after = load(config.teacher, "cpu"), load(config.teacher, "cpu", loras={lora: 1.0})
    for part in ("text_encoder", "vae"):
        ours, theirs = after.parts[part].state_dict(), before.parts[part].state_dict()
        assert [key for key in theirs if not theirs[key].equal(ours[key])] == []
    layers = {key.rsplit(".lora_", 1)[0].removeprefix("unet.") for key in load_file(lora)}
    for name in layers:
        weights: list[Any] = [model.parts["unet"].get_submodule(name) for model in (before, after)]
        assert not weights[0].weight.equal(weights[1].weight), name
    assert {value.dtype for value in load_file(lora).values()} == {torch.float16}
    assert (config.out / f"sheet-{STEPS:06d}.png").exists()


def test_levels_that_the_teacher_does_not_visit_are_refused(config: Config) -> None:
    model = student.read_teacher(config, ONE)
    for steps in (10, 2):
        with pytest.raises(TrainingError, match="teacher_steps=12"):
            student.phases_of(model, dataclasses.replace(config, teacher_steps=steps))
    leading = dataclasses.replace(model, scheduler={**model.scheduler, "timestep_spacing": "leading"})
    with pytest.raises(TrainingError, match="trailing"):
        student.phases_of(leading, config)
