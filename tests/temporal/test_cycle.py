"""CycleDiffusion: told the same, any network returns the picture; told something else, as far as eta lets it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from random_network import RandomNetwork
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import NamedNoise, noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import SOLVERS, Ancestral
from segue.diffusion.starts import from_latents
from segue.errors import ScheduleError
from segue.temporal.cycle import Encoding, Posterior, encoded, eta_solver
from segue.temporal.moved_noise import PlacedKick, shared
from segue.temporal.operator import Identity
from segue.types import Condition, Conditioning, Denoiser, Operator, Point, RowId, Solver, over_rows
from toy import GaussianDenoiser, RowwiseDenoiser, text_of

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
SHAPE = (4, 6, 5)
IDS = tuple(RowId("clip", i) for i in range(4))
SOURCE, TARGET = text_of(0.2, -0.3, 0.5, 0.1), text_of(-0.9, 0.8, -0.4, 1.0)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def drawn(name: str, rows: tuple[RowId, ...] = IDS, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.stack([noise(0, name, 0, row, SHAPE) for row in rows]).to(dtype)


def schedule(steps: int = 20, **changes: Any) -> Schedule:
    return Schedule.from_config({**BETAS, "timestep_spacing": "trailing", **changes}, steps)


def there_and_back(
    denoiser: Denoiser,
    run: Schedule,
    target: Condition,
    *,
    source: Condition = SOURCE,
    dtype: torch.dtype = torch.float32,
    **given: Any,
) -> tuple[Tensor, Tensor]:
    """What comes of the pictures, and the pictures."""
    x0 = drawn("clean", dtype=dtype)
    way = encoded(denoiser, x0, run, source, IDS, noise=drawn("start", dtype=dtype), **given)
    more = {"operators": given["operators"]} if "operators" in given else {}
    return collect(denoise(denoiser, way.state, run, target, solver=way.solver, kick=way.kick, **more), run), x0


@pytest.mark.parametrize("eta", [1.0, 0.1, 0.01])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-10), (torch.float32, 5e-4)])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_told_the_same_it_returns_the_picture(eta: float, dtype: torch.dtype, allowed: float, kind: str) -> None:
    network = RandomNetwork(dtype, kind)
    back, x0 = there_and_back(network, schedule(50), SOURCE, dtype=dtype, solver=eta_solver(eta))
    assert float((back - x0).abs().max()) < allowed
    other, _ = there_and_back(network, schedule(50), TARGET, dtype=dtype, solver=eta_solver(eta))
    assert float((other - x0).abs().mean()) > 0.01, "told something else, it makes something else"


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m_sde", "lcm"])
@pytest.mark.parametrize("family", ["vp", "flow"])
def test_every_solver_that_adds_noise_and_every_family(name: str, family: str) -> None:
    choice = SOLVERS[name]
    config = {**BETAS, "timestep_spacing": "linspace"} if name == "dpmpp_2m_sde" else BETAS
    run = Schedule.from_config(FLOW if family == "flow" else config, 12, grid=choice.grid)
    network = RandomNetwork(torch.float64, "flow" if family == "flow" else "v_prediction")
    back, x0 = there_and_back(network, run, SOURCE, dtype=torch.float64, solver=choice.solver)
    assert float((back - x0).abs().max()) < 1e-10
    other, _ = there_and_back(network, run, TARGET, dtype=torch.float64, solver=choice.solver)
    assert float((other - x0).abs().mean()) > 0.01


@pytest.mark.parametrize("strength", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("clean_end", [True, False])
def test_a_run_may_begin_part_of_the_way_and_ends_on_the_picture(strength: float, clean_end: bool) -> None:
    """Also where the schedule's last level keeps some noise, as that of Stable Diffusion does."""
    run = schedule(set_alpha_to_one=clean_end)
    back, x0 = there_and_back(RandomNetwork(torch.float64), run, SOURCE, dtype=torch.float64, strength=strength)
    assert float((back - x0).abs().max()) < 1e-10


def test_guidance_of_both_ways_is_independent() -> None:
    network, run, nothing = RandomNetwork(torch.float64), schedule(), text_of(0.0, 0.0, 0.0, 0.0)
    source = classifier_free(SOURCE, nothing, 1.5)
    given: dict[str, Any] = {"dtype": torch.float64, "source": source}
    back, x0 = there_and_back(network, run, source, **given)
    assert float((back - x0).abs().max()) < 1e-10
    far = [
        float((there_and_back(network, run, classifier_free(TARGET, nothing, scale), **given)[0] - x0).abs().mean())
        for scale in (1.0, 2.0, 5.0)
    ]
    assert 0 < far[0] < far[1] < far[2]
    plain, _ = there_and_back(network, run, TARGET, dtype=torch.float64)
    guided, _ = there_and_back(network, run, TARGET, **given)
    assert float((plain - guided).abs().max()) > 1e-3, "the scale of the way in says something, whatever that out is"


@pytest.mark.parametrize("eta", [1.0, 0.1])
def test_a_batch_equals_one_by_one(eta: float) -> None:
    run, x0, start, solver = schedule(), drawn("clean"), drawn("start"), eta_solver(eta)
    denoiser = RowwiseDenoiser()
    guided = classifier_free(TARGET, SOURCE, 3.0)

    def edited(rows: list[int]) -> Tensor:
        ids = [IDS[row] for row in rows]
        way = encoded(denoiser, x0[rows], run, SOURCE[rows], ids, noise=start[rows], solver=solver)
        return collect(denoise(denoiser, way.state, run, guided[rows], solver=solver, kick=way.kick), run)

    together = edited([0, 1, 2, 3])
    assert torch.equal(together, torch.cat([edited([row]) for row in range(4)]))
    assert not torch.equal(together[0], together[1])


def test_the_smaller_eta_the_smaller_the_edit() -> None:
    far = [
        float((out - x0).abs().mean())
        for out, x0 in (
            there_and_back(GaussianToldMean(), schedule(50), TARGET, solver=eta_solver(eta)) for eta in (1.0, 0.1, 0.01)
        )
    ]
    assert far[0] > far[1] > far[2] > 0.01


class GaussianToldMean:
    """Pixels are N(text, 0.5^2): an edit moves pictures from one mean towards another."""

    group = 1

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        assert isinstance(cond, Conditioning)
        return GaussianDenoiser(over_rows(cond.text.mean((1, 2)), x), 0.5)(x, at, cond)  # pyright: ignore[reportArgumentType]


def test_the_path_is_drawn_from_the_posterior() -> None:
    """x_t along it is N(alpha x0, sigma^2) at every level, as if each were noised by itself (eta 1: and a chain)."""
    rows = tuple(RowId("row", number) for number in range(600))
    x0 = torch.full((600, 1, 4, 4), 0.7, dtype=torch.float64)
    start = torch.stack([noise(1, "start", 0, row, (1, 4, 4)) for row in rows]).double()
    run = schedule(8)
    for eta in (1.0, 0.3):
        way = encoded(
            RandomNetwork(torch.float64, channels=1),
            x0,
            run,
            text_of(*[0.0] * 600),
            rows,
            noise=start,
            solver=eta_solver(eta),
        )
        for step in range(8):
            alpha, sigma = run.now.level(step)
            assert float(way.at(step).mean()) == pytest.approx(0.7 * alpha, abs=4 * sigma / 9600**0.5)
            assert float(way.at(step).std()) == pytest.approx(sigma, rel=0.03)
        assert torch.equal(way.at(8), x0)
        # How much of a level's noise is that of the level before: all but a share that eta decides.
        fresh = (way.at(4) - run.now.alpha[4] * 0.7) / run.now.sigma[4]
        older = (way.at(3) - run.now.alpha[3] * 0.7) / run.now.sigma[3]
        shrink = (run.now.sigma[4] * run.now.alpha[3]) / (run.now.sigma[3] * run.now.alpha[4])
        expected = float((1 - eta**2 * (1 - shrink**2)) ** 0.5)
        assert float((fresh * older).mean()) == pytest.approx(expected, abs=0.04)


class Pulled(Identity):
    """Operators act on both ways: this one at all three places."""

    def on_latents(self, x: Tensor, at: Point) -> Tensor:
        return x * 0.99

    def on_denoised(self, x0: Tensor, at: Point) -> Tensor:
        return x0.clamp(-0.5, 0.5)

    def on_stepped(self, x: Tensor, x0: Tensor, at: Point) -> Tensor:
        return torch.where(at.index[:, None, None, None] < at.count, x + 0.01 * x0.mean(), x)


def test_operators_of_both_ways_do_not_break_the_return() -> None:
    operators: tuple[Operator, ...] = (Pulled(),)
    back, x0 = there_and_back(
        RandomNetwork(torch.float64), schedule(), SOURCE, dtype=torch.float64, operators=operators
    )
    assert float((back - x0).abs().max()) < 0.02, "what is put on the last state is the operator's"


def test_frames_that_share_noise_have_increments_that_differ_as_little_as_they_do() -> None:
    """The law of its video form: the same frame twice gives the same noise twice, and near frames near noise."""
    x0 = drawn("clean", IDS[:1]).double().repeat(3, 1, 1, 1)
    x0[2] += 0.01
    rows, told = IDS[:3], text_of(0.2, 0.2, 0.2)
    start = drawn("start", IDS[:1]).double().repeat(3, 1, 1, 1)
    together = PlacedKick(shared(3, (SHAPE[2], SHAPE[1])), name="posterior")
    network = RandomNetwork(torch.float64)

    def apart(kick: Any) -> tuple[float, float]:
        way = encoded(network, x0, schedule(), told, rows, noise=start, solver=eta_solver(1.0), kick=kick)
        differences = [(each - each[:1]).abs().amax((1, 2, 3)) for each in way.kick.by_step.values()]
        same, near = torch.stack(differences).amax(0).tolist()[1:]
        return same, near

    same, near = apart(together)
    assert same == 0
    assert 0 < near < 0.1
    assert min(apart(NamedNoise(name="posterior"))) > 0.5


@pytest.mark.parametrize("name", ["ddim", "euler", "dpmpp_2m"])
def test_solvers_without_noise_are_refused(name: str) -> None:
    choice = SOLVERS[name]
    run = Schedule.from_config({**BETAS, "timestep_spacing": "linspace"}, 6, grid=choice.grid)
    with pytest.raises(ScheduleError, match=r"this solver adds none; take ddim with\s+eta above 0"):
        there_and_back(RowwiseDenoiser(), run, SOURCE, solver=choice.solver)


@pytest.mark.parametrize("eta", [0.0, -0.1, 1.1, float("nan")])
def test_eta_out_of_range_is_refused_by_name(eta: float) -> None:
    with pytest.raises(ScheduleError, match="eta must be above 0 and at most 1"):
        eta_solver(eta)
    if eta == 0:
        with pytest.raises(ScheduleError, match="adds none"):
            there_and_back(RowwiseDenoiser(), schedule(), SOURCE, solver=Ancestral(0.0))


@pytest.mark.parametrize("strength", [0.0, 1.2])
def test_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"strength must be in \(0, 1\]"):
        there_and_back(RowwiseDenoiser(), schedule(), SOURCE, strength=strength)


def encoding(solver: Solver | None = None) -> Encoding:
    return encoded(
        RowwiseDenoiser(), drawn("clean"), schedule(10), SOURCE, IDS, noise=drawn("start"), strength=0.5, solver=solver
    )


def test_it_knows_its_rows_and_its_size() -> None:
    way = encoding()
    other = tuple(RowId("edit", number) for number in range(4))
    renamed = way.renamed(other)
    assert (renamed.ids, way.ids, renamed.solver) == (other, IDS, Ancestral(0.1))
    assert sorted(way.kick.by_step) == [5, 6, 7, 8, 9]
    assert sorted(way.latents) == [5, 6, 7, 8, 9, 10]
    assert way.nbytes == 11 * 4 * 4 * 4 * 6 * 5
    with pytest.raises(ValueError, match="no record of step 5 of"):
        collect(
            denoise(RowwiseDenoiser(), way.state, schedule(10), SOURCE, solver=way.solver, kick=renamed.kick),
            schedule(10),
        )
    parted = renamed.state.fork([2, 0])
    told = TARGET[[2, 0]]
    run = schedule(10)
    some = collect(denoise(RowwiseDenoiser(), parted, run, told, solver=way.solver, kick=renamed.kick), run)
    whole = collect(denoise(RowwiseDenoiser(), way.state, run, TARGET, solver=way.solver, kick=way.kick), run)
    assert torch.equal(some, whole[[2, 0]])


def test_progress_counts_steps() -> None:
    told: list[tuple[str, float, float]] = []

    def watch(what: str, done: float, total: float) -> None:
        told.append((what, done, total))

    x0 = drawn("clean")
    encoded(RowwiseDenoiser(), x0, schedule(10), SOURCE, IDS, noise=drawn("start"), strength=0.3, progress=watch)
    assert told == [("encoding", 1, 3), ("encoding", 2, 3), ("encoding", 3, 3)]


def test_a_multistep_solver_keeps_two_memories() -> None:
    """Along the way it has seen the picture only, so that it stays a posterior; the mean is that of a model's run."""
    run = Schedule.from_config({**BETAS, "timestep_spacing": "linspace"}, 6, grid="multistep")
    solver, x0 = SOLVERS["dpmpp_2m_sde"].solver, drawn("clean")
    begin = from_latents(x0, drawn("start"), run, 1.0, IDS)
    states = list(denoise(RowwiseDenoiser(), begin, run, SOURCE, solver=Posterior(solver, x0, IDS)))
    assert len(states[-1].history) == 5
    assert torch.equal(states[2].history[0], x0)
    assert not torch.equal(states[2].history[2], x0)
    assert torch.equal(replace(states[3]).fork([1]).history[-1], states[3].history[-1][[1]])
