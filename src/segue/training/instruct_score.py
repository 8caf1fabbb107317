"""How well a drawn pair shows what was said: only such pairs are learned from as do.

Brooks, Holynski & Efros 2023 (arXiv:2211.09800, section 3.1.2) keep those whose pictures are alike for CLIP, each like
its caption, and different from each other as the captions are. Where there is no CLIP, a classifier of the corpus's
things and styles, and the hues of pixels, are asked the same three questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn.functional import cosine_similarity, normalize

from segue.evaluation.colour import object_colours, object_pixels
from segue.training.pictures import GROUNDS

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.evaluation.recognition import Judge
    from segue.models.perceptual import ClipNetwork
    from segue.training.instruct_words import Kind


@dataclass(frozen=True)
class Asked:
    """What a pair should show.

    Args:
        kind: what changes.
        captions: of both pictures.
        wanted: what it becomes: a colour, ground or style by its word, or another thing.
        nouns: of the things in both pictures.
        styles: in which both are drawn.
    """

    kind: Kind
    captions: tuple[str, str]
    wanted: str
    nouns: tuple[str, str]
    styles: tuple[str, str]


@dataclass(frozen=True)
class PairScore:
    """How well a pair shows it.

    Args:
        alike: how alike both pictures are; 1 is the same.
        fits: how well that picture fits its caption which fits it worse.
        direction: how far the difference of the pictures goes where that of the captions does; 0 is nowhere.
    """

    alike: float
    fits: float
    direction: float


@dataclass(frozen=True)
class Limits:
    """The least that is kept; those for CLIP are the paper's.

    Args:
        alike: the least `PairScore.alike`.
        fits: the least of `fits`.
        direction: the least of `direction`.
    """

    alike: float = 0.75
    fits: float = 0.2
    direction: float = 0.2

    def keeps(self, score: PairScore) -> bool:
        """Whether a pair is good enough."""
        return score.alike >= self.alike and score.fits >= self.fits and score.direction >= self.direction


CLIP_LIMITS = Limits()
JUDGE_LIMITS = Limits(alike=0.0, fits=0.3, direction=0.3)


class PairScorer(Protocol):
    """What scores pairs."""

    @property
    def name(self) -> str:
        """What it is, to be written beside what it let through."""
        ...

    def __call__(
        self, before: Float[Tensor, "n 3 h w"], after: Float[Tensor, "n 3 h w"], asked: Sequence[Asked]
    ) -> list[PairScore]:
        """One score a pair of pictures in [0, 1]."""
        ...


@dataclass(frozen=True)
class ClipPairs:
    """By CLIP: cosines of pictures, of a picture and its caption, and of both differences (Gal et al. 2021,
    arXiv:2108.00946, eq. 3)."""

    network: ClipNetwork

    @property
    def name(self) -> str:
        """The checkpoint."""
        return self.network.name

    def __call__(
        self, before: Float[Tensor, "n 3 h w"], after: Float[Tensor, "n 3 h w"], asked: Sequence[Asked]
    ) -> list[PairScore]:
        """One score a pair."""
        seen = [normalize(self.network(part).cpu(), dim=1) for part in (before, after)]
        said = [self.network.texts([one.captions[side] for one in asked]).cpu() for side in (0, 1)]
        said = [normalize(part, dim=1) for part in said]
        alike = cosine_similarity(seen[0], seen[1])
        fits = torch.minimum((seen[0] * said[0]).sum(1), (seen[1] * said[1]).sum(1))
        direction = cosine_similarity(seen[1] - seen[0], said[1] - said[0])
        rows = zip(alike.tolist(), fits.tolist(), direction.tolist(), strict=True)
        return [PairScore(*row) for row in rows]


@dataclass(frozen=True)
class JudgedPairs:
    """By a corpus classifier, and by hues: probabilities of things and styles, and shares of colours.

    `alike` is the cosine of standardised features, `fits` the lesser probability of the thing that each picture should
    show, and `direction` by how much that what was asked for is surer to be there than before.
    """

    judge: Judge

    @property
    def name(self) -> str:
        """The features that it looks at."""
        return f"corpus classifier on {self.judge.features.name}"

    def __call__(
        self, before: Float[Tensor, "n 3 h w"], after: Float[Tensor, "n 3 h w"], asked: Sequence[Asked]
    ) -> list[PairScore]:
        """One score a pair."""
        pictures = before, after
        with torch.no_grad():
            seen = [self.judge.standardised(self.judge.features(part).float().cpu()) for part in pictures]
        nouns = [self._sure(part, self.judge.noun_head) for part in seen]
        styles = [self._sure(part, self.judge.style_head) for part in seen]
        alike = cosine_similarity(seen[0], seen[1]).tolist()
        colours = [object_colours(part) for part in pictures]
        grounds = [_ground(part) for part in pictures]
        found: list[PairScore] = []
        for row, one in enumerate(asked):
            things = [float(nouns[side][row, self._place(one.nouns[side])]) for side in (0, 1)]

            def there(side: int, row: int = row, one: Asked = one) -> float:
                if one.kind == "colour":
                    return colours[side][row].shares.get(one.wanted, 0.0)
                if one.kind == "ground":
                    return _near(grounds[side][row], one.wanted)
                if one.kind == "style":
                    return float(styles[side][row, self._styles(one.wanted)].sum())
                return float(nouns[side][row, self._place(one.wanted)])

            found.append(PairScore(alike[row], min(things), there(1) - there(0)))
        return found

    def _sure(self, seen: Tensor, head: Tensor) -> Float[Tensor, "n k"]:
        return (seen @ head[:, :-1].T + head[:, -1]).softmax(1)

    def _place(self, noun: str) -> int:
        return self.judge.nouns.index(noun)

    def _styles(self, style: str) -> list[int]:
        """The judge's words for a style; it may not tell shaded ones apart."""
        names = (style,) if style in self.judge.styles else ("shaded",)
        return [place for place, name in enumerate(self.judge.styles) if name in names]


def _ground(pictures: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3"]:
    """The mean colour of what is not the object."""
    behind = ~object_pixels(pictures)
    return (pictures * behind[:, None]).sum((2, 3)) / behind.sum((1, 2)).clamp_min(1)[:, None]


def _near(colour: Float[Tensor, " 3"], word: str) -> float:
    """1 for a ground's own colour, and 0 from a third of the way between black and white on."""
    wanted = torch.tensor(GROUNDS[word]) / 255
    return float((1 - 3 * (colour - wanted).abs().max()).clamp_min(0))
