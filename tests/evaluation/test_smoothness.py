"""Smoothness of clips whose numbers are known beforehand."""

from __future__ import annotations

import math
from statistics import fmean, pvariance

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segue.errors import TaskError
from segue.evaluation.loops import loop_ratio, seam_ratio
from segue.evaluation.movement import movement
from segue.evaluation.smoothness import Smoothness, smoothness, steps_of
from segue.media import TensorFrames
from toy import RmsDistance

RMS = RmsDistance(domain="frames")
HEIGHT, WIDTH = 72, 96


class Counted:
    """Frames that say how many of them were held at once."""

    def __init__(self, frames: TensorFrames) -> None:
        self.frames, self.most = frames, 0

    @property
    def size(self) -> tuple[int, int]:
        return self.frames.size

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, window: slice, /) -> Tensor:
        found = self.frames[window]
        self.most = max(self.most, len(found))
        return found


def grounds(levels: list[float]) -> TensorFrames:
    """Plain pictures, one of each grey level: steps are differences of levels."""
    return TensorFrames.rounded(torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 40, 40))


def texture(seed: int, width: int = WIDTH) -> Tensor:
    coarse = torch.rand(1, 3, HEIGHT // 6, width // 6, generator=torch.Generator().manual_seed(seed))
    return interpolate(coarse, (HEIGHT, width), mode="bicubic")[0].clamp(0, 1) * 0.8 + 0.1


def fade(count: int = 12) -> Tensor:
    a, b = texture(1), texture(2)
    return torch.stack([torch.lerp(a, b, i / (count - 1)) for i in range(count)])


def pan(speed: int, count: int = 12) -> Tensor:
    wide = texture(3, 3 * WIDTH)
    return torch.stack([wide[:, :, speed * i : speed * i + WIDTH] for i in range(count)])


STILL = texture(1).expand(12, -1, -1, -1)
CUT = torch.stack([texture(1)] * 6 + [texture(2)] * 6)


def noisy(frames: Tensor, deviation: float) -> TensorFrames:
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(5))
    return TensorFrames.rounded((frames + deviation * noise).clamp(0, 1))


def measured(frames: Tensor) -> Smoothness:
    return smoothness(TensorFrames.rounded(frames), RMS)


def test_steps_are_what_they_are() -> None:
    levels = [0.0, 0.2, 0.4, 1.0, 0.8]
    found = smoothness(grounds(levels), RMS)
    steps = [0.2, 0.2, 0.6, 0.2]
    assert found.steps == pytest.approx(steps, abs=1e-6)
    assert found.path_length == pytest.approx(sum(steps))
    assert found.step_variance == pytest.approx(pvariance(steps))
    assert found.evenness == pytest.approx(0.6 / fmean(steps))
    assert (found.largest_step, found.largest_step_at) == (pytest.approx(0.6), 2)
    assert found.directness == pytest.approx(math.sqrt(0.8) / sum(math.sqrt(step) for step in steps))
    assert found.loop_ratio == pytest.approx(0.8 / fmean(steps))
    assert (found.frames, found.distance, found.compared_at) == (5, "rms", (40, 40))


def test_a_straight_way_is_direct_and_a_detour_is_not() -> None:
    class Squared(RmsDistance):
        """As LPIPS is: the square of a distance."""

        def __call__(self, a: Tensor, b: Tensor) -> Tensor:
            return super().__call__(a, b).square()

    straight = smoothness(grounds([i / 15 for i in range(16)]), Squared(domain="frames"))
    assert straight.directness == pytest.approx(1, abs=0.01)
    detour = smoothness(grounds([0, 0.4, 0.8, 0.4, 0.2]), Squared(domain="frames"))
    assert detour.directness == pytest.approx(0.2 / 1.4, abs=0.01)
    assert smoothness(grounds([0.3, 0.6, 0.3]), Squared(domain="frames")).directness == 0


def test_a_loop_closes_with_a_step_like_the_others() -> None:
    around = [abs(i - 10) / 10 for i in range(20)]
    assert smoothness(grounds(around), RMS).loop_ratio <= 1.5
    assert smoothness(grounds(around[:15]), RMS).loop_ratio > 5
    assert loop_ratio([0.1, 0.1], 0.0) == 0
    assert loop_ratio([0.0, 0.0], 0.0) == 1


def test_a_seam_stands_out_from_its_surroundings_alone() -> None:
    steps = [0.1] * 20 + [0.4] + [0.1] * 9 + [0.9] + [0.1] * 10
    for frame in (20, 21):  # it is named by either of its frames
        assert seam_ratio(steps, frame) == pytest.approx(4)
    assert seam_ratio(steps, 5) == pytest.approx(1)
    assert seam_ratio(steps, 0) == seam_ratio(steps, len(steps)) == pytest.approx(1)
    assert seam_ratio([0.0] * 9 + [0.5] + [0.0] * 9, 9) == pytest.approx(19)
    assert seam_ratio([0.0, 0.0], 1) == 1
    assert smoothness(grounds([0, 0.1, 0.2, 0.5, 0.6, 0.7]), RMS, seams=(2, 5)).seam_ratios == pytest.approx(
        {2: 3.0, 5: 1.0}, rel=0.1
    )


def test_a_still_clip_is_even_and_has_nothing_else() -> None:
    found = measured(STILL)
    assert (found.path_length, found.step_variance, found.evenness, found.directness) == (0, 0, 1, 1)
    assert (found.ghosting, found.worst_ghosting, found.mix, found.sag) == (0, 0, 0, 0)
    assert (found.motion, found.peak_motion, found.flicker, found.loop_ratio) == (0, 0, pytest.approx(0, abs=1e-6), 1)


def test_two_frames_have_steps_and_movement_but_nothing_in_between() -> None:
    found = measured(pan(3, 2))
    assert len(found.steps) == 1
    assert found.step_variance == 0
    assert found.motion is not None
    assert found.ghosting is found.worst_ghosting is found.worst_ghosting_at is found.flicker is found.sag is None


def test_a_cross_fade_is_told_from_a_pan_by_ghosting_and_by_motion() -> None:
    faded, panned = measured(fade()), measured(pan(6))
    assert faded.ghosting is not None
    assert panned.ghosting is not None
    assert faded.motion is not None
    assert panned.motion is not None
    assert faded.ghosting > 0.4 > 0.05 > panned.ghosting
    assert panned.motion > 10 * faded.motion
    assert faded.sag == pytest.approx(0.4, abs=0.1)
    assert faded.worst_ghosting_at in (5, 6)


@pytest.mark.parametrize("speed", [2, 4, 6])
def test_motion_is_in_widths_whatever_the_size(speed: int) -> None:
    small = movement(TensorFrames.rounded(pan(speed)))
    assert small.speed.tolist() == pytest.approx([speed / WIDTH] * 11, rel=0.05)
    assert small.peak.max() < 1.3 * speed / WIDTH
    large = movement(TensorFrames.rounded(interpolate(pan(speed, 4), scale_factor=6, mode="bicubic").clamp(0, 1)))
    assert large.speed.tolist() == pytest.approx([speed / WIDTH] * 3, rel=0.05)


@pytest.mark.parametrize("name", ["still", "pan", "fade"])
def test_flicker_is_the_noise_that_was_added(name: str) -> None:
    frames = {"still": STILL, "pan": pan(3), "fade": fade()}[name]
    deviations = [0.0, 0.01, 0.02, 0.05]
    found = [float(movement(noisy(frames, deviation)).noise.mean()) for deviation in deviations]
    assert found[0] < 0.005
    assert found == sorted(found)
    assert found[1:] == pytest.approx(deviations[1:], rel=0.25)


def test_a_light_that_flickers_is_seen_and_one_that_brightens_is_not() -> None:
    light = 0.03 * torch.randn(12, 1, 1, 1, generator=torch.Generator().manual_seed(3))
    rising = torch.linspace(-0.08, 0.08, 12).view(-1, 1, 1, 1)
    flickering, brightening = (movement(TensorFrames.rounded(pan(3) + change)) for change in (light, rising))
    assert float(flickering.noise.mean()) > 0.015
    assert float(brightening.noise.mean()) < 0.005
    second = (light[:-2] + light[2:] - 2 * light[1:-1]).flatten() / 6**0.5
    assert flickering.brightness.tolist() == pytest.approx(second.tolist(), abs=0.003)
    assert float(brightening.brightness.abs().max()) < 0.003


@pytest.mark.parametrize("deviation", [0.01, 0.04])
def test_brightness_flicker_is_of_light_and_not_of_grain(deviation: float) -> None:
    light = deviation * torch.randn(40, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    still = texture(1)[:, :40, :40].expand(40, -1, -1, -1) * 0.7 + 0.15
    found = measured(still + light).brightness_flicker
    assert found == pytest.approx(deviation, rel=0.25)
    grainy = smoothness(noisy(STILL, deviation), RMS)
    assert grainy.brightness_flicker is not None
    assert grainy.flicker is not None
    assert grainy.brightness_flicker < 0.03 * grainy.flicker
    assert measured(CUT).brightness_flicker == pytest.approx(0, abs=1e-6)


def test_a_cut_is_neither_motion_nor_flicker_but_the_largest_step() -> None:
    found = measured(CUT)
    assert found.largest_step_at == 5
    assert found.evenness == pytest.approx(11)
    assert found.motion == pytest.approx(0, abs=1e-3)
    assert found.flicker == pytest.approx(0, abs=1e-3)
    assert found.ghosting == 0
    torn = movement(TensorFrames.rounded(CUT))
    assert torn.speed.isnan().tolist() == [i == 5 for i in range(11)]
    assert torn.noise.isnan().tolist() == [i in (4, 5) for i in range(10)]


def test_where_nothing_can_be_followed_nothing_is_said() -> None:
    found = measured(torch.stack([texture(1), texture(2)] * 3))
    assert found.motion is found.peak_motion is found.flicker is None


def test_frames_are_read_a_few_at_a_time_and_it_makes_no_difference() -> None:
    frames = Counted(TensorFrames.rounded(torch.cat([pan(3, 23), pan(5, 23)])))
    told: list[tuple[str, float, float]] = []
    found = smoothness(frames, RMS, progress=lambda what, done, total: told.append((what, done, total)))
    assert frames.most == 1
    pixels = frames.frames[0 : len(frames)]
    assert found.steps == pytest.approx(RMS(pixels[:-1], pixels[1:]).tolist(), abs=1e-6)
    whole = movement(TensorFrames.rounded(pixels[3:17]))
    assert movement(frames).noise[3:15].tolist() == pytest.approx(whole.noise.tolist(), rel=1e-3, nan_ok=True)
    assert {what for what, _, _ in told} == {"measuring steps", "looking for ghosts", "following movement"}
    assert {done for _, done, total in told if done == total} == {46}
    assert all(done <= total for _, done, total in told)


def test_large_pictures_are_reduced_before_they_are_compared() -> None:
    sizes: list[torch.Size] = []

    class Seen(RmsDistance):
        def __call__(self, a: Tensor, b: Tensor) -> Tensor:
            sizes.append(a.shape)
            return super().__call__(a, b)

    frames = TensorFrames(torch.zeros(3, 3, 600, 1200, dtype=torch.uint8))
    steps, _ = steps_of(frames, Seen(domain="frames"))
    assert len(steps) == 2
    assert {size[2:] for size in sizes} == {(362, 724)}
    assert smoothness(frames, RMS).compared_at == (724, 362)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(TaskError, match="expected 2 or more, got 1"):
        measured(STILL[:1])
    with pytest.raises(TaskError, match="both sides must be 32 or more"):
        measured(STILL[..., :20])
    with pytest.raises(TaskError, match="one of the frames 0 to 11, got 12"):
        smoothness(TensorFrames.rounded(STILL), RMS, seams=(3, 12))
    with pytest.raises(ValueError, match="rms compares latents"):
        smoothness(TensorFrames.rounded(STILL), RmsDistance())
