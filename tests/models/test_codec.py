# pyright: basic
"""Pictures to latents and back: ranges, scales, slices and tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from segue.errors import TaskError
from segue.models.codec import AutoencoderCodec, codec_dtype
from segue.zoo.load import load

PICTURES = torch.rand(3, 3, 64, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["model", "short_model"])
def codec(request) -> AutoencoderCodec:
    return request.getfixturevalue(request.param).codec


def test_shapes_and_ranges(codec):
    assert (codec.scale, codec.channels) == (8, 4)
    latents = codec.encode(PICTURES)
    assert latents.shape == (3, 4, 8, 6)
    decoded = codec.decode(latents * 20)
    assert decoded.shape == PICTURES.shape
    assert decoded.min() >= 0
    assert decoded.max() <= 1


def test_the_mode_is_scaled_and_shifted(model):
    vae: Any = model.codec.vae
    mode = vae.encode(PICTURES * 2 - 1).latent_dist.mode()
    assert torch.allclose(model.codec.encode(PICTURES), mode * vae.config.scaling_factor, atol=1e-6)
    shifted: Any = AutoencoderKL.from_config({**vae.config, "shift_factor": 0.3, "scaling_factor": 2.0})
    shifted.eval()
    shifted.load_state_dict(vae.state_dict())
    codec = AutoencoderCodec(shifted)
    # Rounding follows where in memory the weights of the second copy happen to lie.
    assert torch.allclose(codec.encode(PICTURES), (mode - 0.3) * 2, atol=1e-5)
    assert torch.allclose(codec.decode((mode - 0.3) * 2), (vae.decode(mode).sample / 2 + 0.5).clamp(0, 1), atol=1e-5)


def test_encoding_twice_gives_the_same(codec):
    assert torch.equal(codec.encode(PICTURES), codec.encode(PICTURES))


def test_slices_change_nothing(codec):
    one = replace(codec, slice=1)
    assert torch.allclose(one.encode(PICTURES), codec.encode(PICTURES), atol=1e-5)
    latents = codec.encode(PICTURES)
    assert torch.allclose(one.decode(latents), codec.decode(latents), atol=1e-5)


def test_tiles_of_a_convolutional_codec_equal_the_whole(short_model):
    """A tiny autoencoder sees a neighbourhood only, so away from the seams tiles are exact, and near them close."""
    latents = torch.randn(1, 4, 40, 56, generator=torch.Generator().manual_seed(1))
    whole = short_model.codec.decode(latents)
    tiled = replace(short_model.codec, tile=24).decode(latents)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.002 * whole.std()
    pictures = whole
    whole, tiled = short_model.codec.encode(pictures), replace(short_model.codec, tile=24).encode(pictures)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.01 * whole.std()


def test_tiles_of_the_embedded_codec_equal_the_whole():
    """A drawing of flat and shaded areas, four times as large as the model's pictures; 8-bit levels are the measure."""
    codec: Any = load("emoji", "cpu").codec
    y, x = torch.meshgrid(torch.linspace(0, 1, 384), torch.linspace(0, 1, 512), indexing="ij")
    disc = ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.1).float()
    pictures = torch.stack([disc, y * disc, 1 - x * disc])[None]
    latents = codec.encode(pictures)
    whole, tiled = codec.decode(latents), replace(codec, tile=32).decode(latents)
    assert whole.std() > 0.2
    assert not torch.equal(tiled, whole)
    assert ((tiled - whole).abs() > 1 / 255).float().mean() < 0.01
    assert (tiled - whole).abs().mean() < 0.0005
    again = replace(codec, tile=32).encode(pictures)
    assert (again - latents).abs().mean() < 0.005 * latents.std()


def test_sizes_must_fit(codec):
    with pytest.raises(TaskError, match=r"multiples of 8 for this model; got 60x64\. Resize it to 64x64"):
        codec.encode(torch.rand(1, 3, 64, 60))


def test_only_float16_is_ever_upcast():
    asked = {"force_upcast": True}
    assert codec_dtype(asked, torch.float16) == torch.float32
    assert codec_dtype(asked, torch.bfloat16) == torch.bfloat16
    assert codec_dtype({}, torch.float16) == torch.float16


def test_half_precision_stays_inside(short_model):
    import copy

    codec = replace(short_model.codec, vae=copy.deepcopy(short_model.codec.vae).bfloat16())
    assert codec.encode(PICTURES).dtype == torch.float32
    assert codec.decode(codec.encode(PICTURES)).dtype == torch.float32
