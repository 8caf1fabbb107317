# pyright: basic
"""Pairs that a model draws: alike but for what was asked, and only those that a scorer lets through."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tiny import write_model
from torch.nn.functional import normalize

from segue.errors import TrainingError
from segue.evaluation.recognition import Judge
from segue.models.bundle import LatentDiffusion
from segue.models.loading import load_model
from segue.training.captions import Concept
from segue.training.instruct_data import EditPairs
from segue.training.instruct_drawn import Drawing, Palette, asked_of, drawn_alike
from segue.training.instruct_pairs import PairsConfig, build_pairs
from segue.training.instruct_score import CLIP_LIMITS, Asked, ClipPairs, JudgedPairs, Limits, PairScore
from segue.training.recipes import pairs

from .conftest import Sources

CAR = Palette(Concept("car", "red", character="🚗", name="automobile"), ("blue",), ("3d", "flat", "line art"))
CAT = Palette(Concept("cat", character="🐱", name="cat face"), (), ("3d", "line art"))
GREEN = Asked("colour", ("a red car", "a green car"), "green", ("car", "car"), ("3d", "3d"))
ANY = Limits(-9, -9, -9)


@dataclass(frozen=True)
class Counting:
    """The later a pair, the further it goes."""

    name: str = "counting"

    def __call__(self, before: torch.Tensor, after: torch.Tensor, asked: Sequence[Asked]) -> list[PairScore]:
        return [PairScore(1.0, 1.0, number / len(asked)) for number in range(len(asked))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    return load_model(write_model(tmp_path_factory.mktemp("draws") / "m", length=24, vae="tiny"), device="cpu")


@pytest.mark.parametrize("kind", ["colour", "style", "ground", "thing"])
def test_captions_differ_as_was_asked(kind) -> None:
    rng, found = np.random.default_rng(1), 0
    for _ in range(60):
        asked = asked_of(kind, CAR, CAT if kind == "thing" else CAR, rng)
        if asked is None:
            continue
        found += 1
        before, after = asked.captions
        assert before != after and asked.wanted in after and asked.kind == kind
        assert (asked.nouns[0] == asked.nouns[1]) == (kind != "thing")
        assert (asked.styles[0] == asked.styles[1]) == (kind != "style")
        if kind == "ground":
            assert before.endswith("on a white background") and after.endswith(f"{asked.wanted} background")
    assert found > 20


def test_what_has_no_other_colour_is_not_asked_for_one() -> None:
    assert asked_of("colour", CAT, CAT, np.random.default_rng(0)) is None


def test_the_second_is_drawn_as_the_first_for_a_share_of_the_run(model) -> None:
    told = replace(GREEN, captions=("a cat", "a red apple"))
    pairs_ = [drawn_alike(model, told, [1, 2], [share, share], [4.0, 4.0], 3) for share in (0.0, 1.0)]
    (before, after), (again, alike) = pairs_
    assert before.shape == after.shape == (2, 3, 64, 64)
    assert torch.equal(before, again), "the first is drawn as it would be alone"
    assert (after - alike).abs().max() > 1e-5
    same, other = drawn_alike(model, replace(told, captions=("a cat", "a cat")), [3], [1.0], [3.0], 2)
    assert (same - other).abs().max() < 1e-3


def test_of_several_the_one_is_kept_that_goes_furthest(model) -> None:
    drawing = Drawing(model, Counting(), ANY, wishes=3, kinds=("thing",), samples=3, steps=2)
    made = list(drawing.pairs([CAR, CAT]))
    assert [pair.score.direction for pair in made] == [2 / 3] * 3
    for pair in made:
        assert all(pair.asked.wanted in words for words in pair.instructions)
        assert pair.pictures.shape == (2, 3, 64, 64)
    assert not list(replace(drawing, limits=Limits(direction=0.9)).pairs([CAR, CAT]))


def test_they_stand_beside_those_made_by_rule(model, sources: Sources, tmp_path: Path) -> None:
    config = PairsConfig(size=64, sources=2, changes=3, drawn_share=0.25)
    drawing = Drawing(model, Counting(), ANY, wishes=2, kinds=("thing",), samples=1, steps=2)
    for name, given in (("ruled", None), ("both", drawing)):
        build_pairs(tmp_path / name, sources.folder, config, sources.concepts, sources.packages, given)
    ruled, both = (EditPairs.load(tmp_path / name) for name in ("ruled", "both"))
    assert len(both) == len(ruled) + 2 and len(both.pictures) == len(ruled.pictures) + 4
    assert both.weights[-2:].sum() == pytest.approx(0.25, abs=1e-6)
    assert np.allclose(both.weights[:-2], 0.75 * ruled.weights, atol=1e-8)
    assert both.kinds[-2:] == ("thing", "thing")
    said = json.loads((tmp_path / "both/sources.json").read_text())["drawn"]
    assert (said["scorer"], said["wishes"], said["limits"]["direction"]) == ("counting", 2, -9)


def disc(colour: tuple[float, float, float], ground: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 48), indexing="ij")
    inside = (x**2 + y**2 < 0.5)[None]
    return torch.where(inside, torch.tensor(colour)[:, None, None], torch.tensor(ground)[:, None, None])[None]


class MeanColour:
    """Features of a picture: its mean colour."""

    name = "mean colour"

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.mean((2, 3))


def judge() -> Judge:
    """The redder, the more a car; the darker, the more line art."""
    noun = torch.tensor([[9.0, -9, 0, 0], [-9.0, 9, 0, 0]])
    style = torch.tensor([[0.0, 0, 0, 0], [-9.0, -9, -9, 13]])
    return Judge(MeanColour(), ("car", "frog"), ("shaded", "line art"), torch.zeros(3), torch.ones(3), noun, style)


RED, LEAF, WHITE, BLACK = (0.9, 0.1, 0.1), (0.1, 0.8, 0.2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
BLUE = (158 / 255, 205 / 255, 250 / 255)


@pytest.mark.parametrize(
    ("asked", "before", "after"),
    [
        (GREEN, disc(RED), disc(LEAF)),
        (Asked("ground", ("", ""), "blue", ("car", "car"), ("3d", "3d")), disc(RED), disc(RED, BLUE)),
        (Asked("style", ("", ""), "line art", ("car", "car"), ("3d", "line art")), disc(WHITE), disc(BLACK, BLACK)),
        (Asked("thing", ("", ""), "frog", ("car", "frog"), ("3d", "3d")), disc(RED), disc(LEAF)),
    ],
)
def test_a_classifier_says_whether_a_change_is_there(asked, before, after) -> None:
    scorer = JudgedPairs(judge())
    there, nothing, back = (
        scorer(*pair, [asked])[0].direction for pair in ((before, after), (before, before), (after, before))
    )
    assert there > 0.5 and nothing == pytest.approx(0, abs=1e-6) and back == pytest.approx(-there, abs=1e-5)


def test_what_should_stay_must_stay() -> None:
    """A car that became a green frog is no green car."""
    score = JudgedPairs(judge())(disc(RED), disc((0.0, 0.9, 0.0)), [GREEN])[0]
    assert score.fits < 0.5


class Clip:
    """Of length 1, in three directions."""

    name = "three directions"

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        return normalize(pictures.mean((2, 3)), dim=1)

    def texts(self, prompts: Sequence[str]) -> torch.Tensor:
        known = {"a red car": [1.0, 0, 0], "a green car": [0.0, 1, 0]}
        return torch.tensor([known[prompt] for prompt in prompts])


def test_clip_scores_as_the_paper_does() -> None:
    red, green, blue = (disc(c, c) for c in ((1.0, 0, 0), (0.0, 1, 0), (0.0, 0, 1)))
    there, stayed, astray = ClipPairs(cast(Any, Clip()))(
        torch.cat([red, red, red]), torch.cat([green, red, blue]), [GREEN] * 3
    )
    assert (there.alike, there.fits, there.direction) == pytest.approx((0, 1, 1), abs=1e-4)
    assert (stayed.alike, stayed.direction) == pytest.approx((1, 0), abs=1e-4)
    assert astray.direction == pytest.approx(0.5, abs=1e-4) and astray.fits == pytest.approx(0, abs=1e-4)
    assert not CLIP_LIMITS.keeps(there) and CLIP_LIMITS.keeps(PairScore(0.8, 0.25, 0.3))
    assert not CLIP_LIMITS.keeps(PairScore(0.8, 0.25, 0.1)) and not CLIP_LIMITS.keeps(PairScore(0.8, 0.1, 0.3))


def test_without_a_scorer_nothing_is_drawn() -> None:
    with pytest.raises(TrainingError, match="nothing says which of them are good"):
        pairs.drawing_of(pairs.Config(drawn=4))
    assert pairs.drawing_of(pairs.Config()) is None
