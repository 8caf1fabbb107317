"""The embedded upscaler: drawn things that it never saw, sharper than interpolation can; and stock parts agree."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from segue.diffusion.loop import collect, denoise
from segue.evaluation.fidelity import psnr
from segue.models.bundle import LatentDiffusion
from segue.training.pairs import shrunk
from segue.training.recipes.upscaler import upscaled
from segue.types import RowId, State
from segue.zoo import load, models

SIDE, OVER = 256, 4


@cache
def model() -> LatentDiffusion:
    return load("emoji-x4", device="cpu")


def drawn() -> Tensor:
    """Three things with clean edges, drawn at four times the size, so that their edges are soft by a pixel."""
    pictures: list[Tensor] = []
    kinds = (("white", "#c02040", "ring"), ("#cfe6ff", "#222222", "star"), ("#f4e0a0", "#2a6", "bars"))
    for ground, ink, shape in kinds:
        image = Image.new("RGB", (SIDE * OVER, SIDE * OVER), ground)
        brush, unit = ImageDraw.Draw(image), SIDE * OVER // 16
        if shape == "ring":
            brush.ellipse((2 * unit, 3 * unit, 13 * unit, 14 * unit), fill=ink)
            brush.ellipse((5 * unit, 6 * unit, 10 * unit, 11 * unit), fill=ground)
        elif shape == "star":
            turns = np.arange(10) * np.pi / 5
            reach = np.where(np.arange(10) % 2, 6, 2.6)
            ends = np.stack([8 + reach * np.sin(turns), 8 + reach * np.cos(turns)], 1) * unit
            brush.polygon([(float(x), float(y)) for x, y in ends], fill=ink)
        else:
            for i in range(4):
                brush.line(((3 + 3 * i) * unit, 2 * unit, (1 + 3 * i) * unit, 14 * unit), fill=ink, width=unit)
        small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
        pictures.append(torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255)
    return torch.stack(pictures)


def edges(pictures: Tensor) -> Tensor:
    """The strongest steps between neighbours, of each picture."""
    return pictures.diff(dim=-1).abs().flatten(1).topk(200).values.mean(1)


@torch.no_grad()
def test_it_is_nearer_to_the_truth_than_bicubic_and_sharper() -> None:
    large = drawn()
    small = shrunk(large, 4, "bicubic")
    plain = functional.interpolate(small, SIDE, mode="bicubic").clamp(0, 1)
    steps = model().defaults.steps
    made = upscaled(model().denoiser, model().codec, model().text([""] * len(small)), small, steps)
    assert (psnr(made, large) > psnr(plain, large) + 1).all()
    assert (edges(made) > 1.5 * edges(plain)).all()


@torch.no_grad()
def test_it_equals_the_parts_of_diffusers() -> None:
    """The stock pipeline asks an AutoencoderTiny for what only KL codecs have, so its parts are stepped here."""
    (card,) = (card for card in models() if card.name == "emoji-x4")
    unet: Any = UNet2DConditionModel.from_pretrained(card.folder, subfolder="unet")
    vae: Any = AutoencoderTiny.from_pretrained(card.folder, subfolder="vae")
    scheduler: Any = DDIMScheduler.from_pretrained(card.folder, subfolder="scheduler")
    noising: Any = DDPMScheduler.from_pretrained(card.folder, subfolder="low_res_scheduler")
    unet, vae = unet.float(), vae.float()
    small, level, told = torch.rand(1, 3, 16, 16), torch.tensor([7]), model().text(["a cat"])
    eps, start = torch.randn(1, 3, 16, 16), torch.randn(1, 4, 16, 16)
    scheduler.set_timesteps(3)
    x, seen = start, noising.add_noise(small * 2 - 1, eps, level)
    for time in scheduler.timesteps:
        raw = unet(torch.cat([x, seen], 1), time, told.text, class_labels=level).sample
        x = scheduler.step(raw, time, x).prev_sample
    theirs = (vae.decode(x / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)

    upscaling = model().upscaling
    assert upscaling is not None
    schedule = model().schedule(3, (64, 64))
    cond = replace(told, concat=upscaling.shown(small, eps[0], 7), label=level)
    state = State(start, torch.zeros(1, dtype=torch.int64), (RowId("a"),))
    ours = model().codec.decode(collect(denoise(model().denoiser, state, schedule, cond), schedule))
    assert float((ours - theirs).abs().max()) < 1e-3


def test_it_shares_the_words_of_emoji_and_is_light() -> None:
    (card,) = (card for card in models() if card.name == "emoji-x4")
    assert card.text == "emoji" and card.factor == 4 == (model().upscaling or pytest.fail()).factor
    assert sum(path.stat().st_size for path in card.folder.rglob("*") if path.is_file()) < 2_600_000
    assert sorted(path.name for path in card.folder.iterdir() if path.is_dir()) == [
        "low_res_scheduler",
        "scheduler",
        "unet",
        "vae",
    ]
