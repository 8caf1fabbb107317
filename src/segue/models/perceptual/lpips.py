"""LPIPS: the learned perceptual distance of Zhang et al. 2018 (arXiv:1801.03924), on AlexNet or VGG16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, get_args

import torch
from torch import nn
from torch.nn.functional import max_pool2d

from segue.models.perceptual.distance import PictureDistance
from segue.models.perceptual.weights import read_weights

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Backbone = Literal["alex", "vgg"]


class Convolution(NamedTuple):
    """A convolution, followed by a ReLU."""

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


class Pool(NamedTuple):
    """The largest value of each window, every second pixel."""

    kernel: int


Stage = tuple[Convolution | Pool, ...]
"""Layers up to one whose output is compared."""

STAGES: dict[str, tuple[Stage, ...]] = {
    "alex": (
        (Convolution(64, 11, 4, 2),),
        (Pool(3), Convolution(192, 5, 1, 2)),
        (Pool(3), Convolution(384)),
        (Convolution(256),),
        (Convolution(256),),
    ),
    "vgg": (
        (Convolution(64), Convolution(64)),
        (Pool(2), Convolution(128), Convolution(128)),
        (Pool(2), Convolution(256), Convolution(256), Convolution(256)),
        (Pool(2), Convolution(512), Convolution(512), Convolution(512)),
        (Pool(2), Convolution(512), Convolution(512), Convolution(512)),
    ),
}
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pictures in [-1, 1], as LPIPS was trained


class Lpips(PictureDistance):
    """LPIPS, a Perceptual on pictures; frozen, but gradients flow to the pictures, so that it can be a loss.

    With the features y of stage l, each divided by its length over the channels, and the learned weights w_l >= 0:
    d(a, b) = sum_l mean_hw sum_c w_lc (y_lc(a) - y_lc(b))^2 (eq. 1; the published code, version 0.1, squares the
    difference and then weighs it). Lengths and differences are computed in float32, whatever the network runs in.

    Args:
        title: what is written beside its numbers.
        stages: of the network.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, title: str, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.title = title
        self.stages = tuple(stages)
        self.convolutions = nn.ModuleList()
        self.heads = nn.ParameterList()
        channels = 3
        for stage in self.stages:
            for layer in stage:
                if isinstance(layer, Convolution):
                    self.convolutions.append(
                        nn.Conv2d(channels, layer.channels, layer.kernel, layer.stride, layer.padding)
                    )
                    channels = layer.channels
            self.heads.append(nn.Parameter(torch.ones(channels)))
        self.register_buffer("shift", torch.tensor(_SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, backbone: Backbone = "alex", device: str | torch.device = "cpu") -> Self:
        """With the published weights, from the cache.

        Args:
            backbone: "alex" for measuring (the faster, and the closer to people), "vgg" for training losses.
            device: where it shall live.

        Raises:
            ModelAccessError: the weights were not fetched yet; the message says how.
            CheckpointError: they do not fit.
        """
        if backbone not in get_args(Backbone):
            raise ValueError(f'the backbone of LPIPS is "alex" or "vgg", got "{backbone}"')
        network = cls(f"LPIPS ({'AlexNet' if backbone == 'alex' else 'VGG16'})", STAGES[backbone])
        read_weights(network, f"lpips-{backbone}")
        return network.to(device)

    @property
    def name(self) -> str:
        """What is written beside its numbers."""
        return self.title

    def between(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """One distance per pair of pictures: eq. 1."""
        total = torch.zeros(len(a), device=a.device)
        for head, one, other in zip(self.heads, self.features(a), self.features(b), strict=True):
            difference = (_unit(one) - _unit(other)).square()
            total = total + torch.einsum("bchw,c->bhw", difference, head.float()).mean((1, 2))
        return total

    def features(self, pictures: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """The output of each stage for pictures in [0, 1], not yet normalised."""
        x = (pictures * 2 - 1 - self.shift) / self.scale
        convolutions = iter(self.convolutions)
        outputs: list[Tensor] = []
        for stage in self.stages:
            for layer in stage:
                x = max_pool2d(x, layer.kernel, 2) if isinstance(layer, Pool) else next(convolutions)(x).relu()
            outputs.append(x)
        return outputs


def _unit(features: Tensor) -> Tensor:
    """Features of length 1 over the channels. The first 1e-20 changes no value; it keeps the gradient at 0 finite."""
    features = features.float()
    length = (features.square().sum(1, keepdim=True) + 1e-20).sqrt()
    return features / (length + 1e-10)
