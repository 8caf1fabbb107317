"""What a prompt asks for that a model does not know: nothing is said without a cause, and nothing twice."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from segue.errors import TaskError
from segue.zoo import ModelCard, models
from segue.zoo.vocabulary import MOST, remarks, unknown, unknown_words

ROOT = Path(__file__).parents[2]
CARD = ModelCard(
    "tiny",
    "x",
    "MIT",
    Path("nowhere"),
    vocabulary=(
        *("apple", "red apple", "lion", "castle", "cup of coffee", "cherry", "wolf", "mouse", "grapes", "fish", "bus"),
        *("pine tree", "Christmas tree", "jack-o-lantern", "snow-capped mountain", "piñata", "dress", "box"),
    ),
    words={
        "colours": ("red", "green", "dark blue"),
        "grounds": ("background", "white"),
        "styles": ("line art", "flat", "3d"),
        "places": ("small", "tilted to the left", "upside down"),
    },
)


@pytest.mark.parametrize(
    "prompt",
    [
        "apple",
        "a red apple",
        "The LION, upside down!",
        "a green cup of coffee on a dark blue background",
        "line art of a small castle, 3D",
        "a (red:1.4) [lion] \\(flat\\)",
        "a snow capped mountain",
        "jack o'lantern, jack-o-lantern",
        "the wolf's castle",
        "a pinata and a piñata",
        "christmas tree tilted to the left",
        "one bus, one dress",
        "grapes",
        "",
        "...",
    ],
)
def test_nothing_is_said_of_what_is_known(prompt: str) -> None:
    assert unknown(prompt, CARD) == ()
    assert remarks([prompt], CARD, "tiny") == ()


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a violin", ("violin",)),
        ("a lion playing the violin, and a violin", ("playing", "violin")),
        ("a coffee", ("coffee",)),
        ("left", ("left",)),
        ("a dark castle", ("dark",)),
        ("un café", ("un", "cafe")),
        ("🍎", ("🍎",)),
        ("8k apple", ("8k",)),
        ("two violins", ("violins",)),
    ],
)
def test_words_that_are_not_known_come_in_order_and_once(prompt: str, words: tuple[str, ...]) -> None:
    assert unknown_words(prompt, CARD) == words
    assert {found.kind for found in unknown(prompt, CARD)} == {"word"}


@pytest.mark.parametrize(
    ("prompt", "plural", "one"),
    [
        ("two red apples", "apples", "apple"),
        ("7 green apples on a white background", "apples", "apple"),
        ("cups of coffee", "cups of coffee", "cup of coffee"),
        ("pine trees", "pine trees", "pine tree"),
        ("cherries", "cherries", "cherry"),
        ("wolves", "wolves", "wolf"),
        ("mice", "mice", "mouse"),
        ("boxes", "boxes", "box"),
        ("buses", "buses", "bus"),
        ("dresses", "dresses", "dress"),
    ],
)
def test_a_plural_is_said_with_the_thing_that_is_known(prompt: str, plural: str, one: str) -> None:
    (found,) = unknown(prompt, CARD)
    assert (found.text, found.kind, found.known) == (plural, "plural", one)
    (line,) = remarks([prompt], CARD, "tiny")
    assert f'draws one thing at a time, not "{plural}" (ask for "{one}")' in line


def test_a_count_without_a_plural() -> None:
    assert [found.kind for found in unknown("three fish", CARD)] == ["count"]
    assert 'one thing at a time, not "three";' in remarks(["three fish"], CARD, "tiny")[0]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("castel", "castle"),
        ("aple", "apple"),
        ("aples", "apple"),
        ("grape", "grapes"),
        ("pine", "pine tree"),
        ("coffee", "cup of coffee"),
        ("bakground", "background"),
        ("violin", ""),  # has much of "lion", and is none
    ],
)
def test_near_words_are_suggested(word: str, meant: str) -> None:
    (found,) = unknown(f"a {word}", CARD)
    assert (found.text, found.known) == (word, meant)
    (line,) = remarks([word], CARD, "tiny")
    assert ("did you mean" in line) == bool(meant)


def test_a_word_in_front_of_a_thing_means_no_other_thing() -> None:
    assert [found.known for found in unknown("a christmas", CARD)] == ["christmas tree"]
    assert [found.known for found in unknown("a christmas lion", CARD)] == [""]
    assert [found.known for found in unknown("a christmas cup of coffee", CARD)] == [""]
    assert [found.known for found in unknown("a gren lion", CARD)] == ["green"]


def test_one_line_for_all_prompts() -> None:
    (line,) = remarks(["a violin", "a red violin", "lions", "a lion"], CARD, "tiny")
    assert line == (
        'the model tiny does not know "violin", and draws one thing at a time, not "lions" (ask for "lion"); '
        "`segue models tiny` lists what it knows, --model takes a larger model"
    )
    words = " ".join(f"word{number}" for number in range(MOST + 3))
    (many,) = remarks([words], CARD, "tiny")
    assert f'"word{MOST - 1}" and 3 more' in many
    assert f"word{MOST}" not in many


def test_a_model_of_which_nobody_said_what_it_knows_says_nothing() -> None:
    assert unknown_words("two violins", replace(CARD, vocabulary=())) == ()
    assert unknown_words("a red apple", replace(CARD, words={})) == ()


def test_the_embedded_models_know_what_the_demo_asks_for() -> None:
    (line,) = re.findall(r"^DEMO := (.+)$", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    prompts = re.findall(r'"(.+?)"', line)
    assert len(prompts) > 2
    for card in models():
        assert remarks(prompts, card, card.name) == ()
        assert card.vocabulary or card.factor, "only what enlarges does not care what it shows"


def test_a_weight_out_of_range_is_the_error_of_prompts() -> None:
    with pytest.raises(TaskError, match="weight"):
        unknown("(apple:2000)", CARD)
