"""A film's own dimensions: what stands still, what slides, what jumps, what drifts; against naive restatements."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from evaluation.known import kept, noise, pan, whole
from segue.errors import TaskError
from segue.evaluation.dimensions import Consistency, consistency, dimensions, dynamic_degree, motion_smoothness
from segue.evaluation.frechet_video import clip_features, frechet_video_distance
from segue.types import Frames


@dataclass(frozen=True)
class Corners:
    """Features that one can see: the mean colours of the four quarters."""

    name: str = "corners"

    def __call__(self, pictures: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pictures, 2).flatten(1)


def sliding(by: int, frames: int = 8) -> Frames:
    return kept(whole(pan(by, (96, 64), frames).frames))


def still(frames: int = 8) -> Frames:
    return kept(sliding(1)[0:1].expand(frames, -1, -1, -1))


def test_a_still_is_steady_foretold_and_does_not_move() -> None:
    found = dimensions(still(), 8, steps=[0.0] * 7, features=[Corners()])
    assert (found.steadiness, found.motion_smoothness, found.dynamic_share, found.dynamic) == (1, 1, 0, False)
    assert found.drift < 1e-6 and found.worst_seam == 1
    assert found.consistency[0].score == pytest.approx(1) and len(found.consistency[0].to_first) == 7


def test_steadiness_is_one_less_the_mean_difference_of_neighbours() -> None:
    film = sliding(2)
    levels = (whole(film) * 255).round()
    naive = [float((levels[at + 1] - levels[at]).abs().mean()) for at in range(7)]
    assert dimensions(film, 8).steadiness == pytest.approx((255 - sum(naive) / 7) / 255, abs=1e-6)


def test_what_slides_is_foretold_and_what_flickers_is_not() -> None:
    film = sliding(2)
    smooth = motion_smoothness(film)
    assert smooth is not None and smooth > 0.99
    flickering = kept(whole(film) + noise(whole(film), 0.1))
    rough = motion_smoothness(flickering)
    crossed = [float((whole(film)[at] - (whole(film)[at - 1] + whole(film)[at + 1]) / 2).abs().mean()) for at in (1, 3)]
    assert rough is not None and rough < smooth - 0.03
    assert 1 - smooth < 0.5 * min(crossed)  # better than mixing neighbours where they are
    assert motion_smoothness(sliding(2, 2)) is None


@pytest.mark.parametrize(("by", "fps", "share"), [(3, 8, 1.0), (1, 8, 0.0), (1, 24, 1.0), (0, 8, 0.0)])
def test_what_moves_far_enough_in_an_eighth_of_a_second_is_dynamic(by: int, fps: float, share: float) -> None:
    """6 of 256 pixels of the shorter side are 1.5 of 64; three steps of one pixel are one of three."""
    assert dynamic_degree(sliding(by, 10) if by else still(10), fps) == (share, share == 1)


def test_consistency_is_that_of_vbench() -> None:
    film, corners = kept(whole(sliding(3)) + noise(whole(sliding(3)), 0.05)), Corners()
    seen = corners(whole(film))
    cosine = torch.nn.functional.cosine_similarity
    naive = [
        (max(0, float(cosine(seen[at], seen[at - 1], dim=0))) + max(0, float(cosine(seen[at], seen[0], dim=0)))) / 2
        for at in range(1, 8)
    ]
    found = consistency(film, corners)
    assert isinstance(found, Consistency) and found.score == pytest.approx(sum(naive) / 7, abs=1e-5)
    other = kept(torch.cat([whole(film)[:4], 1 - whole(film)[4:]]))
    assert consistency(other, corners).score < found.score - 0.02


def test_drift_is_how_far_colours_go_and_a_seam_is_found_where_it_is() -> None:
    gain = torch.linspace(0, 0.2, 24)[:, None, None, None]
    film = kept(whole(still(24)) * 0.5 + gain)
    found = dimensions(film, 8, steps=[1.0] * 10 + [5.0] + [1.0] * 12)
    assert (found.worst_seam, found.worst_seam_at) in ((5, 10), (5, 11))
    # Means rise by 0.2 and deviations stay: half of the six numbers.
    assert found.drift_curve[-1] == pytest.approx((0.2 - 0.2 * 3.5 / 23) / 2**0.5, abs=3e-3)
    assert list(found.drift_curve[8:]) == sorted(found.drift_curve[8:])
    assert found.drift == pytest.approx(sum(found.drift_curve[-8:]) / 8)
    assert [measure.name for measure in found.measures()][-1] == "worst seam"


def test_sets_of_clips_are_near_where_they_move_alike() -> None:
    films = [kept(whole(pan(2, (96, 64), 16).frames).roll(7 * shift, 3)) for shift in range(6)]
    shuffled = [kept(whole(film)[torch.randperm(16, generator=torch.Generator().manual_seed(3))]) for film in films]
    corners = Corners()
    vectors = clip_features(films, corners, length=8)
    seen = corners(whole(films[0])[:8])
    assert vectors.shape == (12, 24)
    assert torch.allclose(vectors[0, :12], seen.mean(0), atol=1e-6)
    assert torch.allclose(vectors[0, 12:], (seen[1:] - seen[:-1]).square().mean(0).sqrt(), atol=1e-6)
    same = frechet_video_distance(films[::2], films[1::2], corners, length=8)
    apart = frechet_video_distance(films[::2], shuffled[1::2], corners, length=8)
    assert same.value < 0.5 * apart.value
    assert "corners of clips of 8 frames" in str(apart) and apart.pictures == (6, 6)


def test_clips_must_be_long_enough() -> None:
    with pytest.raises(TaskError, match="16 frames or more"):
        clip_features([still(8)], Corners())
    with pytest.raises(TaskError, match="2 clips of 8 frames"):
        frechet_video_distance([still(8)], [still(16)], Corners(), length=8)
    with pytest.raises(TaskError, match="2 frames or more"):
        clip_features([still(8)], Corners(), length=1)
