"""Movements are recognised in true clips, and words for others are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segue.evaluation.motion_seen import MotionMatch, motion_match, seen_motion, steps_of
from segue.evaluation.motion_words import MOTIONS, WORDINGS, Motion, asked
from segue.media.clip import TensorFrames
from segue.training.clip_corpus import changes, rendered
from segue.training.motion_paths import Course, course
from segue.training.moving import shape
from segue.training.pictures import Picture, ground

SIZE = 80


def thing(seed: int) -> Picture:
    return shape(np.random.default_rng(seed), 128).permute(1, 2, 0).numpy()


def film(way: Course, seed: int = 3) -> TensorFrames:
    frames: NDArray[np.uint8] = rendered(thing(seed), way, ground("yellow", SIZE))
    return TensorFrames(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous())


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_movement_is_recognised_and_other_words_are_refused(motion: Motion) -> None:
    """And whoever plays it backwards or in a mirror sees what these are called."""
    way = course(motion, "usual", 12, np.random.default_rng(2))
    true = film(way)
    wording = WORDINGS[motion]
    found = motion_match(true, f"a red ball {wording.verbs[0]}")
    assert found.seen == motion
    assert found.matches
    for other in MOTIONS:
        said = f"a red ball {WORDINGS[other].verbs[-1]}"
        match = MotionMatch(asked(said), found.seen, found.shift, found.turn, found.growth)
        assert match.matches == (other == motion), said
    assert MotionMatch(asked("a red ball"), found.seen, (0, 0), 0, 1).matches, "it says nothing of movement"
    mirror = TensorFrames(true.pixels.flip(3))
    assert seen_motion(steps_of(mirror)) == wording.mirrored
    assert seen_motion(steps_of(TensorFrames(true.pixels.flip(0)))) == wording.undone


@pytest.mark.parametrize("motion", ["slide right", "spin clockwise", "grow", "swing"])
def test_steps_are_those_that_were_made(motion: Motion) -> None:
    way = course(motion, "usual", 8, np.random.default_rng(4))
    steps = steps_of(film(way))
    flow, turn, zoom = (np.array(values) for values in changes(way, SIZE))
    assert np.allclose(steps.turn.numpy(), turn, rtol=0.2, atol=1.5)
    assert np.allclose(steps.growth.numpy(), np.log(zoom), atol=0.02)
    if motion == "slide right":
        assert np.allclose(steps.shift.numpy() * SIZE, flow, atol=0.3)
    assert float(steps.left.median()) < 0.35


def test_a_sum_tells_how_far() -> None:
    found = motion_match(film(course("grow", "fast", 16, np.random.default_rng(0))), "a growing ball")
    assert found.growth == pytest.approx(2.3, rel=0.1)
    turned = motion_match(film(course("spin counterclockwise", "slow", 8, np.random.default_rng(0))), "spinning")
    assert turned.turn == pytest.approx(-42, rel=0.2)
    assert turned.matches


def test_a_resting_ground_with_much_on_it_does_not_hide_the_thing() -> None:
    """Half of what can be followed rests."""
    way = course("slide left", "fast", 10, np.random.default_rng(1))
    frames = film(way).pixels.clone()
    busy = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 10, 10), np.uint8)).repeat_interleave(2, 1)
    frames[:, :, :20, :20] = busy.repeat_interleave(2, 2)
    assert seen_motion(steps_of(TensorFrames(frames))) == "slide left"


def test_what_does_not_move_is_still_and_no_caption_is_too_much_for_a_blank() -> None:
    blank = TensorFrames(torch.full((5, 3, 40, 40), 200, dtype=torch.uint8))
    found = motion_match(blank, "a bouncing ball")
    assert found.seen == "still"
    assert not found.matches
    assert (found.shift, found.turn, found.growth) == ((0, 0), 0, 1)


@pytest.mark.parametrize("shape_", [(1, 3, 40, 40), (4, 3, 12, 40)])
def test_films_that_have_no_movement_to_look_for_are_refused(shape_: Any) -> None:
    with pytest.raises(ValueError, match=r"two frames or more|16 pixels or more"):
        steps_of(TensorFrames(torch.zeros(shape_, dtype=torch.uint8)))
