"""A discriminator of patches of clips: it sees how they look, and how that changes."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from segue.training.adversary import CONTRAST

Clips = Float[Tensor, "n t 3 h w"]
Verdicts = Float[Tensor, "n 1 t y x"]


class ClipDiscriminator(nn.Sequential):
    """Says of each patch of clips in [0, 1], in each frame, whether it is real (positive) or made (negative).

    Blattmann et al. 2023, arXiv:2304.08818, section 3.1.1: convolutions over frames, height and width, for the decoder
    of clips; a second discriminator of single pictures makes it worse there (table 3), so that there is none. In space
    it is `segue.training.adversary.PatchDiscriminator`, and, as that, it sees what pictures have beyond their local
    mean. In time each layer sees three frames.

    Args:
        width: channels of the first layer.
    """

    def __init__(self, width: int) -> None:
        layers: list[nn.Module] = []
        for before, after, stride in ((3, width, 2), (width, 2 * width, 2), (2 * width, 4 * width, 2)):
            layers += [nn.Conv3d(before, after, (3, 4, 4), (1, stride, stride), 1), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv3d(4 * width, 1, 3, 1, 1))

    def forward(self, input: Clips) -> Verdicts:
        flat = input.flatten(0, 1)
        mean = functional.avg_pool2d(flat, 3, 1, 1, count_include_pad=False)
        return super().forward((CONTRAST * (flat - mean)).unflatten(0, input.shape[:2]).transpose(1, 2))
