# pyright: basic
"""Layers that look along time: what they see of a clip, and what they do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segue.models.temporal_layers import (
    KnownFrames,
    MotionVector,
    TemporalAttention,
    TemporalConvolution,
    TemporalRecurrence,
    Told,
)

CHANNELS, VECTOR, WINDOW = 8, 6, 2
KINDS: dict[str, Any] = {
    "convolution": lambda: TemporalConvolution(CHANNELS, 4, VECTOR, 3),
    "attention": lambda: TemporalAttention(CHANNELS, 8, VECTOR, 3, heads=2, window=WINDOW),
    "recurrence": lambda: TemporalRecurrence(CHANNELS, 5, VECTOR, 3),
}
REACH = {"convolution": 2, "attention": WINDOW}


def taught(kind: str, seed: int = 1) -> Any:
    layer = KINDS[kind]()
    generator = torch.Generator().manual_seed(seed)
    for value in layer.parameters():
        value.copy_(0.5 * torch.randn(value.shape, generator=generator))
    return layer


def clip(frames: int, seed: int = 2) -> Tensor:
    return torch.randn(frames, CHANNELS, 4, 6, generator=torch.Generator().manual_seed(seed))


def told(frames: int, clips: int = 1, **changes) -> Told:
    vector = torch.randn(1, VECTOR, generator=torch.Generator().manual_seed(3)).expand(clips * frames, -1)
    return Told(frames, vector, {}, **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_layer_changes_nothing_and_can_learn(kind):
    z, layer = clip(5), KINDS[kind]()
    assert torch.equal(layer(z, told(5)), z)
    with torch.enable_grad():
        layer(z, told(5)).square().mean().backward()
    assert layer.last.weight.grad.abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_merge_is_that_of_the_paper(kind):
    z, layer = clip(5), taught(kind)
    whole = z + layer.change(z, told(5))
    alpha = layer.alpha
    assert 0 < alpha < 1
    assert torch.allclose(layer(z, told(5)), alpha * z + (1 - alpha) * whole, atol=1e-5)
    half = layer(z, told(5, motion=0.5))
    assert torch.allclose(half, (z + layer(z, told(5))) / 2, atol=1e-5)
    layer.mix.fill_(torch.inf)
    assert torch.equal(layer(z, told(5)), z)


@pytest.mark.parametrize("kind", KINDS)
def test_clips_do_not_see_each_other(kind):
    first, second = clip(5), clip(5, seed=9)
    layer = taught(kind)
    both = layer(torch.cat([first, second]), told(5, clips=2))
    assert torch.allclose(both, torch.cat([layer(first, told(5)), layer(second, told(5))]), atol=1e-5)


@pytest.mark.parametrize("kind", REACH)
def test_a_frame_depends_on_those_near_it_wherever_in_the_clip(kind):
    z, layer, reach = clip(12), taught(kind), REACH[kind]
    whole = layer(z, told(12))
    part = layer(z[3:12], told(9))
    assert torch.allclose(whole[3 + reach :], part[reach:], atol=1e-5)
    changed = z.clone()
    changed[6] = clip(1, seed=4)[0]
    apart = (layer(changed, told(12)) - whole).flatten(1).abs().amax(1)
    near = torch.tensor([abs(frame - 6) <= reach for frame in range(12)])
    assert (apart[near] > 1e-3).all() and (apart[~near] == 0).all()


def test_attention_that_is_blind_to_distance_is_blind_to_order():
    z, layer = clip(3), taught("attention")
    layer.distance.zero_()
    order = [2, 0, 1]
    assert torch.allclose(layer(z[order], told(3)), layer(z, told(3))[order], atol=1e-5)
    layer.distance.copy_(torch.randn(layer.distance.shape, generator=torch.Generator().manual_seed(4)))
    assert not torch.allclose(layer(z[order], told(3)), layer(z, told(3))[order], atol=1e-3)


def test_attention_answers_alike_whether_it_learns_or_not():
    z, layer = clip(6), taught("attention")
    with torch.enable_grad():
        learning = layer(z, told(6))
    assert learning.requires_grad
    assert torch.allclose(learning, layer(z, told(6)), atol=1e-5)


def test_the_convolution_is_one_over_three_frames():
    z, layer, frames = clip(5), taught("convolution"), 5
    first: Any = nn.Conv3d(CHANNELS, 4, (3, 1, 1), padding=(1, 0, 0))
    last: Any = nn.Conv3d(4, CHANNELS, (3, 1, 1), padding=(1, 0, 0))
    first.weight.copy_(layer.first.weight.reshape(3, 4, CHANNELS).permute(1, 2, 0)[..., None, None])
    first.bias.zero_()
    last.weight.copy_(layer.last.weight.reshape(CHANNELS, 3, 4).permute(0, 2, 1)[..., None, None])
    last.bias.copy_(layer.last.bias)
    inner = first(layer.norm(z).transpose(0, 1)[None])
    scale, shift = layer.told(told(frames).vector).T.reshape(2, 4, frames)[:, None, ..., None, None]
    expected = last(nn.functional.silu(inner * (1 + scale) + shift))[0].transpose(0, 1)
    assert torch.allclose(layer.change(z, told(frames)), expected, atol=1e-5)


def test_a_recurrence_may_be_told_its_clip_in_parts():
    z, layer = torch.cat([clip(6), clip(6, seed=5)]), taught("recurrence")
    whole = layer.change(z, told(6, clips=2))
    carried, parts = None, []
    for frame in range(6):
        part, carried = layer.carried(z[[frame, 6 + frame]], told(1, clips=2), carried)
        parts.append(part)
    assert torch.allclose(torch.stack(parts, 1).flatten(0, 1), whole, atol=1e-5)
    later = z.clone()
    later[4] = clip(1, seed=4)[0]
    assert torch.equal(layer.change(later, told(6, clips=2))[:4], whole[:4])


def test_the_motion_vector_tells_a_word_noise_and_speed_apart():
    vector: Any = MotionVector(12, VECTOR, queries=3)
    text = torch.randn(1, 7, 12, generator=torch.Generator().manual_seed(6))
    other = text.clone()
    other[:, 4] = torch.randn(12, generator=torch.Generator().manual_seed(7))
    time, fps = torch.tensor([500.0]), torch.tensor([8.0])
    plain = vector(time, text, fps)
    for told_otherwise in (vector(time, other, fps), vector(time + 100, text, fps), vector(time, text, 2 * fps)):
        assert (told_otherwise - plain).abs().max() > 1e-3


def test_no_known_frame_is_nothing_at_every_size():
    known = KnownFrames(4, 3, halvings=2)
    blank = known(torch.zeros(2, 5, 7, 8))
    assert list(blank) == [(7, 8), (4, 4), (2, 2)]
    assert all(not features.any() for features in blank.values())
    given = torch.zeros(2, 5, 7, 8)
    given[0] = 1
    features = known(given)
    assert all(part[0].any() and not part[1].any() for part in features.values())
    with pytest.raises(ValueError, match="a layer sees 5x5"):
        Told(2, torch.zeros(2, 1), features).around(torch.zeros(2, 4, 5, 5))
