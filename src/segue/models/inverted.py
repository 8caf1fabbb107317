"""Noise of pictures in files: what DDIB hands from a source model to a target model, in another process or elsewhere.

A file holds the latents where a run begins and what they are of. The picture is not in it; but who has the source
model has the picture, and it is no secret from anybody else either (they may try models).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segue.errors import CheckpointError
from segue.models.labelled import read_labelled, write_labelled
from segue.models.recorded import levels

if TYPE_CHECKING:
    from jaxtyping import Float, Float64
    from torch import Tensor

    from segue.diffusion.schedule import Schedule

FORMAT = "segue noise 1"
_WANTED = "such a file is written where pictures are inverted"
_NAMES = ("latents", "alphas", "sigmas")
_INCREMENT = "increment"


@dataclass(frozen=True)
class InvertedOrigin:
    """What noise was made with.

    Args:
        model: the source model's name.
        sha256: its fingerprint.
        prompt: what it was told that the pictures show.
        negative: what it was told that they do not.
        guidance_scale: how strongly it was told so.
        rounds: of the inversion.
        exact: whether the inversion is exact.
    """

    model: str
    sha256: str
    prompt: str
    negative: str = ""
    guidance_scale: float = 1.0
    rounds: int = 0
    exact: bool = False


@dataclass(frozen=True)
class InvertedLatents:
    """Pictures as noise.

    Args:
        latents: where runs begin, one per frame, float32.
        first: how many steps of the schedule lie behind them.
        alphas: what multiplies the picture, at the first level of the whole run and after each step.
        sigmas: what multiplies the noise.
        origin: what they were made with.
        increment: what is added to the first step, if the inversion is exact.
    """

    latents: Float[Tensor, "t c h w"]
    first: int
    alphas: Float64[Tensor, " steps+1"]
    sigmas: Float64[Tensor, " steps+1"]
    origin: InvertedOrigin
    increment: Float[Tensor, "t c h w"] | None = None

    @staticmethod
    def of(
        latents: Float[Tensor, "t c h w"],
        first: int,
        schedule: Schedule,
        origin: InvertedOrigin,
        increment: Float[Tensor, "t c h w"] | None = None,
    ) -> InvertedLatents:
        """With the levels of the schedule that they were made on."""
        return InvertedLatents(latents, first, *levels(schedule), origin, increment)

    @property
    def steps(self) -> int:
        """How many steps the whole run has."""
        return len(self.alphas) - 1

    def check_fits(self, schedule: Schedule, shape: tuple[int, ...]) -> None:
        """Find out whether a target model can go on from here.

        Args:
            schedule: of the target's run.
            shape: (channels, height, width) of its latents.

        Raises:
            CheckpointError: its latents or its levels are others.
        """
        if tuple(self.latents.shape[1:]) != shape:
            raise CheckpointError(
                f"the noise is of latents of {tuple(self.latents.shape[1:])}, and this run has {shape} (channels, "
                "height, width): take the size that it was made with, and a model with the same autoencoder"
            )
        own = (self.alphas, self.sigmas)
        if self.steps != len(schedule):
            raise CheckpointError(f"the noise is of a run of {self.steps} steps, and this run has {len(schedule)}")
        if not all(torch.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in zip(own, levels(schedule), strict=True)):
            raise CheckpointError(
                "the noise was made on other noise levels than this model's: source and target must share a schedule"
            )

    def save(self, path: Path) -> None:
        """Write it to a safetensors file, which is whole or not there.

        Raises:
            DiskError: the file system refuses.
        """
        tensors = {name: getattr(self, name) for name in _NAMES}
        if self.increment is not None:
            tensors[_INCREMENT] = self.increment
        said = {"first": self.first, **asdict(self.origin)}
        write_labelled(path, tensors, kind=FORMAT, label="origin", said=said)

    @staticmethod
    def read(path: Path) -> InvertedLatents:
        """From a file.

        Raises:
            ModelNotFoundError: there is none.
            UnsafeFileError: it could run code.
            CheckpointError: it is damaged, or holds no noise.
        """
        tensors, said = read_labelled(path, kind=FORMAT, label="origin", wanted=_WANTED)
        if set(tensors) - {_INCREMENT} != set(_NAMES):
            raise CheckpointError(f"{path} holds no noise of this version of Segue: {_WANTED}")
        latents, alphas, sigmas = (tensors[name] for name in _NAMES)
        increment = tensors.get(_INCREMENT)
        try:
            first = int(said.pop("first"))
            origin = InvertedOrigin(**said)
        except (TypeError, ValueError, KeyError):
            raise CheckpointError(f"{path} does not say what it was made with: {_WANTED}") from None
        whole = latents.ndim == 4 and len(alphas) == len(sigmas) and 0 <= first < len(alphas) - 1
        whole = whole and (increment is None or increment.shape == latents.shape)
        if not whole or not all(bool(part.isfinite().all()) for part in tensors.values()):
            raise CheckpointError(f"{path} is damaged: its noise is of shape {tuple(latents.shape)}, from step {first}")
        return InvertedLatents(
            latents.float(),
            first,
            alphas.double(),
            sigmas.double(),
            origin,
            None if increment is None else increment.float(),
        )
