"""Scenes whose motion is known: pictures, flow and what is visible must say the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from segue.errors import TrainingError
from segue.motion.flow import flow
from segue.motion.occlusion import followed
from segue.motion.warp import warp
from segue.training.moving import Camera, moving_clip, shape, texture
from segue.training.scene import Layer, Scene

SIZE = (112, 80)
FAST = Camera(pan=(2.3, -1.1), zoom=1.2, period=32, turn=0.7, shake=0.6)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return moving_clip(3, SIZE, 24, camera=FAST, speed=0.02)


def poses(places: list[tuple[float, float]]) -> Tensor:
    """Of a layer that is not turned, the place of whose first pixel is told for every frame."""
    return torch.tensor([[[1, 0, x], [0, 1, y]] for x, y in places], dtype=torch.float64)


def still(picture: Tensor, frames: int) -> Layer:
    return Layer(torch.cat([picture, torch.ones_like(picture[:1])]), poses([(0, 0)] * frames), endless=True)


def square(places: list[tuple[float, float]], side: int = 10) -> Layer:
    return Layer(torch.ones(4, side, side), poses(places))


def sliding(places: list[tuple[float, float]]) -> Scene:
    """A white square over black."""
    return Scene((40, 30), (still(torch.zeros(3, 30, 40), len(places)), square(places)))


def between(fields: Tensor, along: Tensor) -> Tensor:
    """What is found at the ends of ways, bilinear: of affine fields, as they are within a layer, nothing is lost."""
    height, width = fields.shape[2:]
    x = (torch.arange(width) + along[0, 0]).clamp(0, width - 1)
    y = (torch.arange(height)[:, None] + along[0, 1]).clamp(0, height - 1)
    left, top = x.floor().clamp(max=width - 2).long(), y.floor().clamp(max=height - 2).long()
    upper = torch.lerp(fields[:, :, top, left], fields[:, :, top, left + 1], x - left)
    lower = torch.lerp(fields[:, :, top + 1, left], fields[:, :, top + 1, left + 1], x - left)
    return torch.lerp(upper, lower, y - top)


@pytest.mark.parametrize(("a", "b"), [(0, 1), (0, 8), (4, 23), (23, 4), (7, 7)])
def test_what_is_warped_back_is_what_was_there(scene: Scene, a: int, b: int) -> None:
    here, there = scene.frames[a : a + 1], scene.frames[b : b + 1]
    brought = warp(there, scene.flow(a, b))
    known = scene.visible(a, b, margin=3)
    assert float(known.float().mean()) > 0.2
    apart, left = ((other - here).abs().amax(1)[known] for other in (there, brought))
    assert float(left.mean()) < 0.003
    assert float(left.max()) < 0.04
    if a != b:
        assert float(apart.mean()) > 10 * float(left.mean())


@pytest.mark.parametrize(("a", "b", "c"), [(0, 5, 9), (12, 3, 20), (5, 6, 5)])
def test_ways_after_one_another_are_one_way(scene: Scene, a: int, b: int, c: int) -> None:
    first, second, whole = scene.flow(a, b), scene.flow(b, c), scene.flow(a, c)
    known = scene.visible(a, b, margin=3)
    assert bool(known.any())
    composed = first + between(second, first)
    assert float((composed - whole).abs().amax(1)[known].max()) < 1e-3
    assert float(whole.abs().amax(1)[known].max()) > 1 or a == c


def test_every_pixel_is_where_its_layer_went(scene: Scene) -> None:
    """Restated: pixel by pixel, in numpy, from the poses alone."""
    a, b = 2, 17
    owner, found = scene.owner(a)[0].numpy(), scene.flow(a, b)[0].numpy()
    assert set(np.unique(owner)) == {0, 1, 2, 3}
    for y in range(0, SIZE[1], 3):
        for x in range(0, SIZE[0], 3):
            start, stop = (np.vstack([scene.layers[owner[y, x]].poses[t].numpy(), [0, 0, 1]]) for t in (a, b))
            place = stop @ np.linalg.solve(start, [x, y, 1])
            assert found[:, y, x] == pytest.approx(place[:2] - [x, y], abs=1e-4)


def test_what_is_covered_and_what_leaves_is_not_visible() -> None:
    over = sliding([(5, 8), (17, 8), (34, 8)])
    for a, b, left in ((0, 1, 17), (1, 0, 5), (0, 2, 34)):
        covered = torch.zeros(30, 40, dtype=torch.bool)
        covered[8:18, left : left + 10] = True
        own = over.owner(a)[0] == 1
        expected = torch.where(own, torch.zeros_like(own), ~covered)
        expected |= own & (torch.arange(40) + (left - [5, 17, 34][a]) <= 39)
        assert torch.equal(over.visible(a, b)[0], expected)
    assert torch.equal(over.visible(0, 0), torch.ones(1, 30, 40, dtype=torch.bool))


def test_things_in_front_hide_those_behind() -> None:
    ground = still(torch.zeros(3, 30, 40), 2)
    back, front = square([(5, 5), (5, 5)], 12), square([(20, 5), (8, 5)], 6)
    layered = Scene((40, 30), (ground, back, front))
    assert int(layered.owner(0)[0, 8, 8]) == 1
    assert int(layered.owner(1)[0, 8, 10]) == 2
    assert not bool(layered.visible(0, 1)[0, 8, 10])  # of the thing behind, which the other comes to cover
    assert bool(layered.visible(0, 1)[0, 14, 14])
    assert bool(layered.visible(0, 1)[0, 8, 22])  # of the thing in front


def test_a_margin_leaves_out_the_surroundings_of_edges_in_both_frames() -> None:
    over = sliding([(5, 8), (17, 8)])
    for margin in (1, 3):
        known = over.visible(0, 1, margin=margin)[0]
        assert bool(known[8 + margin : 18 - margin, 5 + margin : 15 - margin].all())
        around = torch.zeros_like(known)
        for left in (5, 17):
            near = torch.zeros_like(known)
            near[8 - margin : 18 + margin, left - margin : left + 10 + margin] = True
            near[8 + margin : 18 - margin, left + margin : left + 10 - margin] = False
            around |= near
        around[8 + margin : 18 - margin, 5 + margin : 15 - margin] = False
        assert not bool((known & around).any())
        assert bool(known[:3].all())


def test_optical_flow_finds_nearly_the_same() -> None:
    slow = moving_clip(5, (160, 120), 4, camera=Camera(pan=(1.4, 0.6), turn=0.3, zoom=1.1), speed=0.01)
    a, b = slow.frames[0:1], slow.frames[2:3]
    there, back = flow(a, b), flow(b, a)
    apart = (there - slow.flow(0, 2)).square().sum(1).sqrt()
    assert float(apart[slow.visible(0, 2, margin=3)].median()) < 0.15
    assert float(apart[slow.visible(0, 2, margin=3)].mean()) < 0.5
    agreed = followed(there, back) == slow.visible(0, 2)
    assert float(agreed.float().mean()) > 0.9


def test_motion_is_of_parts_of_pixels() -> None:
    """A ramp that moves by 0.37 pixels changes by 0.37 of its slope."""
    ramp = (torch.arange(60) / 100).expand(3, 20, 60)
    ground = still(ramp, 2)
    moved = Scene((40, 20), (Layer(ground.picture, poses([(-9, 0), (-9.37, 0)]), endless=True),))
    before, after = moved.frames[0:2].unbind()
    assert torch.allclose(after - before, torch.full_like(before, 0.0037), atol=2e-4)
    assert torch.allclose(moved.flow(0, 1)[0, 0], torch.tensor(-0.37), atol=1e-6)


def test_edges_cover_parts_of_pixels() -> None:
    over = sliding([(12 + part / 8, 9 + part / 16) for part in range(9)])
    light = over.frames[0:9].sum((1, 2, 3)) / 3
    assert light.tolist() == pytest.approx([100.0] * 9, rel=0.01)
    edge = over.frames[0:9][:, 0, 13, 12]
    assert edge.tolist() == sorted(edge.tolist(), reverse=True)
    assert (float(edge[0]), float(edge[4]), float(edge[8])) == pytest.approx((1, 0.5, 0), abs=0.15)


def test_frames_are_drawn_one_by_one_and_only_when_asked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = Scene.draw

    def counted(self: Scene, frame: int) -> Tensor:
        drawn.append(frame)
        return draw(self, frame)

    monkeypatch.setattr(Scene, "draw", counted)
    frames = scene.frames
    assert (frames.size, len(frames), drawn) == (SIZE, 24, [])
    window = frames[3:6]
    assert drawn == [3, 4, 5]
    assert torch.equal(window[1:2], frames[4:5])
    assert torch.equal(frames[5:2:-1], window.flip(0))
    assert frames[24:30].shape == (0, 3, SIZE[1], SIZE[0])
    assert 0 <= float(window.min()) < 0.3 < 0.7 < float(window.max()) <= 1


def test_the_same_seed_is_the_same_clip_and_a_longer_one_goes_on() -> None:
    one, same, longer, other = (moving_clip(seed, (40, 32), count) for seed, count in ((1, 5), (1, 5), (1, 9), (2, 5)))
    assert torch.equal(one.frames[0:5], same.frames[0:5])
    assert torch.equal(one.frames[0:5], longer.frames[0:5])
    assert torch.equal(one.flow(0, 4), longer.flow(0, 4))
    assert float((one.frames[0:5] - other.frames[0:5]).abs().mean()) > 0.1


@pytest.mark.parametrize("size", [(33, 17), (16, 50), (1, 1)])
def test_sizes_are_arbitrary(size: tuple[int, int]) -> None:
    small = moving_clip(4, size, 2, sprites=1)
    assert small.frames[0:2].shape == (2, 3, size[1], size[0])
    assert small.flow(0, 1).shape == (1, 2, size[1], size[0])
    assert small.visible(0, 1, margin=2).shape == (1, size[1], size[0])


def test_given_pictures_are_shown() -> None:
    rng = np.random.default_rng(0)
    ground, thing = texture(rng, (50, 90)), shape(rng, 60)
    thing[:3] = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    given = moving_clip(1, (64, 48), 3, still=ground, sprites=[thing], camera=Camera())
    frame = given.frames[0:1][0]
    own = given.owner(0)[0] == 1
    assert bool(own.any())
    assert float(frame[0][given.clear(0, 1)[0] & own].min()) > 0.95
    outside = given.clear(0, 3)[0] & ~own
    scaled = torch.nn.functional.interpolate(ground[None], scale_factor=64 / 50, mode="bicubic", antialias=True)[0]
    top = (scaled.shape[1] - 48) // 2
    apart = (frame - scaled[:, top : top + 48])[:, outside].abs().mean()
    assert float(apart) < 0.03
    assert torch.equal(given.flow(0, 2)[:, :, ~own], torch.zeros(1, 2, int((~own).sum())))


def test_the_camera_does_nothing_at_first_and_then_what_it_is_told() -> None:
    told = Camera(pan=(2.0, 0.0)).poses((41, 31), 4, np.random.default_rng(0))
    assert torch.equal(told[0], torch.eye(3, dtype=torch.float64))
    assert told[3, :2, 2].tolist() == pytest.approx([-6, 0])
    larger = Camera(zoom=1.5, period=8).poses((41, 31), 9, np.random.default_rng(0))
    assert larger[:, 0, 0].tolist()[::4] == pytest.approx([1, 1.5, 1])
    assert (larger[4] @ torch.tensor([20.0, 15.0, 1.0]).double()).tolist() == pytest.approx([20, 15, 1])
    turned = Camera(turn=90.0).poses((41, 31), 2, np.random.default_rng(0))
    assert (turned[1] @ torch.tensor([30.0, 15.0, 1.0]).double()).tolist() == pytest.approx([20, 25, 1])
    shaken = Camera(shake=2.0).poses((41, 31), 200, np.random.default_rng(0))
    assert 0.5 < float(shaken[:, :2, 2].std()) < 4


def test_what_is_no_scene_is_refused() -> None:
    ground = still(torch.zeros(3, 8, 8), 2)
    with pytest.raises(TrainingError, match="endless and opaque"):
        Scene((8, 8), (square([(0, 0)]),))
    with pytest.raises(TrainingError, match=r"one number of frames, 1 or more; got \[1, 2\]"):
        Scene((8, 8), (ground, square([(0, 0)])))
    with pytest.raises(TrainingError, match="a line or a point"):
        Layer(torch.ones(4, 5, 5), torch.zeros(1, 2, 3))
    with pytest.raises(TrainingError, match=r"a picture \(4, h, w\)"):
        Layer(torch.ones(3, 5, 5), poses([(0, 0)]))
    with pytest.raises(TrainingError, match="sides and frames of 1 or more"):
        moving_clip(0, (8, 8), 0)
    with pytest.raises(TrainingError, match=r"of shape \(3, h, w\) as floats"):
        moving_clip(0, (8, 8), 1, still=torch.zeros(4, 8, 8))
    with pytest.raises(TrainingError, match=r"of shape \(4, h, w\) as floats"):
        moving_clip(0, (8, 8), 1, sprites=[torch.zeros(4, 8, 8, dtype=torch.uint8)])
    with pytest.raises(TrainingError, match="how many to draw, got -1"):
        moving_clip(0, (8, 8), 1, sprites=-1)
    with pytest.raises(TrainingError, match="a zoom and its period are above 0, got 0"):
        Camera(zoom=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["pan", "zoom", "period", "turn", "shake"])
def test_cameras_move_by_finite_numbers(name: str, value: float) -> None:
    given: dict[str, Any] = {name: (1.0, value) if name == "pan" else value}
    with pytest.raises(TrainingError, match=r"must be finite, got Camera\(pan"):
        Camera(**given)


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("flow", (0, -1)),
        ("flow", (-1, 0)),
        ("flow", (0, 3)),
        ("visible", (0, -1)),
        ("visible", (-3, 0)),
        ("owner", (-1,)),
        ("clear", (3,)),
        ("draw", (-1,)),
    ],
)
def test_frames_are_not_counted_from_the_end(name: str, frames: tuple[int, ...]) -> None:
    """Slices of frames are, as everywhere; a way to one is to the one that is named."""
    over = sliding([(5, 8), (17, 8), (34, 8)])
    with pytest.raises(TrainingError, match=r"frames of this scene are 0 to 2, got "):
        getattr(over, name)(*frames)
    assert torch.equal(over.frames[-1:], over.frames[2:3])
    assert over.flow(0, 2).abs().amax() == 29
