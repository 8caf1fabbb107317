"""Laws of the tree and of those who plan it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from segue.errors import TaskError
from segue.temporal.drawing import draw
from segue.temporal.feed import Feed
from segue.temporal.plan import (
    CLIFF,
    PRESETS,
    Adaptive,
    Fixed,
    Growth,
    Level,
    Planner,
    Replay,
    levels_from,
    preset_levels,
)
from segue.temporal.tree import Node, Tree, neighbours, spread

FIGURE = (Level(0, 2), Level(3, 3), Level(6, 7), Level(9, 10))
"""The example tree of the latent blending README."""


PLANNERS = [
    Fixed(FIGURE, 10),
    Fixed(FIGURE, 12, Feed(0.5, 0.8, 0.5)),
    Fixed((Level(0, 2),), 10),
    Adaptive(30, 0.4, 15),
    Adaptive(4, 0.5, 10),
    Adaptive(2, 0.0, 3),
    *(Fixed(preset_levels(name, 30, 0.5), 30) for name in PRESETS),
]


def complete(planner: Planner, keys: int = 2, gap: float = 1.0) -> Tree:
    """The whole tree of a planner to whom all gaps look alike."""
    tree = Tree.of_keys(keys)
    while wave := planner.wave(Growth(tree, (gap,) * len(neighbours(tree)), 0.0, 0.0)):
        tree = tree.with_nodes(wave)
    return tree


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("keys", [2, 4])
def test_every_tree_is_sound(planner: Planner, keys: int) -> None:
    steps = planner.steps if isinstance(planner, Fixed | Adaptive) else 0
    tree = complete(planner, keys)
    tree.check(steps)
    places = [tree.nodes[name].position for name in tree.frames()]
    assert places == sorted(set(places))
    assert places[0] == 0
    assert places[-1] == keys - 1
    assert tree.keys == keys
    assert {node.step for node in tree.nodes} <= planner.forks(tree) | {0}
    filled = tree.with_nodes(planner.fill(tree, [0.01, 0.5 + 1e-3, keys - 1.01]))
    filled.check(steps)
    assert {node.step for node in filled.nodes} <= planner.forks(tree) | {0}


def test_the_figure_of_the_reference_in_both_spellings() -> None:
    by_step = levels_from([2, 3, 7, 10], [0, 3, 6, 9], 10)
    by_share = levels_from([2, 3, 7, 10], [0, 0.3, 0.6, 0.9], 10)
    assert by_step == by_share == FIGURE
    tree = complete(Fixed(by_step, 10))
    shown = [tree.nodes[name] for name in tree.frames()]
    assert [node.position for node in shown] == pytest.approx([k / 9 for k in range(10)])
    started = {step: sum(node.step == step for node in tree.nodes) for step in (0, 3, 6, 9)}
    # Of the 7 at step 6, the middle one and the keys go on from before; of the 10 at step 9, the keys and two thirds.
    assert started == {0: 2, 3: 1, 6: 4, 9: 6}
    assert [node.position for node in shown if node.step == 6] == pytest.approx([1 / 3, 2 / 3])


def test_shares_follow_the_number_of_steps() -> None:
    assert [level.step for level in levels_from([2, 3, 5], [0, 0.25, 0.5], 40)] == [0, 10, 20]
    assert [level.step for level in levels_from([2, 3, 5], [0, 10, 20], 40)] == [0, 10, 20]


def test_inner_branches_end_where_the_next_level_begins() -> None:
    tree = complete(Fixed(FIGURE, 10))
    for node in tree.nodes:
        if not node.is_frame:
            assert node.stop in {6, 9}
            assert node.stop > node.step
    keys = [node for node in tree.nodes if node.is_key]
    assert all(node.is_frame for node in keys)


def test_inner_branches_run_on_where_others_are_pulled_towards_them() -> None:
    levels = (Level(0, 2), Level(3, 4), Level(6, 6))
    plain, fed = complete(Fixed(levels, 10)), complete(Fixed(levels, 10, Feed(0.3, 1.0, 1.0)))
    assert [replace(node, stop=None) for node in plain.nodes] == [replace(node, stop=None) for node in fed.nodes]
    assert {node.stop for node in plain.nodes} == {None, 6}
    assert {node.stop for node in fed.nodes} == {None, 9}


def test_frames_that_are_filled_in_are_of_one_kind_with_the_last_level() -> None:
    planner = Fixed(FIGURE, 10)
    tree = complete(planner)
    beside = next(name for name in tree.frames() if tree.nodes[name].step == 9)
    (filled,) = planner.fill(tree, [tree.nodes[beside].position + 1e-6])
    assert (filled.step, filled.parents) == (9, tree.nodes[beside].parents)


def test_a_new_branch_goes_to_the_largest_gap() -> None:
    assert spread([(0, 1, 0.2), (1, 2, 0.9), (2, 3, 0.3)], 1) == [1.5]
    assert spread([(0, 1, 0.2), (1, 2, 0.9), (2, 3, 0.3)], 3) == [1.25, 1.5, 1.75]
    assert spread([(0, 1, 0.5), (1, 2, 0.5)], 1) == [0.5], "ties go left"
    assert spread([(0, 1, 0.50001), (1, 2, 0.50004)], 1) == [0.5], "a difference of 1e-5 decides nothing"


def test_budgets_are_kept() -> None:
    for most in (0, 1, 6, 15):
        assert len(complete(Adaptive(30, 0.4, most)).nodes) == 2 + most
    timed = Adaptive(30, 0.4, 100, budget=10.0)
    tree = Tree.of_keys(2)
    # 18 steps remain after the fork at step 12; at 0.1 s each, 1.8 s a branch, two fit into what is left of 10 s.
    assert len(timed.wave(Growth(tree, (1.0,), 6.0, 0.1))) == 1
    assert timed.wave(Growth(tree, (1.0,), 9.0, 0.1)) == []


def test_rounds_double_and_fork_later_and_later() -> None:
    tree = complete(Adaptive(30, 0.4, 15))
    waves = [[node for node in tree.nodes if node.wave == number] for number in range(1, 5)]
    assert [len(wave) for wave in waves] == [1, 2, 4, 8]
    steps = [{node.step for node in wave} for wave in waves]
    assert all(len(step) == 1 for step in steps)
    assert all(min(b) > min(a) for a, b in pairwise(steps[:3]))
    assert steps[3] == steps[2], "the last round forks no later than at 0.6 of the run"


def test_where_branches_crowd_they_fork_later_from_the_two_beside_them() -> None:
    planner, tree = Adaptive(30, 0.4, 99), Tree.of_keys(2)
    step = 0
    for _ in range(12):  # ever into the gap left of the last one
        right = min(node.position for node in tree.nodes[1:])
        (node,) = planner.fill(tree, [right / 2])
        if right <= CLIFF:
            assert node.step == min(step + 3, 27), "a level later with each halving, up to 0.9 of the run"
            assert step == 27 or node.parents == (0, len(tree.nodes) - 1)
        else:
            assert node.step <= 18
        assert node.step in planner.forks(tree)
        tree, step = tree.with_nodes([node]), node.step
    assert step == 27


def test_a_replayed_tree_is_the_same_tree() -> None:
    for planner in (Adaptive(30, 0.4, 15), Fixed(FIGURE, 10)):
        tree = complete(planner, keys=3)
        assert complete(Replay(tree), keys=3) == tree


def test_parents_are_the_nearest_that_began_earlier() -> None:
    tree = Tree.of_keys(2)
    tree = tree.with_nodes(tree.fork([0.5], 5, 1))
    late, later = tree.fork([0.25, 0.75], 8, 2)
    assert late.parents == (0, 2)
    assert later.parents == (2, 1)
    assert late.share == later.share == 0.5
    (same,) = tree.fork([0.25], 5, 2)
    assert same.parents == (0, 1), "a branch of the same step is no parent"
    with pytest.raises(TaskError, match="step 1 or later"):
        tree.fork([0.5], 0, 1)


@pytest.mark.parametrize(
    ("branches", "at", "expected"),
    [
        ([2, 3], [0, 3, 6], "one length"),
        ([3, 5], [0, 3], "begins with 2"),
        ([2, 3], [1, 3], "at step 0"),
        ([2, 3, 3], [0, 3, 6], "branches of a tree must increase"),
        ([2, 3, 5], [0, 6, 3], "steps of a tree must increase"),
        ([2, 3], [0, 12], "stay below 12"),
        ([2, 3, 5], [0, 0.5, 3], "shares of the run"),
    ],
)
def test_impossible_trees_are_refused(branches: list[int], at: list[float], expected: str) -> None:
    with pytest.raises(TaskError, match=expected):
        Fixed(levels_from(branches, at, 12), 12)


def test_presets_refuse_unknown_names_and_too_few_steps() -> None:
    with pytest.raises(TaskError, match="lowest, low, medium"):
        preset_levels("best", 30, 0.5)
    with pytest.raises(TaskError, match="needs more than 1 steps"):
        preset_levels("ultra", 1, 0.5)


def test_a_damaged_plan_is_caught() -> None:
    tree = complete(Adaptive(30, 0.4, 3))
    for broken in (
        replace(tree.nodes[3], parents=(0, 4)),
        replace(tree.nodes[3], step=30),
        replace(tree.nodes[3], position=5.0),
        replace(tree.nodes[3], share=1.5),
    ):
        nodes = [*tree.nodes[:3], broken, *tree.nodes[4:]]
        with pytest.raises(TaskError, match="branch 3"):
            Tree(tuple(nodes)).check(30)


def test_the_drawing_shows_every_trajectory() -> None:
    tree = complete(Fixed(FIGURE, 10))
    picture = draw(tree, 10, ["a <red> apple", "b"])
    assert picture.startswith("<svg")
    assert picture.count("<circle") == len(tree.frames())
    assert picture.count("H") == len(tree.nodes)
    assert "a &lt;red&gt; apple" in picture


def test_nodes_know_what_they_are() -> None:
    assert Node(0.0).is_key
    assert not Node(0.5, 3, (0, 1), 0.5, stop=6).is_frame
