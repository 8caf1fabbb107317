"""A number that changes over the film: read, printed back, stored, and evaluated."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from cyclopts import App
from pydantic import TypeAdapter, ValidationError

from segue.errors import TaskError
from segue.temporal.clock import Clock
from segue.temporal.curve import Curve, Knot, Value, is_curve, value_of

FILM = Clock(fps=24, beats=(0.5, 1.0, 1.6, 2.0))


@dataclass(frozen=True)
class Asked:
    """A task in small.

    Args:
        guidance: in [0, 20].
        scales: one per key.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    guidance: Value = 3.0
    scales: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "guidance", value_of(self.guidance, "guidance", 0, 20))
        object.__setattr__(self, "scales", tuple(value_of(scale, "scales") for scale in self.scales))


@pytest.mark.parametrize("text", ["3", "0.25", "-1e-07", "0s:3, 2s:5, 96f:3", "smooth 0b:0.4, 8b:0.8", "step 2.5s:1"])
def test_what_is_printed_reads_as_the_same(text: str) -> None:
    assert str(Curve.of(text)) == text
    assert Curve.of(str(Curve.of(text))) == Curve.of(text)


def test_spellings_of_one_curve_are_stored_as_one() -> None:
    for text in ("0s:3,2s:5", " 0s: 3 ,2.0s:5.0 ", "linear 0s:3, 2s:5"):
        assert str(Curve.of(text)) == "0s:3, 2s:5"
    assert Curve.of("3.0") == Curve.of(3) == Curve.of("0s:3")
    assert Curve.of(Curve.of(3)) == Curve.of(3)


def test_lines_steps_and_smooth_ways_meet_every_knot() -> None:
    for form in ("linear", "step", "smooth"):
        track = Curve.of(f"{form} 1s:3, 48f:5, 4s:-1").on(FILM)
        assert [track.at(time) for time in (0, 1, 2, 4, 99)] == [3, 3, 5, -1, -1]
    assert Curve.of("1s:3, 2s:5").on(FILM).at(1.25) == 3.5
    assert Curve.of("step 1s:3, 2s:5").on(FILM).at(1.999) == 3
    smooth = Curve.of("smooth 0s:0, 1s:1, 2s:0").on(FILM)
    assert smooth.at(0.5) == 0.5
    values = [smooth.at(time / 1000) for time in range(2001)]
    jumps = [abs((c - b) - (b - a)) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    # Level at the knots and no corner anywhere: a line would have one of 2e-3 at 1 s.
    assert max(jumps) < 1e-5


@pytest.mark.parametrize("form", ["linear", "step", "smooth"])
def test_a_curve_stays_between_its_lowest_and_highest_knot(form: str) -> None:
    curve = Curve.of(f"{form} 0s:2, 1s:7, 1.1s:-3, 5s:0")
    values = [curve.on(FILM).at(time / 50) for time in range(300)]
    assert (curve.low, curve.high) == (-3, 7)
    assert -3 <= min(values) <= max(values) <= 7


def test_times_may_be_frames_and_beats() -> None:
    track = Curve.of("12f:0, 2.5b:1").on(FILM)
    assert track.times == pytest.approx((0.5, 1.8))
    assert Curve.of("0b:0, 24f:1, 1.5s:2, 2b:3").on(FILM).times == pytest.approx((0.5, 1.0, 1.5, 1.6))


def test_a_constant_needs_no_clock_of_its_own() -> None:
    assert Curve.of(2).is_constant and Curve.of("0s:2, 5s:2").is_constant
    assert not Curve.of("0s:2, 5s:3").is_constant
    assert Curve.of(2).on(Clock(1)).at(123) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a number, or times and values such as"),
        ("0s:3,", "got ''"),
        ("three", "got 'three'"),
        ("0s:3 2s:5", "expected a number"),
        ("0m:3, 2m:5", "unknown unit 'm' in '0m:3': write 0s for seconds"),
        ("0:3, 2:5", "a time without a unit in '0:3'"),
        ("wobbly 0s:3, 2s:5", "expected a number"),
        ("0s:3, 2s:5, 1s:4", "must increase: 1s:4 comes after 2s:5"),
        ("0s:3, 0s:5", "must increase"),
        ("-1s:3", "a time must be 0 or more, got -1s"),
        ("1.5f:3", "a frame is a whole number, got 1.5f"),
        ("0s:nan", "must be a finite number"),
        ("inf", "must be a finite number"),
    ],
)
def test_what_is_no_curve_is_told(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Curve.of(text)


def test_times_that_only_a_film_can_judge() -> None:
    with pytest.raises(TaskError, match=r"24f:5 is 1.000 s into the film, and stands after 2s:3"):
        Curve.of("2s:3, 24f:5").on(FILM)
    with pytest.raises(TaskError, match="0b is a beat, but the film has no sound with beats"):
        Curve.of("0b:3, 8b:5").on(Clock(24))
    with pytest.raises(TaskError, match="8b lies after the last beat of the sound, which is 3b"):
        Curve.of("0b:3, 8b:5").on(FILM)


def test_a_curve_without_knots() -> None:
    with pytest.raises(TaskError, match="one or more times"):
        Curve(())
    assert Curve((Knot(0, "s", 1.0), Knot(2, "s", 2.0))) == Curve.of("0s:1, 2s:2")


@pytest.mark.parametrize("value", [3, 3.5, "3.5", "0s:3,2s:5", "smooth 0b:0.4, 8b:0.8"])
def test_a_field_of_a_dataclass_is_stored_and_read_back(value: Value) -> None:
    adapter = TypeAdapter(Asked)
    asked = adapter.validate_python({"guidance": value, "scales": [value, 1]})
    assert asked == Asked(value, (value, 1))
    stored = json.loads(json.dumps(asdict(asked)))
    assert adapter.validate_python(stored) == asked
    assert json.loads(json.dumps(asdict(adapter.validate_python(stored)))) == stored
    assert isinstance(stored["guidance"], float) == Curve.of(value).is_constant


def test_a_field_is_a_flag() -> None:
    app, got = App(result_action="return_value"), list[Asked]()

    @app.default
    def command(*, guidance: Value = 3.0) -> None:
        got.append(Asked(guidance))

    for given in ("4", "0s:3, 2s:5"):
        app(["--guidance", given], exit_on_error=False)
    assert got == [Asked(4.0), Asked("0s:3, 2s:5")]


def test_the_range_of_a_field_holds_at_all_times() -> None:
    for value in (21, "0s:3, 2s:21", "-1"):
        with pytest.raises(TaskError, match=r"guidance must be in \[0, 20\] at all times, got"):
            Asked(value)
    with pytest.raises(TaskError, match="guidance: unknown unit 'q'"):
        Asked("0q:3")
    with pytest.raises(ValidationError):
        TypeAdapter(Asked).validate_python({"guidance": [1, 2]})


def test_a_clock_is_checked() -> None:
    with pytest.raises(TaskError, match="fps must be above 0"):
        Clock(0)
    with pytest.raises(TaskError, match="beats of a clock must be increasing"):
        Clock(24, (1.0, 0.5))
    times = [FILM.seconds(beat / 4, "b") for beat in range(13)]
    assert all(a < b for a, b in pairwise(times))
    assert times[::4] == [0.5, 1.0, 1.6, 2.0]


@pytest.mark.parametrize(
    ("text", "expected"), [("0s:1, 2s:3", True), ("step 4f:1", True), ("3", False), ("many", False)]
)
def test_curves_are_told_from_numbers_and_words(text: str, expected: bool) -> None:
    assert is_curve(text) is expected
