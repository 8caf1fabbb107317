"""Rendered figures: the same for the same numbers, key points on what is drawn, and everything that was promised."""

from __future__ import annotations

import math

import pytest
import torch

from segue.errors import TrainingError
from segue.training.figure import MOTIONS, FigureClip, Subject, figure_clip
from segue.types.keypoints import BODY, FACE, LEFT_HAND, RIGHT_HAND

SIZE = (72, 80)


def test_the_same_numbers_draw_the_same_pictures_one_by_one() -> None:
    clip = figure_clip(3, "dance", size=SIZE, frames=5, seed=2)
    again = figure_clip(3, "dance", size=SIZE, frames=5, seed=2)
    whole = clip.frames[0:5]
    assert whole.shape == (5, 3, 80, 72) and clip.frames.size == SIZE and len(clip.frames) == 5
    assert float(whole.min()) >= 0 and float(whole.max()) <= 1
    assert torch.equal(whole, again.frames[0:5])
    assert torch.equal(whole[3:4], clip.frames[3:4]) and torch.equal(whole[3], clip.draw(3))
    assert torch.equal(clip.key_points.places, again.key_points.places) or bool(clip.key_points.places.isnan().any())
    other = figure_clip(3, "dance", size=SIZE, frames=5, seed=3)
    assert float((whole - other.frames[0:5]).abs().mean()) > 0.01
    assert clip.frames[2:2].shape == (0, 3, 80, 72)


@pytest.mark.parametrize("motion", MOTIONS)
def test_limbs_are_where_their_key_points_are(motion: str) -> None:
    clip = figure_clip(1, motion, size=(128, 128), frames=4, period=4)
    for frame in range(4):
        alpha = clip.alpha(frame)
        assert float(alpha.min()) >= 0 and float(alpha.max()) <= 1
        assert 0.03 < float((alpha > 0.5).float().mean()) < 0.5
        assert float(alpha[0].max()) == 0 and float(alpha[:, 0].max()) == 0, "all of it is in the picture"
        for part in (BODY, LEFT_HAND, RIGHT_HAND, FACE):
            places = clip.key_points.places[frame, 0, part]
            x, y = places[places[:, 0].isfinite()].round().long().unbind(-1)
            assert int((alpha[y, x] > 0.5).sum()) >= 0.9 * len(x), (motion, frame, part)


def test_alpha_is_what_hides_the_ground() -> None:
    black, white = (
        figure_clip(4, "wave", size=SIZE, frames=1, ground=(grey, grey, grey)).draw(0) for grey in (0.0, 1.0)
    )
    alpha = figure_clip(4, "wave", size=SIZE, frames=1).alpha(0)
    seen = 1 - (white - black).mean(0)
    feet = 66  # Below, there is a shadow on the ground as well.
    torch.testing.assert_close(seen[:feet], alpha[:feet], atol=1e-5, rtol=0)
    picture = torch.rand(3, 80, 72, generator=torch.Generator().manual_seed(1))
    drawn = figure_clip(4, "wave", size=SIZE, frames=1, ground=picture).draw(0)
    torch.testing.assert_close(drawn[:, :30, :8], picture[:, :30, :8])


def test_a_motion_begins_again_and_moves() -> None:
    for motion in MOTIONS:
        points = figure_clip(2, motion, size=SIZE, frames=25).key_points.places[:, 0]
        torch.testing.assert_close(points[0], points[24], atol=1e-3, rtol=0, equal_nan=True)
        steps = (points[1:] - points[:-1]).norm(dim=-1).nan_to_num(0)
        assert float(steps.amax(1).min()) > 0.02, "no two frames are alike"
        assert float(steps[:, BODY].max()) < 0.3 * SIZE[1], "and none jumps"


def test_a_figure_keeps_its_proportions_and_stands_on_the_ground() -> None:
    for motion in ("walk", "wave", "dance", "turn", "stretch"):
        clip = figure_clip(5, motion, size=(128, 128), frames=9, period=9)
        ankles = clip.key_points.places[:, 0, [10, 13], 1].amax(1)
        still = motion != "stretch"
        assert float(ankles.max() - ankles.min()) < (0.5 if still else 8)
    up = figure_clip(5, "jump", size=(128, 128), frames=24).key_points.places[:, 0, [10, 13], 1].amax(1)
    assert float(up.max() - up.min()) > 10, "a jump leaves it"


def test_the_head_hides_its_own_other_side() -> None:
    clip = figure_clip(6, "turn", size=SIZE, frames=4, period=4)
    present = clip.key_points.present[:, 0]
    assert bool(present[0, FACE].all()) and bool(present[0, BODY].all())
    assert not bool(present[2, FACE].any()) and not bool(present[2, 0])
    assert 10 < int(present[1, FACE].sum()) < 60
    assert bool(present[:, 1:14].all()), "limbs are always there"
    # Seen from the front, the right shoulder is at the picture's left; from behind, at its right.
    shoulders = clip.key_points.places[:, 0, [2, 5], 0]
    assert float(shoulders[0, 0]) < float(shoulders[0, 1]) and float(shoulders[2, 0]) > float(shoulders[2, 1])


def test_subjects_differ_and_say_what_they_wear() -> None:
    drawn = [Subject.drawn(seed) for seed in range(60)]
    assert len({(one.top, one.bottom, one.hair, one.style, one.wears) for one in drawn}) > 50
    for one in drawn:
        assert one.top in one.words and one.bottom in one.words and one.wears in one.words
        assert " a orange" not in one.words
        assert 0.2 < one.build.leg < 0.5
    one, other = (figure_clip(seed, "wave", size=SIZE, frames=1).draw(0) for seed in (7, 8))
    assert float((one - other).abs().mean()) > 0.01
    # The same figure, larger.
    large = figure_clip(7, "wave", size=(288, 320), frames=1).draw(0)
    small = torch.nn.functional.interpolate(large[None], (80, 72), mode="area")[0]
    assert float((small - one).abs().mean()) < 0.02


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(TrainingError, match="expected one of walk"):
        figure_clip(1, "swim")
    with pytest.raises(TrainingError, match="1 or more"):
        figure_clip(1, "walk", frames=0)
    with pytest.raises(TrainingError, match="0 to 23, got 24"):
        figure_clip(1, "walk").draw(24)
    with pytest.raises(TrainingError, match="a picture of"):
        figure_clip(1, "walk", size=SIZE, ground=torch.zeros(3, 8, 8))
    clip = figure_clip(1, "walk")
    assert isinstance(clip, FigureClip) and math.isclose(clip.period, 24)
