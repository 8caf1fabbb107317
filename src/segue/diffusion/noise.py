"""Where randomness comes from: always the CPU, always a name, never the order in which things are computed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from segue.types import Point, RowId, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def start_noise(seed: int, shape: Sequence[int]) -> Float[Tensor, "c h w"]:
    """The starting noise of a seed, as every program of the field draws it: a batch of one, float32, on the CPU."""
    return torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed))[0]


def noise(seed: int, name: str, step: int, row: RowId, shape: Sequence[int]) -> Float[Tensor, "c h w"]:
    """Standard normal noise that depends on these five and on nothing else."""
    key = f"{seed}|{name}|{step}|{row.trajectory}|{row.frame}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.randn(tuple(shape), generator=generator)


def shared_noise(
    own: Float[Tensor, "... c h w"], common: Float[Tensor, "... c h w"], share: float
) -> Float[Tensor, "... c h w"]:
    """Standard noise of which `share` of the variance is common to the frames of a clip, and the rest each frame's own.

    Mixed noise (Ge et al. 2023, "Preserve Your Own Correlation", arXiv:2305.10474, section 3.2): share is what is
    alpha^2 / (1 + alpha^2) there.

    Raises:
        ValueError: the share is outside of [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of noise is in [0, 1], got {share}")
    return share**0.5 * common + (1 - share) ** 0.5 * own


@dataclass(frozen=True)
class NamedNoise:
    """The default kick: fresh noise for every (seed, name, step, row)."""

    seed: int = 0
    name: str = "kick"

    def __call__(
        self, like: Float[Tensor, "b c h w"], now: Point, then: Point, std: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """std times standard noise, row by row."""
        drawn = [
            noise(self.seed, self.name, int(step), row, like.shape[1:])
            for step, row in zip(now.index.tolist(), now.rows, strict=True)
        ]
        return over_rows(std, like) * torch.stack(drawn).to(like.device, like.dtype)


@dataclass(frozen=True)
class ClipNoise:
    """A kick for the frames of clips: in each step, a share of the noise is common to all frames of a trajectory.

    So grain that a stochastic solver adds agrees as far as that of the start does; with nothing shared, it is that of
    `NamedNoise`.

    Args:
        seed: of the clip.
        shared: see `shared_noise`.
        name: of the noise.
    """

    seed: int = 0
    shared: float = 0.0
    name: str = "kick"

    def __call__(
        self, like: Float[Tensor, "b c h w"], now: Point, then: Point, std: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """std times standard noise, row by row."""
        drawn = [
            self._of(int(step), row, like.shape[1:]) for step, row in zip(now.index.tolist(), now.rows, strict=True)
        ]
        return over_rows(std, like) * torch.stack(drawn).to(like.device, like.dtype)

    def _of(self, step: int, row: RowId, shape: Sequence[int]) -> Float[Tensor, "c h w"]:
        own = noise(self.seed, self.name, step, row, shape)
        if not self.shared:
            return own
        return shared_noise(
            own, noise(self.seed, f"{self.name}, common", step, replace(row, frame=0), shape), self.shared
        )


def no_noise(
    like: Float[Tensor, "b c h w"], now: Point, then: Point, std: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """A kick that is none: what is left of a solver's step is its mean."""
    return torch.zeros_like(like)


@dataclass(frozen=True)
class Ancestry:
    """Which noise a mixed row inherits: that of other rows, each with its share; the shares add up to 1."""

    seeds: tuple[int, ...]
    rows: tuple[RowId, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class InheritedNoise:
    """A kick for rows that lie between others: their noise is the spherical mix of their ancestors' noise.

    Independent noise would make neighbouring frames of a transition jump; the mix changes evenly and stays standard
    normal. Each of n ancestors counts sin(share pi / 2), divided by what makes the squares add up to 1; for two, these
    are the cosine and sine of one angle.
    """

    ancestry: Mapping[RowId, Ancestry]
    name: str = "kick"

    def __call__(
        self, like: Float[Tensor, "b c h w"], now: Point, then: Point, std: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """std times mixed noise, row by row."""
        drawn = [
            self._of(self.ancestry[row], int(step), like.shape[1:])
            for step, row in zip(now.index.tolist(), now.rows, strict=True)
        ]
        return over_rows(std, like) * torch.stack(drawn).to(like.device, like.dtype)

    def _of(self, kin: Ancestry, step: int, shape: Sequence[int]) -> Float[Tensor, "c h w"]:
        # Two rows of one seed and name share their noise; a mix of equal parts must not grow.
        shares: dict[tuple[int, RowId], float] = {}
        for seed, row, share in zip(kin.seeds, kin.rows, kin.shares, strict=True):
            shares[seed, row] = shares.get((seed, row), 0.0) + share
        drawn = [noise(seed, self.name, step, row, shape) for seed, row in shares]
        if len(drawn) == 1:
            return drawn[0]
        parts = (torch.tensor(list(shares.values()), dtype=torch.float64) * torch.pi / 2).sin()
        parts = parts / parts.norm()
        mix = drawn[0] * parts[0]
        for part, own in zip(parts[1:], drawn[1:], strict=True):
            mix = mix + own * part
        return mix.to(drawn[0].dtype)
