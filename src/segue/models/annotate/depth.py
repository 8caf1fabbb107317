"""Depth by networks of transformers: near is white, and a clip has one range, so that its greys do not pump."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate

from segue.models.annotate.annotator import Annotated, check_pictures
from segue.models.annotate.networks import Pretrained, load_network
from segue.types import Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.types import Frames

USUAL = "depth-anything/Depth-Anything-V2-Small-hf"
"""The hub repository that is taken if none is named."""

_DISTANCES = ("GLPNForDepthEstimation", "ZoeDepthForDepthEstimation", "DepthProForDepthEstimation")
"""What these predict is metres, where others predict their inverse."""

_RANGE = (0.01, 0.99)  # The shares of pixels that are darker than black and than white
_LOOKS = 12  # frames of a clip that are looked at for its range


@dataclass(frozen=True)
class Depth:
    """An annotator: how near things are.

    Args:
        network: one for depth estimation.
    """

    network: Pretrained
    kind: str = "depth"

    def nearness(self, pictures: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 1 h w"]:
        """The inverse of the depth, in the network's own scale; each picture by itself."""
        check_pictures(pictures)
        height, width = pictures.shape[2:]
        found: list[Tensor] = []
        with torch.no_grad():
            for picture in pictures:
                predicted = self.network.module(pixel_values=self.network.shown(picture[None])).predicted_depth
                sized = interpolate(predicted[:, None].float(), (height, width), mode="bicubic")[0]
                found.append(1 / sized.clamp(min=1e-3) if self._distances else sized)
        return torch.stack(found).to(pictures) if found else pictures[:, :1].clone()

    def __call__(self, pictures: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 h w"]:
        """The nearest of each picture is white, the farthest black, whatever other pictures show.

        Raises:
            TaskError: they are no pictures in [0, 1].
        """
        near = self.nearness(pictures)
        return torch.cat([_drawn(one[None], *_range(one)) for one in near]) if len(near) else pictures.clone()

    def over(self, frames: Frames, *, progress: Progress = silent) -> Frames:
        """Those of a clip, in one range: that of some of its frames, which are looked at first.

        What is nearer or farther than that in frames between them is white or black as well.
        """
        looked_at = sorted({round(i * (len(frames) - 1) / (_LOOKS - 1)) for i in range(_LOOKS)} if len(frames) else ())
        seen: list[Tensor] = []
        for number, frame in enumerate(looked_at):
            seen.append(self.nearness(frames[frame : frame + 1]))
            progress("looking at the depth", number + 1, len(looked_at))
        low, high = _range(torch.cat(seen)) if seen else (0.0, 1.0)
        return Annotated(lambda pictures: _drawn(self.nearness(pictures), low, high), frames)

    @property
    def _distances(self) -> bool:
        config = self.network.module.config
        metric = getattr(config, "depth_estimation_type", "relative") == "metric"
        return metric or type(self.network.module).__name__ in _DISTANCES


def find_depth(source: str | None, device: str | torch.device | None) -> Depth:
    """The annotator of a network in a folder or on the hub.

    Raises:
        ModelError: it cannot be had, is none for depth, or the device is not there.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES

    names = sorted(set(MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES.values()))
    return Depth(load_network(source or USUAL, names, "for depth estimation", device))


def _range(near: Tensor) -> tuple[float, float]:
    """What is black and what is white: quantiles, which one pixel cannot move."""
    values = near.float().flatten()
    kept = values[:: max(1, len(values) // 1_000_000)].sort().values
    low, high = (float(kept[round(share * (len(kept) - 1))]) for share in _RANGE)
    return low, high


def _drawn(near: Tensor, low: float, high: float) -> Tensor:
    return ((near - low) / max(high - low, 1e-6)).clamp(0, 1).expand(-1, 3, -1, -1).contiguous()
