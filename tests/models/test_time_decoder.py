"""Decoders along time: nothing changes until something is learned, single pictures stay, and chunks show no seam."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder, AutoencoderTiny
from torch import Tensor
from torch.nn import init

from segue.errors import ModelError
from segue.models.codec import AutoencoderCodec
from segue.models.time_decoder import DecoderSettings, TimeCodec, at_dial, places, with_time_decoder

FRAMES = 6


def codec_of(kind: str) -> AutoencoderCodec:
    torch.manual_seed(5)
    if kind == "tiny":
        vae = AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        )
    else:
        kl: Any = AutoencoderKL
        vae = kl(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
        )
    return AutoencoderCodec(vae.eval().requires_grad_(False), slice=8)


def learned(codec: TimeCodec, size: float = 0.3) -> TimeCodec:
    generator = torch.Generator().manual_seed(1)
    for layer in codec.layers.layers.values():
        init.normal_(layer.get_parameter("last.weight"), std=size, generator=generator)
    return codec


def latents(frames: int = FRAMES) -> Tensor:
    return torch.randn(frames, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def film(codec: TimeCodec, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat(list(codec.pieces(x)))


@pytest.mark.parametrize("kind", ["tiny", "kl"])
def test_new_layers_change_nothing_and_learned_ones_only_clips(kind: str) -> None:
    codec = codec_of(kind)
    made, x = with_time_decoder(codec), latents()
    with torch.no_grad():
        alone = codec.decode(x)
        assert torch.equal(film(made, x), alone)
        learned(made)
        assert not torch.allclose(film(made, x), alone, atol=1e-3)
        # Pictures, a clip of one frame, and the dial at 0 are the decoder of pictures, to the bit.
        assert torch.equal(made.decode(x), alone)
        assert torch.equal(film(made, x[:1]), codec.decode(x[:1]))
        assert torch.equal(film(at_dial(made, 0.0), x), alone)
        some = film(at_dial(made, [0.0, 1.0, 2.0, 0.0, 1.0, 0.5]), x)
        assert torch.allclose(some[[0, 3]], alone[[0, 3]], atol=1e-6), "a frame at 0 is the picture"
        assert torch.equal(film(at_dial(made, [3.0] * FRAMES), x), film(made, x))
        assert all(float((some - alone)[frame].abs().max()) > 1e-3 for frame in (1, 2, 4, 5))
        with pytest.raises(ValueError, match="2 frames have a dial"):
            film(at_dial(made, [0.0, 1.0]), x)
        # The given codec has no hooks: it never hears of time.
        assert torch.equal(codec.decode(x), alone)
    assert codec.vae.state_dict().keys() <= made.vae.state_dict().keys()
    shared = dict(made.vae.named_parameters())
    assert all(shared[name] is value for name, value in codec.vae.named_parameters())


def test_alpha_is_the_share_of_the_decoder_of_pictures() -> None:
    """At 1 nothing of the layers is left; the files of Stable Video Diffusion hold it the other way round."""
    codec = codec_of("tiny")
    made, x = learned(with_time_decoder(codec)), latents()
    with torch.no_grad():
        for layer in made.layers.layers.values():
            layer.get_parameter("mix").fill_(200.0)
        assert torch.equal(film(made, x), codec.decode(x))


def test_frames_are_told_of_their_neighbours_only() -> None:
    """Each layer looks one frame ahead and back."""
    made, x = learned(with_time_decoder(codec_of("tiny"))), latents(8)
    other = x.clone()
    other[0] += 1
    with torch.no_grad():
        change = (film(made, x) - film(made, other)).abs().amax((1, 2, 3))
    reach = len(places(made.vae)) * 2  # two convolutions a layer
    assert float(change[1]) > 0
    assert reach >= 8 or not change[reach + 1 :].any()


def test_clips_of_one_batch_do_not_see_each_other() -> None:
    made, x = learned(with_time_decoder(codec_of("tiny"))), latents(8)
    with torch.no_grad():
        both = made.learning(x, 4)
        first = made.learning(x[:4], 4)
    torch.testing.assert_close(both[:4], first, rtol=0, atol=1e-5)


def test_long_clips_come_in_chunks_that_fade_into_each_other() -> None:
    made = replace(learned(with_time_decoder(codec_of("tiny")), 0.1), slice=8)
    x = torch.cumsum(0.05 * latents(20), 0)
    pieces = [len(part) for part in made.pieces(x)]
    whole, cut = film(replace(made, slice=20), x), film(made, x)
    assert sum(pieces) == 20 and max(pieces) < 20
    apart = film(replace(made, overlap=0), x)
    errors = [(one - whole).abs().mean() for one in (cut, apart)]
    assert float(errors[0]) < float(errors[1])


def test_gradients_reach_the_layers_alone() -> None:
    made = with_time_decoder(codec_of("kl"), DecoderSettings(inner=4, kernel=1))
    with torch.enable_grad():
        made.learning(latents(4), 4).square().mean().backward()
    assert all(layer.get_parameter("last.weight").grad is not None for layer in made.layers.layers.values())
    assert all(value.grad is None for name, value in made.vae.named_parameters() if not name.startswith("time_layers"))


def test_decoders_that_look_along_time_already_are_refused() -> None:
    made = with_time_decoder(codec_of("tiny"))
    with pytest.raises(ModelError, match="has it already"):
        with_time_decoder(made)
    vae = AutoencoderKLTemporalDecoder(block_out_channels=(32,), down_block_types=("DownEncoderBlock2D",))
    with pytest.raises(ModelError, match="has it already"):
        with_time_decoder(AutoencoderCodec(vae))
