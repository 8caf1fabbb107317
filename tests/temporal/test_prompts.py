"""Prompts that follow each other in time: what is said when, and what is part of a prompt."""

from __future__ import annotations

import pytest

from segue.errors import TaskError
from segue.temporal.clock import Clock
from segue.temporal.prompts import Prompts

CLOCK = Clock(8.0)


def test_one_prompt_is_said_all_the_time() -> None:
    prompts = Prompts.of("a red apple, 3d, at 2s: or so")
    assert prompts.at_first == ("a red apple, 3d, at 2s: or so",) and prompts.is_level and len(prompts) == 1
    assert prompts.at(0, CLOCK) == prompts.at(99, CLOCK) == (("a red apple, 3d, at 2s: or so", 1.0),)
    assert prompts.last(CLOCK) == 0 and Prompts.of("").at(1, CLOCK) == (("", 1.0),)


def test_several_are_said_each_at_its_time_and_mixed_between() -> None:
    prompts = Prompts.of("0s: a red apple, on a table, 2s: a green apple,32f:a (ripe) pear")
    assert prompts.at_first == ("a red apple, on a table", "a green apple", "a (ripe) pear")
    assert not prompts.is_level and prompts.last(CLOCK) == 4.0
    red, green, pear = prompts.at_first
    assert prompts.at(0, CLOCK) == ((red, 1.0),)
    assert prompts.at(0.5, CLOCK) == ((red, 0.75), (green, 0.25))
    assert prompts.at(2, CLOCK) == ((green, 1.0),)
    assert prompts.at(3, CLOCK) == ((green, 0.5), (pear, 0.5))
    assert prompts.at(4, CLOCK) == prompts.at(9, CLOCK) == ((pear, 1.0),)
    assert Prompts.of("1s: a, 2s: b").at(0.5, CLOCK) == (("a", 1.0),)


def test_forms_are_those_of_curves() -> None:
    assert Prompts.of("step 0s: a, 2s: b").at(1.9, CLOCK) == (("a", 1.0),)
    assert Prompts.of("smooth 0s: a, 2s: b").at(0.5, CLOCK) == (("a", 1 - 0.15625), ("b", 0.15625))
    assert Prompts.of("smooth stones").at_first == ("smooth stones",)


def test_the_weight_of_words_may_change_within_a_prompt() -> None:
    prompts = Prompts.of("0s: a (red:0s:1, 2s:2) ball, 4s: a cube")
    assert prompts.at_first == ("a (red:1.000000) ball", "a cube")
    assert prompts.at(1, CLOCK)[0] == ("a (red:1.500000) ball", 0.75)
    assert not Prompts.of("a (red:0s:1, 2s:2) ball").is_level and Prompts.of("a (red:0s:1, 2s:1) ball").is_level


def test_each_prompt_may_be_said_in_other_words() -> None:
    prompts = Prompts.of("0s: a bouncing ball, 1s: a bouncing cube", lambda text: text.replace("bouncing ", ""))
    assert prompts.at_first == ("a ball", "a cube")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("0: a ball, 2: a cube", "write 0s: for seconds, 0f: for frames"),
        ("2s: a ball, 1s: a cube", "times of a curve must increase"),
        ("0s: a ball, 1s: , 2s: a cube", "no prompt at 1s"),
        ("0s:", "no prompt at 0s"),
        ("0.5f: a ball", "a frame is a whole number"),
        ("0s: a (ball:1s:1, 0s:2), 2s: b", "times of a curve must increase"),
    ],
)
def test_what_is_no_prompt_is_refused(text: str, match: str) -> None:
    with pytest.raises(TaskError, match=match):
        Prompts.of(text)


def test_beats_need_a_sound() -> None:
    with pytest.raises(TaskError, match="no sound with beats"):
        Prompts.of("0b: a, 4b: b").at(0, CLOCK)
