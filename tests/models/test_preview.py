# pyright: basic
"""Small decoders: diffusers' own numbers, and refused by name where they are for other latents."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from safetensors.torch import load_file, save_file

from segue.errors import CheckpointError, ModelError, ModelNotFoundError, UnsafeFileError
from segue.models import preview as previews
from segue.models.families import FAMILIES
from segue.models.preview import Preview, read_preview, with_preview

CPU = torch.device("cpu")
LATENTS = 3 * torch.randn(3, 4, 8, 6, generator=torch.Generator().manual_seed(0))
"""Some of them are beyond 3, where TAESD bends them."""


def write_tiny(folder: Path, seed: int = 0, **changes) -> Path:
    """A random checkpoint of the layout of madebyollin/taesd, with an encoder of its own."""
    torch.manual_seed(seed)
    widths = {f"{part}_block_out_channels": (8, 8, 8, 8) for part in ("encoder", "decoder")}
    settings = {"num_encoder_blocks": (1, 1, 1, 1), "num_decoder_blocks": (1, 1, 1, 1), **widths}
    vae: Any = AutoencoderTiny(**{**settings, **changes})
    # Random pictures are all but grey; these have colours, and some beyond the range.
    vae.decoder.layers[-1].weight.data.mul_(50)
    vae.decoder.layers[-1].bias.data.add_(0.7)
    vae.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(tmp_path) -> Path:
    return write_tiny(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("channels", "scaling", "shift"), [(4, 1.0, 0.0), (16, 1.0, 0.0), (4, 0.6, 0.0), (16, 1.5305, 0.0609)]
)
def test_it_is_diffusers_own(tmp_path, channels, scaling, shift):
    """Its own scaling and shift, not the model's; [-1, 1] there is [0, 1] here."""
    folder = write_tiny(tmp_path / "tiny", latent_channels=channels, scaling_factor=scaling, shift_factor=shift)
    theirs: Any = AutoencoderTiny.from_pretrained(folder)
    latents = torch.randn(3, channels, 8, 6, generator=torch.Generator().manual_seed(1))
    expected = (theirs.decode(latents / scaling + shift).sample / 2 + 0.5).clamp(0, 1)
    codec, files = read_preview(folder, CPU, torch.float32)
    made = codec.decode(latents)
    assert made.shape == (3, 3, 64, 48)
    assert (made - expected).abs().max() <= 1e-5
    assert expected.std() > 0.1
    assert expected.min() == 0 and expected.max() == 1
    assert [file.name for file in files] == ["diffusion_pytorch_model.safetensors"]


def test_no_encoder_is_needed_or_kept(tiny):
    whole, _ = read_preview(tiny, CPU, torch.float32)
    file = tiny / "diffusion_pytorch_model.safetensors"
    decoder = {name: value for name, value in load_file(file).items() if name.startswith("decoder.")}
    save_file(decoder, file)
    alone, _ = read_preview(tiny, CPU, torch.float32)
    assert torch.equal(alone.decode(LATENTS), whole.decode(LATENTS))
    assert {name for name, _ in whole.vae.named_parameters()} == decoder.keys()


def test_a_model_gets_one_and_stays_what_it_is(model, tiny):
    quick = with_preview(model, tiny)
    assert quick.preview is not None
    assert quick.preview == Preview(str(tiny.absolute()), quick.preview.codec, "shown")
    assert quick.fingerprint == model.fingerprint
    assert quick.codec is model.codec


def test_all_frames_by_it_are_another_models(model, tiny):
    quick = with_preview(model, tiny, "frames")
    assert quick.fingerprint != model.fingerprint
    expected, _ = read_preview(tiny, CPU, torch.float32)
    assert torch.equal(quick.codec.decode(LATENTS), expected.decode(LATENTS))
    pictures = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    assert torch.equal(quick.codec.encode(pictures), model.codec.encode(pictures))
    assert (quick.codec.scale, quick.codec.channels, quick.grid) == (8, 4, model.grid)


@pytest.mark.parametrize("changes", [{"latent_channels": 16}, {"num_decoder_blocks": (1, 1, 1)}])
def test_other_latents_are_refused(model, tmp_path, changes):
    if "num_decoder_blocks" in changes:
        changes["decoder_block_out_channels"] = (8, 8, 8)
    folder = write_tiny(tmp_path / "tiny", **changes)
    with pytest.raises(
        ModelError, match=rf"{folder} decodes latents of .*those of .* have 4, and are 8x8\. It is made"
    ):
        with_preview(model, folder)


def test_what_is_published_for_another_family_is_refused_by_name(model, monkeypatch):
    """Four channels are four channels: only the name tells SDXL's latents from those of 1.x."""
    monkeypatch.setattr(previews, "download_network", lambda repository: pytest.fail("nothing is downloaded"))
    with pytest.raises(
        ModelError, match=r"taesdxl decodes latents of Stable Diffusion XL, and .* is Stable Diffusion: "
    ):
        with_preview(model, "madebyollin/taesdxl")
    with pytest.raises(ModelError, match=r"take madebyollin/taesd$"):
        with_preview(model, "madebyollin/taef1@main")


def test_auto_is_that_of_the_family(model, tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(previews, "download_network", lambda repository: asked.append(repository.id) or tiny)
    for family in FAMILIES:
        if family.preview:
            found = with_preview(replace(model, family=family.module), "auto")
            assert found.preview is not None and found.preview.source == family.preview == asked.pop()
    with pytest.raises(ModelError, match="no small decoder for the latents of x: name one, or train it"):
        with_preview(replace(model, family="upscaler", name="x"), "auto")


def test_what_is_no_small_decoder_is_named(model, folder, tiny, tmp_path):
    with pytest.raises(ModelNotFoundError, match="no small decoder at nowhere"):
        with_preview(model, "nowhere")
    with pytest.raises(ModelNotFoundError, match=r"no small decoder at \(an empty name\)"):
        with_preview(model, "")
    with pytest.raises(CheckpointError, match="expected an AutoencoderTiny, got AutoencoderKL"):
        with_preview(model, folder / "vae")
    with pytest.raises(ModelError, match="preview_for must be one of shown, measured, frames; got 'looks'"):
        with_preview(model, tiny, cast(Any, "looks"))
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps({**config, "num_decoder_blocks": [1, 2, 1, 1]}))
    with pytest.raises(CheckpointError, match=r"does not hold the decoder that its config\.json describes"):
        with_preview(model, tiny)
    file = tiny / "diffusion_pytorch_model.safetensors"
    shutil.move(file, file.with_suffix(".bin"))
    with pytest.raises(UnsafeFileError, match="pickle"):
        with_preview(model, tiny)


@pytest.mark.parametrize(
    "value", [None, "a", "1", 0, -1.0, True, math.nan, math.inf, [1.0], 10**400], ids=lambda value: str(value)[:5]
)
def test_a_scale_that_is_none_is_named(model, tiny, value):
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps({**config, "scaling_factor": value}))
    with pytest.raises(
        CheckpointError, match=r"config\.json describes: scaling_factor must be a finite number above 0, got "
    ):
        with_preview(model, tiny)


@pytest.mark.parametrize("value", ["a", math.nan, -math.inf, True, 10**400], ids=lambda value: str(value)[:5])
def test_a_shift_that_is_none_is_named(model, tiny, value):
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps({**config, "shift_factor": value}))
    with pytest.raises(CheckpointError, match=r"shift_factor must be a finite number, got "):
        with_preview(model, tiny)
    (tiny / "config.json").write_text(json.dumps({**config, "shift_factor": -1}))
    with_preview(model, tiny)


@pytest.mark.parametrize("changes", [{"latent_channels": None}, {"decoder_block_out_channels": 8}])
def test_a_layout_that_cannot_be_made_is_named(model, tiny, changes):
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(CheckpointError, match=r"does not hold the decoder that its config\.json describes"):
        with_preview(model, tiny)
