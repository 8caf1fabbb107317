# pyright: basic
"""EfficientNet-Lite0's features: the architecture, its folded batch norms, and a distance that behaves as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, interpolate, pad

from segue.errors import ModelAccessError
from segue.models.perceptual.archives import is_here
from segue.models.perceptual.efficientnet import (
    GROUPS,
    EfficientNetDistance,
    EfficientNetFeatures,
    Group,
    _Same,
)
from segue.models.perceptual.weights import fold_efficientnet

SMALL = (Group(1, 3, 1, 1, 4), Group(2, 5, 2, 2, 6), Group(1, 3, 2, 2, 5), Group(1, 3, 2, 2, 5), Group(1, 3, 1, 2, 5))
NEEDS = "the weights of efficientnet-lite0 are not in the cache; `segue models --fetch` gets them"


def random_features(seed: int = 0) -> EfficientNetFeatures:
    network = EfficientNetFeatures(64, 8, (*SMALL, Group(1, 3, 1, 2, 6), Group(1, 3, 1, 2, 7)))
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.copy_(noise / max(1, weight[0].numel()) ** 0.5)
    return network


def pictures(seed: int, rows: int = 3, height: int = 33, width: int = 40) -> torch.Tensor:
    return torch.rand(rows, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_it_has_as_many_weights_as_the_published_network():
    network = EfficientNetFeatures()
    kernels = sum(weight.numel() for name, weight in network.named_parameters() if name.endswith("weight"))
    norms = sum(weight.numel() for name, weight in network.named_parameters() if name.endswith("bias"))
    # 4,652,008 in all (Liu 2020). The classifier has 1,281,000 and the convolution before it 320 x 1280; a batch norm
    # trains two numbers a channel.
    assert kernels + 2 * norms == 4_652_008 - 1_281_000 - (320 + 2) * 1280
    assert [group.stride for group in GROUPS].count(2) == 4


@pytest.mark.parametrize(("length", "kernel", "stride"), [(32, 3, 2), (33, 3, 2), (32, 5, 2), (35, 5, 2), (20, 5, 1)])
def test_padding_is_tensorflows(length, kernel, stride):
    x, layer = pictures(1, 1, length, length), _Same(3, 3, kernel, stride, groups=3)
    for weight in layer.parameters():
        weight.zero_()
    layer.weight[:, :, 0, 0] = 1  # shows which pixel is the first that a window sees
    y = layer(x)
    assert y.shape[-1] == -(-length // stride)
    before = max((y.shape[-1] - 1) * stride + kernel - length, 0) // 2
    padded = pad(x, (before, kernel, before, kernel))
    assert torch.equal(y, padded[..., ::stride, ::stride][..., : y.shape[-2], : y.shape[-1]])


def test_folding_batch_norms_changes_nothing():
    rng = np.random.default_rng(0)
    state = {"_conv_stem.weight": rng.normal(size=(4, 3, 3, 3))}
    state["_blocks.0._project_conv.weight"] = rng.normal(size=(6, 4, 1, 1))
    for name, channels in (("_bn0", 4), ("_blocks.0._bn2", 6)):
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{part}"] = rng.uniform(0.5, 2, channels)
    folded = {name: torch.from_numpy(value) for name, value in fold_efficientnet(state).items()}
    x = torch.from_numpy(rng.normal(size=(2, 3, 8, 8)))
    parts = [torch.from_numpy(state[f"_bn0.{part}"]) for part in ("running_mean", "running_var", "weight", "bias")]
    mean, variance, gain, shift = parts
    y = conv2d(x, torch.from_numpy(state["_conv_stem.weight"]))
    expected = batch_norm(y, mean, variance, gain, shift, eps=1e-3)
    torch.testing.assert_close(conv2d(x, folded["stem.weight"], folded["stem.bias"]), expected)
    assert set(folded) == {f"{layer}.{part}" for layer in ("stem", "blocks.0.project") for part in ("weight", "bias")}


def test_the_distance_is_symmetric_zero_for_equals_and_row_by_row():
    distance, a, b = EfficientNetDistance(random_features()), pictures(1), pictures(2)
    together = distance(a, b)
    assert torch.equal(distance(a, a), torch.zeros(3))
    torch.testing.assert_close(distance(b, a), together)
    torch.testing.assert_close(distance(a[[1]], b[[1]]), together[[1]])
    assert together.min() > 0.001
    assert distance.domain == "frames"
    assert "lpips" not in distance.name.lower()


def test_gradients_reach_the_pictures():
    distance = EfficientNetDistance(random_features())
    with torch.enable_grad():
        a = pictures(1).requires_grad_()
        (slope,) = torch.autograd.grad(distance(a, pictures(2)).sum(), a)
    assert slope.isfinite().all()
    assert slope.abs().amax((1, 2, 3)).min() > 1e-7


def test_features_are_those_of_pictures_of_one_size():
    features = random_features()
    assert features(pictures(1, 2, 64, 64)).shape == (2, 2 * (4 + 6 + 5 + 5 + 5 + 6 + 7))
    small = pictures(1, 2, 16, 16)
    large = interpolate(small, (64, 64), mode="bilinear")
    torch.testing.assert_close(features(small), features(large), atol=1e-4, rtol=1e-3)
    assert features.name == "efficientnet-lite0 stage statistics (64 px)"


def test_the_published_weights_see_more_than_pixels():
    if not is_here("efficientnet-lite0"):
        pytest.skip(NEEDS)
    distance = EfficientNetDistance.load()
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 96), indexing="ij")
    disc, square = ((x**2 + y**2) < 0.4).float(), ((x.abs() < 0.56) & (y.abs() < 0.56)).float()
    disc, square, moved = (shape.expand(1, 3, -1, -1) * 0.8 for shape in (disc, square, disc.roll(3, -1)))
    assert distance(disc, moved) < 0.8 * distance(disc, square)
    features = distance.features(torch.cat([disc, moved, square]))
    assert features.shape == (3, 1568)
    one, other, third = torch.nn.functional.normalize(features)
    assert one @ other > one @ third


def test_without_weights_it_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGUE_CACHE", str(tmp_path))
    with pytest.raises(ModelAccessError, match=r"segue models --fetch efficientnet-lite0`"):
        EfficientNetDistance.load()
