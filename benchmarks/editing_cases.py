"""A hundred edits of which the right answer is known: the same emoji, drawn in another colour or style, or another one.

Pictures are rendered from the packages of the corpus: a source on a coloured ground, and what a perfect edit of it
would be. Nothing in them is chosen by eye: a seed draws them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from segue.evaluation.colour import SECTORS
from segue.training.captions import Concept, Look, article
from segue.training.corpus import CONCEPTS, ConceptList, can_recolour, chosen, draw, styles_of
from segue.training.naming import meanings, recolours, told_apart
from segue.training.pictures import GROUNDS, Picture
from segue.training.sources import PACKAGES, Emoji, Package, Shelf

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

SIDE = 128
KINDS = {"recolour": 40, "style": 30, "species": 30}
"""How many edits there are of each kind."""
STYLES = {"flat": "flat icon of {a} {}", "line art": "line art of {a} {}"}
BRIGHT = [word for word in GROUNDS if word not in ("white", "black", "dark blue")]
ANIMALS = ("🐱", "🐶", "🦊", "🦁", "🐯", "🐼", "🐻", "🐷", "🐸", "🐵", "🐨", "🐰")
"""What turns into one another: faces that fill the same place."""


@dataclass(frozen=True)
class Case:
    """One edit.

    Args:
        kind: recolour, style or species.
        source_prompt: what the source shows.
        prompt: what the result is to show.
        instruction: the same as a wish.
        noun: of the result.
        colour: of the result; "" where the edit is not about colour.
        style: of the result, as the judge calls it.
        source: the picture.
        right: what a perfect edit would be.
    """

    kind: str
    source_prompt: str
    prompt: str
    instruction: str
    noun: str
    colour: str
    style: str
    source: Float[Tensor, "3 h w"]
    right: Float[Tensor, "3 h w"]


@dataclass(frozen=True)
class Known:
    """An emoji with what it is called; its pictures are drawn when somebody asks.

    Args:
        concept: as the corpus has it.
        emoji: its pictures, undecoded.
        means: what every name stands for.
    """

    concept: Concept
    emoji: Emoji
    means: Mapping[str, str]

    @cached_property
    def styles(self) -> dict[str, Picture]:
        """The pictures by style."""
        return styles_of(self.emoji, SIDE)

    @property
    def noun(self) -> str:
        """What it is called."""
        return self.concept.noun

    @property
    def unique(self) -> bool:
        """Whether its name means nothing else."""
        return self.means[self.noun.lower()] == self.concept.character

    def colours(self, ground: str) -> list[str]:
        """What it may be recoloured to, seen on that ground."""
        if not self.unique or self.concept.free or not can_recolour(self.concept, self.styles["3d"]):
            return []
        return [word for word in recolours(self.concept, self.means) if word in SECTORS and word != ground]

    def picture(self, ground: str, *, colour: str | None = None, style: str = "3d") -> Float[Tensor, "3 h w"]:
        """As it looks so, in its own colour unless another one is named."""
        look = Look(self.concept.colour if colour is None else colour, ground, style)
        drawn = draw(self.styles[style], self.concept, look, SIDE)
        return torch.from_numpy(np.ascontiguousarray(drawn, np.float32)).permute(2, 0, 1).clamp(0, 1)


def cases(known: Sequence[Known], seed: int = 0, share: float = 1.0) -> list[Case]:
    """The hundred edits, or a share of each kind.

    Args:
        known: what `known_emoji` finds.
        seed: of what is drawn.
        share: in (0, 1].
    """
    makers = {"recolour": _recoloured, "style": _restyled, "species": _others}
    found: list[Case] = []
    for number, (kind, count) in enumerate(KINDS.items()):
        rng = np.random.default_rng((seed, number))
        found += islice(makers[kind](known, rng), max(1, round(count * share)))
    return found


def known_emoji(folder: Path, packages: Sequence[Package] = PACKAGES, concepts_path: Path = CONCEPTS) -> list[Known]:
    """The emoji of the frozen list, from the folder of packages that `segue train corpus` leaves."""
    listed = ConceptList.read(concepts_path)
    concepts, emoji = chosen(Shelf.read(folder, packages), listed, "listed")
    means = meanings(concepts, listed.unsaid)
    pairs = zip(told_apart(concepts, means), emoji, strict=True)
    return [Known(concept, one, means) for concept, one in pairs]


def _on(noun: str, ground: str, template: str = "{a} {}") -> str:
    return f"{template.format(noun, a=article(noun))} on {article(ground)} {ground} background"


def _recoloured(known: Sequence[Known], rng: np.random.Generator) -> Iterator[Case]:
    for place in rng.permutation(len(known)):
        one = known[place]
        ground = _drawn(rng, [word for word in BRIGHT if word != one.concept.colour])
        if not (colours := one.colours(ground)):
            continue
        colour = _drawn(rng, colours)
        yield Case(
            "recolour",
            _on(one.noun, ground),
            _on(f"{colour} {one.noun}", ground),
            f"make it {colour}",
            one.noun,
            colour,
            "shaded",
            one.picture(ground),
            one.picture(ground, colour=colour),
        )


def _restyled(known: Sequence[Known], rng: np.random.Generator) -> Iterator[Case]:
    for place in rng.permutation(len(known)):
        one = known[place]
        ground, style = _drawn(rng, BRIGHT), _drawn(rng, [*STYLES])
        if not one.unique or style not in one.emoji.drawings:
            continue
        yield Case(
            "style",
            _on(one.noun, ground),
            _on(one.noun, ground, STYLES[style]),
            f"make it {'a flat icon' if style == 'flat' else style}",
            one.noun,
            "",
            style,
            one.picture(ground),
            one.picture(ground, style=style),
        )


def _others(known: Sequence[Known], rng: np.random.Generator) -> Iterator[Case]:
    animals = [one for one in known if one.concept.character in ANIMALS]
    pairs = [(old, new) for old in animals for new in animals if old is not new]
    for place in rng.permutation(len(pairs)):
        (old, new), ground = pairs[place], _drawn(rng, BRIGHT)
        yield Case(
            "species",
            _on(old.noun, ground),
            _on(new.noun, ground),
            f"turn it into {article(new.noun)} {new.noun}",
            new.noun,
            "",
            "shaded",
            old.picture(ground),
            new.picture(ground),
        )


def _drawn(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]
