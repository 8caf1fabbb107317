"""Noise schedules, read from a diffusers scheduler config: the settings are taken, the scheduler is never stepped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from segue.diffusion.betas import training_levels
from segue.diffusion.levels import Levels
from segue.errors import ScheduleError
from segue.types import Point, RowId

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64
    from torch import Tensor

Grid = Literal["ddim", "sigmas", "multistep", "lcm"]
"""Which times are visited: every solver of diffusers has its own reading of the same config."""

KARRAS_RHO = 7.0
_REFUSED = (
    "use_lu_lambdas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_flow_sigmas",
    "invert_sigmas",
    "stochastic_sampling",
    "thresholding",
)


@dataclass(frozen=True)
class Schedule:
    """Where each step of a denoising run starts and ends: x_t = alpha_t x0 + sigma_t eps.

    `then[i]` is where step i lands. It may differ from `now[i + 1]`: the DDIM of diffusers steps back by the whole
    number 1000 // n, wherever the next time lies.

    Args:
        now: levels at which the network is asked, the noisiest first.
        then: levels at which each step lands; the last is the data end.
        start_scale: what standard noise is multiplied with to start at `now[0]`.
    """

    now: Levels
    then: Levels
    start_scale: float = 1.0

    def __post_init__(self) -> None:
        if len(self.now) != len(self.then):
            raise ValueError(f"a schedule needs as many ends as starts: {len(self.then)} and {len(self.now)}")

    def __len__(self) -> int:
        return len(self.now)

    def step(self, index: Int64[Tensor, " b"], rows: Sequence[RowId] = ()) -> tuple[Point, Point]:
        """Where rows that have `index` steps behind them stand, and where their next step lands."""
        if bool((index < 0).any()) or bool((index >= len(self)).any()):
            raise IndexError(f"step {index.tolist()} is outside a schedule of {len(self)} steps")
        ids = tuple(rows)
        here = Point(index, len(self), self.now.alpha[index], self.now.sigma[index], self.now.time[index], ids)
        there = Point(index + 1, len(self), self.then.alpha[index], self.then.sigma[index], self.then.time[index], ids)
        return here, there

    def reversed(self) -> Schedule:
        """The way back into noise (DDIM inversion): from the least trained level, never from sigma 0, to `now[0]`.

        Inversion by it is approximate: the network is asked at the level that a step leaves, not where it lands.
        """
        up = self.now.flip()
        return Schedule(up[: len(up) - 1], up[1:], start_scale=1.0)

    def joined(self) -> Schedule:
        """The schedule whose every step lands where the next one begins, with the same levels to be asked at."""
        return replace(self, then=Levels.cat([self.now[1:], self.then[len(self) - 1 :]]))

    def every(self, stride: int) -> Schedule:
        """The coarser schedule of every `stride`-th step from the first on; each lands where the next one begins.

        Raises:
            ValueError: the stride is below 1.
        """
        if stride < 1:
            raise ValueError(f"a stride must be 1 or more, got {stride}")
        now = self.now[::stride]
        return self if stride == 1 else replace(self, now=now, then=Levels.cat([now[1:], self.then[-1:]]))

    def tail(self, first: int) -> Schedule:
        """The schedule without its first steps."""
        return replace(self, now=self.now[first:], then=self.then[first:])

    @staticmethod
    def from_config(config: Mapping[str, Any], steps: int, *, grid: Grid = "ddim", mu: float | None = None) -> Schedule:
        """The schedule that a diffusers scheduler of this config visits.

        Parity with diffusers 0.42 is tested, step by step: DDIM ("ddim"), Euler and Euler ancestral ("sigmas"),
        DPM++ 2M ("multistep"), LCM ("lcm"), and flow matching, whose config decides by itself: from the noise to the
        least trained level or, where its `timestep_spacing` is "trailing", in equal steps to the data. Models of
        continuous noise levels have Euler's times, whatever the grid: they know no others.
        The times are those of diffusers for every number of steps (1 to 200 are tested), but where its list is of no
        use: a last time of -1 beyond the steps that were asked for is left out, and a single step of "linspace" starts
        in the noise, not at time 0. `clip_sample` is a setting of pixel models and is not applied to latents, as in
        diffusers' own pipelines.

        Args:
            config: the contents of scheduler_config.json.
            steps: how many network evaluations, 1 or more.
            grid: which of the readings.
            mu: the resolution-dependent shift of flow models that ask for one (Esser et al. 2024, arXiv:2403.03206).

        Raises:
            ScheduleError: for impossible numbers of steps, settings that are not supported, a `mu` that the config
                has no use for, and noise prediction with a zero terminal signal-to-noise ratio, which has no solution.
        """
        refused = [key for key in _REFUSED if config.get(key)]
        if refused:
            raise ScheduleError(
                f"the scheduler config asks for {', '.join(refused)}, which Segue does not support; "
                "set it to false, or use use_karras_sigmas"
            )
        if steps < 1:
            raise ScheduleError(f"steps must be 1 or more, got {steps}")
        if mu is not None and not (is_flow(config) and config.get("use_dynamic_shifting")):
            raise ScheduleError("mu shifts flow models with use_dynamic_shifting, and this is none; leave mu out")
        if is_flow(config):
            return _flow(config, steps, mu)
        trained = training_levels(config)
        if steps > len(trained):
            raise ScheduleError(f"steps must be at most {len(trained)}, the trained times of this model; got {steps}")
        if is_continuous(config):
            return _sigmas(config, steps, trained)
        build = {"ddim": _ddim, "sigmas": _sigmas, "multistep": _multistep, "lcm": _lcm}[grid]
        return build(config, steps, trained)


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a scheduler config belongs to a flow-matching model."""
    return str(config.get("_class_name", "")).startswith("FlowMatch")


def is_continuous(config: Mapping[str, Any]) -> bool:
    """Whether a scheduler config belongs to a model that is told the logarithm of its noise (Stable Video Diffusion).

    Preconditioned as by Karras et al. 2022 (arXiv:2206.00364, table 1, with sigma_data 1), such a model predicts v of
    the latents divided by sqrt(1 + s^2), where s is the noise-to-signal ratio: ours, with alpha = 1 / sqrt(1 + s^2).
    """
    return config.get("timestep_type", "discrete") == "continuous"


def resolution_shift(config: Mapping[str, Any], tokens: int) -> float:
    """mu of a picture of so many tokens: a line through the two that the config names, not bounded by them.

    As the pipelines of diffusers for FLUX and Stable Diffusion 3 count it (Esser et al. 2024, arXiv:2403.03206,
    section 5.3.2, says why larger pictures need more noise).
    """
    least, most = int(config.get("base_image_seq_len", 256)), int(config.get("max_image_seq_len", 4096))
    low, high = float(config.get("base_shift", 0.5)), float(config.get("max_shift", 1.15))
    return low + (tokens - least) * (high - low) / (most - least)


def _ddim(config: Mapping[str, Any], steps: int, trained: Levels) -> Schedule:
    count = len(trained)
    spacing = config.get("timestep_spacing", "leading")
    if spacing == "linspace":
        times = _rising(count - 1, steps).flip(0).round()
    else:
        times = _spaced(config, spacing, count, steps)
    # The stride is a whole number whatever the spacing, so `then` need not be the next `now`.
    landing = times - count // steps
    inside = landing.clamp(min=0).long()
    end = _Level(1.0, 0.0) if config.get("set_alpha_to_one", True) else _Level(*trained.level(0))
    past = landing < 0
    then = Levels(
        torch.where(past, end.alpha, trained.alpha[inside]),
        torch.where(past, end.sigma, trained.sigma[inside]),
        landing.clamp(min=0),
    )
    return Schedule(trained[times.long()], then)


class _Level(NamedTuple):
    alpha: float
    sigma: float


def _sigmas(config: Mapping[str, Any], steps: int, trained: Levels) -> Schedule:
    if config.get("interpolation_type", "linear") != "linear":
        raise ScheduleError("only linear interpolation of sigmas is supported; set interpolation_type to linear")
    if is_continuous(config) and config.get("prediction_type") != "v_prediction":
        raise ScheduleError("continuous times are those of models that predict v: set prediction_type to v_prediction")
    trained = _with_signal(config, trained)
    ratios = trained.ratio
    spacing = config.get("timestep_spacing", "linspace")
    if spacing == "linspace":
        times = _rising(len(trained) - 1, steps).flip(0)
    else:
        times = _spaced(config, spacing, len(trained), steps)
    visited = _interpolate(times, ratios)
    if config.get("use_karras_sigmas"):
        highest = config.get("sigma_max") or float(visited[0])
        lowest = config.get("sigma_min") or float(visited[-1])
        visited = _karras(highest, lowest, steps)
        times = _time_of(visited, ratios)
    if is_continuous(config):
        times = 0.25 * visited.log()
    top = float(visited.max())
    # Leading times start where the noise is slightly larger than the trained end; diffusers scales for both cases.
    scale = 1.0 if spacing == "leading" else top / math.sqrt(top**2 + 1)
    return _from_ratios(visited, times, _last_ratio(config, trained), scale)


def _multistep(config: Mapping[str, Any], steps: int, trained: Levels) -> Schedule:
    trained = _with_signal(config, trained)
    ratios = trained.ratio
    if config.get("use_karras_sigmas"):
        visited = _karras(float(ratios[-1]), float(ratios[0]), steps)
        times = _time_of(visited, ratios)
        # diffusers rounds these times, but for cosine betas, where it cuts the fraction off.
        times = times.floor() if config.get("beta_schedule") == "squaredcos_cap_v2" else times.round()
        return _from_ratios(visited, times, _last_ratio(config, trained), 1.0)
    spacing = config.get("timestep_spacing", "linspace")
    clip = float(config.get("lambda_min_clipped", -math.inf))
    last = int((-ratios.log() >= clip).sum())
    if spacing == "linspace":
        times = _rising(last - 1, steps + 1).flip(0).round()[:-1]
    elif spacing == "leading":
        stride = last // (steps + 1)
        times = torch.arange(steps, 0, -1, dtype=torch.float64) * stride + config.get("steps_offset", 0)
    else:
        times = _trailing(spacing, last, len(trained) / steps, steps)
        if float(times[-1]) < 0:
            raise ScheduleError(
                f"{steps} trailing steps do not fit into the {last} times that lambda_min_clipped leaves; "
                'take fewer steps, or set timestep_spacing to "linspace"'
            )
    return _from_ratios(_interpolate(times, ratios), times, _last_ratio(config, trained), 1.0)


def _lcm(config: Mapping[str, Any], steps: int, trained: Levels) -> Schedule:
    distilled = int(config.get("original_inference_steps", 50))
    if steps > distilled:
        raise ScheduleError(f"steps must be at most {distilled}, the steps that this model was distilled from")
    stride = len(trained) // distilled
    taught = torch.arange(distilled, 0, -1) * stride - 1
    chosen = taught[_rising(distilled, steps + 1)[:-1].floor().long()]
    now = trained[chosen]
    end = Levels.single(*((1.0, 0.0) if config.get("set_alpha_to_one", True) else trained.level(0)))
    return Schedule(now, Levels.cat([now[1:], end]))


def _flow(config: Mapping[str, Any], steps: int, mu: float | None) -> Schedule:
    """Flow matching, x_t = (1 - sigma) x0 + sigma eps (Liu et al. 2022, arXiv:2209.03003), with its shifts."""
    count = int(config.get("num_train_timesteps", 1000))
    shift = float(config.get("shift", 1.0))
    dynamic = bool(config.get("use_dynamic_shifting", False))
    if dynamic and mu is None:
        raise ScheduleError("this flow model shifts its schedule with the picture's size; pass mu")
    if config.get("use_karras_sigmas"):
        raise ScheduleError("use_karras_sigmas is not supported for flow matching; set it to false")
    ends = torch.tensor([1.0, 1.0 / count], dtype=torch.float64)
    if not dynamic:
        # The trained range is itself shifted before the visited levels are shifted once more.
        ends = shift * ends / (1 + (shift - 1) * ends)
    if config.get("timestep_spacing") == "trailing":
        # As pipelines hand it over that spare the last evaluation so near the data that it changes nothing.
        sigma = ends[0] * torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    else:
        sigma = _linspace(float(ends[0]), float(ends[1]), steps)
    if mu is not None:
        push = math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu
        sigma = push / (push + (1 / sigma - 1))
    else:
        sigma = shift * sigma / (1 + (shift - 1) * sigma)
    if config.get("shift_terminal"):
        kept = (1 - sigma) / ((1 - sigma[-1]) / (1 - float(config["shift_terminal"])))
        sigma = 1 - kept
    then = torch.cat([sigma[1:], sigma.new_zeros(1)])
    return Schedule(
        Levels(1 - sigma, sigma, sigma * count), Levels(1 - then, then, then * count), start_scale=float(sigma[0])
    )


def _from_ratios(ratios: Tensor, times: Tensor, last: float, scale: float) -> Schedule:
    tail = torch.cat([ratios[1:], ratios.new_tensor([last])])
    landing = torch.cat([times[1:], times.new_zeros(1)])
    return Schedule(Levels.from_ratio(ratios, times), Levels.from_ratio(tail, landing), start_scale=scale)


def _last_ratio(config: Mapping[str, Any], trained: Levels) -> float:
    final = config.get("final_sigmas_type", "zero")
    if final == "zero":
        return 0.0
    if final == "sigma_min":
        return float(trained.ratio[0])
    raise ScheduleError(f'final_sigmas_type must be "zero" or "sigma_min", got {final!r}')


def _spaced(config: Mapping[str, Any], spacing: str, count: int, steps: int) -> Float64[Tensor, " n"]:
    if spacing == "leading":
        times = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (count // steps) + config.get("steps_offset", 0)
        # An offset may reach past the trained end when one step is asked of a model; diffusers fails there.
        if float(times[0]) > count - 1:
            raise ScheduleError(f"{steps} leading steps with this steps_offset start beyond the trained times")
        return times
    return _trailing(spacing, count, count / steps, steps)


def _trailing(spacing: str, last: int, stride: float, steps: int) -> Float64[Tensor, " n"]:
    if spacing != "trailing":
        raise ScheduleError(f'timestep_spacing must be "leading", "trailing" or "linspace", got {spacing!r}')
    # As numpy counts: its stride is what the first step changed, after rounding, and decides where halves go.
    stride = last - (last - stride)
    return (last - stride * torch.arange(steps, dtype=torch.float64)).round() - 1


def _rising(last: float, count: int) -> Float64[Tensor, " n"]:
    """0 to `last` in even steps, with the roundings of numpy, which torch.linspace does not have; of one, `last`."""
    if count == 1:
        return torch.tensor([last], dtype=torch.float64)
    values = torch.arange(count, dtype=torch.float64) * (last / (count - 1))
    values[-1] = last
    return values


def _with_signal(config: Mapping[str, Any], trained: Levels) -> Levels:
    """The trained levels with finite noise-to-signal ratios."""
    if config.get("rescale_betas_zero_snr"):
        return trained.without_zero_snr()
    if float(trained.alpha[-1]) == 0:
        raise ScheduleError(
            "the last of these betas leaves no signal, and this solver needs a trace of it; "
            "set rescale_betas_zero_snr to true, or use the solver ddim"
        )
    return trained


def _linspace(first: float, last: float, count: int) -> Float64[Tensor, " n"]:
    return torch.linspace(first, last, count, dtype=torch.float64)


def _interpolate(times: Float64[Tensor, " n"], values: Float64[Tensor, " t"]) -> Float64[Tensor, " n"]:
    low = times.floor().long().clamp(0, len(values) - 1)
    high = (low + 1).clamp(max=len(values) - 1)
    share = times - low
    return values[low] * (1 - share) + values[high] * share


def _karras(highest: float, lowest: float, steps: int) -> Float64[Tensor, " n"]:
    """Karras et al. 2022, arXiv:2206.00364, eq. 5, with rho = 7."""
    roots = _linspace(highest ** (1 / KARRAS_RHO), lowest ** (1 / KARRAS_RHO), steps)
    return roots**KARRAS_RHO


def _time_of(ratios: Float64[Tensor, " n"], trained: Float64[Tensor, " t"]) -> Float64[Tensor, " n"]:
    """The time at which a model was trained with these noise-to-signal ratios, log-linear between whole times."""
    logs, wanted = trained.log(), ratios.clamp(min=1e-10).log()
    low = (torch.searchsorted(logs, wanted, right=True) - 1).clamp(0, len(logs) - 2)
    share = ((wanted - logs[low]) / (logs[low + 1] - logs[low])).clamp(0, 1)
    return low + share
