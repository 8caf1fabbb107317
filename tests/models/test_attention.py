# pyright: basic
"""Attention sites: found by type, wrapped for as long as a `with` lasts, and left as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel

from segue.models.attention import attached, sites
from segue.models.denoiser import PADDING
from segue.types import Point, RowId

ROWS = 3
X = torch.randn(ROWS, 4, 8, 8, generator=torch.Generator().manual_seed(5))
AT = Point(
    torch.zeros(ROWS, dtype=torch.int64),
    10,
    torch.full((ROWS,), 0.8, dtype=torch.float64),
    torch.full((ROWS,), 0.6, dtype=torch.float64),
    torch.full((ROWS,), 500.0, dtype=torch.float64),
    tuple(RowId("a", i) for i in range(ROWS)),
)


def pass_through(plain, hidden, context, call, site):
    return plain(hidden, context)


def first_row(plain, hidden, context, call, site):
    """Cross-frame attention: every row attends to the first."""
    return plain(hidden, hidden[:1].expand_as(hidden))


@pytest.fixture
def ask(model):
    cond = model.text(["a red apple"] * ROWS)
    return lambda: model.denoiser(X, AT, cond)


def test_the_sites_of_a_unet(model):
    found = sites(model.parts["unet"])
    assert [site.kind for site in found] == ["self", "cross"] * 4
    assert all(site.name.endswith("attn1" if site.kind == "self" else "attn2") for site in found)
    assert {site.name.split(".")[0] for site in found} == {"down_blocks", "mid_block", "up_blocks"}


def test_a_control_network_has_the_same_kinds(model):
    control = ControlNetModel.from_unet(model.parts["unet"], conditioning_embedding_out_channels=(8, 8, 8, 8))
    assert [site.kind for site in sites(control)] == ["self", "cross"] * 2


def test_attention_over_time_is_told_apart(model):
    video = UNetSpatioTemporalConditionModel(
        sample_size=8,
        in_channels=8,
        block_out_channels=(32, 64),
        num_attention_heads=(2, 4),
        layers_per_block=1,
        cross_attention_dim=32,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    )
    kinds = {site.kind: site.name for site in sites(video)}
    assert kinds.keys() == {"self", "cross", "temporal"}
    assert "temporal_transformer_blocks" in kinds["temporal"]
    motion = MotionAdapter(
        block_out_channels=(32, 64),
        motion_layers_per_block=1,
        motion_norm_num_groups=8,
        motion_num_attention_heads=4,
        use_motion_mid_block=False,
    )
    animated: Any = UNetMotionModel.from_unet2d(model.parts["unet"], motion)
    found = sites(animated)
    assert all((site.kind == "temporal") == ("motion_modules" in site.name) for site in found)
    assert {site.kind for site in found} == {"self", "cross", "temporal"}


def test_passing_through_changes_no_bit_and_leaves_no_trace(model, ask):
    before = ask()
    places = sites(model.parts["unet"])
    processors = [site.module.processor for site in places]
    with attached(places, pass_through):
        assert torch.equal(ask(), before)
    assert all(site.module.processor is was for site, was in zip(places, processors, strict=True))
    assert torch.equal(ask(), before)


def test_an_adapter_that_acts_acts_and_is_gone_afterwards(model, ask):
    before = ask()
    places = [site for site in sites(model.parts["unet"]) if site.kind == "self"]
    with attached(places, first_row):
        shared = ask()
    assert torch.allclose(shared[0], before[0], atol=1e-5)
    assert (shared[1:] - before[1:]).abs().max() > 1e-3
    assert torch.equal(ask(), before)


def test_one_frame_attending_to_itself_is_plain_attention(model):
    cond = model.text(["a red apple"])
    plain = model.denoiser(X[:1], AT[[0]], cond)
    with attached([site for site in sites(model.parts["unet"]) if site.kind == "self"], first_row):
        assert torch.allclose(model.denoiser(X[:1], AT[[0]], cond), plain, atol=1e-5)


def test_adapters_nest_and_an_error_unwinds_them(model, ask):
    before = ask()
    place = sites(model.parts["unet"])[0]
    order = []

    def noting(name):
        def adapter(plain, hidden, context, call, site):
            order.append(name)
            return plain(hidden, context)

        return adapter

    with place.wrap(noting("inner")), place.wrap(noting("outer")):
        assert torch.equal(ask(), before)
    assert order == ["outer", "inner"]

    def failing(plain, hidden, context, call, site):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), attached(sites(model.parts["unet"]), failing):
        ask()
    assert torch.equal(ask(), before)


def test_an_adapter_knows_who_the_rows_are(model):
    heard = []

    def listening(plain, hidden, context, call, site):
        assert len(hidden) == len(call.rows) == len(call.term)
        heard.append((site.name, call.rows, call.term))
        return plain(hidden, context)

    padded = model.batched(4, deterministic=True)
    place = sites(model.parts["unet"])[0]
    with place.wrap(listening):
        padded.denoiser(X, AT, model.text(["a cat"] * ROWS))
    assert heard == [(place.name, (*AT.rows, AT.rows[-1]), (0, 0, 0, PADDING))]


def test_processors_that_hold_weights_come_back_as_they_were(model, ask):
    """As those of an IP-Adapter do: modules, which torch registers as children."""

    class Weighted(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.scale = torch.nn.Parameter(torch.tensor(0.5))

        def __call__(self, attn, hidden_states, *args, **kwargs):
            return self.scale * self.inner(attn, hidden_states, *args, **kwargs)

    place = sites(model.parts["unet"])[0]
    plain: Any = place.module.processor
    weighted: Any = Weighted(plain)
    place.module.set_processor(weighted)
    try:
        before = ask()
        with place.wrap(pass_through):
            assert torch.equal(ask(), before)
        assert place.module.processor is weighted
        assert "processor.scale" in dict(place.module.named_parameters())
        assert torch.equal(ask(), before)
    finally:
        place.module.set_processor(plain)
