"""An adversarial loss: a discriminator of patches, and how loudly it may speak."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from segue.training.ranks import Ranks

Pictures = Float[Tensor, "b 3 h w"]
Verdicts = Float[Tensor, "b 1 y x"]
CONTRAST = 4.0
"""Brings what is left of a picture without its local mean to about the scale of a picture."""


class PatchDiscriminator(nn.Sequential):
    """Says of each patch of pictures in [0, 1] whether it is real (positive) or made (negative).

    Isola et al. 2017, arXiv:1611.07004, section 6.1.2, with three halvings (patches of 70 pixels). Deviations: it sees
    what a picture has beyond its local mean, since plain grounds and soft shading are the same in both and a codec
    loses what is fine; with the pictures themselves it still told nothing apart after 1,500 steps, with these it does
    within a hundred. No normalisation, which it does without. And no more than 4 x `width` channels: the network costs
    0.3 GFLOP for a picture of 128 pixels at width 32, 1.0 at 64.
    """

    def __init__(self, width: int) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for before, after, stride in ((width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 4 * width, 1)):
            layers += [nn.Conv2d(before, after, 4, stride, 1), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(4 * width, 1, 4, 1, 1))

    def forward(self, input: Pictures) -> Verdicts:
        mean = functional.avg_pool2d(input, 3, 1, 1, count_include_pad=False)
        return super().forward(CONTRAST * (input - mean))


def hinge(of_real: Verdicts, of_made: Verdicts) -> Float[Tensor, ""]:
    """The discriminator's loss (Lim & Ye 2017, arXiv:1705.02894): 1 while it sees nothing, 0 when it is sure."""
    return (functional.relu(1 - of_real).mean() + functional.relu(1 + of_made).mean()) / 2


def balance(made: Pictures, last: Tensor, pull: Pictures, push: Pictures, ranks: Ranks) -> Float[Tensor, ""]:
    """The factor that makes an adversarial gradient as strong as that of the reconstruction, at the last layer.

    Esser et al. 2021, arXiv:2012.09841, eq. 7: |d pull / d last| / (|d push / d last| + 1e-4), at most 1e4.

    Args:
        made: what the decoder made, its graph alive.
        last: the weights of the decoder's last layer, through which both gradients pass.
        pull: gradient of the reconstruction loss in `made`.
        push: gradient of the adversarial loss in `made`.
    """
    norms = [
        ranks.mean(torch.autograd.grad(made, last, gradient, retain_graph=True)[0]).norm() for gradient in (pull, push)
    ]
    return (norms[0] / (norms[1] + 1e-4)).clamp(max=1e4)
