"""Depth of tiny networks: pictures prepared as transformers would, one range for a clip, and clear refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessorPil,
    ViTConfig,
    ViTModel,
)

from segue.errors import CheckpointError, ModelAccessError, ModelNotFoundError, TaskError, UnsafeFileError
from segue.models.annotate import find_annotator
from segue.models.annotate.depth import Depth, find_depth
from segue.models.annotate.networks import Pretrained


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("depth")
    torch.manual_seed(0)
    stages: dict[str, Any] = {"out_indices": [1, 2, 3, 4]}
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=1,
        image_size=56,
        patch_size=14,
        reshape_hidden_states=False,
        **stages,
    )
    network = DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=16,
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            head_hidden_size=8,
        )
    )
    # A random head ends in a ReLU that may leave nothing.
    torch.nn.init.ones_(dict(network.named_parameters())["head.conv3.bias"])
    for name, parameter in network.named_parameters():
        if name.endswith("weight") and not name.startswith("backbone"):
            parameter.data.mul_(6)
    network.save_pretrained(folder)
    settings = DPTImageProcessorPil(size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14)
    settings.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def depth(checkpoint: Path) -> Depth:
    return find_depth(str(checkpoint), "cpu")


class Film:
    """Frames in memory."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures
        self.size = (pictures.shape[3], pictures.shape[2])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, window: slice, /) -> Tensor:
        return self.pictures[window]


def smooth(count: int, height: int, width: int) -> Tensor:
    coarse = torch.rand(count, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    pictures = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True).clamp(0, 1)
    return (pictures * 255).round() / 255


@pytest.mark.parametrize("size", [(56, 56), (96, 160), (40, 70)])
def test_what_the_network_sees_is_what_transformers_would_show(
    depth: Depth, checkpoint: Path, size: tuple[int, int]
) -> None:
    pictures = smooth(1, *size)
    theirs = DPTImageProcessorPil.from_pretrained(checkpoint)(
        (pictures[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), return_tensors="pt"
    )["pixel_values"]
    ours = depth.network.shown(pictures)
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) < 3 / 255 / 0.5, "they round to bytes on the way"
    network = DepthAnythingForDepthEstimation.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        expected = network(pixel_values=ours).predicted_depth[:, None]
    expected = torch.nn.functional.interpolate(expected, size, mode="bicubic")
    torch.testing.assert_close(depth.nearness(pictures), expected, atol=1e-5, rtol=1e-4)


def test_each_picture_by_itself_goes_from_black_to_white(depth: Depth) -> None:
    pictures = smooth(3, 48, 64)
    drawn = depth(pictures)
    assert drawn.shape == pictures.shape
    for one in drawn:
        assert float(one.min()) == 0 and float(one.max()) == 1
    assert torch.equal(drawn[:, :1], drawn[:, 2:])
    assert torch.equal(drawn[1:2], depth(pictures[1:2]))
    assert depth(pictures[:0]).shape == (0, 3, 48, 64)


def test_a_clip_has_one_range(depth: Depth) -> None:
    """What has the same nearness in two frames has the same grey, whatever else is in them."""
    pictures = smooth(20, 48, 64)
    told: list[float] = []
    film = depth.over(Film(pictures), progress=lambda what, done, total: told.append(done / total))
    assert len(told) == 12 and told[-1] == 1
    drawn, near = film[0:20], depth.nearness(pictures)
    assert film.size == (64, 48) and len(film) == 20
    inside = (drawn[:, :1] > 0) & (drawn[:, :1] < 1)
    assert float(inside.float().mean()) > 0.9
    # One straight line from nearness to grey for the whole clip.
    x, y = near[inside].double(), drawn[:, :1][inside].double()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert float((y - y.mean() - slope * (x - x.mean())).abs().max()) < 1e-4
    alone = depth(pictures)
    assert float((alone[3] - drawn[3]).abs().max()) > 0.01, "not each frame's own"
    assert torch.equal(film[3:5], drawn[3:5])
    assert len(depth.over(Film(pictures[:0]))) == 0


def test_networks_that_predict_metres_are_turned_round(depth: Depth) -> None:
    pictures = smooth(1, 48, 64)
    before = depth.nearness(pictures)
    config = depth.network.module.config
    config.depth_estimation_type = "metric"
    try:
        torch.testing.assert_close(depth.nearness(pictures), 1 / before.clamp(min=1e-3))
    finally:
        del config.depth_estimation_type


def test_what_is_not_there_is_said(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError, match="no folder"):
        find_annotator("depth", source=str(tmp_path / "none"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelAccessError, match="nobody/depth"):
        find_annotator("depth", source="nobody/depth")
    other = tmp_path / "other"
    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).save_pretrained(
        other
    )
    with pytest.raises(CheckpointError, match="ViTModel; expected one for depth"):
        find_annotator("depth", source=str(other))
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((checkpoint / "config.json").read_text())
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises((UnsafeFileError, ModelNotFoundError)):
        find_annotator("depth", source=str(pickled))
    with pytest.raises(TaskError, match="without a network"):
        find_annotator("canny", source="nobody/canny")
    with pytest.raises(TaskError, match='for "pose"'):
        find_annotator("depth", source=str(checkpoint), detector=str(checkpoint))


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"size": 28}, (28, 28)),
        ({"size": {"longest_edge": 30}}, (20, 30)),
        ({"size_divisor": 32}, (32, 32)),
        ({"size": 28, "do_resize": False}, (40, 60)),
    ],
)
def test_sizes_of_older_files_and_of_other_networks_are_understood(
    settings: dict[str, Any], size: tuple[int, int]
) -> None:
    network = Pretrained(torch.nn.Linear(1, 1), settings, "here")
    network.module.device, network.module.dtype = torch.device("cpu"), torch.float32
    assert network.shown(torch.rand(1, 3, 40, 60)).shape[2:] == size


def test_a_size_that_is_not_understood_is_named() -> None:
    with pytest.raises(CheckpointError, match="height and width"):
        Pretrained(torch.nn.Linear(1, 1), {"size": {"side": 3}}, "here").shown(torch.rand(1, 3, 40, 60))
