"""The losses of the recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from segue.errors import TrainingError
from segue.models.codec import AutoencoderCodec
from segue.models.perceptual import Lpips
from segue.types import Perceptual, Point, over_rows

TrainedPrediction = Literal["v_prediction", "flow_prediction"]

PERCEPTUAL: dict[str, Callable[[torch.device], Perceptual]] = {
    "lpips-vgg": lambda device: Lpips.load("vgg", device),
    "lpips-alex": lambda device: Lpips.load("alex", device),
}
SOFT = 0.2
"""Of guesses of latents: the distance below which errors count by their squares."""
Pictures = Float[Tensor, "b c h w"]


def prediction_error(
    at: Point,
    x: Float[Tensor, "b c h w"],
    x0: Float[Tensor, "b c h w"],
    wanted: Float[Tensor, "b c h w"],
    prediction: TrainedPrediction | Literal["epsilon"],
    min_snr: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean squared error of what a network predicts, said by the pictures that follow from it.

    Args:
        at: the level of each row.
        x: noisy latents.
        x0: the denoiser's estimate.
        wanted: the latents behind `x`.
        prediction: "v_prediction": of v = alpha eps - sigma x0; "flow_prediction": of the velocity eps - x0;
            "epsilon": of the noise.
        min_snr: gamma of `min_snr_weight`, for v and velocity; 0 weighs all levels alike.
    """
    said, true = (_predicted(at, x, clean, prediction) for clean in (x0, wanted))
    if not min_snr:
        return functional.mse_loss(said, true)
    errors = (said - true).square().mean((1, 2, 3))
    return (over_rows(min_snr_weight(at, min_snr), errors) * errors).mean()


def min_snr_weight(at: Point, gamma: float) -> Float[Tensor, " b"]:
    """min(alpha^2, gamma sigma^2), the weight of a squared error in v, or in the velocity eps - x0, by min-SNR-gamma.

    Hang et al. 2023, arXiv:2303.09556, section 3.4, weigh a squared error in x0 with min(SNR, gamma), where
    SNR = alpha^2 / sigma^2. Both predictions come to x0 by subtracting sigma times themselves, so an error in x0 is
    sigma times theirs, and the weight is min(SNR, gamma) sigma^2; for v, this is their min(SNR, gamma) / (SNR + 1).
    """
    return torch.minimum(at.alpha**2, gamma * at.sigma**2)


def _predicted(at: Point, x: Tensor, x0: Tensor, prediction: TrainedPrediction | Literal["epsilon"]) -> Tensor:
    if prediction == "v_prediction":
        return at.v(x, x0)
    return at.eps(x, x0) - (x0 if prediction == "flow_prediction" else 0)


def reconstruction(made: Pictures, wanted: Pictures) -> Float[Tensor, ""]:
    """How far a decoded picture is from its original: in itself, in edges, in colour differences, at a quarter size.

    The mean of absolute differences alone blurs small things, which edges (x and y differences) bring back, and learns
    light long before hue: without the differences of red and green, and of blue and both, a small codec stays for
    thousands of steps where green and grey are one. Pictures are RGB.
    """
    edges = torch.stack([(made.diff(dim=axis) - wanted.diff(dim=axis)).abs().mean() for axis in (-1, -2)]).sum()
    coarse = functional.l1_loss(functional.avg_pool2d(made, 4), functional.avg_pool2d(wanted, 4))
    hue = (_opponents(made) - _opponents(wanted)).abs().mean()
    itself = functional.l1_loss(made, wanted) + 0.5 * functional.mse_loss(made, wanted)
    return itself + 0.5 * (edges + coarse + hue)


@dataclass(frozen=True)
class DecodedError:
    """How wrong the pictures are that estimates of latents decode to: their reconstruction, and a distance if given.

    Args:
        codec: its weights are not trained; gradients pass through it.
        perceptual: a distance between pictures.
        weight: of that distance.
        precision: what both compute in.
    """

    codec: AutoencoderCodec
    perceptual: Perceptual | None
    weight: float
    precision: torch.autocast

    def __call__(self, x0: Float[Tensor, "b c h w"], wanted: Pictures) -> Float[Tensor, ""]:
        """The mean over rows; `wanted` are pictures in [0, 1]."""
        vae: Any = self.codec.vae
        with self.precision:
            made = vae.decode(x0 / vae.config.scaling_factor, return_dict=False)[0]
        made = made.float() / 2 + 0.5  # not clipped: what is outside has to come back
        loss = reconstruction(made, wanted)
        if self.perceptual is None:
            return loss
        with self.precision:
            return loss + self.weight * self.perceptual(made, wanted).mean()


def read_perceptual(name: str, device: torch.device) -> Perceptual | None:
    """A distance between pictures by its name, to learn from; "" is none.

    Raises:
        TrainingError: there is no such distance.
        ModelAccessError: its weights were not fetched yet; the message says how.
    """
    if not name:
        return None
    if name not in PERCEPTUAL:
        raise TrainingError(f'perceptual must be "" or one of {", ".join(PERCEPTUAL)}; got {name!r}')
    return PERCEPTUAL[name](device)


def _opponents(pictures: Pictures) -> Pictures:
    """Red against green, and blue against yellow."""
    red, green, blue = pictures.unbind(1)
    return torch.stack([red - green, blue - (red + green) / 2], 1)


def psnr(made: Pictures, wanted: Pictures) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1], the mean over pictures."""
    error = (made.clamp(0, 1) - wanted).square().mean((1, 2, 3)).clamp_min(1e-10)
    return float((-10 * error.log10()).mean())


def guess_distance(guess: Float[Tensor, "b c h w"], x0: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """How far guesses of latents are from what is wanted.

    Not by squares alone, which a few things that cannot be known would rule: above SOFT, errors count by their size.
    """
    return functional.smooth_l1_loss(guess.float(), x0, beta=SOFT)
