# pyright: basic
"""What an image model hears of a caption, and what its layers along time do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write_model
from tiny_xl import write_xl

from segue.errors import ModelError
from segue.models.loading import load_model
from segue.models.time_files import read_settings, save_time, with_time_file
from segue.models.time_inserted import TimeSettings, time_layers, with_time
from segue.models.time_words import WORDS, heard_of
from segue.training.moving_words import EVALUATION_CAPTIONS, motion_phrases

HEARD = (*((words, "") for words in motion_phrases()), ("ball", "basketball"), ("soccer ball", "soccer ball"))
SETTINGS = TimeSettings(inner=8, heads=2, head_width=4, vector=16, context=0, frames=2, heard=HEARD)


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("a red apple", "a red apple"),
        ("a bouncing ant, 3d", "an ant, 3d"),
        ("An rising orange car", "An orange car"),
        ("a rising green car on a white background", "a green car on a white background"),
        ("a blue car slides to the right slowly, mirrored", "a blue car, mirrored"),
        ("emoji of the Bouncing Ball", "emoji of the basketball"),
        ("a soccer ball bouncing up and down", "a soccer ball"),
        ("a (ball:1.3) falls", "a (basketball:1.3)"),
        ("a snowball, a breakfast", "a snowball, a breakfast"),
        ("a bouncing", ""),
        ("", ""),
    ],
)
def test_words_that_it_does_not_know_are_left_out_or_replaced(said: str, heard: str) -> None:
    assert heard_of(said, HEARD) == heard
    assert heard_of(said, ()) == said


def test_no_word_of_a_movement_is_left_of_any_caption() -> None:
    words = {word for phrase in motion_phrases() for word in phrase.split()} - {
        "to",
        "the",
        "and",
        "side",
        "is",
        "from",
    }
    for caption, _ in EVALUATION_CAPTIONS:
        assert not words & set(heard_of(caption, HEARD).split()), caption


def test_each_is_told_its_own(tmp_path: Path) -> None:
    image = load_model(write_model(tmp_path / "model"), device="cpu")
    moving = with_time(image, SETTINGS)
    told = moving.text(["a bouncing red apple", "a cat"])
    assert torch.equal(told.text, image.text(["a red apple", "a cat"]).text)
    assert torch.equal(told.extra[WORDS], image.text(["a bouncing red apple", "a cat"]).text)
    layers = time_layers(moving)
    generator = torch.Generator().manual_seed(0)
    for parameter in layers.parameters():
        torch.nn.init.normal_(parameter.requires_grad_(False), std=0.2, generator=generator)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    now, _ = image.schedule(5, (64, 64)).step(torch.zeros(2, dtype=torch.int64))

    def drawn(caption: str, frames: int) -> torch.Tensor:
        return moving.over(frames).denoiser(x, now, moving.text([caption] * 2))

    assert not torch.allclose(drawn("a bouncing cat", 2), drawn("a cat falls", 2), atol=1e-4)
    assert torch.equal(drawn("a bouncing cat", 1), image.denoiser(x, now, image.text(["a cat"] * 2)))


def test_the_file_remembers_it(tmp_path: Path) -> None:
    image = load_model(write_model(tmp_path / "model"), device="cpu")
    save_time(tmp_path / "motion.safetensors", with_time(image, SETTINGS))
    assert read_settings(tmp_path / "motion.safetensors") == SETTINGS
    moving = with_time_file(image, tmp_path / "motion.safetensors")
    assert torch.equal(moving.text(["a falling cat"]).text, image.text(["a cat"]).text)
    save_time(tmp_path / "all.safetensors", with_time(image, replace(SETTINGS, heard=())))
    assert WORDS not in with_time_file(image, tmp_path / "all.safetensors").text(["a falling cat"]).extra


def test_tokens_are_told_beside_what_the_encoder_makes_of_them(tmp_path: Path) -> None:
    """Both scaled alike; the file remembers it, and the layers are as wide."""
    image = load_model(write_model(tmp_path / "model"), device="cpu")
    settings = replace(SETTINGS, tokens=True, context=4, moves=(16, 16))
    moving = with_time(image, settings)
    width = image.text(["a"]).text.shape[-1]
    captions = ["a falling cat", "a rising cat"]
    said = moving.text(captions).extra[WORDS]
    assert said.shape[-1] == 2 * width
    assert torch.allclose(said.square().mean(-1), torch.ones(said.shape[:2]), atol=1e-4)
    made = image.text(captions).text
    assert torch.allclose(said[..., :width], made / made.square().mean(-1, keepdim=True).sqrt(), atol=1e-5)
    text: Any = image.text
    longest = max(len(text.tokenizer(word, add_special_tokens=False).input_ids) for word in ("falling", "rising"))
    others = (said[0] != said[1])[:, width:].any(-1)
    assert 0 < int(others.sum()) <= longest + 2, "one word, and what it pushes aside"
    save_time(tmp_path / "motion.safetensors", moving)
    assert read_settings(tmp_path / "motion.safetensors") == settings
    again = with_time_file(image, tmp_path / "motion.safetensors")
    assert torch.equal(again.text(captions).extra[WORDS], said)


def test_an_encoder_without_tokens_is_refused(tmp_path: Path) -> None:
    image = load_model(write_model(tmp_path / "model"), device="cpu")
    with pytest.raises(ModelError, match="has no tokens to tell: expected those of CLIP"):
        with_time(replace(image, text=lambda prompts: image.text(prompts)), replace(SETTINGS, tokens=True))


def test_two_encoders_tell_the_tokens_of_both(tmp_path: Path) -> None:
    image = load_model(write_xl(tmp_path / "xl"), device="cpu")
    text: Any = image.text
    tokens, made = text.tokens(["a falling cat", "a cat"]), image.text(["a falling cat", "a cat"]).text
    assert tokens.shape == made.shape
    first = text.first.tokens(["a falling cat", "a cat"])
    assert torch.equal(tokens[..., : first.shape[-1]], first)
    assert with_time(image, replace(SETTINGS, tokens=True)).text(["a cat"]).extra[WORDS].shape[-1] == 2 * made.shape[-1]
