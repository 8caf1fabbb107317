# pyright: basic
"""`segue.load`: names, cards and defaults."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny import write_model

import segue.zoo.cards
from segue.errors import CheckpointError, ModelNotFoundError, TaskError
from segue.zoo import load, models
from segue.zoo.load import VARIABLE

CARD = """
name = "dots"
summary = "Dots, for tests."
licence = "Apache-2.0"
vocabulary = ["red apple", "cat"]

[defaults]
size = [64, 32]
steps = 9
guidance_scale = 3.5
solver = "dpmpp_2m"
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("zoo") / "dots", prediction="v_prediction", length=24, vae="tiny")


@pytest.fixture
def embedded(written, tmp_path, monkeypatch) -> Path:
    """A zoo with one model in it."""
    monkeypatch.setattr(segue.zoo.cards, "WEIGHTS", tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = Path(shutil.copytree(written, tmp_path / "dots"))
    (folder / "card.toml").write_text(CARD)
    return folder


def test_a_card_says_what_a_model_is(embedded):
    (card,) = models()
    assert (card.name, card.folder, card.licence) == ("dots", embedded, "Apache-2.0")
    assert card.vocabulary == ("red apple", "cat")


def test_a_model_by_name_has_the_defaults_of_its_card(embedded):
    model = load("dots", device="cpu")
    assert model.name == "dots"
    said = model.defaults
    assert (said.size, said.steps, said.guidance_scale, said.solver) == ((64, 32), 9, 3.5, "dpmpp_2m")
    assert len(model.schedule(9, (64, 32))) == 9


def test_a_card_may_leave_things_to_the_model(embedded):
    (embedded / "card.toml").write_text('name = "dots"\nsummary = "x"\nlicence = "MIT"\n[defaults]\nsteps = 4\n')
    said = load("dots").defaults
    assert (said.size, said.steps, said.guidance_scale, said.solver) == ((64, 64), 4, 7.5, "ddim")


def test_a_folder_with_a_card_is_known_by_its_path(embedded, tmp_path):
    assert load(str(embedded)).defaults.steps == 9
    (embedded / "card.toml").unlink()
    assert load(embedded).defaults.steps == 30


def test_the_environment_names_the_default(embedded, written, monkeypatch):
    with pytest.raises(ModelNotFoundError, match=f'no embedded model "emoji".*there are: dots.*{VARIABLE} sets'):
        load()
    monkeypatch.setenv(VARIABLE, str(written))
    assert load().name == str(written)
    assert load("dots").name == "dots"


def test_unknown_names_list_the_known_ones(embedded):
    with pytest.raises(ModelNotFoundError, match=r'no embedded model "dogs" \(there are: dots\)'):
        load("dogs")


@pytest.mark.parametrize(
    "text",
    [
        "name = ",
        'name = "x"',
        CARD + "colour = 3\n",
        CARD.replace("[64, 32]", "64"),
        CARD.replace("steps = 9", "stps = 9"),
    ],
)
def test_a_broken_card_is_an_error_that_names_it(embedded, text):
    (embedded / "card.toml").write_text(text)
    with pytest.raises(CheckpointError, match=r"card\.toml is no model card"):
        models()


def test_a_solver_that_does_not_exist_is_found_out(embedded):
    (embedded / "card.toml").write_text(CARD.replace("dpmpp_2m", "magic"))
    with pytest.raises(Exception, match="solver must be one of"):
        load("dots").schedule(4, (64, 64))


def test_bounds_on_batches(embedded):
    model = load("dots").batched(3, deterministic=True)
    assert (model.denoiser.max_batch, model.denoiser.deterministic_batch) == (3, True)
    with pytest.raises(TaskError, match="max_batch must be at least 1"):
        model.batched(0)
