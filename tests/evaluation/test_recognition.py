"""A judge on toy features: it learns, it can be wrong, and its deformations leave things recognisable."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segue.evaluation.augment import augmented
from segue.evaluation.features import extract, floats
from segue.evaluation.recognition import Renders, Verdict, accuracy, train_judge

SHAPES = ("disc", "ring", "square", "cross", "bar", "corner", "stripe")


class Glance:
    """Features for the toy shapes: a coarse picture of brightness, and how rough it is."""

    name = "glance"
    calls = 0

    def __call__(self, pictures: Tensor) -> Tensor:
        self.calls += 1
        grey = pictures.mean(1, keepdim=True)
        coarse = torch.nn.functional.adaptive_avg_pool2d(grey, 10).flatten(1)
        rough = (grey[..., 1:] - grey[..., :-1]).abs().flatten(1).mean(1, keepdim=True)
        return torch.cat([coarse, rough * 50], 1)


def shape(name: str, style: str, seed: int) -> Tensor:
    """(32, 32, 3) bytes: a light shape on black; "rough" ones are speckled."""
    generator = torch.Generator().manual_seed(seed)
    dx, dy = ((torch.rand(2, generator=generator) - 0.5) * 0.2).tolist()
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32) + dy, torch.linspace(-1, 1, 32) + dx, indexing="ij")
    radius = (x**2 + y**2).sqrt()
    masks = {
        "disc": radius < 0.5,
        "ring": (radius > 0.5) & (radius < 0.85),
        "square": (x.abs() < 0.7) & (y.abs() < 0.7),
        "cross": (x.abs() < 0.15) | (y.abs() < 0.15),
        "bar": y.abs() < 0.3,
        "corner": (x > 0.1) & (y > 0.1),
        "stripe": (x.abs() > 0.6),
    }
    colour = 0.5 + 0.5 * torch.rand(3, generator=generator)
    picture = masks[name].float()[..., None] * colour
    if style == "rough":
        picture = picture * (torch.rand(32, 32, 1, generator=generator) > 0.4)
    return (picture * 255).round().to(torch.uint8)


def renders(first: int, each: int) -> Renders:
    rows = [
        (name, style, seed) for name in SHAPES for style in ("rough", "plain") for seed in range(first, first + each)
    ]
    nouns, styles, _ = zip(*rows, strict=True)
    return Renders(torch.stack([shape(*row) for row in rows]), nouns, styles)


def test_a_judge_knows_what_it_learned_and_says_how_well() -> None:
    judge = train_judge(Glance(), renders(0, 12), passes=2)
    kept_back = renders(100, 6)
    found = accuracy(judge(kept_back.pictures), kept_back.nouns, kept_back.styles)
    assert found.pictures == len(kept_back.nouns) == 7 * 2 * 6
    assert found.top1 > 0.9
    assert found.top5 >= found.top1
    assert found.style > 0.8
    assert judge.nouns == tuple(sorted(SHAPES))


def test_a_judge_that_was_told_nonsense_knows_nothing() -> None:
    """What the test above measures is learned from the labels, and not given away."""
    taught = renders(0, 12)
    order = torch.randperm(len(taught.nouns), generator=torch.Generator().manual_seed(1)).tolist()
    shuffled = Renders(taught.pictures, tuple(taught.nouns[i] for i in order), tuple(taught.styles[i] for i in order))
    judge, kept_back = train_judge(Glance(), shuffled), renders(100, 6)
    found = accuracy(judge(kept_back.pictures), kept_back.nouns, kept_back.styles)
    assert found.top1 < 0.5
    assert found.style < 0.75


def test_the_same_seed_makes_the_same_judge() -> None:
    first, again, other = (train_judge(Glance(), renders(0, 3), passes=1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.noun_head, again.noun_head)
    assert not torch.equal(first.noun_head, other.noun_head)


def test_verdicts_are_counted() -> None:
    verdicts = [Verdict(("a", "b"), "x"), Verdict(("b", "a"), "y"), Verdict(("c", "b"), "y"), Verdict(("a", "c"), "x")]
    found = accuracy(verdicts, ["a", "a", "a", "a"], ["x", "x", "x", "x"])
    assert (found.top1, found.top5, found.style) == (0.5, 0.75, 0.5)
    with pytest.raises(ValueError, match="no verdicts"):
        accuracy([], [], [])


def test_labels_must_fit_and_one_noun_is_none() -> None:
    with pytest.raises(ValueError, match="one noun and one style"):
        Renders(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), ("a",), ("x", "x"))
    taught = renders(0, 2)
    with pytest.raises(ValueError, match="at least two nouns"):
        train_judge(Glance(), taught.take(range(4)))


def test_features_are_the_same_however_they_are_batched() -> None:
    pictures, glance, told = renders(0, 2).pictures, Glance(), list[float]()
    together = extract(glance, pictures, batch=5, progress=lambda what, done, total: told.append(done))
    assert glance.calls == 6
    assert told[-1] == len(pictures) == 28
    torch.testing.assert_close(together, glance(floats(pictures)))


def test_deformed_copies_are_near_and_not_equal() -> None:
    pictures = torch.cat([floats(shape(name, "plain", seed)[None]) for name in SHAPES for seed in range(6)])
    first, again, other = (augmented(pictures, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 <= first.min() < first.max() <= 1
    grey, before = first.mean(1).flatten(1), pictures.mean(1).flatten(1)
    own = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(grey, before, strict=True)])
    assert own.median() > 0.8
    assert own.min() > 0.4
    assert (first - pictures).abs().flatten(1).mean(1).min() > 0.005


def test_turned_hues_keep_their_brightness() -> None:
    pictures = torch.zeros(200, 3, 32, 32)
    pictures[:, 0] = 0.6
    pictures[:, 1:] = 0.3
    seen = augmented(pictures, torch.Generator().manual_seed(0)).mean((2, 3))
    reddest = seen[:, 0] >= seen.amax(1)
    assert 0.55 < reddest.double().mean() < 0.85  # a third is turned, and a third of those comes out red again
    assert (seen.mean(1) - 0.4).abs().max() < 0.06
