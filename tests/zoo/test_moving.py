# pyright: basic
"""Models that are made to move: a base and layers along time, found by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segue.errors import CheckpointError, ModelNotFoundError
from segue.models.codec import AutoencoderCodec
from segue.models.time_decoder import with_time_decoder
from segue.models.time_decoder_files import join_decoder, save_decoder
from segue.models.time_files import save_time
from segue.models.time_inserted import TimeSettings, time_layers, with_time
from segue.tasks.outlook import Asked, outlook
from segue.zoo import load, models
from segue.zoo.catalogue import catalogue

CARD = """
name = "dots-motion"
summary = "Dots that move."
licence = "Apache-2.0"
base = "dots"
time = "motion.safetensors"
"""


@pytest.fixture
def zoo(embedded: Path) -> Path:
    """The folder of "dots" and of what moves them."""
    folder = embedded.with_name("dots-motion")
    folder.mkdir()
    (folder / "card.toml").write_text(CARD)
    moving = with_time(load("dots"), TimeSettings(inner=8, heads=2, head_width=4, vector=16, frames=6, fps=4.0))
    save_time(folder / "motion.safetensors", moving)
    return embedded.parent


def test_a_card_puts_layers_along_time_into_its_base(zoo):
    base, moving = load("dots"), load("dots-motion")
    assert base.moving is None and moving.moving is not None
    assert (moving.moving.frames, moving.moving.fps) == (6, 4.0)
    assert (moving.name, moving.defaults.steps, moving.vocabulary) == ("dots-motion", 9, base.vocabulary)
    assert len(time_layers(moving).layers) and moving.fingerprint != base.fingerprint
    card = next(card for card in models() if card.name == "dots-motion")
    assert (card.time, card.lora, card.weights) == ("motion.safetensors", None, zoo / "dots")
    entry = next(entry for entry in catalogue().entries if entry.name == "dots-motion")
    assert entry.family == "Stable Diffusion, layers along time for dots"


def test_single_pictures_are_those_of_the_base_to_the_bit(zoo):
    base, moving = load("dots"), load("dots-motion")
    for value in time_layers(moving).parameters():
        value.fill_(0.1)
    now, _ = base.schedule(4, (64, 32)).step(torch.tensor([1, 1]))
    x = torch.randn(2, 4, 4, 8, generator=torch.Generator().manual_seed(1))
    cond = base.text(["a cat", "a red apple"])
    with torch.no_grad():
        assert torch.equal(moving.denoiser(x, now, cond), base.denoiser(x, now, cond))


@pytest.mark.parametrize("decoder", [False, True])
def test_its_layers_are_weights_of_the_unet_and_of_the_decoder_that_holds_them(zoo, tmp_path, decoder):
    """They are forecast from the header of their file; and one that is damaged is told as loading tells it."""
    file = zoo / "dots-motion" / "motion.safetensors"
    if decoder:
        base = load("dots")
        codec = base.codec
        assert isinstance(codec, AutoencoderCodec)
        save_decoder(one := tmp_path / "decoder.safetensors", with_time_decoder(codec), base)
        join_decoder(file, one, file)
    moving = load("dots-motion")
    held = {name: sum(weight.numel() for weight in part.parameters()) for name, part in moving.parts.items()}
    expected = outlook(Asked("dots-motion", "cpu"), timed=False).forecast
    assert {part.name: part.parameters for part in expected.parts} == held
    plain = outlook(Asked("dots", "cpu"), timed=False).forecast
    assert expected.flops == plain.flops, "single pictures are not looked at along time"
    more = {part.name for part, other in zip(expected.parts, plain.parts, strict=True) if part.bytes > other.bytes}
    assert more == ({"unet", "vae"} if decoder else {"unet"})
    file.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"motion\.safetensors"):
        outlook(Asked("dots-motion", "cpu"), timed=False)


@pytest.mark.parametrize(
    ("old", "new", "kind", "said"),
    [
        ("motion.saf", "rest.saf", ModelNotFoundError, r"rest\.safetensors is missing; it makes .dots-motion. out of"),
        ("motion.saf", "../motion.saf", CheckpointError, "time must be the name of a file in the same folder"),
        ('time = "motion.safetensors"', "", CheckpointError, "together with one or more of lora, time, instruct"),
        ('base = "dots"', "", CheckpointError, "together with one or more of lora, time, instruct"),
    ],
)
def test_cards_that_cannot_be_followed_say_why(zoo, old, new, kind, said):
    file = zoo / "dots-motion" / "card.toml"
    file.write_text(CARD.replace(old, new))
    with pytest.raises(kind, match=said):
        load("dots-motion")
