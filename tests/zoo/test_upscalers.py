# pyright: basic
"""Upscalers among the embedded models: they say by how much, and share the words of another model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_upscaler import write_upscaler

from segue.errors import CheckpointError, ModelError, ModelNotFoundError
from segue.models.time_files import save_time
from segue.models.time_inserted import TimeSettings, with_time
from segue.zoo import load, models
from segue.zoo.catalogue import catalogue

CARD = """
name = "dots-x4"
summary = "Enlarges dots."
licence = "MIT"
factor = 4
text = "dots"

[defaults]
size = [64, 64]
steps = 2
guidance_scale = 1.0
noise_level = 0
"""


@pytest.fixture
def upscaler(embedded: Path) -> Path:
    """The folder of "dots-x4", beside "dots"."""
    folder = write_upscaler(embedded.with_name("dots-x4"), vae="tiny", shared=True)
    (folder / "card.toml").write_text(CARD)
    return folder


def test_it_has_the_words_of_the_other_model_and_the_numbers_of_its_card(upscaler):
    model, other = load("dots-x4"), load("dots")
    assert model.upscaling is not None
    assert (model.upscaling.factor, model.upscaling.noise_level, model.upscaling.max_noise_level) == (4, 0, 350)
    assert (model.defaults.steps, model.defaults.guidance_scale, model.defaults.size) == (2, 1.0, (64, 64))
    assert torch.equal(model.text(["a red apple"]).text, other.text(["a red apple"]).text)
    assert model.vocabulary == () and other.vocabulary, "it enlarges what it is shown"


def test_it_is_listed_with_what_it_shares_and_nothing_against_it(upscaler):
    (card,) = (card for card in models() if card.name == "dots-x4")
    assert (card.factor, card.text, card.noise_level) == (4, "dots", 0)
    entry = catalogue().find("dots-x4")
    assert entry.facts.problem == "" and entry.family == "Stable Diffusion Upscale, text of dots"
    own = sum(path.stat().st_size for path in upscaler.rglob("*") if path.is_file())
    assert entry.facts.bytes == own, "what it shares is the other's"
    for file in (upscaler / "unet").glob("*.safetensors"):
        file.unlink()
    assert catalogue().find("dots-x4").facts.problem == "not all of it is here"


def test_it_may_be_the_base_of_one_that_looks_along_time(upscaler):
    folder = upscaler.with_name("dots-film")
    folder.mkdir()
    (folder / "card.toml").write_text(
        'name = "dots-film"\nsummary = "Enlarges films of dots."\nlicence = "MIT"\n'
        'base = "dots-x4"\ntime = "time.safetensors"\n'
    )
    settings = TimeSettings(inner=4, heads=2, head_width=4, vector=8, context=0, frames=6, shared_noise=1.0)
    save_time(folder / "time.safetensors", with_time(load("dots-x4"), settings))
    model = load("dots-film")
    assert model.upscaling == load("dots-x4").upscaling and model.moving is not None
    assert (model.moving.frames, model.moving.shared_noise, model.defaults.steps) == (6, 1.0, 2)
    (card,) = (card for card in models() if card.name == "dots-film")
    assert (card.factor, card.text, card.noise_level) == (4, "dots", 0)
    entry = catalogue().find("dots-film")
    assert entry.facts.problem == "" and entry.family.startswith("Stable Diffusion Upscale, layers along time for dots")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("factor = 4", "factor = 2", "factor = 2, and its weights have 4"),
        ("factor = 4", "factor = 0", "factor must be a whole number from 1"),
        ("factor = 4", "", "noise_level is of upscalers"),
        ("noise_level = 0", "noise_level = -1", "noise_level must be a whole number from 0"),
        ("noise_level = 0", "noise_level = true", "noise_level must be a whole number from 0"),
        ('text = "dots"', 'text = "spots"', '"spots" is no embedded model with a text encoder'),
        ('text = "dots"', 'text = "dots-x4"', '"dots-x4" is no embedded model with a text encoder'),
        ('text = "dots"', 'text = "dots"\nbase = "dots"\nlora = "x"', "has the text of its base"),
    ],
)
def test_a_card_that_does_not_hold_is_refused(upscaler, old, new, said):
    (upscaler / "card.toml").write_text(CARD.replace(old, new))
    with pytest.raises((CheckpointError, ModelNotFoundError), match=said):
        load("dots-x4")


def test_a_model_that_has_its_own_words_shares_none(upscaler, embedded):
    text = (embedded / "card.toml").read_text()
    (embedded / "card.toml").write_text(text.replace('licence = "MIT"', 'licence = "MIT"\ntext = "dots"'))
    with pytest.raises(ModelError, match="has a text encoder of its own"):
        load("dots")
