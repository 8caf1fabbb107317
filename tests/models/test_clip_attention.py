# pyright: basic
"""Attention within frames that looks at all frames of the clip, merged by a learned share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write_model
from torch import Tensor

from segue.errors import ModelError
from segue.models.attention import attached, sites
from segue.models.loading import load_model
from segue.models.time_files import read_settings, save_time, with_time_file
from segue.models.time_inserted import TimeSettings, time_layers, with_motion, with_time

SETTINGS = TimeSettings(inner=8, heads=2, head_width=4, vector=16, context=0, frames=3, attention="clip")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(write_model(tmp_path_factory.mktemp("model") / "tiny"), device="cpu")


def with_share(image: Any, mix: float) -> Any:
    moving = with_time(image, SETTINGS)
    looks: Any = time_layers(moving).looks
    for look in looks.values():
        torch.nn.init.constant_(look.mix.requires_grad_(False), mix)
    return moving


def drawn(model: Any, frames: int, rows: int = 6) -> Tensor:
    x = torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    now, _ = model.schedule(5, (64, 64)).step(torch.zeros(rows, dtype=torch.int64))
    told = model.over(frames) if model.moving else model
    with torch.no_grad():
        return told.denoiser(x, now, model.text(["a cat"] * rows))


def test_a_share_of_one_is_the_image_model_to_the_bit(image: Any) -> None:
    before = drawn(image, 1)
    assert torch.equal(drawn(with_share(image, 200.0), 3), before)
    seeing = with_share(image, -200.0)
    assert not torch.allclose(drawn(seeing, 3), before, atol=1e-3)
    assert torch.equal(drawn(with_motion(seeing, 0), 3), before)
    assert torch.equal(drawn(seeing, 1), before)
    assert torch.equal(drawn(image, 1), before), "the image model itself was changed"


def test_a_share_of_none_sees_all_frames_of_its_own_clip(image: Any) -> None:
    def everything(plain: Any, hidden: Tensor, context: Any, call: Any, site: Any) -> Tensor:
        if context is not None:
            return plain(hidden, context)
        clips = [part.flatten(0, 1)[None].expand(3, -1, -1) for part in hidden.split(3)]
        return plain(hidden, torch.cat(clips))

    within = [site for site in sites(image.parts["unet"]) if site.kind == "self"]
    with attached(within, everything):
        wanted = drawn(image, 1)
    found = drawn(with_share(image, -200.0), 3)
    assert torch.allclose(found, wanted, atol=1e-5)
    first, both = drawn(with_share(image, -200.0), 3, 3), found[:3]
    assert torch.allclose(first, both, atol=1e-5), "clips saw each other"


def test_it_is_learned_and_stays_in_the_file(image: Any, tmp_path: Path) -> None:
    moving = with_time(image, SETTINGS)
    looks: Any = list(time_layers(moving).looks.values())
    assert len(looks) == sum(site.kind == "self" for site in sites(image.parts["unet"]))
    x = torch.randn(3, 4, 8, 8)
    now, _ = moving.schedule(5, (64, 64)).step(torch.zeros(3, dtype=torch.int64))
    for look in looks:
        look.mix.requires_grad_(True)
    with torch.enable_grad():
        moving.over(3).denoiser(x, now, moving.text(["a cat"] * 3)).square().mean().backward()
    assert all(look.mix.grad is not None and float(look.mix.grad.abs()) > 0 for look in looks)
    save_time(tmp_path / "motion.safetensors", with_share(image, 0.5))
    assert read_settings(tmp_path / "motion.safetensors") == SETTINGS
    read = with_time_file(image, tmp_path / "motion.safetensors")
    assert torch.equal(drawn(read, 3), drawn(with_share(image, 0.5), 3))


def test_recurrences_cannot_look_at_frames_to_come() -> None:
    with pytest.raises(ModelError, match="one after the other"):
        TimeSettings(blocks="recurrence", transformers=None, attention="clip")
