"""Easings: every key is met, nothing turns back, and each does what its name says."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from segue.errors import TaskError
from segue.temporal.clock import Clock
from segue.temporal.easing import EVEN, Course, Easing, Hold, Points, Rhythm, Smooth, apportion, parse_easing

BEATS = tuple(0.23 + 0.5 * k for k in range(9))
CLOCK = Clock(24, BEATS, (0.5, 0.9, 1.0, 2.4, 3.1, 3.2))
COURSE = Course((0.4, 1.3, 0.2), 107, CLOCK)
EASINGS = [
    "linear",
    "smooth",
    "hold:0.25",
    "points:0 0,0.3 0.1,1 1",
    "points:0 0,0.2 0.6,0.8 0.6,1 1",
    "beats",
    "beats:1",
    "onsets:0.5",
]


def way(easing: Easing, course: Course = COURSE) -> list[float]:
    """The distance travelled at each frame."""
    stays, done = easing.stays(course), [0.0]
    for number, ((_, first), (last, end)) in enumerate(pairwise(stays)):
        before = sum(course.lengths[:number])
        if number == 0:
            done += [0.0] * first
        shares = [easing.share(course, first, last, frame) for frame in range(first + 1, last + 1)]
        done += [before + share * course.lengths[number] for share in shares]
        done += [done[-1]] * (end - last)
    return done


@pytest.mark.parametrize("text", EASINGS)
def test_every_key_is_met_on_a_frame_and_nothing_turns_back(text: str) -> None:
    easing = parse_easing(text)
    stays, done = easing.stays(COURSE), way(easing)
    assert (stays[0][0], stays[-1][1]) == (0, COURSE.steps)
    assert all(arrival <= departure for arrival, departure in stays)
    assert all(a[1] < b[0] for a, b in pairwise(stays))
    assert len(done) == COURSE.steps + 1
    for number, (arrival, departure) in enumerate(stays):
        for frame in (arrival, departure):
            assert done[frame] == pytest.approx(sum(COURSE.lengths[:number]))
    assert all(b - a >= -1e-12 for a, b in pairwise(done))


@pytest.mark.parametrize("lengths", [(1.0, 1.0, 1.0), (0.4, 1.3, 0.2), (5.0, 0.1, 2.2), (1e-6, 1.0, 3.0)])
@pytest.mark.parametrize("count", [3, 4, 7, 12, 20])
def test_no_other_frames_for_the_keys_have_a_smaller_largest_step(lengths: tuple[float, ...], count: int) -> None:
    shares = apportion(lengths, count)
    assert sum(shares) == count and min(shares) >= 1

    def largest(cuts: tuple[int, ...]) -> float:
        ends = (0, *cuts, count)
        return max(length / (b - a) for length, (a, b) in zip(lengths, pairwise(ends), strict=True))

    best = min(largest(cuts) for cuts in combinations(range(1, count), len(lengths) - 1))
    assert max(length / share for length, share in zip(lengths, shares, strict=True)) == pytest.approx(best)


def test_even_speed_is_one_speed_over_the_whole_film() -> None:
    steps = np.diff(way(EVEN))
    assert steps.max() / steps.mean() < 1.05
    # The shortest way has the fewest frames to choose from: its speed may be off by one frame in twelve.
    assert steps.max() / steps.min() <= 13 / 12 + 1e-9


def test_smooth_never_jumps_in_speed_and_is_slow_at_keys() -> None:
    course = Course((0.4, 1.3, 0.2), 2000, CLOCK)
    steps = np.diff(way(Smooth(), course)) / sum(course.lengths) * course.steps
    assert np.abs(np.diff(steps)).max() < 0.05
    assert steps.max() == pytest.approx(1.5, abs=0.02)
    for arrival, _ in Smooth().stays(course)[1:-1]:
        assert steps[arrival - 1 : arrival + 1].max() < 0.02


def test_keys_are_held_for_their_seconds() -> None:
    done = way(Hold(0.5))
    for key in range(4):
        here = sum(COURSE.lengths[:key])
        assert sum(abs(at - here) < 1e-9 for at in done) == 12
    moving = [step for step in np.diff(done).tolist() if step > 1e-9]
    assert max(moving) / (sum(moving) / len(moving)) < 1.1
    assert way(Hold(0.0)) == way(EVEN)
    with pytest.raises(TaskError, match="holding 4 keys for 2 s each leaves no time"):
        Hold(2).stays(COURSE)
    with pytest.raises(TaskError, match="0 seconds or more"):
        Hold(-1)


def test_points_are_passed_and_their_shape_is_kept() -> None:
    times, distances = (0.0, 0.1, 0.35, 0.6, 0.7, 1.0), (0.0, 0.3, 0.32, 0.32, 0.8, 1.0)
    points = Points(times, distances)
    assert [points.at(time) for time in times] == pytest.approx(distances)
    grid = np.linspace(0, 1, 2001)
    curve = np.array([points.at(float(time)) for time in grid])
    assert (np.diff(curve) >= 0).all()
    assert np.ptp(curve[(grid >= 0.35) & (grid <= 0.6)]) == 0
    # Where no end is near, it is SciPy's monotone cubic; at the ends we take the line's slope.
    inner = (grid >= 0.1) & (grid <= 0.7)
    assert np.abs(curve - PchipInterpolator(times, distances)(grid))[inner].max() < 1e-12


def test_straight_points_are_even_speed() -> None:
    straight = Points((0.0, 0.2, 1.0), (0.0, 0.2, 1.0))
    assert [straight.at(k / 10) for k in range(11)] == pytest.approx([k / 10 for k in range(11)])
    stays, even = straight.stays(COURSE), EVEN.stays(COURSE)
    assert all(abs(a[0] - b[0]) <= 1 for a, b in zip(stays, even, strict=True))


def test_keys_lie_where_the_points_pass_them() -> None:
    course = Course((1.0, 1.0), 100, CLOCK)
    assert Points((0, 0.2, 1), (0, 0.5, 1)).stays(course)[1][0] == 20
    # The middle of a plateau.
    assert Points((0, 0.2, 0.8, 1), (0, 0.5, 0.5, 1)).stays(course)[1][0] == 50
    for lengths in [(1.0, 0.001, 0.001, 1.0), (1.0, 0.001, 0.001, 0.001), (0.001, 0.001, 0.001, 1.0)]:
        frames = [first for first, _ in Points((0, 0.5, 1), (0, 0.9, 1)).stays(Course(lengths, 10, CLOCK))]
        assert all(a < b for a, b in pairwise(frames))


@pytest.mark.parametrize("text", ["beats", "beats:0.7"])
def test_inner_keys_fall_on_the_beats_nearest_to_their_even_places(text: str) -> None:
    stays, even = parse_easing(text).stays(COURSE), EVEN.stays(COURSE)
    for (frame, _), (wanted, _) in zip(stays[1:-1], even[1:-1], strict=True):
        nearest = min(BEATS, key=lambda beat: abs(beat * 24 - wanted))
        assert abs(frame / 24 - nearest) <= 0.5 / 24 + 1e-9
    crowded = Course((1.0, 0.01, 0.01, 1.0), 100, CLOCK)
    frames = [first for first, _ in Rhythm().stays(crowded)]
    assert len(set(frames)) == 5
    assert all(min(abs(frame / 24 - beat) for beat in BEATS) <= 0.5 / 24 + 1e-9 for frame in frames[1:-1])


def test_the_pulse_is_fastest_on_beats_and_slowest_between() -> None:
    course = Course((1.0,), 2000, Clock(400, BEATS))
    steps = np.diff(way(Rhythm(0.6), course)) * course.steps
    for beat in BEATS[1:-1]:
        assert steps[round(beat * 400)] == pytest.approx(1.6, abs=0.01)
        assert steps[round((beat + 0.25) * 400)] == pytest.approx(0.4, abs=0.01)
    assert steps[: int(BEATS[0] * 400)] == pytest.approx(1.0)
    assert way(Rhythm(0.0), course) == pytest.approx(way(EVEN, course))


def test_onsets_are_not_beats() -> None:
    frames = [first for first, _ in parse_easing("onsets").stays(COURSE)[1:-1]]
    assert all(min(abs(frame / 24 - onset) for onset in CLOCK.onsets) <= 0.5 / 24 + 1e-9 for frame in frames)


def test_a_rhythm_needs_something_to_follow() -> None:
    with pytest.raises(TaskError, match="'beats' needs a sound with beats"):
        Rhythm().stays(Course((1.0, 1.0), 50, Clock(24)))
    with pytest.raises(TaskError, match="2 keys between the first and the last need as many beats, and the film has 1"):
        Rhythm().stays(Course((1.0, 1.0, 1.0), 12, CLOCK))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "unknown easing 'fast': expected linear, smooth, hold:SECONDS"),
        ("", "unknown easing ''"),
        ("hold", "unknown easing 'hold'"),
        ("smooth:3", "unknown easing 'smooth:3'"),
        ("hold:long", "'long' is not a number"),
        ("hold:-1", "a hold must be 0 seconds or more"),
        ("hold:nan", "a hold must be 0 seconds or more"),
        ("points:", "each point of an easing is a share of the time and one of the way"),
        ("points:0 0,0.5,1 1", "each point of an easing"),
        ("points:0 0,0.5 0.5", "begin with 0 0 and end with 1 1"),
        ("points:0 0,0.5 0.6,0.7 0.5,1 1", "never fall in distance, got 0.5 0.6 and then 0.7 0.5"),
        ("points:0 0,0.5 0.6,0.5 0.7,1 1", "must increase in time"),
        ("points:0 0,nan 0.6,1 1", "must increase in time"),
        ("beats:2", r"pulse of an easing must be in \[0, 1\]"),
    ],
)
def test_what_is_no_easing_is_told(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        parse_easing(text)


def test_easings_have_one_meaning_each() -> None:
    parsed = [parse_easing(text) for text in EASINGS]
    assert len(set(parsed)) == len(EASINGS)
    assert parse_easing(" points: 0 0, 0.3 0.1, 1 1 ") == parse_easing("points:0 0,0.3 0.1,1 1")
