"""The laws of the loop and of its solvers, on denoisers with closed forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from segue.diffusion.envelope import Envelope
from segue.diffusion.guidance import classifier_free
from segue.diffusion.levels import Levels
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import Ancestry, InheritedNoise, NamedNoise, noise, start_noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import SOLVERS, Ancestral, ddim
from segue.diffusion.starts import from_latents, from_seeds, renoise
from segue.types import Condition, Denoiser, Operator, Point, RowId, Solver, State
from toy import GaussianDenoiser, RowwiseDenoiser, ShapedDenoiser, text_of

SHAPE = (4, 6, 6)
SCHEDULE = Schedule.from_config({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, 12)
CPU = torch.device("cpu")
ALL = sorted(SOLVERS)


def rows(count: int) -> tuple[RowId, ...]:
    return tuple(RowId("row", i) for i in range(count))


def begin(count: int) -> State:
    return from_seeds(range(count), rows(count), SCHEDULE, SHAPE, CPU)


def finish(
    state: State,
    cond: Condition,
    *,
    denoiser: Denoiser | None = None,
    solver: Solver = ddim,
    operators: Sequence[Operator] = (),
) -> Tensor:
    run = denoise(denoiser or RowwiseDenoiser(), state, SCHEDULE, cond, solver=solver, operators=operators)
    return collect(run, SCHEDULE)


@dataclass(frozen=True)
class Identity:
    def on_latents(self, x: Tensor, at: Point) -> Tensor:
        return x

    def on_denoised(self, x0: Tensor, at: Point) -> Tensor:
        return x0

    def on_stepped(self, x: Tensor, x0: Tensor, at: Point) -> Tensor:
        return x


@pytest.mark.parametrize(("name", "order"), [("ddim", 1.0), ("dpmpp_2m", 2.0)])
def test_convergence_order(name: str, order: float) -> None:
    """Against the exact solution, on an unrounded grid: the error falls as the step to the power of the order."""
    toy = GaussianDenoiser()
    errors: list[float] = []
    counts = (20, 40, 80)
    for count in counts:
        ratio = torch.linspace(math.log(10), math.log(0.05), count + 1, dtype=torch.float64).exp()
        levels = Levels.from_ratio(ratio, torch.zeros_like(ratio))
        schedule = Schedule(levels[:count], levels[1:])
        x = start_noise(0, SHAPE)[None].double()
        state = State(x, torch.zeros(1, dtype=torch.int64), rows(1))
        end = collect(denoise(toy, state, schedule, text_of(0.0), solver=SOLVERS[name].solver), schedule)
        exact = toy.solution(x, schedule.now.level(0), schedule.then.level(count - 1))
        errors.append(float((end - exact).abs().max()))
    measured = [math.log2(a / b) for a, b in pairwise(errors)]
    assert measured[-1] == pytest.approx(order, abs=0.1), f"orders {measured}, errors {errors}"


def test_first_order_step_is_euler_in_every_family() -> None:
    """x' = a' x0 + (s'/s)(x - a x0) is Euler's method for variance-exploding and straight paths too."""
    generator = torch.Generator().manual_seed(0)
    x, x0 = (torch.randn(1, *SHAPE, generator=generator, dtype=torch.float64) for _ in range(2))

    def point(alpha: float, sigma: float) -> Point:
        one = torch.ones(1, dtype=torch.float64)
        return Point(torch.zeros(1, dtype=torch.int64), 1, alpha * one, sigma * one, one)

    exploding, _ = ddim(x, x0, point(1, 5.0), point(1, 3.0), (), NamedNoise())
    assert torch.allclose(exploding, x + (x - x0) / 5.0 * (3.0 - 5.0), atol=1e-14)
    straight, _ = ddim(x, x0, point(0.2, 0.8), point(0.5, 0.5), (), NamedNoise())
    velocity = (x - x0) / 0.8
    assert torch.allclose(straight, x + velocity * (0.5 - 0.8), atol=1e-14)


@pytest.mark.parametrize("name", ALL)
def test_batch_equals_one_by_one(name: str) -> None:
    cond = text_of(0.1, -0.4, 0.8)
    solver = SOLVERS[name].solver
    together = finish(begin(3), cond, solver=solver)
    alone = [finish(begin(3).fork([i]), cond[[i]], solver=solver) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together[0], together[1])


def test_the_batch_law_can_fail() -> None:
    """A denoiser whose sums depend on the shape of the call, as a real network's do, is equal within a tolerance."""
    cond = text_of(0.1, -0.4, 0.8)
    together = finish(begin(3), cond, denoiser=ShapedDenoiser())
    alone = torch.cat([finish(begin(3).fork([i]), cond[[i]], denoiser=ShapedDenoiser()) for i in range(3)])
    assert not torch.equal(together, alone)
    assert torch.allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_a_fork_resumes_bit_for_bit(name: str) -> None:
    """Memory travels in the state, so a multistep solver does not notice that it was interrupted."""
    cond, solver = text_of(0.1, -0.4), SOLVERS[name].solver
    states = list(denoise(RowwiseDenoiser(), begin(2), SCHEDULE, cond, solver=solver))
    for middle in (1, 5, 11):
        assert torch.equal(finish(states[middle], cond, solver=solver), states[-1].x)
        assert torch.equal(finish(states[middle].fork([1]), cond[[1]], solver=solver), states[-1].x[1:])


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "euler_ancestral"])
def test_rows_at_different_steps_share_a_batch(name: str) -> None:
    cond, solver = text_of(0.1, -0.4), SOLVERS[name].solver
    states = list(denoise(RowwiseDenoiser(), begin(2), SCHEDULE, cond, solver=solver))
    mixed = State.cat([states[7].fork([0]), states[2].fork([1])])
    assert torch.equal(finish(mixed, cond, solver=solver), states[-1].x)


def test_finished_rows_leave_the_batch() -> None:
    cond, toy = text_of(0.1, -0.4), ShapedDenoiser()
    states = list(denoise(RowwiseDenoiser(), begin(2), SCHEDULE, cond))
    finish(State.cat([states[10].fork([0]), states[7].fork([1])]), cond, denoiser=toy)
    assert toy.calls == [2, 2, 1, 1, 1]


def test_a_row_without_memory_takes_a_first_order_step() -> None:
    cond, solver = text_of(0.1, -0.4), SOLVERS["dpmpp_2m"].solver
    states = list(denoise(RowwiseDenoiser(), begin(2), SCHEDULE, cond, solver=solver))
    forgetful = replace(states[5].fork([1]), history=())
    mixed = State.cat([states[5].fork([0]), forgetful])
    assert torch.equal(finish(mixed.fork([1]), cond[[1]], solver=solver), finish(forgetful, cond[[1]], solver=solver))
    assert not torch.equal(finish(mixed, cond, solver=solver)[1], states[-1].x[1])
    assert bool(finish(mixed, cond, solver=solver).isfinite().all())


def test_identity_operators_change_nothing() -> None:
    cond = text_of(0.1, -0.4)
    assert torch.equal(finish(begin(2), cond), finish(begin(2), cond, operators=[Identity(), Identity()]))


def test_replacing_x0_is_deflickering() -> None:
    """`on_denoised` equals: replace x0, derive the noise from x and the new x0, step."""

    class Half(Identity):
        def on_denoised(self, x0: Tensor, at: Point) -> Tensor:
            return x0 * 0.5

    cond, state = text_of(0.2), begin(1)
    state = State(state.x.double(), state.step, state.ids)
    ours = finish(state, cond, operators=[Half()])
    x = state.x
    for index in range(len(SCHEDULE)):
        now, then = SCHEDULE.step(torch.tensor([index]))
        x0 = RowwiseDenoiser()(x, now, cond) * 0.5
        x = then.noised(x0, now.eps(x, x0))
    assert torch.allclose(ours, x, atol=1e-12)


def test_guidance_of_one_is_the_positive_prompt_alone() -> None:
    positive, negative = text_of(0.3, 0.6), text_of(-1.0, -1.0)
    assert torch.equal(finish(begin(2), classifier_free(positive, negative, 1.0)), finish(begin(2), positive))


def test_guidance_is_per_row() -> None:
    positive, negative = text_of(0.3, 0.6), text_of(-1.0, -1.0)
    both = finish(begin(2), classifier_free(positive, negative, [2.0, 5.0]))
    second = finish(begin(2).fork([1]), classifier_free(positive[[1]], negative[[1]], 5.0))
    assert torch.equal(both[1:], second)


def test_starting_noise_is_everyones() -> None:
    drawn = torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(420))
    assert torch.equal(start_noise(420, SHAPE)[None], drawn)


def test_named_noise_depends_on_each_of_its_names() -> None:
    base = noise(1, "kick", 2, RowId("a", 3), SHAPE)
    assert torch.equal(base, noise(1, "kick", 2, RowId("a", 3), SHAPE))
    others = [
        noise(2, "kick", 2, RowId("a", 3), SHAPE),
        noise(1, "start", 2, RowId("a", 3), SHAPE),
        noise(1, "kick", 1, RowId("a", 3), SHAPE),
        noise(1, "kick", 2, RowId("b", 3), SHAPE),
        noise(1, "kick", 2, RowId("a", 2), SHAPE),
    ]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([base.flatten(), other.flatten()]))[0, 1])) < 0.3
        assert not torch.equal(base, other)


def test_inherited_noise_is_standard_and_continuous() -> None:
    ends = (RowId("key", 0), RowId("key", 1))
    shares = [0.0, 0.49, 0.5, 1.0]
    between = {RowId("branch", i): Ancestry((3, 4), ends, (1 - share, share)) for i, share in enumerate(shares)}
    kick = InheritedNoise(between)
    now, then = SCHEDULE.step(torch.zeros(4, dtype=torch.int64), tuple(between))
    drawn = kick(torch.zeros(4, 4, 64, 64), now, then, torch.ones(4, dtype=torch.float64))
    assert torch.equal(drawn[0], noise(3, "kick", 0, ends[0], (4, 64, 64)))
    assert torch.allclose(drawn[3], noise(4, "kick", 0, ends[1], (4, 64, 64)), atol=1e-6)
    assert drawn.flatten(1).std(dim=1).tolist() == pytest.approx([1] * 4, abs=0.03)
    near, far = float((drawn[1] - drawn[2]).std()), float((drawn[0] - drawn[3]).std())
    assert near < 0.02 * far


def test_ancestral_without_noise_is_ddim() -> None:
    cond = text_of(0.1, -0.4)
    still = finish(begin(2), cond, solver=Ancestral(eta=0.0))
    assert torch.allclose(still, finish(begin(2), cond), atol=1e-5)


def test_inversion_returns_approximately_and_better_with_more_steps() -> None:
    toy = GaussianDenoiser()
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    misses: list[float] = []
    for count in (25, 100, 400):
        schedule = Schedule.from_config(config, count)
        up = schedule.reversed()
        x0 = start_noise(5, SHAPE)[None]
        state = State(x0, torch.zeros(1, dtype=torch.int64), rows(1))
        raised = collect(denoise(toy, state, up, text_of(0.0)), up)
        back = collect(denoise(toy, replace(state, x=raised), schedule, text_of(0.0)), schedule)
        misses.append(float((back - x0).abs().max()))
    assert misses[0] > misses[1] > misses[2]
    assert misses[2] < 0.06


def test_starts_from_a_picture() -> None:
    x0 = torch.zeros(2, *SHAPE)
    eps = torch.ones(2, *SHAPE)
    half = from_latents(x0, eps, SCHEDULE, 0.5, rows(2))
    assert half.step.tolist() == [6, 6]
    assert float(half.x[0, 0, 0, 0]) == pytest.approx(float(SCHEDULE.now.sigma[6]))
    assert from_latents(x0, eps, SCHEDULE, 1e-3, rows(2)).step.tolist() == [11, 11]
    again = renoise(replace(half, x=x0), SCHEDULE, 6, eps)
    assert torch.equal(again.x, half.x)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        from_latents(x0, eps, SCHEDULE, 1.5, rows(2))


def test_a_strength_of_0_is_the_picture_itself() -> None:
    x0 = begin(2).x
    unchanged = from_latents(x0, torch.ones_like(x0), SCHEDULE, 0, rows(2))
    assert unchanged.step.tolist() == [12, 12]
    assert torch.equal(finish(unchanged, text_of(0.1, -0.4)), x0)


def test_rows_are_noised_again_to_steps_of_their_own() -> None:
    x0, eps = begin(2).x, torch.ones(2, *SHAPE)
    ended = from_latents(x0, eps, SCHEDULE, 0, rows(2))
    again = renoise(ended, SCHEDULE, torch.tensor([3, 7]), eps)
    assert again.step.tolist() == [3, 7]
    for place, step in enumerate((3, 7)):
        assert torch.equal(again.x[place], renoise(ended, SCHEDULE, step, eps).x[place])


def test_an_envelope_covers_whole_steps() -> None:
    envelope = Envelope(power=0.8, start=0.25, stop=0.75, decay=0.5)
    weights = envelope.weight(torch.arange(12), 12)
    assert weights[:3].tolist() == [0, 0, 0]
    assert weights[9:].tolist() == [0, 0, 0]
    assert float(weights[3]) == pytest.approx(0.8)
    assert float(weights[8]) == pytest.approx(0.4)
    assert bool((Envelope(0.0).weight(torch.arange(12), 12) == 0).all())
    with pytest.raises(ValueError, match="power"):
        Envelope(1.2)
