"""Noise that moves with the content: white in every frame, exactly carried, and shared where nothing moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from segue.diffusion.noise import start_noise
from segue.media.clip import TensorFrames
from segue.motion.fields import Fields
from segue.motion.match import Match, inside
from segue.temporal.moved_noise import Placed, PlacedKick, independent, moved, shared
from segue.types import Point, RowId

SCALE, LATENTS = 4, (12, 10)
WIDTH, HEIGHT = LATENTS[0] * SCALE, LATENTS[1] * SCALE
Motion = Callable[[int, Tensor], Tensor]
"""Where places (n 2) of the first frame are in another one."""


def numbered(count: int) -> TensorFrames:
    """Pictures that say which frame they are of."""
    values = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, HEIGHT, WIDTH)
    return TensorFrames(values.contiguous())


@dataclass(frozen=True)
class Affine:
    """A matcher that knows the motion: of frame k, places are R(angle k) scale^k p + shift k about the middle."""

    shift: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    growth: float = 1.0
    name: str = "affine"

    def pose(self, frame: int) -> tuple[Tensor, Tensor]:
        angle = torch.tensor(self.angle * frame, dtype=torch.float64)
        turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
        return turn * self.growth**frame, torch.tensor(self.shift, dtype=torch.float64) * frame

    def __call__(self, a: Tensor, b: Tensor, start: tuple[Match, Match] | None = None) -> tuple[Match, Match]:
        here, there = (round(255 * float(picture[0, 0, 0, 0])) for picture in (a, b))
        return self.match(here, there), self.match(there, here)

    def match(self, here: int, there: int) -> Match:
        (one, by), (other, on) = self.pose(here), self.pose(there)
        y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
        middle = torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2], dtype=torch.float64)
        places = torch.stack([x, y], -1).double() - middle
        way = (((places - by) @ torch.linalg.inv(one).T) @ other.T + on - places).permute(2, 0, 1)[None].float()
        return Match(way, torch.zeros(1, HEIGHT, WIDTH), inside(way), whole=False)


def fields(matcher: Affine, count: int, cuts: tuple[int, ...] = ()) -> Fields:
    return Fields(matcher, numbered(count), cuts=cuts)


def placed(matcher: Affine, count: int = 8, cuts: tuple[int, ...] = (), parts: int = 2) -> Placed:
    return moved(fields(matcher, count, cuts), LATENTS, parts=parts)


MOTIONS = {
    "still": Affine(),
    "slow": Affine(shift=(0.3, -0.2)),
    "half": Affine(shift=(SCALE / 2, 0.0)),
    "turn": Affine(angle=0.15),
    "grow": Affine(growth=1.07),
    "shrink": Affine(growth=0.93),
}


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("name", MOTIONS)
def test_every_number_is_used_once_at_most(name: str, parts: int) -> None:
    """So that a frame's noise is as white as what was drawn, by construction."""
    found = placed(MOTIONS[name], parts=parts)
    assert found.size == LATENTS
    pairs = found.birth.long() * 10_000 + found.cell
    assert all(len(frame.unique()) == frame.numel() for frame in pairs)
    assert bool((found.birth <= torch.arange(8)[:, None, None]).all()), "nothing is drawn before it is needed"


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("name", MOTIONS)
def test_noise_is_standard_and_white_in_every_frame(name: str, parts: int) -> None:
    found = placed(MOTIONS[name], parts=parts)
    noise = torch.cat([found.start(seed, 4)[1:] for seed in range(40)])  # 280 x 4 x 120 numbers
    own = noise[3::7]  # one frame of each seed: 40 x 4 x 120 independent numbers
    tolerance = 4 / own.numel() ** 0.5
    assert abs(float(own.mean())) < tolerance
    assert abs(float(own.std()) - 1) < tolerance
    for down, across in ((0, 1), (1, 0), (1, 1), (0, 2)):
        beside = own[..., down:, across:] * own[..., : LATENTS[1] - down, : LATENTS[0] - across]
        assert abs(float(beside.mean())) < 1.2 * tolerance, (down, across)
    assert float((own.abs() > 2).double().mean()) == pytest.approx(0.0455, abs=0.008)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_whole_steps_carry_every_number_exactly(parts: int) -> None:
    noise = placed(Affine(shift=(SCALE, -2.0 * SCALE)), 4, parts=parts).start(3, 4)
    for k in range(1, 4):
        assert torch.equal(noise[k, :, : LATENTS[1] - 2 * k, k:], noise[0, :, 2 * k :, : LATENTS[0] - k])
        assert not torch.isin(noise[k, :, :, :k], noise[0]).any(), "what comes into sight is fresh"
    assert torch.equal(noise[2, :, :-2, 1:2], noise[1, :, 2:, :1]), "what was fresh moves on"


@pytest.mark.parametrize("parts", [1, 4])
def test_slow_motion_is_not_lost_by_rounding(parts: int) -> None:
    """A quarter of a pixel each frame is one latent after sixteen; rounded each time, it would be none at all."""
    noise = placed(Affine(shift=(SCALE / 16, 0.0)), 33, parts=parts).start(0, 4)
    for frame, by in ((16, 1), (32, 2)):
        assert torch.equal(noise[frame, ..., by:], noise[0, ..., : LATENTS[0] - by])
    if parts == 1:
        assert torch.equal(noise[7, ..., :-1], noise[0, ..., :-1]), "it stays as long as it is nearer to its place"


def test_the_smaller_the_parts_the_more_evenly_it_moves() -> None:
    """What two frames have in common is how much two latents overlap that lie so far from each other."""
    slow = Affine(shift=(1.0, 0.0))  # a quarter of a latent a frame
    common = torch.zeros(5, dtype=torch.float64)
    for seed in range(30):
        noise = placed(slow, 5, parts=4).start(seed, 4).double()[..., 2:-2]
        common += (noise * noise[:1]).mean((1, 2, 3)) / 30
    for frame, share in enumerate((1.0, 0.75, 0.5, 0.25, 0.0)):
        assert float(common[frame]) == pytest.approx(share, abs=0.06)
    one = placed(slow, 5, parts=1).start(0, 4)
    assert torch.equal(one[1, ..., :-1], one[0, ..., :-1])
    assert torch.equal(one[2, ..., 1:], one[0, ..., :-1])


def test_half_steps_do_not_tear_noise_apart() -> None:
    noise = placed(Affine(shift=(SCALE / 2, 0.0)), 2, parts=1).start(0, 4)
    assert torch.equal(noise[1, ..., 1:], noise[0, ..., :-1]) or torch.equal(noise[1], noise[0])


@pytest.mark.parametrize(("name", "least"), [("turn", 0.7), ("grow", 0.6), ("shrink", 0.5)])
def test_most_of_it_is_carried(name: str, least: float) -> None:
    found = placed(MOTIONS[name], 5, parts=1)
    y, x = torch.meshgrid(torch.arange(HEIGHT // SCALE), torch.arange(WIDTH // SCALE), indexing="ij")
    own = found.birth[4] == 0
    assert float(own.double().mean()) > least
    # And to the right place: within a latent and a half of where its content is.
    starts = torch.stack([found.cell[4] % LATENTS[0], found.cell[4] // LATENTS[0]], -1).double()
    middle = torch.tensor([(LATENTS[0] - 1) / 2, (LATENTS[1] - 1) / 2], dtype=torch.float64)
    turn, by = MOTIONS[name].pose(4)
    ends = (starts - middle) @ turn.T + by / SCALE + middle
    assert float((ends - torch.stack([x, y], -1))[own].norm(dim=-1).max()) < 1.5


def test_where_nothing_moves_it_is_shared() -> None:
    still = placed(Affine(), 6, cuts=(3,))
    assert torch.equal(still.start(5, 4), shared(6, LATENTS).start(5, 4))
    assert torch.equal(still.start(5, 4)[4], start_noise(5, (4, *LATENTS[::-1])))


def test_every_shot_begins_with_the_same_noise_and_nothing_crosses_a_cut() -> None:
    found = placed(Affine(shift=(SCALE, 0.0)), 6, cuts=(3,))
    noise = found.start(1, 4)
    assert torch.equal(noise[3], noise[0])
    assert torch.equal(noise[4, ..., 1:], noise[1, ..., 1:])
    assert not torch.isin(noise[4, ..., :1], noise[1]).any()


def test_independent_noise_has_nothing_in_common() -> None:
    noise = independent(3, LATENTS).start(1, 4)
    assert torch.equal(noise[0], start_noise(1, (4, *LATENTS[::-1])))
    assert all(not torch.isin(noise[i], noise[j]).any() for i in range(3) for j in range(i))


def test_a_window_is_a_part_of_the_whole() -> None:
    whole = placed(MOTIONS["turn"])
    assert torch.equal(whole[3:6].start(2, 4), whole.start(2, 4)[3:6])
    assert torch.equal(placed(MOTIONS["turn"]).cell, whole.cell), "the same again"
    with pytest.raises(ValueError, match="1 or more parts"):
        placed(MOTIONS["turn"], parts=0)


def points(frames: list[int], steps: list[int], trajectory: str = "clip") -> Point:
    one = torch.full((len(frames),), 0.5, dtype=torch.float64)
    return Point(torch.tensor(steps), 9, one, one, one, tuple(RowId(trajectory, frame) for frame in frames))


def test_kicks_move_likewise_whatever_rows_share_a_batch() -> None:
    kick = PlacedKick(placed(Affine(shift=(SCALE, 0.0)), 4), seed=7)
    like, std = torch.zeros(4, 4, *LATENTS[::-1]), torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    at = points([0, 2, 3, 3], [1, 1, 1, 2])
    drawn = kick(like, at, at, std)
    assert torch.equal(drawn[1, ..., 2:], 2 * drawn[0, ..., :-2])
    assert not torch.isin(drawn[3], drawn[2]).any(), "another step is another drawing"
    for place in range(4):
        one = points([[0, 2, 3, 3][place]], [[1, 1, 1, 2][place]])
        assert torch.equal(kick(like[:1], one, one, std[[place]])[0], drawn[place])
    with pytest.raises(ValueError, match="frames 0 to 3"):
        kick(like[:1], points([4], [1]), points([4], [1]), std[:1])
    with pytest.raises(ValueError, match="'clip'"):
        kick(like[:1], points([1], [1], "key"), points([1], [1], "key"), std[:1])


def test_noise_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="latents of"):
        shared(2, LATENTS).drawn(lambda birth, parts: torch.zeros(4, 3, 3))


def test_no_frames_have_no_noise() -> None:
    assert len(moved(fields(Affine(), 0), LATENTS)) == 0
