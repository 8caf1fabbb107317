# pyright: basic
"""What models are used with: by name, by what their scheduler says, and never by what a file is called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ldm_layout import to_ldm
from tiny_xl import write_xl

from segue.diffusion.solvers import find_solver
from segue.errors import ModelError
from segue.models.families import FAMILIES
from segue.models.loading import load_model
from segue.models.profiles import chosen_by, find_profile, profiles
from segue.tasks.record import ModelRecord
from segue.zoo.load import load

TURBO = {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}


def with_scheduler(folder: Path, place: Path, changes: dict[str, Any]) -> Path:
    copy = Path(shutil.copytree(folder, place))
    path = copy / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return copy


def test_every_profile_can_be_used():
    modules = {family.module for family in FAMILIES}
    for name, profile in profiles().items():
        assert profile.name == name and profile.about
        assert set(profile.families) <= modules
        assert profile.steps >= 1 and profile.guidance_scale >= 1
        assert profile.solver is None or find_solver(profile.solver).name == profile.solver
    assert find_profile("turbo").size == (512, 512)


@pytest.mark.parametrize(
    ("scheduler", "name"),
    [
        (TURBO, "turbo"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}, "turbo"),
        ({"_class_name": "LCMScheduler"}, "lcm"),
        ({"_class_name": "LCMScheduler", "timestep_spacing": "leading", "prediction_type": "epsilon"}, "lcm"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}, None),
        ({"_class_name": "EulerAncestralDiscreteScheduler"}, None),
        ({**TURBO, "prediction_type": "v_prediction"}, None),
        ({**TURBO, "rescale_betas_zero_snr": True}, None),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "timestep_spacing": "trailing"}, None),
        ({"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}, None),
    ],
)
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_what_a_scheduler_says(scheduler, name, family):
    found = chosen_by(family, scheduler)
    assert (found.name if found else None) == name
    assert chosen_by("flux", scheduler) is None


def test_a_turbo_checkpoint_is_used_as_one(tmp_path):
    plain = write_xl(tmp_path / "xl")
    turbo = with_scheduler(plain, tmp_path / "model", TURBO)
    base, model = load_model(plain), load_model(turbo)
    assert (base.profile, base.defaults.steps, base.defaults.guidance_scale, base.defaults.solver) == (
        None,
        30,
        5.0,
        "euler",
    )
    assert (model.profile, model.defaults.steps, model.defaults.guidance_scale, model.defaults.solver) == (
        "turbo",
        4,
        1.0,
        "euler",
    )
    assert model.defaults.size == (64, 64)  # as its own files state it
    assert model.schedule(4, (64, 64)).now.time.tolist() == [999, 749, 499, 249]
    usual = load_model(turbo, profile="sdxl")
    assert (usual.profile, usual.defaults.steps, usual.defaults.solver) == ("sdxl", 30, "euler_ancestral")


def test_the_name_of_a_file_says_nothing(tmp_path):
    folder = write_xl(tmp_path / "sdxl-turbo-lcm-lightning-4step")
    assert load_model(folder).profile is None


@pytest.mark.parametrize("name", ["turbo", "lcm", "lightning", "hyper"])
def test_a_profile_that_is_named_is_taken_and_recorded(name, folder, model):
    got = load(folder, profile=name)
    profile = find_profile(name)
    assert (got.defaults.steps, got.defaults.guidance_scale) == (profile.steps, profile.guidance_scale)
    assert got.defaults.solver == profile.solver
    assert {**got.scheduler, **profile.scheduler} == got.scheduler
    assert got.fingerprint != model.fingerprint
    assert ModelRecord.of(got).profile == name
    assert load(folder, profile=ModelRecord.of(got).profile).fingerprint == got.fingerprint
    assert len(got.schedule(4, (64, 64))) == 4


def test_a_single_file_takes_what_it_does_not_state_from_its_profile(folder, tmp_path, monkeypatch):
    single = to_ldm(folder, tmp_path / "model.safetensors")
    told = load_model(single, config=folder, profile="turbo")
    assert told.defaults.size == (64, 64) and told.prediction is None
    monkeypatch.setattr("segue.models.single_file.find_config", lambda *_: folder)
    monkeypatch.setattr("segue.models.single_file.clip_tokenizer", lambda _: model_tokenizer(folder))
    guessed = load_model(single, profile="turbo")
    assert guessed.defaults.size == (512, 512)
    assert guessed.prediction == "epsilon"
    assert load_model(single, profile="turbo", prediction="v_prediction").prediction == "v_prediction"


def model_tokenizer(folder: Path) -> Any:
    return load_model(folder).text.tokenizer  # pyright: ignore


def test_profiles_that_there_are_not_or_that_do_not_suit_are_refused(folder, short_folder):
    names = ", ".join(profiles())
    with pytest.raises(ModelError, match=rf"profile must be one of {names}; got 'fast'"):
        load_model(folder, profile="fast")
    with pytest.raises(ModelError, match=r"profile 'sdxl' is for Stable Diffusion XL, and .*expected one of sd, turbo"):
        load_model(folder, profile="sdxl")
    with pytest.raises(ModelError, match=r"profile 'lcm' is for LCM-LoRA.*emoji is no such model; expected one of sd$"):
        load("emoji", profile="lcm")
    assert load("emoji", profile="sd").defaults.guidance_scale == 7.5
    assert load("emoji").defaults.guidance_scale == 3.0
