"""Models small enough to reason about: closed-form denoisers, an exact codec, and text that is its own embedding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from segue.models.bundle import Defaults, LatentDiffusion
from segue.models.denoiser import NetworkDenoiser
from segue.types import Call, Condition, Conditioning, Guided, Network, Point, over_rows


@dataclass(frozen=True)
class GaussianDenoiser:
    """The exact posterior mean for pixels that are independently N(mean, std^2), whatever it is told."""

    mean: float = 0.3
    std: float = 0.7
    group: int = 1

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        alpha, sigma = over_rows(at.alpha, x), over_rows(at.sigma, x)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + gain * (x - alpha * self.mean)

    def solution(self, x: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
        """Where the probability-flow ODE carries x between two (alpha, sigma) levels."""

        def spread(level: tuple[float, float]) -> float:
            return (level[0] ** 2 * self.std**2 + level[1] ** 2) ** 0.5

        return end[0] * self.mean + (x - start[0] * self.mean) * spread(end) / spread(start)


@dataclass(frozen=True)
class RowwiseDenoiser:
    """Nonlinear, told the time and the text, and computed element by element: rows cannot see each other."""

    group: int = 1

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        if isinstance(cond, Guided):
            answers = [self(x, at, term) * over_rows(cond.weights[k], x) for k, term in enumerate(cond.terms)]
            return torch.stack(answers).sum(0)
        pull = over_rows(cond.text.mean(dim=(1, 2)), x)
        return torch.tanh(over_rows(at.alpha, x) * x + pull - 0.3 * over_rows(at.time / 1000, x))


@dataclass
class ShapedDenoiser:
    """A denoiser whose sums depend on the shape of the call, as those of real networks do.

    Every call adds a number of the order of float32 rounding that is decided by the size of the batch. Laws that hold
    bit for bit on `RowwiseDenoiser` because it never sees its batch must not pass vacuously.
    """

    group: int = 1
    inner: RowwiseDenoiser = field(default_factory=RowwiseDenoiser)
    calls: list[int] = field(default_factory=list[int])

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        self.calls.append(len(x))
        return self.inner(x, at, cond) + 1e-7 * len(x)


@dataclass(frozen=True)
class PatchCodec:
    """Pictures to latents and back without loss: patches of pixels become channels."""

    scale: int = 2

    @property
    def channels(self) -> int:
        return 3 * self.scale**2

    def encode(self, frames: Tensor) -> Tensor:
        return torch.nn.functional.pixel_unshuffle(frames, self.scale) * 2 - 1

    def decode(self, latents: Tensor) -> Tensor:
        return (torch.nn.functional.pixel_shuffle(latents, self.scale) / 2 + 0.5).clamp(0, 1)


@dataclass(frozen=True)
class HashedText:
    """Prompts to embeddings by their hash: different words, different numbers, no network."""

    width: int = 4

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        rows: list[Tensor] = []
        for prompt in prompts:
            seed = int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=4).digest(), "big")
            rows.append(torch.randn(2, self.width, generator=torch.Generator().manual_seed(seed)))
        return Conditioning(torch.stack(rows))


@dataclass(frozen=True)
class RmsDistance:
    """Root mean square difference: a Perceptual with nothing hidden in it."""

    name: str = "rms"
    domain: Literal["latents", "frames"] = "latents"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().flatten(1).mean(1).sqrt()


def text_of(*values: float) -> Conditioning:
    """Conditioning whose rows are constant."""
    return Conditioning(torch.tensor(values)[:, None, None].expand(-1, 2, 3).clone())


@dataclass(frozen=True)
class ToyNetwork:
    """A network in the place of a UNet: computed element by element, told the time and the text."""

    def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
        pull = over_rows(cond.text.mean(dim=(1, 2)), x)
        # Prompts move a pattern about, so that pictures differ by more than a shift of all their numbers.
        place = torch.arange(x[0].numel(), dtype=x.dtype).reshape(x[0].shape)
        pattern = torch.sin(0.7 * place + 3 * pull * torch.cos(place))
        return torch.tanh(x * 0.2 - pattern) - 0.1 * over_rows(time / 1000, x)


def toy_model(max_batch: int = 8, network: Network | None = None) -> LatentDiffusion:
    """A whole latent diffusion model without weights: 16 x 16 pictures, v-prediction, 10 steps."""
    return LatentDiffusion(
        name="toy",
        text=HashedText(),
        denoiser=NetworkDenoiser(network or ToyNetwork(), "v_prediction", max_batch=max_batch),
        codec=PatchCodec(),
        scheduler={
            "_class_name": "DDIMScheduler",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
        },
        parts={},
        defaults=Defaults(size=(16, 16), steps=10, guidance_scale=2.0),
        weights=(),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
