# pyright: basic
"""LPIPS against its formula, written a second time in slow numpy, on random weights and on the published ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from segue.errors import ModelAccessError
from segue.models.perceptual.archives import is_here
from segue.models.perceptual.lpips import STAGES, Convolution, Lpips, Pool

SMALL = (
    (Convolution(5, 7, 3, 2),),
    (Pool(3), Convolution(6, 5, 1, 2)),
    (Convolution(4), Convolution(7)),
    (Pool(2), Convolution(8)),
)


def pictures(seed: int, rows: int = 3, height: int = 33, width: int = 40) -> torch.Tensor:
    return torch.rand(rows, 3, height, width, generator=torch.Generator().manual_seed(seed))


def random_network(stages=SMALL, seed: int = 0) -> Lpips:
    network = Lpips("LPIPS's formula on random weights", stages)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.copy_(noise.abs() if name.startswith("heads") else noise / max(1, weight[0].numel()) ** 0.5)
    return network


def numpy_convolution(x, kernel, bias, stride, padding):
    """x (c, h, w); one output pixel at a time."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    side = kernel.shape[-1]
    rows, columns = ((length - side) // stride + 1 for length in x.shape[1:])
    out = np.empty((len(kernel), rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * stride : i * stride + side, j * stride : j * stride + side]
            out[:, i, j] = np.tensordot(kernel, window, 3) + bias
    return out


def numpy_pool(x, side):
    rows, columns = ((length - side) // 2 + 1 for length in x.shape[1:])
    windows = [
        [x[:, 2 * i : 2 * i + side, 2 * j : 2 * j + side].max((1, 2)) for j in range(columns)] for i in range(rows)
    ]
    return np.array(windows).transpose(2, 0, 1)


def numpy_lpips(network: Lpips, a: np.ndarray, b: np.ndarray) -> float:
    """Zhang et al. 2018, eq. 1, for one pair of pictures in [0, 1], in float64."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    x, y = (((p * 2 - 1) - shift[:, None, None]) / scale[:, None, None] for p in (a, b))
    state = {name: weight.double().numpy() for name, weight in network.state_dict().items()}
    count = len(network.convolutions)
    weights = [(state[f"convolutions.{i}.weight"], state[f"convolutions.{i}.bias"]) for i in range(count)]
    total, number = 0.0, 0
    for stage, head in zip(network.stages, network.heads, strict=True):
        for layer in stage:
            if isinstance(layer, Pool):
                x, y = numpy_pool(x, layer.kernel), numpy_pool(y, layer.kernel)
            else:
                x, y = (
                    np.maximum(numpy_convolution(p, *weights[number], layer.stride, layer.padding), 0) for p in (x, y)
                )
                number += 1
        one, other = (p / (np.sqrt((p**2).sum(0)) + 1e-10) for p in (x, y))
        total += ((one - other) ** 2 * head.double().numpy()[:, None, None]).sum(0).mean()
    return float(total)


def test_it_is_the_published_formula():
    network, a, b = random_network(), pictures(1), pictures(2)
    expected = [
        numpy_lpips(network, one, other) for one, other in zip(a.double().numpy(), b.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(network(a, b).numpy(), expected, rtol=1e-4)
    assert min(expected) > 0.01


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_the_published_weights_give_the_formula_too(backbone):
    if not is_here(f"lpips-{backbone}"):
        pytest.skip(f"the weights of lpips-{backbone} are not in the cache; `segue models --fetch` gets them")
    network, a = Lpips.load(backbone), pictures(1, 1, 32, 32)
    b = (a + 0.1 * torch.randn(a.shape, generator=torch.Generator().manual_seed(3))).clamp(0, 1)
    expected = numpy_lpips(network, a[0].double().numpy(), b[0].double().numpy())
    np.testing.assert_allclose(network(a, b).item(), expected, rtol=1e-4)
    noise, same = network(pictures(4), pictures(5)), network(a, a)
    assert same.item() == 0
    assert noise.min() > 2 * expected > 0.001


def test_the_backbones_are_the_published_ones():
    def channels(name):
        return [layer.channels for stage in STAGES[name] for layer in stage if isinstance(layer, Convolution)]

    assert channels("alex") == [64, 192, 384, 256, 256]
    assert channels("vgg") == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert [len(stages) for stages in STAGES.values()] == [5, 5]


def test_gradients_reach_the_pictures_and_not_the_network():
    network, a, b = random_network(), pictures(1, 2), pictures(2, 2)
    with torch.enable_grad():
        a.requires_grad_()
        (slope,) = torch.autograd.grad(network(a, b).sum(), a)
    assert slope.isfinite().all()
    assert slope.abs().amax((1, 2, 3)).min() > 1e-6
    assert not any(weight.requires_grad for weight in network.parameters())
    closer = a - 1e-3 * slope / slope.abs().max()
    assert (network(closer, b) < network(a, b)).all()


def test_where_nothing_fires_the_gradient_is_finite():
    network = random_network()
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            weight.fill_(-100.0)
    with torch.enable_grad():
        a = pictures(1, 1).requires_grad_()
        distance = network(a, pictures(2, 1))
        (slope,) = torch.autograd.grad(distance.sum(), a)
    assert distance.item() == 0
    assert slope.isfinite().all()


def test_rows_do_not_influence_each_other_and_order_does_not_matter():
    network, a, b = random_network(), pictures(1, 4), pictures(2, 4)
    together = network(a, b)
    torch.testing.assert_close(network(b, a), together)
    torch.testing.assert_close(network(a[[2]], b[[2]]), together[[2]])
    assert together.std() > 0


def test_half_precision_is_compared_in_single():
    network, a, b = random_network(), pictures(1), pictures(2)
    exact = network(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(a, b)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0)


@pytest.mark.parametrize("shape", [(1, 3, 31, 40), (1, 1, 64, 64), (3, 64, 64)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match="32 pixels"):
        random_network()(torch.rand(shape), torch.rand(shape))
    with pytest.raises(ValueError, match="one shape"):
        random_network()(torch.rand(2, 3, 64, 64), torch.rand(1, 3, 64, 64))


def test_without_weights_it_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGUE_CACHE", str(tmp_path))
    with pytest.raises(ModelAccessError, match=r"segue models --fetch lpips-vgg`") as caught:
        Lpips.load("vgg")
    assert str(tmp_path) in str(caught.value)
    load: Any = Lpips.load
    with pytest.raises(ValueError, match='"alex" or "vgg"'):
        load("squeeze")
