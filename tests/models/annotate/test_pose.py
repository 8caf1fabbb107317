"""Poses: ViTPose placed as transformers places it, a detector's boxes, a clip put in order, and its sticks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    YolosConfig,
    YolosForObjectDetection,
)
from transformers.models.vitpose.image_processing_pil_vitpose import VitPoseImageProcessorPil
from transformers.models.vitpose.modeling_vitpose import VitPoseEstimatorOutput

from segue.errors import CheckpointError, TaskError
from segue.models.annotate import draw_skeleton, find_annotator
from segue.models.annotate.networks import Pretrained
from segue.models.annotate.pose import Pose
from segue.models.annotate.vitpose import VitPose, find_vitpose, persons
from segue.motion.keypoints import smoothed
from segue.training.figure import figure_clip
from segue.types import KeyPoints
from segue.types.keypoints import BODY, FACE, LEFT_HAND, POINTS, RIGHT_HAND

SIZE = {"height": 64, "width": 48}


def save_pose(folder: Path, points: int) -> Path:
    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(
        image_size=[64, 48],
        patch_size=[16, 16],
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
    )
    labels: dict[str, Any] = {"num_labels": points}
    network = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, scale_factor=4, **labels))
    for parameter in network.head.parameters():
        parameter.data.mul_(30)
    network.save_pretrained(folder)
    VitPoseImageProcessorPil(size=SIZE).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pose(tmp_path_factory.mktemp("pose"), 17)


def picture(height: int = 90, width: int = 120) -> Tensor:
    coarse = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(4))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round() / 255


def test_the_network_is_shown_what_transformers_would_show(checkpoint: Path) -> None:
    pictures = picture()
    processor = VitPoseImageProcessorPil.from_pretrained(checkpoint)
    image = (pictures[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    box = (40.0, 25.0, 36.0, 36.0)  # With what is around it still in the picture, beyond whose border both see black.
    network = VitPoseForPoseEstimation.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        shown = processor.preprocess(image, boxes=[[list(box)]], return_tensors="pt")["pixel_values"]
        heat = network(pixel_values=shown).heatmaps[0]
        _, sure = find_vitpose(str(checkpoint), None, "cpu").in_box(pictures[0], box)
    torch.testing.assert_close(sure, heat.flatten(1).amax(1), atol=2e-2, rtol=2e-2)


class Heated(torch.nn.Module):
    """A network whose heat maps are given."""

    def __init__(self, heat: Tensor) -> None:
        super().__init__()
        self.heat, self.device, self.dtype = heat, torch.device("cpu"), torch.float32
        self.config = SimpleNamespace(backbone_config=SimpleNamespace(num_experts=1))

    def forward(self, pixel_values: Tensor) -> VitPoseEstimatorOutput:
        return VitPoseEstimatorOutput(heatmaps=self.heat[None])


def test_tops_of_heat_are_found_between_pixels_as_transformers_finds_them(checkpoint: Path) -> None:
    spots = 4 + torch.rand(17, 2, generator=torch.Generator().manual_seed(5)) * torch.tensor([3.0, 7.0])
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(12.0), indexing="ij")
    far = (x - spots[:, 0, None, None]) ** 2 + (y - spots[:, 1, None, None]) ** 2
    heat = 0.9 * torch.exp(-far / (2 * 1.5**2))
    box = (10.0, 5.0, 60.0, 80.0)
    finder = VitPose(Pretrained(Heated(heat), {"size": SIZE}, "heated"))
    places, sure = finder.in_box(picture()[0], box)
    processor = VitPoseImageProcessorPil.from_pretrained(checkpoint)
    theirs = processor.post_process_pose_estimation(
        VitPoseEstimatorOutput(heatmaps=heat[None]), boxes=[[list(box)]], kernel_size=5
    )[0][0]
    torch.testing.assert_close(places, theirs["keypoints"], atol=1e-3, rtol=0)
    torch.testing.assert_close(sure, theirs["scores"].flatten())
    # The box is 75 by 100 pixels with its margin; 12 by 16 of a heat map are its corners.
    truth = spots / torch.tensor([11.0, 15.0]) * torch.tensor([75.0, 100.0]) + torch.tensor([2.5, -5.0])
    assert float((places - truth).abs().max()) < 0.3


def test_each_picture_by_itself_in_our_order(checkpoint: Path) -> None:
    finder = VitPose(find_vitpose(str(checkpoint), None, "cpu").network, least=1e-6)
    pictures = torch.cat([picture(), picture().flip(3)])
    points = finder(pictures)
    assert points.size == (120, 90) and points.persons == 1 and len(points) == 2
    assert torch.equal(
        points.places.isnan(), torch.cat([finder(pictures[:1]).places, finder(pictures[1:]).places]).isnan()
    )
    with torch.no_grad():
        places, sure = finder.in_box(pictures[0], (0.0, 0.0, 120.0, 90.0))
    body = points.places[0, 0, BODY]
    # COCO: 0 nose, 5 and 6 the left and right shoulder, 15 and 16 ankles, 1 and 2 eyes.
    for ours, theirs in ((0, 0), (2, 6), (5, 5), (10, 16), (13, 15), (14, 2), (15, 1), (16, 4), (17, 3)):
        if sure[theirs] > 1e-6:
            torch.testing.assert_close(body[ours], places[theirs])
    if bool((sure[[5, 6]] > 1e-6).all()):
        torch.testing.assert_close(body[1], places[[5, 6]].mean(0))
    assert not bool(points.present[:, :, BODY.stop :].any()), "17 points have no hands and no face"


def test_133_points_have_hands_and_a_face(tmp_path: Path) -> None:
    finder = VitPose(find_vitpose(str(save_pose(tmp_path, 133)), None, "cpu").network, least=1e-9)
    with torch.no_grad():
        places, sure = finder.in_box(picture()[0], (0.0, 0.0, 120.0, 90.0))
    points = finder(picture())
    for ours, start in ((FACE, 23), (LEFT_HAND, 91), (RIGHT_HAND, 112)):
        count = ours.stop - ours.start
        there = sure[start : start + count] > 1e-9
        assert int(there.sum()) > 0
        torch.testing.assert_close(points.places[0, 0, ours][there], places[start : start + count][there])
    with pytest.raises(CheckpointError, match="finds 21 points"):
        find_vitpose(str(save_pose(tmp_path / "other", 21)), None, "cpu")


def save_detector(folder: Path, names: dict[int, str]) -> Path:
    torch.manual_seed(1)
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[32, 32],
        patch_size=16,
        num_detection_tokens=6,
        id2label=names,
        label2id={name: number for number, name in names.items()},
        use_mid_position_embeddings=False,
    )
    YolosForObjectDetection(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"do_resize": true, "size": {"height": 32, "width": 32}}')
    return folder


def test_a_detector_draws_the_boxes(checkpoint: Path, tmp_path: Path) -> None:
    detector = save_detector(tmp_path / "detector", {0: "cat", 1: "person"})
    finder = find_vitpose(str(checkpoint), str(detector), "cpu")
    assert finder.detector is not None
    with torch.no_grad():
        found = persons(finder.detector, picture()[0], 0.0)
        network = YolosForObjectDetection.from_pretrained(detector).eval()
        outputs = network(pixel_values=finder.detector.shown(picture()))
    best = int(outputs.logits[0].softmax(-1)[:, 1].argmax())
    x, y, wide, tall = (outputs.pred_boxes[0, best] * torch.tensor([120, 90, 120, 90])).tolist()
    assert found[0] == pytest.approx((x - wide / 2, y - tall / 2, wide, tall), abs=1e-3)
    assert 1 <= len(found) <= 6
    nobody = VitPose(finder.network, finder.detector, sure=0.999)(picture())
    assert nobody.persons == 1 and not bool(nobody.present.any())
    with pytest.raises(CheckpointError, match="knows no persons"):
        find_vitpose(str(checkpoint), str(save_detector(tmp_path / "cats", {0: "cat", 1: "dog"})), "cpu")


class Known:
    """Finds the exact points of a rendered clip, persons in any order and one of them now and then not."""

    def __init__(self, truth: KeyPoints) -> None:
        self.truth, self.seen = truth, 0

    def __call__(self, pictures: Tensor) -> KeyPoints:
        self.seen += len(pictures)
        return self.truth[self.seen - len(pictures) : self.seen]


def test_a_clip_is_put_in_order_and_drawn_as_asked() -> None:
    clip = figure_clip(1, "wave", size=(96, 96), frames=20)
    truth = clip.key_points
    noisy = truth.places.clone()
    noisy[7, 0, 4] += 60
    found = KeyPoints(noisy, truth.confidence, truth.size)
    plain, steady = Pose(Known(found)), Pose(Known(found), smoothed)
    told: list[float] = []
    drawn = steady.over(clip.frames, progress=lambda what, done, total: told.append(done))
    assert told == [8, 16, 20]
    assert drawn.size == (96, 96) and len(drawn) == 20
    ordered = smoothed(found)
    torch.testing.assert_close(drawn[5:9], draw_skeleton(ordered[5:9]))
    torch.testing.assert_close(plain.over(clip.frames)[7:8], draw_skeleton(found[7:8]))
    assert float((ordered.places - truth.places)[7, 0, 4].norm()) < 3
    nobody = KeyPoints(torch.full_like(truth.places, torch.nan), torch.zeros_like(truth.confidence), truth.size)
    with pytest.raises(TaskError, match="no person was found in any of 20 frames"):
        Pose(Known(nobody)).over(clip.frames)
    assert float(Pose(Known(nobody))(clip.frames[0:1]).max()) == 0


def test_sticks_are_where_the_points_are() -> None:
    places = torch.full((1, 1, POINTS, 2), torch.nan)
    places[0, 0, 2], places[0, 0, 3] = torch.tensor([20.0, 30.0]), torch.tensor([90.0, 30.0])
    points = KeyPoints(places, places[..., 0].isfinite().float(), (128, 96))
    drawn = draw_skeleton(points)
    assert drawn.shape == (1, 3, 96, 128)
    lit = drawn[0].amax(0) > 0.1
    rows, columns = lit.any(1).nonzero().flatten(), lit.any(0).nonzero().flatten()
    assert 27 <= int(rows[0]) <= 30 <= int(rows[-1]) <= 33
    assert 17 <= int(columns[0]) <= 20 and 90 <= int(columns[-1]) <= 93
    assert (float(rows[0]) + float(rows[-1])) / 2 == pytest.approx(30, abs=0.5)
    # The same in a picture four times as large.
    large = draw_skeleton(KeyPoints((places + 0.5) * 4 - 0.5, points.confidence, (512, 384)))
    small = torch.nn.functional.interpolate(large, (96, 128), mode="area")
    assert float((small - drawn).abs().mean()) < 0.002
    alone = places.clone()
    alone[0, 0, 3] = torch.nan
    assert float(draw_skeleton(KeyPoints(alone, alone[..., 0].isfinite().float(), (128, 96)))[0, :, 30, 60].max()) == 0
    assert draw_skeleton(points[:0]).shape == (0, 3, 96, 128)


def test_points_outside_of_the_picture_are_drawn_up_to_its_border() -> None:
    places = torch.full((1, 1, POINTS, 2), torch.nan)
    places[0, 0, 1], places[0, 0, 2] = torch.tensor([60.0, 40.0]), torch.tensor([200.0, 40.0])
    places[0, 0, 3] = torch.tensor([1e9, 1e9])
    drawn = draw_skeleton(KeyPoints(places, places[..., 0].isfinite().float(), (128, 96)))
    assert float(drawn[0, :, 40, 127].max()) > 0.3


def test_every_limb_has_a_colour_of_its_own() -> None:
    clip = figure_clip(0, "stretch", size=(512, 512), frames=1, phase=0.25)
    drawn = draw_skeleton(clip.key_points)[0]
    places = clip.key_points.places[0, 0, BODY]
    middles = [(2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13)]
    colours = []
    for a, b in middles:
        x, y = ((places[a] + places[b]) / 2).round().long().tolist()
        colours.append(tuple((drawn[:, y, x] * 255).round().long().tolist()))
    assert len(set(colours)) == len(middles)


def test_pose_needs_no_more_than_it_says(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="leave out the detector"):
        find_annotator("pose", source="mediapipe", detector="someone/else")
