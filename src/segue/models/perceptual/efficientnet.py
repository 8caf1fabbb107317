"""Deep features of EfficientNet-Lite0, and a distance in them. It is not LPIPS: no human judgement was learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import nn
from torch.nn.functional import interpolate, pad

from segue.models.perceptual.distance import PictureDistance
from segue.models.perceptual.weights import read_weights

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class Group(NamedTuple):
    """Blocks of one width: the first has the stride, the others add to what they are given."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


GROUPS = (
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24),
    Group(2, 5, 2, 6, 40),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
)
STEM = 32
COMPARED = (0, 1, 2, 4, 6)
"""The groups after which features are compared: the last ones at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size."""

NAME = "efficientnet-lite0"
TRAINED_AT = 224
"""Pixels along a side of the pictures that the network was trained with; fewer are quicker."""


class EfficientNetFeatures(nn.Module):
    """EfficientNet-Lite0 up to its last block (Tan & Le 2019, arXiv:1905.11946; lite: ReLU6, no squeeze-excitation).

    Batch norms are folded into the convolutions when the weights are converted. Frozen; gradients flow to the pictures.

    Args:
        side: pixels along a side that pictures are resized to, where one vector is made of each.
        stem: channels of the first convolution.
        groups: of blocks.
    """

    def __init__(self, side: int = TRAINED_AT, stem: int = STEM, groups: tuple[Group, ...] = GROUPS) -> None:
        super().__init__()
        self.side = side
        self.groups = groups
        self.stem = _Same(3, stem, 3, 2)
        self.blocks = nn.ModuleList()
        channels = stem
        for group in groups:
            for index in range(group.blocks):
                self.blocks.append(_Block(channels, group, group.stride if index == 0 else 1))
                channels = group.channels
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, device: str | torch.device = "cpu", *, side: int = TRAINED_AT) -> Self:
        """With the published weights (ImageNet), from the cache.

        Args:
            device: where it shall live.
            side: pixels along a side that pictures are resized to; fewer are quicker.

        Raises:
            ModelAccessError: the weights were not fetched yet; the message says how.
            CheckpointError: they do not fit.
        """
        network = cls(side)
        read_weights(network, NAME)
        return network.to(device)

    @property
    def name(self) -> str:
        """What is written beside numbers that are computed in these features."""
        return f"{NAME} stage statistics ({self.side} px)"

    def stages(self, pictures: Float[Tensor, "b 3 h w"]) -> Iterator[Tensor]:
        """The output of each group of blocks, for pictures in [0, 1]."""
        x = (pictures - 127 / 255) * (255 / 128)
        x = x.contiguous(memory_format=torch.channels_last)  # twice as fast on the CPU
        x = self.stem(x).clamp(0, 6)
        blocks = iter(self.blocks)
        for group in self.groups:
            for _ in range(group.blocks):
                x = next(blocks)(x)
            yield x

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """One vector per picture in [0, 1], float32: mean and deviation of every channel after each group (1568).

        A linear classifier tells drawn things and their styles apart far better from these than from the 1280 features
        that the network's own classifier sees, which are about the classes of ImageNet.

        Pictures of another size than `side` are resized (bilinear, antialiased): an object of another scale looks like
        another object to the network, so pictures are compared at one size.
        """
        if tuple(pictures.shape[-2:]) != (self.side, self.side):
            pictures = interpolate(pictures, (self.side, self.side), mode="bilinear", antialias=True)
        found: list[Tensor] = []
        for stage in self.stages(pictures):
            variance, mean = torch.var_mean(stage.float(), (2, 3), correction=0)
            found += [mean, variance.sqrt()]
        return torch.cat(found, 1)


class EfficientNetDistance(PictureDistance):
    """ "efficientnet-lite0 feature distance": a Perceptual on pictures, compared at their own size.

    As LPIPS without learned heads (Zhang et al. 2018, arXiv:1801.03924, sec. 3): features at five scales, each vector
    divided by its length, squared differences summed over channels, averaged over the picture and over the scales.

    Args:
        features: the network.
    """

    def __init__(self, features: EfficientNetFeatures) -> None:
        super().__init__()
        self.features = features

    @classmethod
    def load(cls, device: str | torch.device = "cpu") -> Self:
        """With the published weights, from the cache; raises what `EfficientNetFeatures.load` does."""
        return cls(EfficientNetFeatures.load(device))

    @property
    def name(self) -> str:
        """What is written beside its numbers."""
        return f"{NAME} feature distance"

    def between(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """One distance per pair of pictures, averaged over the scales."""
        distances: list[Tensor] = []
        for index, (one, other) in enumerate(zip(self.features.stages(a), self.features.stages(b), strict=True)):
            if index in COMPARED:
                distances.append((_direction(one) - _direction(other)).square().sum(1).mean((1, 2)))
        return torch.stack(distances).mean(0)


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow does where it is told "same": the odd pixel goes to the right and below."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        sides: list[int] = []
        for length in (input.shape[-1], input.shape[-2]):
            kernel, stride = self.kernel_size[0], self.stride[0]
            missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            sides += [missing // 2, missing - missing // 2]
        return super().forward(pad(input, sides))


class _Block(nn.Module):
    """An inverted bottleneck: widen, look around, narrow; added to what came in where the shape is the same."""

    def __init__(self, channels: int, group: Group, stride: int) -> None:
        super().__init__()
        wide = channels * group.expansion
        self.expand = nn.Conv2d(channels, wide, 1) if group.expansion > 1 else None
        self.depthwise = _Same(wide, wide, group.kernel, stride, groups=wide)
        self.project = nn.Conv2d(wide, group.channels, 1)
        self.adds = stride == 1 and channels == group.channels

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(x).clamp(0, 6)
        y = self.project(self.depthwise(y).clamp(0, 6))
        return x + y if self.adds else y


def _direction(features: Tensor) -> Tensor:
    """Features of length 1 over the channels, in float32; where there is nothing, the gradient stays finite."""
    features = features.float()
    return features / (features.square().sum(1, keepdim=True) + 1e-10).sqrt()
