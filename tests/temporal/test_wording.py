"""Weights of words that change over a film: how they are written, and what is left alone."""

from __future__ import annotations

import pytest

from segue.errors import TaskError
from segue.models.text import parse_weights
from segue.temporal.wording import Wording


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a red apple",
        "a (red:1.3) apple",
        "((red)) [apple]",
        "at 5s:1 sharp",
        "a clock \\(0s:1\\)",
        "(16:9)",
        "(a: b)",
    ],
)
def test_prompts_without_curves_stay_as_they_are(prompt: str) -> None:
    wording = Wording.of(prompt)
    assert wording.curves == ()
    assert wording.said([]) == wording.at_first == prompt


def test_a_curve_stands_in_place_of_a_number() -> None:
    wording = Wording.of("a (red:0s:1, 2s:1.4) apple")
    assert [str(curve) for curve in wording.curves] == ["0s:1, 2s:1.4"]
    assert parse_weights(wording.said([1.25])) == [("a ", 1.0), ("red", 1.25), (" apple", 1.0)]
    assert parse_weights(wording.at_first) == [("a red apple", 1.0)]


def test_several_nested_and_in_every_form_and_unit() -> None:
    wording = Wording.of("(a (red: smooth 0f:1, 24f:2) apple:step 0b:.5,4b:1) on (grass:1.2)")
    assert [str(curve) for curve in wording.curves] == ["smooth 0f:1, 24f:2", "step 0b:0.5, 4b:1"]
    said = dict(parse_weights(wording.said([2, 0.5])))
    assert said["red"] == 1.0 and said["grass"] == 1.2 and said[" apple"] == 0.5


def test_as_many_numbers_as_curves() -> None:
    with pytest.raises(ValueError, match="expected 1 weights, got 0"):
        Wording.of("(red:0s:1, 2s:1.4)").said([])


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("(red:2s:1, 1s:2)", "in the prompt .* the times of a curve must increase"),
        ("(red:0s:1, 1s:2000)", "between -1000 and 1000 at all times"),
        ("(red:0.5f:1, 2f:2)", "a frame is a whole number"),
    ],
)
def test_curves_that_are_none_are_refused(prompt: str, expected: str) -> None:
    with pytest.raises(TaskError, match=expected):
        Wording.of(prompt)
