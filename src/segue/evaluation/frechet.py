"""The Fréchet distance between two sets of pictures, in deep features that are named with it.

It is the formula of FID (Heusel et al. 2017, arXiv:1706.08500, eq. 6), but FID means the Inception network's features;
in others the numbers are on another scale, so it is never called so here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class FrechetDistance:
    """How far apart two sets of pictures are as Gaussians in a feature space; lower is closer.

    The estimate is too large by an amount that shrinks with the number of pictures (Chong & Forsyth 2020,
    arXiv:1911.07023) and depends on the set. So compare numbers only at equal numbers of pictures, and read them beside
    the distance between two halves of one set.

    Args:
        value: the distance.
        features: the network that it was computed in.
        pictures: how many there were in each set.
    """

    value: float
    features: str
    pictures: tuple[int, int]

    def __str__(self) -> str:
        """With all that the number depends on."""
        one, other = self.pictures
        return f"{self.value:.2f} (Fréchet distance in {self.features} features, {one} and {other} pictures)"


def frechet_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], features: str) -> FrechetDistance:
    """The distance |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two sets of features.

    No square root of a matrix is taken. With centred rows A, B scaled so that C_a = A'A and C_b = B'B, the eigenvalues
    of C_a C_b are the squared singular values of A B', so the trace of the root is their sum: exact for singular
    covariances too, as there always are with fewer pictures than features.

    Args:
        a: features of the first set, one row a picture.
        b: of the second set.
        features: their name.

    Raises:
        ValueError: fewer than two pictures in a set, or features of different networks.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"expected two sets of at least two feature vectors of one length; got {tuple(a.shape)}, {tuple(b.shape)}"
        )
    mean_a, mean_b = a.double().mean(0), b.double().mean(0)
    A, B = _root(a.double() - mean_a), _root(b.double() - mean_b)
    apart = (mean_a - mean_b).square().sum()
    spread = A.square().sum() + B.square().sum()
    shared = torch.linalg.svdvals(A @ B.T).sum()
    return FrechetDistance(max(float(apart + spread - 2 * shared), 0.0), features, (len(a), len(b)))


def frechet_by_group(
    groups: Sequence[Float[Tensor, "k d"]], b: Float[Tensor, "m d"]
) -> tuple[float, tuple[float, ...]]:
    """The distance of all groups together to `b`, and that with each group left out: what a jackknife needs.

    With the rows X of all groups, only the small matrix X C_b X' is kept. Of some of these rows, once they are centred,
    it has the eigenvalues of C_a C_b.

    Args:
        groups: features of pictures that belong together, such as those of one film.
        b: of the other set.

    Raises:
        ValueError: fewer than two groups or pictures, or features of different networks.
    """
    if len(groups) < 2 or len(b) < 2 or {group.shape[1] for group in groups} != {b.shape[1]}:
        raise ValueError(
            f"expected two groups or more, and two pictures or more, in features of one length; got {len(groups)} "
            f"groups, and {tuple(b.shape)}"
        )
    rows, mean = torch.cat([group.double() for group in groups]), b.double().mean(0)
    x, root = rows - mean, _root(b.double() - mean)
    seen, spread = x @ root.T, float(root.square().sum())
    inner, shared = x @ x.T, seen @ seen.T
    owner = torch.arange(len(groups)).repeat_interleave(torch.tensor([len(group) for group in groups]))
    whole = _of_rows(inner, shared, spread)
    kept = [(owner != group).nonzero()[:, 0] for group in range(len(groups))]
    return whole, tuple(_of_rows(inner[keep][:, keep], shared[keep][:, keep], spread) for keep in kept)


def _of_rows(inner: Tensor, shared: Tensor, spread: float) -> float:
    """The distance from products of rows, whose origin is the other set's mean, and its total variance."""
    count = len(inner)
    apart, own = float(inner.mean()), float(inner.diagonal().sum() / (count - 1) - inner.sum() / (count * (count - 1)))
    centred = shared - shared.mean(0) - shared.mean(1)[:, None] + shared.mean()
    roots = torch.linalg.eigvalsh(centred / (count - 1)).clamp(min=0).sqrt()
    return max(apart + own + spread - 2 * float(roots.sum()), 0.0)


def _root(centred: Tensor) -> Tensor:
    """A matrix A with A'A the covariance of the rows, and no more rows than columns."""
    scaled = centred / (len(centred) - 1) ** 0.5
    return scaled if len(scaled) <= scaled.shape[1] else torch.linalg.qr(scaled, mode="r").R
