"""Key points in order: exact where nothing is wrong, without spikes and without lag, nobody taken for another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.signal import savgol_filter
from torch import Tensor

from segue.errors import TaskError
from segue.motion.keypoints import despiked, filled, smoothed, tracked
from segue.types import KeyPoints
from segue.types.keypoints import POINTS


def key_points(places: Tensor) -> KeyPoints:
    return KeyPoints(places, 0.9 * places[..., 0].isfinite().to(places), (512, 512))


def figure(seed: int = 0) -> Tensor:
    """The points of someone 200 pixels tall, around nothing."""
    spots = torch.rand(POINTS, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return spots * torch.tensor([90.0, 200.0], dtype=torch.float64)


def moving(frames: int, *, period: float = 14.0, reach: float = 40.0) -> Tensor:
    """Every point swings by itself around a body that walks."""
    time = torch.arange(frames, dtype=torch.float64)[:, None]
    phase = torch.linspace(0, 6, POINTS, dtype=torch.float64)
    swing = torch.stack(
        [torch.sin(2 * math.pi * time / period + phase), torch.cos(4 * math.pi * time / 31 + phase)], -1
    )
    return (figure() + reach * swing + torch.stack([3.0 * time, 0 * time], -1) + 60)[:, None]


def lag(found: Tensor, truth: Tensor) -> float:
    """Frames by which a track is behind, where the mean squared difference of shifted tracks is least."""
    reach = 4
    errors: list[float] = []
    for shift in range(-reach, reach + 1):
        late = found[reach + shift : len(found) - reach + shift]
        errors.append(float((late - truth[reach : len(truth) - reach]).square().mean()))
    best = int(np.argmin(errors[1:-1])) + 1
    before, at, behind = errors[best - 1 : best + 2]
    return best - reach + 0.5 * (before - behind) / (before - 2 * at + behind)


def spiked(truth: Tensor, seed: int, *, share: float = 0.04, tremble: float = 1.0) -> tuple[Tensor, Tensor]:
    """A track that trembles, and in which points jump away for one to three frames; and where they do."""
    rng = np.random.default_rng(seed)
    noisy = truth + tremble * torch.from_numpy(rng.standard_normal(truth.shape))
    jumped = torch.zeros(truth.shape[:-1], dtype=torch.bool)
    for point in range(truth.shape[2]):
        frame = int(rng.integers(3, 12))
        while frame < len(truth) - 5:
            length = int(rng.integers(1, 4))
            angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(60, 160)
            noisy[frame : frame + length, 0, point] += far * torch.tensor([math.cos(angle), math.sin(angle)])
            jumped[frame : frame + length, 0, point] = True
            frame += length + 7 + int(rng.geometric(share))
    return noisy, jumped


def test_spikes_go_without_lag() -> None:
    truth = moving(90)
    noisy, jumped = spiked(truth, seed=1)
    assert 0.04 < float(jumped.float().mean()) < 0.2
    steady = smoothed(key_points(noisy), order=3).places
    assert steady.shape == truth.shape
    assert abs(lag(steady, truth)) < 0.1

    def error(places: Tensor, where: Tensor) -> float:
        return float((places - truth).norm(dim=-1)[where].square().mean().sqrt())

    # Spikes of 60 to 160 pixels leave a few pixels, where the truth itself goes 20 pixels a frame.
    assert error(noisy, jumped) > 80
    assert error(steady, jumped) < 8
    assert error(steady, ~jumped) < error(noisy, ~jumped)
    # The measure sees a lag: that of a filter that looks back only.
    behind = truth.clone()
    for frame in range(1, len(behind)):
        behind[frame] = 0.35 * truth[frame] + 0.65 * behind[frame - 1]
    assert lag(behind, truth) > 1


def test_a_filter_alone_would_smear_spikes() -> None:
    truth = moving(90)
    noisy, jumped = spiked(truth, seed=1)
    alone = torch.from_numpy(savgol_filter(noisy.numpy(), 7, 3, axis=0))
    near = torch.nn.functional.max_pool1d(jumped[:, 0].T.float(), 5, 1, 2).T.bool()[:, None] & ~jumped
    steady = smoothed(key_points(noisy), order=3).places
    smeared, kept = ((places - truth).norm(dim=-1)[near].mean() for places in (alone, steady))
    assert float(kept) < 0.25 * float(smeared)


def test_what_is_right_is_left_alone() -> None:
    """A polynomial of the filter's order comes back exactly, at the ends, too, and no frame is taken for another."""
    time = torch.arange(30, dtype=torch.float64)[:, None, None]
    truth = (figure() + torch.cat([0.2 * time**2, 5 * time], -1))[:, None]
    steady = smoothed(key_points(truth))
    torch.testing.assert_close(steady.places, truth, atol=1e-9, rtol=0)
    assert torch.equal(steady.confidence, key_points(truth).confidence)
    swinging = moving(60)
    torch.testing.assert_close(despiked(key_points(swinging)).places, swinging, atol=0, rtol=0)
    assert torch.equal(smoothed(key_points(swinging), window=1, order=0).places, swinging)


def test_every_run_is_smoothed_as_scipy_would_and_never_across_a_gap() -> None:
    truth = moving(50) + torch.randn(50, 1, POINTS, 2, generator=torch.Generator().manual_seed(2))
    truth[20:29, 0, 5] = math.nan
    steady = smoothed(key_points(truth), fill=4).places
    assert bool(steady[20:29, 0, 5].isnan().all()), "a long gap stays"
    for start, stop in ((0, 20), (29, 50)):
        alone = np.asarray(savgol_filter(truth[start:stop, 0, 5].numpy(), 7, 2, axis=0))
        np.testing.assert_allclose(steady[start:stop, 0, 5].numpy(), alone)
    whole = np.asarray(savgol_filter(truth[:, 0, 6].numpy(), 7, 2, axis=0))
    np.testing.assert_allclose(steady[:, 0, 6].numpy(), whole)


def test_short_gaps_are_filled_and_ends_are_not() -> None:
    truth = moving(40)
    holed = truth.clone()
    holed[10:14, 0, 3] = math.nan
    holed[20:25, 0, 4] = math.nan
    holed[:2, 0, 7] = holed[38:, 0, 7] = math.nan
    got = filled(key_points(holed), longest=4)
    assert float((got.places - truth)[10:14, 0, 3].abs().max()) < 6
    assert float(got.confidence[12, 0, 3]) == pytest.approx(0.9)
    assert bool(got.places[20:25, 0, 4].isnan().all())
    assert bool(got.places[[0, 1, 38, 39], 0, 7].isnan().all())
    assert torch.equal(filled(key_points(holed), longest=0).places.isnan(), holed.isnan())


def test_a_step_is_no_spike() -> None:
    truth = figure().expand(30, 1, POINTS, 2).clone()
    truth[15:, 0, 9] += 80
    assert torch.equal(despiked(key_points(truth)).places, truth)
    truth[22:24, 0, 9] += 80
    repaired = despiked(key_points(truth)).places
    torch.testing.assert_close(repaired[22:24, 0, 9], truth[21:22, 0, 9].expand(2, 2))


@pytest.mark.parametrize("hidden", [0, 6])
def test_two_who_cross_stay_who_they_are(hidden: int) -> None:
    time = torch.arange(60, dtype=torch.float64)[:, None, None]
    right = figure(1) + torch.cat([20 + 6 * time, 0 * time], -1)
    left = figure(2) + torch.cat([400 - 6 * time, 4 + 0 * time], -1)
    truth = torch.stack([right, left], 1)
    shuffled = truth.clone()
    generator = torch.Generator().manual_seed(3)
    for frame in range(60):
        if torch.rand((), generator=generator) < 0.5:
            shuffled[frame] = truth[frame].flip(0)
    # Where they meet, the one behind is not found.
    for frame in range(32 - hidden // 2, 32 + hidden // 2):
        number = int((shuffled[frame, 1] - truth[frame, 1]).abs().max() > 0)
        shuffled[frame, 1 - number] = math.nan
    found = tracked(key_points(shuffled)).places
    assert found.shape[1] == 2
    first = int((found[0, 0] - truth[0, 0]).abs().max() > 0)
    for person in (0, 1):
        got = found[:, person if not first else 1 - person]
        there = got[:, 0, 0].isfinite()
        assert int((~there).sum()) == (hidden if person else 0)
        assert torch.equal(got[there], truth[there, person])


def test_who_comes_and_goes_has_a_place_of_their_own() -> None:
    truth = torch.full((40, 2, POINTS, 2), math.nan, dtype=torch.float64)
    truth[:, 0] = figure(1) + 20
    truth[10:20, 1] = figure(2) + 250
    truth[35:, 1] = figure(3) + 260  # 15 frames later, someone else.
    found = tracked(key_points(truth))
    assert found.persons == 3
    assert found.present[:, :, 0].sum(0).tolist() == [40, 10, 5]
    stray = torch.full((40, 1, POINTS, 2), math.nan, dtype=torch.float64)
    stray[::2, 0, :2] = 400.0
    assert tracked(key_points(torch.cat([truth, stray], 1))).persons == 3, "two points are nobody"
    nobody = tracked(key_points(torch.full((4, 2, POINTS, 2), math.nan)))
    assert nobody.persons == 1 and not bool(nobody.present.any())
    assert len(smoothed(key_points(torch.zeros(0, 1, POINTS, 2)))) == 0


def test_a_swap_of_left_and_right_for_some_frames_is_undone() -> None:
    truth = moving(40, reach=4)
    wrong = truth.clone()
    wrong[18:20, 0, [4, 7]] = truth[18:20, 0, [7, 4]]
    repaired = despiked(key_points(wrong)).places
    assert float((wrong - truth).abs().max()) > 20
    assert float((repaired - truth).abs().max()) < 3


def test_what_cannot_be_is_refused() -> None:
    points = key_points(moving(5))
    for numbers in ({"window": 4}, {"window": 5, "order": 5}, {"order": -1}, {"fill": -1}, {"longest_spike": -1}):
        with pytest.raises(TaskError, match="got"):
            smoothed(points, **numbers)
    with pytest.raises(TaskError, match="gate"):
        tracked(points, gate=0)
    with pytest.raises(ValueError, match="an x and a y"):
        KeyPoints(torch.tensor([1.0, math.nan]).expand(1, 1, POINTS, 2), torch.ones(1, 1, POINTS), (8, 8))
    with pytest.raises(ValueError, match="absent"):
        KeyPoints(torch.full((1, 1, POINTS, 2), math.nan), torch.ones(1, 1, POINTS), (8, 8))
    with pytest.raises(ValueError, match="persons"):
        KeyPoints(torch.zeros(1, 1, 18, 2), torch.ones(1, 1, 18), (8, 8))
