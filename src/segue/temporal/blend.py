"""Mixing any number of trajectories: the points of a path that are no keys.

Two are mixed as branches mix their parents (`mix`); more than two by the same rules, in no order:

* "whole" and "channels": the weighted mean on the sphere (Buss & Fillmore 2001, "Spherical averages and applications to
  spherical splines and interpolation"), the direction q for which sum_i w_i log_q(u_i) = 0, where u_i are the
  directions of the latents. With two of them, it is slerp. q = sum_i c_i u_i, and the latents are mixed by the same
  c_i: those of one length keep it.
* "linear": sum_i w_i x_i, stretched to the length sum_i w_i |x_i|.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segue.temporal.mix import NEARLY_PARALLEL, Mix, mixed
from segue.temporal.simplex import Route
from segue.temporal.tree import Tree

if TYPE_CHECKING:
    from jaxtyping import Float, Float64
    from torch import Tensor

    from segue.temporal.grow import Grower
    from segue.temporal.trajectory import Trajectory

ROUNDS, CLOSE = 200, 1e-14
"""Of the iteration: it gains a digit every few rounds, and ends when nothing moves any more."""


def blended(latents: Float[Tensor, "n c h w"], weights: Sequence[float], mix: Mix = "whole") -> Float[Tensor, "c h w"]:
    """One mix of latents by weights that add up to 1; a weight of 1 is exactly that latent.

    In float64 where the device has it. The order of the latents makes no difference beyond the last digits.
    """
    parts = [(latent, weight) for latent, weight in zip(latents, weights, strict=True) if weight > 0]
    if len(parts) == 1:
        return parts[0][0]
    x = torch.stack([latent for latent, _ in parts])
    w = torch.tensor([weight for _, weight in parts], dtype=torch.float64)
    if len(parts) == 2:
        return mixed(x[:1], x[1:], w[1:], mix)[0]
    precise = x.to(torch.float32 if x.device.type == "mps" else torch.float64)
    if mix == "channels":
        found = torch.stack([_spherical(precise[:, [channel]], w)[0] for channel in range(x.shape[1])])
    else:
        found = _spherical(precise, w) if mix == "whole" else _linear(precise, w)
    return found.to(x.dtype)


def spherical_mean(cosines: Float64[Tensor, "n n"], weights: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """What the unit vectors with these cosines between them are multiplied with, so that their sum is their weighted
    mean on the sphere. With opposites among them there is no such mean; then it is what lies in a line.

    The condition sum_i w_i log_q(u_i) = 0 says that q is in proportion to sum_i w_i a_i / sin(a_i) u_i, where a_i is
    the angle between q and u_i; this is repeated until it holds.
    """
    coefficients = weights / weights.sum()
    for _ in range(ROUNDS):
        length = (coefficients @ cosines @ coefficients).clamp(min=0).sqrt()
        if float(length) < NEARLY_PARALLEL:
            return weights / weights.sum()
        coefficients = coefficients / length
        angles = (cosines @ coefficients).clamp(-1, 1).acos()
        drawn = weights * torch.where(angles > NEARLY_PARALLEL, angles / angles.sin().clamp(min=1e-300), 1.0)
        drawn = drawn / (drawn @ cosines @ drawn).clamp(min=1e-300).sqrt()
        if float((drawn - coefficients).abs().max()) < CLOSE:
            return drawn
        coefficients = drawn
    return coefficients


def _spherical(x: Tensor, weights: Tensor) -> Tensor:
    flat = x.flatten(1)
    lengths = flat.norm(dim=1, keepdim=True)
    if not bool((lengths > 0).all()):
        return torch.tensordot(weights.to(x), x, dims=1)
    cosines = (flat / lengths) @ (flat / lengths).T
    return torch.tensordot(spherical_mean(cosines.cpu().double(), weights).to(x), x, dims=1)


def _linear(x: Tensor, weights: Tensor) -> Tensor:
    straight = torch.tensordot(weights.to(x), x, dims=1)
    wanted, length = float(weights.to(x) @ x.flatten(1).norm(dim=1)), float(straight.norm())
    return straight * (wanted / length) if length > NEARLY_PARALLEL * wanted else straight


@dataclass(frozen=True)
class Blend:
    """The mix of several trajectories, step by step.

    Args:
        parts: of all keys that have been run.
        weights: of each key, adding up to 1.
        mix: how their latents are mixed.
    """

    parts: Mapping[int, Trajectory]
    weights: tuple[float, ...]
    mix: Mix = "whole"

    def at(self, step: int) -> Float[Tensor, "c h w"]:
        """The mixed latents with `step` steps behind them."""
        used = [(self.parts[key].at(step), weight) for key, weight in enumerate(self.weights) if weight > 0]
        return blended(torch.stack([part for part, _ in used]), [weight for _, weight in used], self.mix)


@dataclass(frozen=True)
class Blends:
    """The points of a path that are mixes of keys, and the run of these keys.

    A blend is a branch of all keys that have a share in it. It forks from them at its step; before that, its latents
    are their mix at every step, so that branches can fork from it as from a key.

    Args:
        keys: runs them, or has them.
        route: what is mixed where.
        steps: where each blend forks, by its place.
        mix: how latents are mixed.
    """

    keys: Grower
    route: Route
    steps: Mapping[int, int]
    mix: Mix = "whole"

    def run(self, keep: frozenset[int]) -> Iterator[int]:
        """Run all keys, whose latents are kept at steps that others need; yields row-steps that were just done."""
        count = len(self.keys.keys)
        keep |= self.keys.needed(Tree.of_keys(count), frozenset())
        yield from self.keys.run(Tree.of_keys(count), range(count), keep | frozenset(self.steps.values()))

    def corners(self) -> dict[int, Trajectory]:
        """The trajectories of all places that are keys."""
        return {place: self.keys.trajectories[key] for place, key in self.route.corners.items()}

    def guide(self, place: int) -> Blend:
        """The mix at a place."""
        return Blend(self.keys.trajectories, self.route.points[place], self.mix)
