"""A judge of pictures: does the picture of "a lion" show a lion, in the style that was asked for?

It is a linear classifier on frozen deep features, trained on renders of the things that are to be recognised. It knows
nothing besides its list of nouns, so its verdict is "of these, this is the most alike", and its own accuracy on renders
that were kept back is the ceiling of what it can say about others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from segue.evaluation.augment import augmented
from segue.evaluation.features import Features, extract, floats
from segue.types import Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

EPOCHS, BATCH = 40, 256
RATE, DECAY, DROPOUT = 2e-3, 0.05, 0.2


@dataclass(frozen=True)
class Renders:
    """Pictures of which it is known what they show.

    Args:
        pictures: bytes (n, h, w, 3) as a corpus holds them, or floats (n, 3, h, w) in [0, 1].
        nouns: what each shows.
        styles: how each is drawn.
    """

    pictures: Tensor
    nouns: tuple[str, ...]
    styles: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.pictures) == len(self.nouns) == len(self.styles):
            raise ValueError(
                f"each picture has one noun and one style; got {len(self.pictures)} pictures, {len(self.nouns)} nouns, "
                f"{len(self.styles)} styles"
            )

    def take(self, rows: Sequence[int]) -> Renders:
        """Some of them, in the order given."""
        nouns, styles = (tuple(words[row] for row in rows) for words in (self.nouns, self.styles))
        return Renders(self.pictures[list(rows)], nouns, styles)


@dataclass(frozen=True)
class Verdict:
    """What a judge says about one picture.

    Args:
        nouns: the five most likely, the likeliest first (fewer where it knows fewer).
        style: the likeliest.
    """

    nouns: tuple[str, ...]
    style: str


@dataclass(frozen=True)
class Accuracy:
    """How often a judge and the label of a picture agree, as shares.

    Args:
        top1: the likeliest noun is the label.
        top5: the label is among the five likeliest.
        style: the style is the label.
        pictures: how many were judged.
    """

    top1: float
    top5: float
    style: float
    pictures: int


@dataclass(frozen=True)
class Judge:
    """A trained judge: two linear heads on standardised features.

    Args:
        features: the frozen network.
        nouns: that it knows, in the order of the noun head's rows.
        styles: that it knows.
        mean: of each feature over the renders it learned from.
        scale: standard deviation of each.
        noun_head: a row of weights, and last a bias, for each noun.
        style_head: the same for each style.
    """

    features: Features
    nouns: tuple[str, ...]
    styles: tuple[str, ...]
    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    noun_head: Float[Tensor, "nouns d+1"]
    style_head: Float[Tensor, "styles d+1"]

    def __call__(self, pictures: Tensor, *, progress: Progress = silent) -> list[Verdict]:
        """A verdict on each picture, floats (n, 3, h, w) in [0, 1] or bytes (n, h, w, 3)."""
        return self.verdicts(extract(self.features, pictures, progress=progress))

    def verdicts(self, found: Float[Tensor, "n d"]) -> list[Verdict]:
        """The same from features that are known already."""
        x = _with_one(self.standardised(found))
        best = (x @ self.noun_head.T).topk(min(5, len(self.nouns))).indices.tolist()
        styles = (x @ self.style_head.T).argmax(1).tolist()
        return [
            Verdict(tuple(self.nouns[i] for i in row), self.styles[style])
            for row, style in zip(best, styles, strict=True)
        ]

    def standardised(self, found: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Features that each have mean 0 and deviation 1 over the renders that the judge learned from."""
        return (found - self.mean) / self.scale


def accuracy(verdicts: Sequence[Verdict], nouns: Sequence[str], styles: Sequence[str]) -> Accuracy:
    """How often verdicts agree with labels.

    Raises:
        ValueError: there are none, or not as many labels.
    """
    if not verdicts:
        raise ValueError("there are no verdicts to count")
    rows = list(zip(verdicts, nouns, styles, strict=True))
    count = len(rows)
    return Accuracy(
        sum(verdict.nouns[0] == noun for verdict, noun, _ in rows) / count,
        sum(noun in verdict.nouns for verdict, noun, _ in rows) / count,
        sum(verdict.style == style for verdict, _, style in rows) / count,
        count,
    )


def train_judge(
    features: Features, renders: Renders, *, passes: int = 2, seed: int = 0, progress: Progress = silent
) -> Judge:
    """A judge that learned from renders, each seen `passes` times, blurred, noisy, cropped and turned in hue.

    The deformations are there because what is to be judged is no render: generated pictures are softer, and have
    colours that no render had. Every look at a render costs a pass of the feature network.

    Args:
        features: the network to build on.
        renders: to learn from, at least one of each noun.
        passes: how many deformed versions of each are looked at.
        seed: of the deformations and of the training.
        progress: told how many looks are done.

    Raises:
        ValueError: renders of fewer than two nouns.
    """
    nouns, styles = tuple(sorted(set(renders.nouns))), tuple(sorted(set(renders.styles)))
    if len(nouns) < 2:
        raise ValueError(f"a judge needs at least two nouns to tell apart, got {len(nouns)}")
    generator = torch.Generator().manual_seed(seed)
    looks: list[Tensor] = []
    with torch.no_grad():
        for number in range(passes):
            for start in range(0, len(renders.nouns), 32):
                pictures = augmented(floats(renders.pictures[start : start + 32]), generator)
                looks.append(features(pictures).float().cpu())
                progress("teaching the judge", number * len(renders.nouns) + start, passes * len(renders.nouns))
    found = torch.cat(looks)
    mean, scale = found.mean(0), found.std(0).clamp(min=1e-3)
    x = (found - mean) / scale
    noun_of = torch.tensor([nouns.index(noun) for noun in renders.nouns]).repeat(passes)
    style_of = torch.tensor([styles.index(style) for style in renders.styles]).repeat(passes)
    noun_head = _fitted(x, noun_of, len(nouns), generator)
    style_head = _fitted(x, style_of, len(styles), generator)
    return Judge(features, nouns, styles, mean, scale, noun_head, style_head)


def _fitted(
    x: Float[Tensor, "n d"], label: Int64[Tensor, " n"], classes: int, generator: torch.Generator
) -> Float[Tensor, "classes d+1"]:
    """Multinomial logistic regression by AdamW, with dropout of features so that no single one is leaned on."""
    with torch.enable_grad():
        head = torch.zeros(classes, x.shape[1] + 1, requires_grad=True)
        optimizer = torch.optim.AdamW([head], lr=RATE, weight_decay=DECAY)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(x) // BATCH))
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(x), generator=generator).split(BATCH):
                kept = torch.rand(len(rows), x.shape[1], generator=generator) >= DROPOUT
                seen = _with_one(x[rows] * kept / (1 - DROPOUT))
                loss = cross_entropy(seen @ head.T, label[rows], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                rate.step()
    return head.detach()


def _with_one(x: Tensor) -> Tensor:
    """With a last column of ones, which the bias is multiplied with."""
    return torch.cat([x, torch.ones(len(x), 1)], 1)
