"""From what a network predicts to x0: guidance, batching and the four kinds of prediction, for every family alike."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from segue.errors import TaskError
from segue.models.exhaustion import FURTHER, told_if_exhausted
from segue.types import Call, Condition, Conditioning, Network, Point, Prediction, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_ALIKE = 4
PADDING = -1
"""The guidance term that a Call gives to rows which only fill a batch up."""


def x0_from(
    raw: Float[Tensor, "b c h w"], x: Float[Tensor, "b c h w"], at: Point, prediction: Prediction
) -> Float[Tensor, "b c h w"]:
    """x0 from a network's output, in the dtype of `x`; coefficients are made in float64.

    epsilon: (x - sigma eps) / alpha, infinite where alpha is 0. v: alpha x - sigma v (Salimans & Ho 2022,
    arXiv:2202.00512, section 4). sample: as it is. flow: the velocity eps - x0 (Lipman et al. 2023, arXiv:2210.02747),
    x0 = (x - sigma velocity) / (alpha + sigma), where alpha + sigma is 1 on the straight path.
    """
    alpha, sigma = at.alpha, at.sigma
    if prediction == "sample":
        return raw
    if prediction == "v_prediction":
        return over_rows(alpha, x) * x - over_rows(sigma, x) * raw
    scale = alpha if prediction == "epsilon" else alpha + sigma
    return over_rows(1 / scale, x) * x - over_rows(sigma / scale, x) * raw


def rescaled(
    guided: Float[Tensor, "b c h w"], kept: Float[Tensor, "b c h w"], share: float
) -> Float[Tensor, "b c h w"]:
    """`guided` with `share` of its standard deviation brought back to that of `kept`, row by row (Lin et al. 2023)."""
    axes = tuple(range(1, guided.ndim))
    factor = kept.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return guided * (share * factor + (1 - share))


def embedded(cond: Condition, at: Point) -> Conditioning:
    """The last term, told its guidance scale.

    Raises:
        TaskError: there are more than two terms, or a rescale.
    """
    if isinstance(cond, Conditioning):
        term, scale = cond, torch.ones(len(cond), dtype=torch.float64)
    else:
        if len(cond.terms) != 2 or cond.rescale:
            raise TaskError(
                "this model is told its guidance scale as a number: it can be guided towards one text, without rescale"
            )
        term, scale = cond.terms[-1], cond.weights_at(at)[-1]
    return replace(term, extra={**term.extra, "guidance": scale})


@dataclass(frozen=True)
class NetworkDenoiser:
    """A Denoiser around a family's network.

    All guidance terms of all rows are one list of network rows (term by term), which is cut into calls.

    Args:
        network: the family's module call.
        prediction: what it predicts.
        max_batch: the most network rows (terms times rows) in one call; a whole number of groups is taken.
        deterministic_batch: fill every call up to one number of rows, so that a row's bits do not depend on its
            companions: max_batch, or the multiple of 4 below it. Rows that fill up repeat the last group and carry
            the term PADDING.
        group: consecutive rows that must share a call (the frames of a video model).
        embeds_guidance: whether the network takes the guidance scale as a number, having learned what guidance does
            (Meng et al. 2023, arXiv:2210.03142). The last of two terms is then evaluated alone, and its weight, which
            is the scale, is handed over as `extra["guidance"]`, one number per row; unguided rows are told 1.
    """

    network: Network
    prediction: Prediction
    max_batch: int = 16
    deterministic_batch: bool = False
    group: int = 1
    embeds_guidance: bool = False

    def __post_init__(self) -> None:
        if self.max_batch < self.group:
            raise TaskError(
                f"max_batch must be at least {self.group}, the rows that this model denoises together; "
                f"got {self.max_batch}"
            )

    def __call__(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> Float[Tensor, "b c h w"]:
        """x0, float32. `x`, `at` and `cond` agree in their rows.

        A term whose weight is 0 for every row is not evaluated. Terms are summed, and rescaled, in the network's own
        output space.

        Raises:
            TaskError: the network embeds guidance, and this has more than two terms, or a rescale.
        """
        if not len(x) == len(at) == len(cond):
            raise ValueError(f"rows disagree: {len(x)} latents, {len(at)} points, {len(cond)} conditionings")
        if len(x) % self.group:
            raise ValueError(f"rows must come in groups of {self.group}; got {len(x)}")
        if self.embeds_guidance:
            cond = embedded(cond, at)
        if isinstance(cond, Conditioning):
            (raw,) = self._evaluate(x, at, {0: cond}, 1)
            return x0_from(raw, x.float(), at, self.prediction)
        weights = cond.weights_at(at)
        active = {k: term for k, term in enumerate(cond.terms) if bool(weights[k].any())}
        raws = self._evaluate(x, at, active, len(cond.terms))
        raw = _weighted_sum(raws, weights[list(active)])
        if cond.rescale:
            raw = rescaled(raw, raws[-1], cond.rescale)
        return x0_from(raw, x.float(), at, self.prediction)

    def _evaluate(self, x: Tensor, at: Point, terms: dict[int, Conditioning], count: int) -> tuple[Tensor, ...]:
        """The network's float32 output for each of these of `count` terms, from as few calls as max_batch allows."""
        cond = Conditioning.cat(list(terms.values()))
        source = list(range(len(x))) * len(terms)
        labels = [k for k in terms for _ in range(len(x))]
        outputs: list[Tensor] = []
        for rows, fill in self._calls(len(source)):
            pick = [source[i] for i in rows + fill]
            here = at[pick]
            term = tuple(labels[i] for i in rows) + (PADDING,) * len(fill)
            call = Call(here, here.rows, term, terms=count, group=self.group)
            seen = x[pick]
            with told_if_exhausted(*self._told(seen)):
                raw = self.network(seen, here.time, cond[rows + fill], call)
            outputs.append(raw[: len(rows)].to(device=x.device, dtype=torch.float32))
        return torch.cat(outputs).chunk(len(terms))

    def _told(self, x: Tensor) -> tuple[str, str]:
        """What a call does, and what would take less memory, for people."""
        rows, (height, width) = len(x), x.shape[-2:]
        smaller = f"take --max-batch {rows // 2}, " if rows // 2 >= self.group else "take "
        return f"denoising {rows} rows of {width}x{height} latents in one call", f"{smaller}{FURTHER}"

    def _calls(self, count: int) -> Iterator[tuple[list[int], list[int]]]:
        """Cut network rows 0..count into calls: the rows of each, and the rows that fill it up."""
        most = self._most()
        for start in range(0, count, most):
            rows = list(range(start, min(start + most, count)))
            missing = most - len(rows) if self.deterministic_batch else 0
            yield rows, rows[-self.group :] * (missing // self.group)

    def _most(self) -> int:
        most = self.max_batch // self.group * self.group
        if not self.deterministic_batch:
            return most
        # On several threads MKL cuts a product of few rows (time embeddings have one each) so that a row's rounding
        # depends on its place, unless their number is a multiple of 4: 5, 6, 7, 9, 10 and 11 were seen to fail.
        whole = most - most % math.lcm(_ALIKE, self.group)
        return whole or most


def _weighted_sum(raws: tuple[Tensor, ...], weights: Tensor) -> Tensor:
    total = over_rows(weights[0], raws[0]) * raws[0]
    for raw, weight in zip(raws[1:], weights[1:], strict=True):
        total = total + over_rows(weight, raw) * raw
    return total


@dataclass
class Tally:
    """Counts what a network was asked: calls, network rows (padding included) and seconds spent inside.

    A mutable counter: `tally.watching(denoiser)` is the same denoiser, counted.

    Args:
        timed: whether seconds are counted; an accelerator is then waited for after each call.
    """

    timed: bool = True
    calls: int = 0
    rows: int = 0
    seconds: float = 0.0
    sizes: list[int] = field(default_factory=list[int])

    def watching(self, denoiser: NetworkDenoiser) -> NetworkDenoiser:
        """The same denoiser, whose network calls are counted here."""
        return replace(denoiser, network=_Watched(denoiser.network, self))


@dataclass(frozen=True)
class _Watched:
    network: Network
    tally: Tally

    def __call__(self, x: Tensor, time_: Tensor, cond: Conditioning, call: Call) -> Tensor:
        raw = self._timed(x, time_, cond, call) if self.tally.timed else self.network(x, time_, cond, call)
        self.tally.calls += 1
        self.tally.rows += len(x)
        self.tally.sizes.append(len(x))
        return raw

    def _timed(self, x: Tensor, time_: Tensor, cond: Conditioning, call: Call) -> Tensor:
        _wait_for(x)
        start = time.perf_counter()
        raw = self.network(x, time_, cond, call)
        _wait_for(raw)
        self.tally.seconds += time.perf_counter() - start
        return raw


def _wait_for(x: Tensor) -> None:
    """Kernels on an accelerator run after the call returns; wait, so that seconds are honest."""
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
