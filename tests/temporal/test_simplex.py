"""Paths through the simplex of prompts: what is written is what is passed, and nonsense is told."""

from __future__ import annotations

import pytest

from segue.errors import TaskError
from segue.temporal.simplex import Route, weights_of


def test_weights_become_shares() -> None:
    route = Route.of("1,0,0; 1,1,2; 0,0,7", 3)
    assert route.points == ((1, 0, 0), (0.25, 0.25, 0.5), (0, 0, 1))
    assert route.corners == {0: 0, 2: 2}
    assert route.blends == (1,)
    assert Route.of(((1, 0, 0), (1, 1, 2), (0, 0, 7)), 3) == route


def test_without_weights_each_key_is_a_point() -> None:
    assert Route.through(3) == Route.of("1,0,0; 0,1,0; 0,0,1", 3)
    assert Route.through(3).blends == ()


def test_points_that_come_again_are_the_same() -> None:
    route = Route.of("1,0; 1,1; 0,1; 2,2; 1,0", 2)
    assert route.same == {3: 1, 4: 0}
    assert route.blends == (1,)
    assert Route.of("1,0; 1,1; 0,1", 2).closed().same == {3: 0}


def test_there_is_one_spelling() -> None:
    assert weights_of("1, 0 ;.50,0.5") == weights_of(((1, 0), (0.5, 0.5))) == "1,0; 0.5,0.5"
    assert weights_of("") == weights_of(()) == ""


def test_a_place_is_named_by_what_it_mixes() -> None:
    assert Route.of("1,0,0; 0,1,3", 3).named(["a", "b", "c"]) == ["a", "25% b + 75% c"]


def test_a_key_that_is_no_point_counts_where_it_has_most() -> None:
    route = Route.of("1,0,0; 4,1,0; 2,1,0; 0,1,2", 3)
    assert [route.nearest(key) for key in range(3)] == [0, 2, 3]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("1,0,0; 0,1", "point 2 of the weights, 0,1, must have one weight for each of the 3 prompts, and has 2"),
        ("1,0,0; 0,-1,2", "weights of 0 and more"),
        ("1,0,0; 0,nan,2", "weights of 0 and more"),
        ("1,0,0; 0,inf,2", "weights of 0 and more"),
        ("1,0,0; 0,0,0", "a weight above 0"),
        ("1,1,1", "two or more points"),
        ("1,1,1; 2,2,2; 1,0,0", "points 1 and 2 of the weights are the same"),
        ("1,0,0; 0,1,0", "prompt 3 has no weight in any point"),
        ("1,0,0; 0,one,0", '";" between'),
        ("1,0,0;", '";" between'),
    ],
)
def test_nonsense_is_told(weights: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        Route.of(weights, 3)


def test_a_loop_does_not_end_twice_at_its_beginning() -> None:
    with pytest.raises(TaskError, match="leave out the last one"):
        Route.of("1,0; 0,1; 1,0", 2).closed()
