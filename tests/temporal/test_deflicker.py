"""Deflickering in the loop: nothing where nothing is changed, DiffSynth's step where all is, for every solver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import NamedNoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import SOLVERS, ddim, dpmpp_2m
from segue.errors import TaskError
from segue.media.spool import Spool
from segue.temporal.deflicker import Deflickering, Held, Moments, touched
from segue.types import Condition, Frames, Point, RowId, State
from toy import PatchCodec, RowwiseDenoiser, ShapedDenoiser, text_of

STEPS, FRAMES = 8, 5
SCHEDULE = Schedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, STEPS)
CODEC = PatchCodec()
COND = text_of(*[0.1 * i for i in range(FRAMES)])
ALWAYS = Moments(stop=1.0, free=0)
Found = Iterable[tuple[int, Tensor, Tensor]]


@dataclass
class LossyCodec:
    """As autoencoders do, it loses a little each way; and it counts what goes through at once."""

    inner: PatchCodec = CODEC
    decoded: list[int] = field(default_factory=list[int])
    encoded: list[int] = field(default_factory=list[int])

    @property
    def scale(self) -> int:
        return self.inner.scale

    @property
    def channels(self) -> int:
        return self.inner.channels

    def encode(self, frames: Tensor) -> Tensor:
        self.encoded.append(len(frames))
        z = self.inner.encode(frames)
        return z + 0.05 * torch.sin(9 * z) + 0.01

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded.append(len(latents))
        return self.inner.decode(latents * 0.97 - 0.02)


def alone(pictures: Frames, noise: float) -> Found:
    """F = identity."""
    for i in range(len(pictures)):
        yield i, pictures[i : i + 1][0], torch.zeros(pictures.size[::-1])


def boastful(pictures: Frames, noise: float) -> Found:
    """F = identity, which says that it changed everything."""
    for i in range(len(pictures)):
        yield i, pictures[i : i + 1][0], torch.ones(pictures.size[::-1])


def mean(pictures: Frames, noise: float) -> Found:
    """All frames become their mean."""
    whole = pictures[:]
    for i in range(len(pictures)):
        yield i, whole.mean(0), (whole.mean(0) - whole[i]).abs().amax(0)


@dataclass(frozen=True)
class Patch:
    """Brightens a square of one frame."""

    frame: int = 2
    area: tuple[slice, slice] = (slice(4, 6), slice(6, 8))

    def __call__(self, pictures: Frames, noise: float) -> Found:
        for i in range(len(pictures)):
            picture, change = pictures[i : i + 1][0].clone(), torch.zeros(pictures.size[::-1])
            if i == self.frame:
                picture[(..., *self.area)] = 1 - 0.5 * picture[(..., *self.area)]
                change[self.area] = 1
            yield i, picture, change


def start(rows: Sequence[int] = range(FRAMES), dtype: torch.dtype = torch.float32) -> State:
    """Frames of the trajectory "clip", of 12 x 16 pixels."""
    noise = torch.randn((FRAMES, CODEC.channels, 6, 8), generator=torch.Generator().manual_seed(3)).to(dtype)
    ids = tuple(RowId("clip", row) for row in rows)
    return State(noise[list(rows)], torch.zeros(len(rows), dtype=torch.int64), ids)


def run(operator: Any, solver: str = "ddim", denoiser: Any = None, rows: Sequence[int] = range(FRAMES)) -> Tensor:
    operators = [operator] if operator else []
    states = denoise(
        denoiser or RowwiseDenoiser(), start(rows), SCHEDULE, COND[list(rows)], solver=SOLVERS[solver].solver,
        operators=operators,
    )  # fmt: skip
    return collect(states, SCHEDULE)


def deflicker(smooth: Any, moments: Moments = ALWAYS, codec: Any = CODEC, **changes: Any) -> Deflickering:
    return Deflickering(codec, smooth, moments, "clip", **changes)


def at(index: Sequence[int], rows: Sequence[RowId] | None = None) -> Point:
    ids = rows or [RowId("clip", i) for i in range(len(index))]
    return SCHEDULE.step(torch.tensor(index), ids)[0]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("smooth", [alone, boastful])
def test_identity_changes_nothing_at_all(solver: str, smooth: Any) -> None:
    for masked in (True, False):
        made = run(deflicker(smooth, codec=LossyCodec(), masked=masked), solver, ShapedDenoiser())
        assert torch.equal(made, run(None, solver, ShapedDenoiser()))


def test_what_is_not_changed_is_not_encoded() -> None:
    codec = LossyCodec()
    run(deflicker(alone, codec=codec))
    assert not codec.encoded
    run(deflicker(Patch(), codec=codec))
    assert codec.encoded == [1, 1] * STEPS, "one frame of five, before and after"


def test_latents_beyond_the_reach_of_a_change_come_back_bit_for_bit() -> None:
    x0 = start().x
    for reach in (0, 1, 2):
        made = deflicker(Patch(), codec=LossyCodec(), reach=reach).on_denoised(x0, at([3] * FRAMES))
        other = (made != x0).any(1)
        within = torch.zeros(FRAMES, 6, 8, dtype=torch.bool)
        within[2, max(0, 2 - reach) : 3 + reach, max(0, 3 - reach) : 4 + reach] = True
        assert not bool(other[~within].any())
        assert bool(other[2, 2, 3])


def test_reach_counts_latents_from_the_changed_pixel() -> None:
    change = torch.zeros(1, 24, 24, dtype=torch.bool)
    change[0, 7, 8] = True
    assert touched(change, 8, 0)[0].tolist() == [[False, True, False], [False] * 3, [False] * 3]
    assert touched(change, 8, 1)[0].tolist() == [[True] * 3, [True] * 3, [False] * 3]


def test_changes_that_nobody_sees_are_none() -> None:
    def faint(pictures: Frames, noise: float) -> Found:
        for i, picture, _ in boastful(pictures, noise):
            yield i, picture * (1 - 1e-3), torch.full(pictures.size[::-1], 1e-3)

    x0 = start().x
    assert torch.equal(deflicker(faint).on_denoised(x0, at([3] * FRAMES)), x0)
    assert not torch.equal(deflicker(faint, least=0.0).on_denoised(x0, at([3] * FRAMES)), x0)


def naive(x: Tensor, x0: Tensor, now: Point, then: Point) -> Tensor:
    """A step of DiffSynth: x0 is decoded, changed and encoded, the noise derived anew, and a DDIM step taken."""
    pictures = CODEC.decode(x0)
    x0 = CODEC.encode(pictures.mean(0, keepdim=True).expand_as(pictures))
    alpha, sigma = float(now.alpha[0]), float(now.sigma[0])
    eps = (x - alpha * x0) / sigma
    return float(then.alpha[0]) * x0 + float(then.sigma[0]) * eps


def test_without_projection_a_step_is_that_of_diffsynth() -> None:
    state = start(dtype=torch.float64)
    for step in range(STEPS):
        now, then = SCHEDULE.step(torch.full((FRAMES,), step), state.ids)
        x0 = RowwiseDenoiser()(state.x, now, COND)
        ours, _ = ddim(
            state.x, deflicker(mean, projection=False, masked=False).on_denoised(x0, now), now, then, (), NamedNoise()
        )
        theirs = naive(state.x, x0, now, then)
        assert float((ours - theirs).abs().max()) < 5e-15 * max(1, float(theirs.abs().max()))
        state = replace(state, x=ours)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_sees_what_agrees_and_nothing_else(solver: str) -> None:
    """It is as if the model had said so: also to solvers that remember what it said."""
    operator = deflicker(mean, replace(ALWAYS, every=2), LossyCodec())

    @dataclass(frozen=True)
    class Agreeing:
        group: int = 1

        def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
            return operator.on_denoised(RowwiseDenoiser()(x, at, cond), at)

    made = run(operator, solver)
    assert torch.equal(made, run(None, solver, Agreeing()))
    assert not torch.equal(made, run(None, solver))


def test_dpm_solver_remembers_what_was_made_to_agree() -> None:
    operator = deflicker(mean)
    states = list(denoise(RowwiseDenoiser(), start(), SCHEDULE, COND, solver=dpmpp_2m, operators=[operator]))
    for state in states[1:-1]:
        pictures = CODEC.decode(state.history[0])
        assert float((pictures - pictures.mean(0)).abs().max()) < 0.3
    plain = list(denoise(RowwiseDenoiser(), start(), SCHEDULE, COND, solver=dpmpp_2m))
    now, _ = SCHEDULE.step(torch.zeros(FRAMES, dtype=torch.int64), plain[0].ids)
    first = RowwiseDenoiser()(plain[0].x, now, COND)
    assert torch.equal(states[1].history[0], operator.on_denoised(first, now))
    assert torch.equal(plain[1].history[0], first)


def test_frames_agree_more_the_larger_the_power() -> None:
    x0 = start().x * 0.2
    spread = [
        float(deflicker(mean, Moments(power)).on_denoised(x0, at([1] * FRAMES)).std(0).mean())
        for power in (0.0, 0.25, 0.5, 1.0)
    ]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] == float(x0.std(0).mean())
    assert spread[2] == pytest.approx(spread[0] / 2, rel=1e-4)
    assert spread[3] < 1e-6


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "euler_ancestral"])
def test_neither_the_order_of_rows_nor_batches_matter(solver: str) -> None:
    order, codec = [3, 0, 4, 1, 2], LossyCodec()
    made = run(deflicker(mean, codec=codec, batch=2), solver)
    assert set(codec.decoded) == {2, 1}, "never more than asked for"
    assert torch.equal(run(deflicker(mean, codec=LossyCodec(), batch=5), solver, rows=order), made[order])


def test_only_rows_of_the_trajectory_at_chosen_steps_are_changed() -> None:
    rows = [RowId("source", 0), RowId("clip", 1), RowId("clip", 0), RowId("clip", 2)]
    x0 = start().x[:4] * 0.2  # where no pixel is clipped, the projection lands on what F made
    seen: list[Tensor] = []

    def watched(pictures: Frames, noise: float) -> Found:
        seen.append(pictures[:])
        return mean(pictures, noise)

    made = deflicker(watched, Moments(steps=(2,))).on_denoised(x0, at([2, 2, 2, 4], rows))
    assert [torch.equal(a, b) for a, b in zip(made, x0, strict=True)] == [True, False, False, True]
    assert torch.equal(seen[0], CODEC.decode(x0[[2, 1, 3]])), "in the order of frames, those at other steps among them"
    assert torch.allclose(CODEC.decode(made[1:2]), CODEC.decode(made[2:3]), atol=1e-6)
    assert torch.equal(deflicker(watched, Moments(steps=(2,))).on_denoised(x0, at([3] * 4, rows)), x0)
    assert len(seen) == 1, "nothing is decoded for nothing"


def test_noise_is_that_of_the_noisiest_row_to_be_changed() -> None:
    told: list[float] = []

    def listening(pictures: Frames, noise: float) -> Iterator[tuple[int, Tensor, Tensor]]:
        told.append(noise)
        yield from ()

    deflicker(listening, Moments(start=0.25)).on_denoised(start().x[:3], at([0, 3, 5]))
    assert told == [float(SCHEDULE.now.ratio[3])]


@pytest.mark.parametrize(
    ("moments", "steps"),
    [
        (Moments(), range(9)),
        (ALWAYS, range(10)),
        (Moments(start=0.2, stop=0.8), range(2, 8)),
        (replace(ALWAYS, every=5), (4, 9)),
        (Moments(stop=0.8, every=3), (1, 4, 7)),
        (Moments(free=2), range(8)),
        (Moments(start=0.5, stop=0.7, free=2), (5, 6)),
        (Moments(every=3), (2, 5, 8)),
        (Moments(stop=1.0, every=3), (2, 5, 8)),
        (Moments(free=10), ()),
        (Moments(steps=(4, -1)), (4, 9)),
        (Moments(power=0.0), ()),
        (Moments(start=0.5, stop=0.5), ()),
    ],
)
def test_moments(moments: Moments, steps: Iterable[int]) -> None:
    weights = moments.weight(torch.arange(10), 10)
    assert torch.nonzero(weights)[:, 0].tolist() == list(steps)


def test_of_few_steps_the_last_is_left_to_the_model() -> None:
    assert [len(torch.nonzero(Moments().weight(torch.arange(count), count))) for count in (1, 2, 4, 10, 20)] == [
        0, 1, 3, 9, 18,
    ]  # fmt: skip


def test_the_power_of_moments_falls_over_their_range() -> None:
    assert replace(ALWAYS, power=0.8, decay=0.5).weight(torch.tensor([0, 4]), 5).tolist() == pytest.approx([0.8, 0.4])
    assert Moments(0.8, steps=(1,)).weight(torch.tensor([0, 1]), 5).tolist() == [0, 0.8]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Moments(1.5),
        lambda: Moments(start=-0.1),
        lambda: Moments(every=0),
        lambda: Moments(free=-1),
        lambda: Moments(steps=(8,)).weight(torch.tensor([0]), 8),
        lambda: Moments(steps=(-9,)).weight(torch.tensor([0]), 8),
        lambda: deflicker(mean, Moments()).on_denoised(start().x, replace(at([0] * FRAMES), count=1)),
        lambda: deflicker(mean, Moments(free=8)).on_denoised(start().x, at([3] * FRAMES)),
        lambda: deflicker(mean, Moments(start=0.5, stop=0.5)).on_denoised(start().x, at([3] * FRAMES)),
    ],
)
def test_impossible_moments(wrong: Callable[[], object]) -> None:
    with pytest.raises(TaskError, match=r"\d"):
        wrong()


@pytest.mark.parametrize("more", [{"start": 0.1}, {"stop": 0.5}, {"decay": 0.5}, {"every": 2}, {"free": 0}])
def test_steps_and_a_range_are_not_mixed(more: dict[str, Any]) -> None:
    (name,) = more
    with pytest.raises(TaskError, match=rf"steps \(1, 2\) and {name};"):
        Moments(0.5, steps=(1, 2), **more)


def test_moments_without_power_may_meet_no_step() -> None:
    x0 = start().x
    for moments in (Moments(power=0.0), Moments(power=0.0, free=8)):
        assert torch.equal(deflicker(mean, moments).on_denoised(x0, at([3] * FRAMES)), x0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_frame_that_is_not_finite_is_named(value: float) -> None:
    x0 = start().x
    x0[2, 1, 0, 0] = value
    with pytest.raises(TaskError, match=r"frame 2 of .* not finite"):
        deflicker(mean, batch=2).on_denoised(x0, at([3] * FRAMES))


def test_a_smoother_that_answers_in_another_size_is_told() -> None:
    def small(pictures: Frames, noise: float) -> Found:
        yield 0, pictures[0:1][0, :, ::2, ::2], torch.ones(6, 8)

    with pytest.raises(ValueError, match=r"expected .* 16x12"):
        deflicker(small).on_denoised(start().x, at([0] * FRAMES))


def test_a_frame_with_two_rows_is_told() -> None:
    with pytest.raises(ValueError, match="one row for each frame"):
        deflicker(mean).on_denoised(start().x[:2], at([0, 0], [RowId("clip", 1)] * 2))


def test_frames_may_be_kept_on_disk(tmp_path: Path) -> None:
    """They are rounded there, which the projection takes out again."""

    def spool(size: tuple[int, int]) -> Any:
        return Spool.temporary(size, near=tmp_path)

    codec = LossyCodec()
    assert torch.equal(run(deflicker(boastful, codec=codec, spool=spool)), run(None))
    x0 = start().x * 0.3
    held, kept = (
        deflicker(mean, codec=codec, spool=where).on_denoised(x0, at([4] * FRAMES)) for where in (Held.temporary, spool)
    )
    assert not torch.equal(held, kept)
    assert float((held - kept).abs().max()) < 4 / 255
    assert not list(tmp_path.iterdir()), "and are gone afterwards"


def test_the_losses_of_a_codec_do_not_pile_up() -> None:
    """Thirty passes with an F that changes one corner: the rest is as it was, and plain coding drifts away."""
    x0 = start().x * 0.3
    corner = Patch(0, (slice(0, 2), slice(0, 2)))
    ours = plain = x0
    for _ in range(30):
        ours = deflicker(corner, codec=LossyCodec()).on_denoised(ours, at([4] * FRAMES))
        plain = deflicker(corner, codec=LossyCodec(), projection=False, masked=False).on_denoised(
            plain, at([4] * FRAMES)
        )
    assert torch.equal(ours[..., 2:, 2:], x0[..., 2:, 2:])
    assert float((plain[0, ..., 2:, 2:] - x0[0, ..., 2:, 2:]).abs().mean()) > 0.1


def test_a_solver_that_remembers_goes_beyond_after_a_step_that_was_left_out() -> None:
    """Why `every` is 1: DPM++ 2M takes the way back from what agreed for a trend, and adds about half of it."""

    @dataclass(frozen=True)
    class Sure:
        group: int = 1

        def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
            return start().x * 0.2

    operator = deflicker(mean, Moments(steps=(3,)))
    states = list(denoise(Sure(), start(), SCHEDULE, COND, solver=dpmpp_2m, operators=[operator]))
    own = start().x * 0.2
    before = states[4]
    now, then = SCHEDULE.step(before.step, before.ids)
    plain, _ = dpmpp_2m(before.x, own, now, then, (), NamedNoise())
    gain = float(then.alpha[0] * (1 - then.sigma[0] * now.alpha[0] / (then.alpha[0] * now.sigma[0])))
    beyond = (states[5].x - plain) / gain
    share = float((beyond * (own - before.history[0])).sum() / (own - before.history[0]).square().sum())
    assert 0.25 < share < 1
