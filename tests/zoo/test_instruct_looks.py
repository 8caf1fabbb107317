# pyright: basic
"""The embedded instruction model does what it is told, and leaves the rest."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from segue.models.bundle import LatentDiffusion
from segue.tasks.image import Image
from segue.tasks.sampling import Sampling
from segue.training.pictures import to_hsv
from segue.training.sampling import changed
from segue.zoo import load, models

GREEN = 120


@cache
def model(name: str) -> LatentDiffusion:
    return load(name, device="cpu")


@cache
def before(prompt: str) -> Tensor:
    return Image(prompt, seed=3, sampling=Sampling(steps=12)).run(model("emoji")).frames[0:1]


def after(prompt: str, told: str, count: int = 2) -> Tensor:
    """What becomes of a drawn picture, from as many noises."""
    pictures = before(prompt).repeat(count, 1, 1, 1)
    return changed(model("emoji-instruct"), pictures, [told] * count, list(range(count)), steps=12)


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean().sqrt())


def hue(picture: Tensor) -> float:
    """Of what is most colourful."""
    hues, saturation, value = to_hsv(picture.permute(1, 2, 0).numpy().astype(np.float32))
    angles = np.deg2rad(hues[saturation * value > 0.45])
    return float(np.rad2deg(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean())) % 360)


def test_its_card_says_what_it_is() -> None:
    (card,) = (card for card in models() if card.name == "emoji-instruct")
    assert (card.base, card.instruct) == ("emoji", "instruct.safetensors")
    assert model("emoji-instruct").instructs and not model("emoji").instructs
    assert set(model("emoji").words) < set(model("emoji-instruct").words)


@pytest.mark.parametrize("thing", ["a red apple", "a pink pig face"])
def test_it_paints(thing: str) -> None:
    source = before(thing)[0]
    assert abs(hue(source) - GREEN) > 60
    for made in after(thing, "make it green"):
        assert abs(hue(made) - GREEN) < 45
        assert apart(made[:, :12, :12], source[:, :12, :12]) < 0.05, "the ground was to stay"


def test_it_changes_the_ground_alone() -> None:
    source = before("a red apple")[0]
    middle = (slice(None), slice(56, 72), slice(56, 72))
    for made in after("a red apple", "put it on a dark blue background"):
        corner = made[:, :8, :8].mean((1, 2))
        assert corner[2] > corner[0] + 0.1 and float(corner.mean()) < 0.5
        assert apart(made[middle], source[middle]) < 0.5 * apart(made[:, :8, :8], source[:, :8, :8])


@pytest.mark.parametrize(("told", "axes"), [("turn it upside down", (-2, -1)), ("mirror it", (-1,))])
def test_it_moves_things(told: str, axes: tuple[int, ...]) -> None:
    source = before("a red car")
    for made in after("a red car", told):
        assert apart(made, source[0].flip(axes)) < 0.75 * apart(made, source[0])


def test_it_draws_lines() -> None:
    def colourful(picture: Tensor) -> float:
        return float((picture.amax(0) - picture.amin(0) > 0.45).float().mean())

    assert colourful(before("a red apple")[0]) > 0.1
    for made in after("a red apple", "make it line art"):
        assert colourful(made) < 0.3 * colourful(before("a red apple")[0])
        assert 0.02 < float((made.mean(0) < 0.3).float().mean()) < 0.5


def test_told_nothing_it_keeps_the_picture() -> None:
    source = before("a red apple")
    assert apart(after("a red apple", "", 1), source) < apart(after("a red apple", "make it green", 1), source)
    assert torch.isfinite(after("a red apple", "", 1)).all()
