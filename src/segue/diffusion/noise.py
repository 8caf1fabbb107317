"""Where randomness comes from: always the CPU, always a name, never the order in which things are computed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
class Ancestry:
    """Which noise a mixed row inherits: that of two rows, `share` of the way from the first to the second."""

    seeds: tuple[int, int]
    rows: tuple[RowId, RowId]
    share: float


@dataclass(frozen=True)
class InheritedNoise:
    """A kick for rows that lie between others: their noise is the spherical mix of their ancestors' noise.

    Independent noise would make neighbouring frames of a transition jump; the mix changes evenly and stays standard
    normal, since cos^2 + sin^2 = 1 and the two are independent.
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
        angle = torch.tensor(kin.share * torch.pi / 2, dtype=torch.float64)
        first, second = (
            noise(seed, self.name, step, row, shape) for seed, row in zip(kin.seeds, kin.rows, strict=True)
        )
        # Two rows of one seed and name share their noise; a mix of equal parts must not grow.
        if kin.seeds[0] == kin.seeds[1] and kin.rows[0] == kin.rows[1]:
            return first
        return (first * angle.cos() + second * angle.sin()).to(first.dtype)
