"""Colours of objects: read from the object alone, whatever the ground."""

from __future__ import annotations

import colorsys

import pytest
import torch
from torch import Tensor

from segue.evaluation.colour import SECTORS, hue_saturation_value, object_colours, object_pixels

NAMED = {
    "red": (0.9, 0.1, 0.1),
    "orange": (1.0, 0.5, 0.1),
    "yellow": (1.0, 0.85, 0.2),
    "green": (0.2, 0.75, 0.3),
    "teal": (0.1, 0.7, 0.68),
    "blue": (0.15, 0.45, 0.95),
    "purple": (0.55, 0.2, 0.9),
    "pink": (1.0, 0.35, 0.7),
}
GROUNDS = {
    "white": (1.0, 1.0, 1.0),
    "pale blue": (0.62, 0.8, 0.98),
    "pale pink": (0.99, 0.75, 0.83),
    "dark": (0.1,) * 3,
}


def disc(colour: tuple[float, ...], ground: tuple[float, ...], radius: float = 0.6) -> Tensor:
    """A shaded disc on a ground, (1, 3, 64, 64)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    inside = (x**2 + y**2 < radius**2).float()
    shade = 1 - 0.25 * (x + y).clamp(0, 1)
    return inside * shade * torch.tensor(colour).view(1, 3, 1, 1) + (1 - inside) * torch.tensor(ground).view(1, 3, 1, 1)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("word", NAMED)
def test_an_object_has_its_colour_on_any_ground(word: str, ground: str) -> None:
    (found,) = object_colours(disc(NAMED[word], GROUNDS[ground]))
    assert found.word == word
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.area == pytest.approx(0.283, abs=0.03)  # pi 0.6^2 / 4
    assert found.colourful > 0.9


def test_the_larger_part_decides() -> None:
    both = torch.where(
        disc((1.0, 1.0, 1.0), (0.0,) * 3, 0.3) > 0.5, disc(NAMED["blue"], (1.0,) * 3), disc(NAMED["red"], (1.0,) * 3)
    )
    (found,) = object_colours(both)
    assert found.word == "red"
    assert 0.1 < found.shares["blue"] < 0.5


def test_grey_things_and_empty_pictures_have_no_colour() -> None:
    grey, nothing = object_colours(torch.cat([disc((0.4,) * 3, (1.0,) * 3), torch.full((1, 3, 64, 64), 0.7)]))
    assert (grey.word, nothing.word) == ("", "")
    assert grey.area > 0.2
    assert nothing.area == 0


def test_the_ground_is_what_the_edge_is() -> None:
    picture = disc(NAMED["red"], GROUNDS["white"])
    picture[..., :3, :10] = 0.0  # something touches the edge
    pixels = object_pixels(picture)[0]
    assert pixels[32, 32]
    assert not pixels[60, 60]
    assert pixels[0, 0]


def test_every_hue_has_one_word() -> None:
    borders = sorted(start for start, _ in SECTORS.values())
    assert borders == sorted(stop for _, stop in SECTORS.values())
    assert len(set(borders)) == len(SECTORS)


def test_hues_are_those_of_the_standard_library() -> None:
    colours = torch.rand(50, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    found = torch.stack(hue_saturation_value(colours), 1).view(50, 3)
    for (r, g, b), row in zip(colours.view(50, 3).tolist(), found.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(r, g, b)
        assert row == pytest.approx([hue * 360, saturation, value], abs=1e-3)
