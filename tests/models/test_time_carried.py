# pyright: basic
"""A picture's thing carried along a course: it goes on or comes back, its ground stays, and loops close."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from segue.models.time_carried import SOONEST, Course, completed, evened, filled, held_in, put_back

FRAMES = 16
SECONDS = [at / 8 for at in range(FRAMES)]
GROUND = torch.tensor([0.7, 0.8, 0.9])[:, None, None]


def square(side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """A textured square on even ground, and its mask."""
    picture = GROUND.expand(3, side, side).clone()
    picture[:, 12:20, 12:20] = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.3
    mask = torch.zeros(1, 1, side, side)
    mask[..., 12:20, 12:20] = 1
    return picture, mask


def course(numbers: torch.Tensor) -> Course:
    picture, mask = square()
    return Course(picture, mask, torch.zeros(1, 2), *evened(numbers, SECONDS))


def way(**numbers: torch.Tensor) -> torch.Tensor:
    none = torch.zeros(FRAMES)
    return torch.stack([numbers.get(name, none) for name in ("x", "y", "turn", "growth")], 1)


TIME = torch.arange(FRAMES) / 8
SPIN = way(turn=1.5 * TIME)
SLIDE = way(x=0.4 * TIME)
SWING = way(turn=0.4 * torch.sin(2 * math.pi * TIME / 1.5))
BOUNCE = way(y=-2 * (TIME / 1.5 % 1) * (1 - TIME / 1.5 % 1))
JITTER = 0.02 * torch.randn(FRAMES, 4, generator=torch.Generator().manual_seed(2)) * (TIME > 0)[:, None]


@pytest.mark.parametrize(("true", "goes_on"), [(SPIN, True), (SLIDE, True), (SWING, False), (BOUNCE, False)])
def test_what_jitters_is_evened(true: torch.Tensor, goes_on: bool) -> None:
    numbers, even = evened(true + JITTER, SECONDS)
    assert bool(even.any()) == goes_on
    assert not numbers[0].any(), "it begins where the picture has it"

    def bends(values: torch.Tensor) -> float:
        return float((values[2:] - 2 * values[1:-1] + values[:-2]).square().mean())

    assert bends(numbers) < 0.5 * bends(true + JITTER)
    assert float((numbers - true).abs().mean()) < 0.06
    if goes_on:
        main = int(true.abs().amax(0).argmax())
        assert bends(numbers[:, main : main + 1]) < 1e-10, "at one speed"


def test_an_even_way_adds_up() -> None:
    found = course(SPIN + JITTER)
    assert found.goes_on and found.length == FRAMES - 1
    turn = found.at(range(100))[:, 2]
    assert torch.allclose(turn[1:] - turn[:-1], (turn[1] - turn[0]).expand(99), atol=1e-5)
    assert torch.equal(found.at(range(FRAMES))[:, 2], found.numbers[:, 2])


@pytest.mark.parametrize("true", [SWING, BOUNCE])
def test_what_comes_back_is_where_it_began(true: torch.Tensor) -> None:
    found = course(true + JITTER)
    assert abs(found.length - 12) <= 1, "twelve frames there and back"
    again = found.at([found.length * times for times in range(-3, 20)])
    assert float(again.abs().max()) < 1e-6
    first, later = found.at(range(found.length)), found.at(range(7 * found.length, 8 * found.length))
    assert torch.allclose(first, later, atol=1e-6)


def test_what_takes_as_long_as_a_model_looks_comes_back_then() -> None:
    """A period of two seconds, of which a second and fifteen sixteenths are seen."""
    for slow in (way(y=-2 * (TIME / 2) * (1 - TIME / 2)), way(turn=0.4 * torch.sin(math.pi * TIME))):
        assert abs(course(slow).length - 16) <= 1


def test_courses_of_few_frames_have_no_time_to_come_back() -> None:
    picture, mask = square()
    numbers, even = evened(SWING[: SOONEST + 1], SECONDS[: SOONEST + 1])
    assert Course(picture, mask, torch.zeros(1, 2), numbers, even & False).length == SOONEST


@pytest.mark.parametrize("fps", [4, 8, 10, 24, 25])
def test_the_pace_is_that_of_time_and_ends_on_a_frame(fps: int) -> None:
    """However many frames a second has, it takes a second and a half to come back, or a frame less or more."""
    swing = course(SWING).paced(8 / fps)
    assert swing.period is not None and abs(swing.period / fps - 1.5) < 1 / fps + 0.13
    assert float(swing.numbers([7 * swing.period]).abs().max()) < 1e-6
    spin = course(SPIN).paced(8 / fps)
    assert spin.period is None
    assert float(spin.numbers([10 * fps])[0, 2]) == pytest.approx(15, rel=1e-4)
    assert course(SWING).paced(8.0).period == 2 and course(SWING).paced(12.0).period is None


@pytest.mark.parametrize("true", [SPIN, SLIDE, SWING, BOUNCE, way(growth=0.3 * TIME), way()])
@pytest.mark.parametrize("frames", [2, 12, 16, 37, 90])
@pytest.mark.parametrize(("pace", "dial"), [(1.0, 1.0), (0.32, 1.0), (1.0, 0.5), (1.0, 1.7)])
def test_loops_close(true: torch.Tensor, frames: int, pace: float, dial: float) -> None:
    """From the last frame to the first there is no larger step than elsewhere, but for whole turns."""
    numbers = course(true).looped(frames, pace, dial)
    assert numbers.shape == (frames, 4) and not numbers[0].any()
    closed = torch.cat([numbers, numbers[:1]])
    step = closed[1:] - closed[:-1]
    step[:, 2] = torch.remainder(step[:, 2] + math.pi, math.tau) - math.pi
    assert float(step[-1].norm()) <= 1.2 * float(step[:-1].norm(dim=1).max()) + 1e-6
    if true is SPIN:
        turned = step[:, 2].sum() if frames > 2 else torch.tensor(math.tau)
        assert float(turned) == pytest.approx(
            math.tau * max(1, round(1.5 * dial * frames * pace / 8 / math.tau)), abs=1e-4
        )
    if true is not SPIN:
        assert (
            float(numbers.abs().amax()) <= dial * float(course(true).at(range(max(frames, FRAMES))).abs().amax()) + 0.05
        )


def test_no_way_leaves_the_picture_as_it_is() -> None:
    found = course(SLIDE)
    assert torch.equal(found.carried(torch.zeros(2, 4)), found.picture.expand(2, -1, -1, -1))
    assert not torch.allclose(found.carried(SLIDE[4:5])[0], found.picture, atol=0.1)


def test_whole_pixels_are_exact() -> None:
    found = course(SLIDE)
    made = found.carried(torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.25, 0.0, 0.0, 0.0]]))
    for picture, pixels in zip(made, (8, 4), strict=True):
        assert torch.allclose(picture, torch.roll(found.picture, pixels, 2), atol=1e-3)


def test_growth_ends_somewhere() -> None:
    found = course(way(growth=0.3 * TIME))
    made = found.carried(torch.tensor([[0.0, 0.0, 0.0, growth] for growth in (3.0, 30.0, 300.0)]))
    assert float((made[1] - made[2]).abs().max()) < 1e-3 < float((made[0] - made[1]).abs().max())


def test_leaps_stay_in_the_picture_but_for_those_of_large_things() -> None:
    """Above the square are three eighths of the picture, which are three quarters of half of it."""
    _, mask = square()
    leap = way(x=0.1 * TIME, y=-BOUNCE[:, 1].abs() * 2)
    top = float(leap[:, 1].min())
    found = held_in(leap, mask)
    assert float(found[:, 1].min()) == pytest.approx(max(top, -0.75), abs=1e-6)
    assert torch.equal(found[:, [0, 2, 3]], leap[:, [0, 2, 3]])
    assert torch.allclose(held_in(0.5 * leap, mask), 0.5 * leap)
    assert torch.allclose(held_in(leap, torch.ones_like(mask))[:, 1], 0.5 * leap[:, 1])
    assert torch.equal(held_in(leap, torch.zeros_like(mask)), leap)


def test_the_ground_goes_on_behind_the_thing() -> None:
    """A slope of light, of which a quarter is hidden."""
    slope = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    seen = torch.ones(1, 1, 32, 32)
    seen[..., 8:24, 8:24] = 0
    found = filled(slope * seen + 5 * (1 - seen), seen)
    assert float((found - slope).abs().amax()) < 0.25
    assert float((found - slope).abs().mean()) < 0.05
    even = filled(torch.where(seen > 0, 0.3, 9.0), seen)
    assert torch.allclose(even, torch.full_like(even, 0.3), atol=1e-4)
    for hidden in (0.0, 0.15, 1e-4):
        found = filled(torch.full_like(slope, 0.8), torch.full_like(seen, hidden))
        assert torch.allclose(found, torch.full_like(slope, 0.8), atol=1e-3), "however little is seen"


def test_a_mask_gets_the_rim_that_it_missed_and_no_ground() -> None:
    picture, mask = square(64)
    coarse = torch.zeros_like(mask)
    coarse[..., 14:18, 14:18] = 1
    found = completed(coarse, picture[None])
    assert torch.allclose(found, mask, atol=1e-3)
    far = picture.clone()
    far[:, 50:60, 50:60] = 0
    assert not completed(coarse, far[None])[..., 50:60, 50:60].any(), "another thing, which nothing is told of"


def test_what_drawing_lost_is_put_back_where_it_agrees() -> None:
    carried = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    assert torch.equal(put_back(carried, carried), carried)
    near = (carried + 0.02).clamp(0, 1)
    assert float((put_back(near, carried) - carried).abs().mean()) < 0.1 * float((near - carried).abs().mean())
    drawn = carried.clone()
    drawn[:, :, :8] = 1 - carried[:, :, :8].round()
    found = put_back(drawn, carried)
    assert float((found - drawn)[:, :, :5].abs().mean()) < 0.15
    assert torch.allclose(found[:, :, 11:], carried[:, :, 11:])


def test_what_grows_beside_a_swing_is_taken_back() -> None:
    """A little that adds up beside what comes back would move the thing away over a long clip."""
    found = course(SWING + way(growth=0.06 * TIME))
    assert not found.goes_on
    assert float(found.at(range(200)).abs().amax()) < 0.5
    assert float(replace(found, even=torch.tensor([False, False, False, True])).at([190])[0, 3]) > 1
