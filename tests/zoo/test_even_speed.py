"""Even speed and closed loops, measured on real pictures as `segue evaluate` measures them."""

from __future__ import annotations

from functools import cache
from statistics import pvariance

import pytest

from segue.evaluation.distances import PixelDistance
from segue.evaluation.loops import loop_ratio
from segue.evaluation.smoothness import steps_of
from segue.media.clip import Clip
from segue.models.bundle import LatentDiffusion
from segue.tasks.branching import Branching
from segue.tasks.pace import Pace
from segue.tasks.transition import Transition
from segue.tasks.transition_plan import TransitionPlan
from segue.zoo import load

PAIRS = (("a cat face", "a castle"), ("a lion", "a tiger"), ("a red apple", "a green apple"))


@cache
def model() -> LatentDiffusion:
    return load("emoji-fast", device="cpu")


def untimed(task: Transition, clip: Clip) -> Clip:
    """The same tree, its pictures shown in order at the places that they were given."""
    assert clip.provenance is not None
    plan = clip.provenance.record["plan"]
    nodes = plan["nodes"][: plan["grown"]]
    shots = [(number, number, 0.0) for number in sorted(range(len(nodes)), key=lambda number: nodes[number][0])]
    assert len(shots) == len(plan["shots"])
    return task.run(model(), plan=TransitionPlan(nodes=nodes, grown=len(nodes), shots=shots, ended=plan["ended"]))


@pytest.mark.parametrize("pair", PAIRS)
def test_steps_vary_less_after_retiming_than_before(pair: tuple[str, str]) -> None:
    tree = Branching(branches=(2, 13), at=(0, 1))
    task = Transition(pair, seconds=13 / 24, fps=24, tree=tree)
    clip = task.run(model())
    (after, _), (before, _) = (steps_of(shown.frames, PixelDistance()) for shown in (clip, untimed(task, clip)))
    assert pvariance(after) < pvariance(before)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_loop_closes_with_a_step_like_the_others(pair: tuple[str, str]) -> None:
    task = Transition(pair, seconds=1, fps=24, pace=Pace(loop="loop"))
    assert loop_ratio(*steps_of(task.run(model()).frames, PixelDistance())) <= 1.5
