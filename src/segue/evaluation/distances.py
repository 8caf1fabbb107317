"""Which distance between pictures a report is written with, on a machine where not every network is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from segue.models import perceptual
from segue.types import Perceptual

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class PixelDistance:
    """The root mean square difference of pixels. It needs no weights, and does not see as people do."""

    name: str = "root mean square pixel difference"
    domain: Literal["frames"] = "frames"

    def __call__(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """One distance per pair of pictures in [0, 1]: 0, equal, to 1, black and white."""
        return (a - b).square().flatten(1).mean(1).sqrt()


def best_distance() -> Perceptual:
    """LPIPS on AlexNet where its weights are here, or else the efficientnet-lite0 feature distance, or else of pixels.

    Raises:
        CheckpointError: the weights are damaged.
    """
    if perceptual.is_here("lpips-alex"):
        return perceptual.Lpips.load("alex")
    if perceptual.is_here("efficientnet-lite0"):
        return perceptual.EfficientNetDistance.load()
    return PixelDistance()
