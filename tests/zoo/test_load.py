# pyright: basic
"""`segue.load`: names, cards and defaults."""

from __future__ import annotations

import pytest

import segue.zoo.cards
from dots import CARD
from segue.diffusion.solvers import SOLVERS
from segue.errors import CheckpointError, ModelNotFoundError, TaskError
from segue.zoo import load, models
from segue.zoo.load import VARIABLE


def test_a_card_says_what_a_model_is(embedded):
    (card,) = models()
    assert (card.name, card.folder, card.licence) == ("dots", embedded, "MIT")
    assert card.vocabulary == ("red apple", "cat", "tree-ripened pear of the garden")


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
    ("old", "new", "said"),
    [
        (CARD, "name = ", "Invalid value"),
        (CARD, 'name = "dots"', "summary and licence must be given"),
        (CARD, 'name = "dots"\nsummary = "x"', "licence must be given"),
        (CARD, CARD.partition("[words]")[0] + "defaults = 3", r"\[defaults\] must be a table, got 3"),
        ('"Draws dots', '" " # "Draws dots', "summary must be words in quotes"),
        ("steps = 9", "stps = 9", "there is no field stps"),
        ("steps = 9", "colour = 3", "there is no field colour"),
        ("steps = 9", "steps = -3", "steps must be a whole number from 1, got -3"),
        ("steps = 9", "steps = true", "steps must be a whole number from 1, got True"),
        ("concepts = 2", "concepts = 1.5", r"concepts must be a whole number from 1, got 1\.5"),
        ("[64, 32]", "64", "size must be width and height, whole numbers from 1, got 64"),
        ("[64, 32]", "[64, 32, 3]", "size must be width and height"),
        ("[64, 32]", "[64.7, 32]", "size must be width and height"),
        ("[64, 32]", "[0, -5]", "size must be width and height"),
        ("3.5", "nan", "guidance_scale must be a number from 0 to 1000, got nan"),
        ("3.5", "-1", "guidance_scale must be a number from 0 to 1000, got -1"),
        ("dpmpp_2m", "magic", "solver must be one of ddim, euler, .*, got 'magic'"),
        ('vocabulary = ["red', 'vocabulary = "cat"  # ', "vocabulary must be a list of words, got 'cat'"),
        ('"cat"', '"cat", 3', "vocabulary must be a list of words"),
        ('[words]\ncolours = ["red", "green"]', "words = 3", "words must be a table of lists of words, got 3"),
        ('["red", "green"]', '"red"', "words must be a table of lists of words"),
    ],
)
def test_a_broken_card_is_an_error_that_names_it(embedded, old, new, said):
    assert old in CARD
    (embedded / "card.toml").write_text(CARD.replace(old, new))
    with pytest.raises(CheckpointError, match=rf"card\.toml is no model card \(.*{said}.*\)"):
        models()


def test_a_card_may_name_any_solver_that_there_is():
    assert tuple(SOLVERS) == segue.zoo.cards.SOLVERS


def test_bounds_on_batches(embedded):
    model = load("dots").batched(3, deterministic=True)
    assert (model.denoiser.max_batch, model.denoiser.deterministic_batch) == (3, True)
    with pytest.raises(TaskError, match="max_batch must be at least 1"):
        model.batched(0)
