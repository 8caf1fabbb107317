"""The live stream on real pictures: rows at different steps make what a transition makes, and it turns when it says."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from segue.media.clip import to_uint8
from segue.models.bundle import LatentDiffusion
from segue.tasks.branching import Branching
from segue.tasks.live import Live
from segue.tasks.transition import Transition
from segue.zoo import load

BETWEEN, SAID, STEPS = 6, 2, 4
LIVE = Live("a red apple", seed=8, between=BETWEEN, idle="hold", say=(f"{SAID}=a lemon",))


@cache
def model() -> LatentDiffusion:
    return load("emoji-fast", device="cpu")


@cache
def shown() -> tuple[Tensor, ...]:
    stream = LIVE.start(model())
    return tuple(to_uint8(next(stream)[None])[0] for _ in range(SAID + STEPS + BETWEEN))


def test_its_pictures_are_those_of_a_transition() -> None:
    """Within a level on all but a thousandth of the pixels: a batch of other companions rounds differently."""
    tree = Branching(branches=(2, BETWEEN + 1), at=(0, LIVE.fork(STEPS)))
    film = Transition(("a red apple", "a lemon"), seeds=(8,), seconds=0.25, tree=tree).stream(model())
    expected = {part.position: part.picture for part in film if part.number is None}
    for step in range(BETWEEN + 1):
        off = (shown()[SAID + STEPS - 2 + step].int() - expected[step / BETWEEN].int()).abs()
        assert float((off > 1).float().mean()) < 1e-3, step


def test_it_turns_after_as_many_pictures_as_a_run_has_steps() -> None:
    """The picture before is still the apple; each one after it moves on, and the last is at rest."""
    moved = [float((a.float() - b.float()).square().mean().sqrt()) for a, b in zip(shown(), shown()[1:], strict=False)]
    first = SAID + STEPS - 2
    assert max(moved[:first]) == 0
    assert min(moved[first : first + BETWEEN]) > 0.5
    assert max(moved[first + BETWEEN :]) == 0


def test_the_same_words_give_the_same_bytes() -> None:
    stream = LIVE.start(model())
    again = [to_uint8(next(stream)[None])[0] for _ in shown()]
    assert all(torch.equal(a, b) for a, b in zip(shown(), again, strict=True))
