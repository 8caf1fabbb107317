"""Key points by ViTPose, of persons in boxes that a detector draws, or in the whole picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import conv2d, grid_sample, pad

from segue.errors import CheckpointError
from segue.models.annotate.annotator import check_pictures
from segue.models.annotate.networks import Pretrained, load_network
from segue.models.annotate.pose import joined
from segue.types import KeyPoints
from segue.types.keypoints import BODY, FACE, LEFT_HAND, POINTS, RIGHT_HAND

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

USUAL = "usyd-community/vitpose-base-simple"
"""The hub repository that is taken if none is named."""

_COCO = (0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""For each point of our body, its number among COCO's 17; the neck is between the shoulders."""

_SHOULDERS = (5, 6)
_FACE, _LEFT, _RIGHT = slice(23, 91), slice(91, 112), slice(112, 133)  # of COCO-WholeBody's 133
_KNOWN = {17: "COCO", 133: "COCO-WholeBody"}
_PADDING = 1.25  # How much larger than a box what is looked at is: ViTPose's own
_BLUR, _TAPS = 0.8, 5  # of heat maps, before their tops are found (DARK)


@dataclass(frozen=True)
class VitPose:
    """ViTPose (Xu et al. 2022, arXiv:2204.12484), whose key points are placed as DARK does (arXiv:1910.06278).

    Args:
        network: a VitPoseForPoseEstimation of 17 or 133 points.
        detector: an object detector that knows persons; without one, the whole picture is one person's.
        least: the confidence below which a point is absent.
        sure: the confidence from which on a detected person is one.
    """

    network: Pretrained
    detector: Pretrained | None = None
    least: float = 0.3
    sure: float = 0.5

    def __call__(self, pictures: Float[Tensor, "t 3 h w"]) -> KeyPoints:
        """The key points of each picture by itself."""
        check_pictures(pictures)
        size = pictures.shape[3], pictures.shape[2]
        with torch.no_grad():
            return joined([self._one(picture) for picture in pictures], size)

    def _one(self, picture: Tensor) -> KeyPoints:
        height, width = picture.shape[1:]
        boxes = [(0.0, 0.0, float(width), float(height))]
        if self.detector is not None:
            boxes = persons(self.detector, picture, self.sure)
        places = torch.full((1, max(1, len(boxes)), POINTS, 2), torch.nan)
        sure = torch.zeros(1, max(1, len(boxes)), POINTS)
        for number, box in enumerate(boxes):
            found, confidence = self.in_box(picture, box)
            places[0, number], sure[0, number] = _ordered(found, confidence, self.least)
        return KeyPoints(places, sure, (width, height))

    def in_box(
        self, picture: Float[Tensor, "3 h w"], box: tuple[float, float, float, float]
    ) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
        """The network's own points in pixels, and their confidence.

        Args:
            picture: in [0, 1].
            box: left, top, width and height of a person in pixels.
        """
        size = self.network.settings.get("size") or {"height": 256, "width": 192}
        tall, wide = int(size["height"]), int(size["width"])
        centre = box[0] + box[2] / 2, box[1] + box[3] / 2
        span = max(box[2], box[3] * wide / tall) * _PADDING
        area = span, span * tall / wide
        seen = _cut(picture, centre, area, (wide, tall))
        options = {}
        if getattr(self.network.module.config.backbone_config, "num_experts", 1) > 1:
            options["dataset_index"] = torch.zeros(1, dtype=torch.long, device=self.network.device)
        heat = self.network.module(pixel_values=self.network.normalised(seen[None]), **options).heatmaps[0]
        tops, confidence = _tops(heat.float().cpu())
        across, down = ((side - 1) for side in (heat.shape[2], heat.shape[1]))
        found = tops / torch.tensor([across, down]) - 0.5
        return found * torch.tensor(area) + torch.tensor(centre), confidence


def find_vitpose(source: str | None, detector: str | None, device: str | torch.device | None) -> VitPose:
    """ViTPose from a folder or the hub, and a detector if one is named.

    Raises:
        ModelError: one of them cannot be had or is another network, or the device is not there.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

    network = load_network(source or USUAL, ["VitPoseForPoseEstimation"], "for key points", device)
    points = int(network.module.config.num_labels)
    if points not in _KNOWN:
        known = " or ".join(f"{count} ({name})" for count, name in _KNOWN.items())
        raise CheckpointError(f"{network.source} finds {points} points of a person; expected {known}")
    if detector is None:
        return VitPose(network)
    names = sorted(set(MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES.values()))
    finder = load_network(detector, names, "for object detection", device)
    _person(finder)
    return VitPose(network, finder)


def persons(
    detector: Pretrained, picture: Float[Tensor, "3 h w"], sure: float
) -> list[tuple[float, float, float, float]]:
    """Boxes of persons, the surest first: left, top, width and height in pixels."""
    found = detector.module(pixel_values=detector.shown(picture[None]))
    logits, places = found.logits[0].float().cpu(), found.pred_boxes[0].float().cpu()
    # The older ones have a class for nothing and one choice; the newer ones judge each class by itself.
    chosen = len(detector.module.config.id2label) + 1 == logits.shape[1]
    score = (logits.softmax(-1)[:, :-1] if chosen else logits.sigmoid())[:, _person(detector)]
    height, width = picture.shape[1:]
    corners = torch.cat([places[:, :2] - places[:, 2:] / 2, places[:, 2:]], 1)
    kept = [number for number in score.argsort(descending=True).tolist() if score[number] >= sure]
    boxes = (corners[_apart(corners, kept)] * torch.tensor([width, height] * 2)).tolist()
    return [(left, top, wide, tall) for left, top, wide, tall in boxes]


def _apart(corners: Tensor, kept: list[int]) -> list[int]:
    """Boxes that are not the same person's again: less than 0.7 of two is common."""
    chosen: list[int] = []
    for number in kept:
        left, top, wide, tall = corners[number].tolist()
        for other in chosen:
            x, y, w, h = corners[other].tolist()
            common = max(0.0, min(left + wide, x + w) - max(left, x)) * max(0.0, min(top + tall, y + h) - max(top, y))
            if common > 0.7 * (wide * tall + w * h - common):
                break
        else:
            chosen.append(number)
    return chosen


def _person(detector: Pretrained) -> int:
    names = {str(name).lower(): int(number) for number, name in detector.module.config.id2label.items()}
    if "person" not in names:
        raise CheckpointError(f"{detector.source} knows no persons; it detects {', '.join(sorted(names)[:8])}")
    return names["person"]


def _cut(
    picture: Tensor, centre: tuple[float, float], area: tuple[float, float], size: tuple[int, int]
) -> Float[Tensor, "3 h w"]:
    """An area of a picture, enlarged so that its first and last pixels are the area's ends (arXiv:1911.07524)."""
    wide, tall = size
    x = torch.linspace(-0.5, 0.5, wide, dtype=torch.float64) * area[0] + centre[0]
    y = torch.linspace(-0.5, 0.5, tall, dtype=torch.float64) * area[1] + centre[1]
    height, width = picture.shape[1:]
    grid = torch.stack(torch.meshgrid((2 * x + 1) / width - 1, (2 * y + 1) / height - 1, indexing="xy"), -1)
    return grid_sample(picture[None].float().cpu(), grid[None].float(), align_corners=False)[0]


def _tops(heat: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """Where heat maps are highest, to parts of a pixel, and how high: a Newton step on the logarithm of each."""
    count, _, width = heat.shape
    high, at = heat.flatten(1).max(1)
    x, y = at % width, at // width
    reach = torch.arange(_TAPS, dtype=torch.float32) - _TAPS // 2
    taps = torch.exp(-0.5 * (reach / _BLUR) ** 2)
    kernel = torch.outer(taps, taps)
    smooth = conv2d(pad(heat[:, None], [_TAPS // 2] * 4, mode="reflect"), (kernel / kernel.sum())[None, None])
    log = pad(smooth.clamp(0.001, 50).log(), [1] * 4, mode="replicate")[:, 0]
    rows = torch.arange(count)

    def near(across: int, down: int) -> Tensor:
        return log[rows, y + 1 + down, x + 1 + across]

    slope = torch.stack([near(1, 0) - near(-1, 0), near(0, 1) - near(0, -1)], -1) / 2
    xx = near(1, 0) - 2 * near(0, 0) + near(-1, 0)
    yy = near(0, 1) - 2 * near(0, 0) + near(0, -1)
    xy = (near(1, 1) + near(-1, -1) - near(1, 0) - near(-1, 0) - near(0, 1) - near(0, -1) + 2 * near(0, 0)) / 2
    bend = torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2)
    curved = (torch.linalg.det(bend) > 1e-9) & (xx < 0)
    step = torch.linalg.solve(torch.where(curved[:, None, None], bend, -torch.eye(2)), slope)
    step = torch.where(curved[:, None], step, torch.zeros(2)).clamp(-1, 1)
    return torch.stack([x, y], -1).float() - step, high


def _ordered(found: Tensor, confidence: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """The network's points as `segue.types.keypoints` orders them; absent where it is not sure."""
    places, sure = torch.full((POINTS, 2), torch.nan), torch.zeros(POINTS)
    for number, theirs in enumerate(_COCO):
        if theirs >= 0:
            places[BODY][number], sure[BODY][number] = found[theirs], confidence[theirs]
    places[1] = found[list(_SHOULDERS)].mean(0)
    sure[1] = confidence[list(_SHOULDERS)].min()
    if len(found) == 133:
        for ours, theirs in ((FACE, _FACE), (LEFT_HAND, _LEFT), (RIGHT_HAND, _RIGHT)):
            places[ours], sure[ours] = found[theirs], confidence[theirs]
    sure = torch.where(sure >= least, sure.clamp(max=1), torch.zeros(()))
    return torch.where(sure[:, None] > 0, places, torch.nan), sure
