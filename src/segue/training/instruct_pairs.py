"""Pairs of pictures and what was said to get from one to the other, made by rule from emoji.

Of each thing some pictures are drawn, as a corpus shows it, and of each of these several that differ in one respect:
colour, style, ground, turn, side or size. What is said is true by construction, and everything else stays as it was, so
that a model which learns from them learns to leave it so. Most changes are also shown the other way round.

A folder of pairs holds

      pictures.npy      uint8 (n, size, size, 3)
      pairs.jsonl       one line a pair: the rows of both pictures, kind, weight, instructions, captions of both
      sources.json      packages, versions, licences, hashes; the recipe; the hash of pictures.npy
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from segue.training.bounds import Count, Natural, Rate, Share
from segue.training.captions import Concept, Look, captions
from segue.training.corpus import (
    COLOURED,
    CONCEPTS,
    ConceptList,
    can_recolour,
    chosen,
    sources_of,
    styles_of,
    write_texts,
)
from segue.training.instruct_drawn import Drawing, DrawnPair, Palette
from segue.training.instruct_words import (
    BIGGER,
    BY_RULE,
    LEFT,
    RIGHT,
    SMALLER,
    UPRIGHT,
    UPSIDE_DOWN,
    Kind,
    instructions,
)
from segue.training.journal import watched
from segue.training.naming import meanings, others, recolours, told_apart
from segue.training.pictures import (
    DARK,
    GROUNDS,
    Picture,
    Placement,
    composite,
    ground,
    lit,
    place,
    recolour,
    to_bytes,
    turned_side,
)
from segue.training.sources import PACKAGES, Package, Shelf
from segue.training.stack import Stack

USUAL, MILD, SMALL, BIG = 0.9, 0.72, 0.5, 1.0
"""Sides of things, as shares of the picture; those of the corpus."""
TILT = 30.0
SEEN = 0.005
"""The mean difference of pixels from which on a change is one."""

Shares = Annotated[dict[Kind, Rate], Field(min_length=1)]
"""How often each kind is drawn, relative to the others."""


def usual_shares() -> dict[Kind, float]:
    """How often each kind of change is drawn, relative to the others."""
    return {"colour": 3.0, "style": 3.0, "ground": 2.0, "turn": 2.5, "flip": 1.0, "size": 1.0}


@dataclass(frozen=True)
class PairsConfig:
    """How many pairs there are, and of what kind.

    which: as for a corpus: "listed" shows the frozen list, "published" every emoji that may be used.
    """

    which: Literal["listed", "published"] = "listed"
    size: Annotated[int, Field(ge=8)] = 128
    seed: Natural = 41
    sources: Count = 10  # pictures of each thing that are changed
    changes: Count = 7  # of each of these
    back: Share = 0.5  # the weight of a pair the other way round, as a share of its own
    kinds: Shares = field(default_factory=usual_shares)
    instructions: Count = 12  # kept for each pair
    drawn_share: Share = 0.2  # of the weight of all pairs, that those have which a model drew


@dataclass(frozen=True)
class Change:
    """One respect in which two looks of a thing differ.

    Args:
        kind: which.
        before: how it looked.
        after: how it looks then.
        there: what it becomes, in the words of `instruct_words.instructions`.
        back: what it would become the other way round; None if nobody could tell from the picture.
    """

    kind: Kind
    before: Look
    after: Look
    there: str
    back: str | None


@dataclass(frozen=True)
class PairEntry:
    """A pair's line."""

    before: int
    after: int
    kind: Kind
    weight: float
    instructions: tuple[str, ...]
    captions: tuple[str, str]


def source_look(palette: Palette, rng: np.random.Generator) -> Look:
    """A picture that shall be changed: mostly upright and in the middle, in any style, colour and ground."""
    concept = palette.concept
    others_ = [style for style in palette.styles if style != "3d"]
    style = str(rng.choice(others_)) if others_ and rng.random() < 0.35 else "3d"
    colour = concept.colour
    if style != "line art" and palette.colours and rng.random() < 0.35:
        colour = str(rng.choice(palette.colours))
    word = "white" if rng.random() < 0.45 else str(rng.choice(COLOURED))
    chance, angle, side = rng.random(), 0.0, USUAL
    if chance < 0.3:
        side = MILD
    elif chance < 0.4:
        side = SMALL
    elif chance < 0.55 and concept.turn:
        angle = float(rng.choice([180.0, TILT, -TILT]))
        side = USUAL if abs(angle) == 180 else BIG
    elif chance < 0.6:
        side = BIG
    flip = concept.flip and bool(rng.random() < 0.3)
    return Look(colour, word, style, Placement(round(side / turned_side(angle), 3), angle=angle, flip=flip))


def change(kind: Kind, before: Look, palette: Palette, rng: np.random.Generator) -> Change | None:
    """A change of one kind; None where there is none that a person would see."""
    return _CHANGES[kind](before, palette, rng)


def _colour(before: Look, palette: Palette, rng: np.random.Generator) -> Change | None:
    options = [colour for colour in (palette.concept.colour, *palette.colours) if colour != before.colour]
    if before.style == "line art" or not palette.colours or not options:
        return None
    colour = str(rng.choice(options))
    return Change("colour", before, replace(before, colour=colour), colour, before.colour)


def _style(before: Look, palette: Palette, rng: np.random.Generator) -> Change | None:
    options = [style for style in palette.styles if style != before.style]
    if not options:
        return None
    style = str(rng.choice(options))
    # Nobody sees which colour a line drawing had.
    lost = style == "line art" and before.colour != palette.concept.colour
    return Change("style", before, replace(before, style=style), style, None if lost else before.style)


def _ground(before: Look, palette: Palette, rng: np.random.Generator) -> Change | None:
    options = [word for word in GROUNDS if word != before.background]
    word = "white" if before.background != "white" and rng.random() < 0.3 else str(rng.choice(options))
    return Change("ground", before, replace(before, background=word), word, before.background)


def _turn(before: Look, palette: Palette, rng: np.random.Generator) -> Change | None:
    placement = before.placement
    if not palette.concept.turn:
        return None
    if placement.angle:
        there, back, angle = UPRIGHT, _turned(placement.angle), 0.0
    else:
        options = [180.0] if placement.scale > 1 / turned_side(TILT) else [180.0, TILT, -TILT]
        angle = float(rng.choice(options))
        there, back = _turned(angle), UPRIGHT
    return Change("turn", before, replace(before, placement=replace(placement, angle=angle)), there, back)


def _turned(angle: float) -> str:
    return UPSIDE_DOWN if abs(angle) > 150 else LEFT if angle > 0 else RIGHT


def _flip(before: Look, palette: Palette, rng: np.random.Generator) -> Change | None:
    placement = before.placement
    if not palette.concept.flip or placement.angle:
        return None
    return Change("flip", before, replace(before, placement=replace(placement, flip=not placement.flip)), "", "")


def _size(before: Look, palette: Palette, rng: np.random.Generator) -> Change | None:
    placement = before.placement
    if placement.angle:
        return None
    scale = BIG if placement.scale < 0.8 else SMALL
    there, back = (BIGGER, SMALLER) if scale == BIG else (SMALLER, BIGGER)
    return Change("size", before, replace(before, placement=replace(placement, scale=scale)), there, back)


_CHANGES = {"colour": _colour, "style": _style, "ground": _ground, "turn": _turn, "flip": _flip, "size": _size}


class Brush:
    """Draws looks of one thing; what several have in common is made once.

    Args:
        concept: the thing.
        originals: the thing in every style that there is of it.
        size: of the pictures, in pixels.
    """

    def __init__(self, concept: Concept, originals: Mapping[str, Picture], size: int) -> None:
        self._concept, self._originals, self._size = concept, originals, size
        self._painted: dict[tuple[str, str, bool], Picture] = {}

    def __call__(self, look: Look) -> NDArray[np.uint8]:
        """A picture's bytes (size, size, 3)."""
        white = look.style == "line art" and look.background in DARK
        colour = self._concept.colour if look.style == "line art" else look.colour
        key = look.style, colour, white
        if key not in self._painted:
            picture = self._originals[look.style]
            if white:
                picture = lit(picture)
            elif colour != self._concept.colour:
                picture = recolour(picture, colour, tint=self._concept.colour in ("gray", "white"))
            self._painted[key] = picture
        stage = place(self._painted[key], self._size, look.placement)
        return to_bytes(composite(stage, _ground_of(look.background, self._size)))


_ground_of = cache(ground)


def changes_of(palette: Palette, config: PairsConfig, rng: np.random.Generator) -> Iterator[tuple[Look, list[Change]]]:
    """Every source of a thing, with its changes, no two of which lead to the same picture."""
    kinds: list[Kind] = [kind for kind in BY_RULE if kind in config.kinds]
    shares = np.array([config.kinds[kind] for kind in kinds])
    for _ in range(config.sources):
        before = source_look(palette, rng)
        found: dict[Look, Change] = {}
        for place_ in rng.choice(len(kinds), 4 * config.changes, p=shares / shares.sum()).tolist():
            made = change(kinds[place_], before, palette, rng)
            if made is not None and made.after not in found and len(found) < config.changes:
                found[made.after] = made
        yield before, list(found.values())


def build_pairs(
    out: Path,
    tarballs: Path,
    config: PairsConfig,
    concepts_path: Path = CONCEPTS,
    packages: Sequence[Package] = PACKAGES,
    drawing: Drawing | None = None,
) -> int:
    """Write pairs to the folder `out` and return their number.

    While they are built over older ones, the folder holds no pairs.

    Args:
        out: the folder.
        tarballs: where the packages lie.
        config: how many pairs are made by rule, and of what kind.
        concepts_path: the list of concepts.
        packages: as `Shelf.read` takes them.
        drawing: who draws pairs besides; None for rule-made ones alone.
    """
    listed = ConceptList.read(concepts_path)
    concepts, emoji = chosen(Shelf.read(tarballs, packages), listed, config.which)
    means = meanings(concepts, listed.unsaid)
    entries, drawn_entries, palettes = list[PairEntry](), list[PairEntry](), list[Palette]()
    out.mkdir(parents=True, exist_ok=True)
    (out / "sources.json").unlink(missing_ok=True)
    pictures, watch = Stack(out / "pictures.npy", (config.size, config.size, 3)), watched("things", len(concepts))
    with pictures, watch as tell:
        for index, (concept, one) in enumerate(zip(told_apart(concepts, means), emoji, strict=True)):
            originals, rng = styles_of(one, config.size), np.random.default_rng((config.seed, index))
            if means[concept.noun.lower()] != concept.character:
                originals.pop("line art", None)  # nobody could tell it from that of the thing which has the name
            colours = recolours(concept, means) if can_recolour(concept, originals["3d"]) else []
            palette = Palette(concept, tuple(colours), tuple(originals))
            palettes += [palette] if means[concept.noun.lower()] == concept.character else []
            brush = Brush(concept, originals, config.size)
            for before, changes in changes_of(palette, config, rng):
                first, drawn = pictures.count, [brush(look) for look in (before, *(one.after for one in changes))]
                for picture in drawn:
                    pictures.append(picture)
                for place_, made in enumerate(changes, 1):
                    rows = first, first + place_
                    lines = list(described(made, rows, concept, others(concept, means), config, rng))
                    entries += lines if is_seen(drawn[0], drawn[place_]) else []
            tell(index + 1)
        for pair in drawing.pairs(palettes) if drawing is not None else ():
            drawn_entries.append(drawn_entry(pair, pictures.count))
            for picture in pair.pictures:
                pictures.append(to_bytes(picture.permute(1, 2, 0).numpy()))
    said = {**sources_of(packages, concepts_path), "config": asdict(config)}
    if drawing is not None:
        said["drawn"] = drawing.said()
    share = config.drawn_share if drawn_entries else 0.0
    whole = [replace(entry, weight=entry.weight * (1 - share)) for entry in balanced(entries, config)]
    whole += [replace(entry, weight=share / len(drawn_entries)) for entry in drawn_entries]
    write_pairs(out, whole, said)
    return len(whole)


def drawn_entry(pair: DrawnPair, first: int) -> PairEntry:
    """The line of a pair that a model drew, whose pictures are the `first`, and the one behind it."""
    return PairEntry(first, first + 1, pair.asked.kind, 1.0, pair.instructions, pair.asked.captions)


def is_seen(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    """Whether two pictures differ so that a person sees it: a ball that was turned does not."""
    return float(np.abs(before.astype(np.float32) - after).mean()) / 255 >= SEEN


def described(
    made: Change,
    rows: tuple[int, int],
    concept: Concept,
    taken: frozenset[str],
    config: PairsConfig,
    rng: np.random.Generator,
) -> Iterator[PairEntry]:
    """The lines of a change: there, and back if that can be said."""
    nouns = [concept.noun, *concept.also]
    said = tuple(str(rng.choice(captions(concept, look, taken=taken))) for look in (made.before, made.after))
    ways = [(rows, made.there, 1.0, said), (rows[::-1], made.back, config.back, said[::-1])]
    for (before, after), wanted, weight, named in ways:
        if wanted is None or not weight or (made.kind == "colour" and not wanted):
            continue
        words = instructions(made.kind, wanted, nouns)
        kept = rng.choice(np.array(words), min(config.instructions, len(words)), replace=False)
        yield PairEntry(before, after, made.kind, weight, tuple(map(str, kept)), (named[0], named[1]))


def balanced(entries: Sequence[PairEntry], config: PairsConfig) -> list[PairEntry]:
    """The same with weights by which each kind is drawn as often as it should be; they sum to 1."""
    sums: dict[Kind, float] = {
        kind: sum(entry.weight for entry in entries if entry.kind == kind) for kind in config.kinds
    }
    total = sum(config.kinds[kind] for kind, weight in sums.items() if weight)
    return [
        replace(entry, weight=round(entry.weight * config.kinds[entry.kind] / sums[entry.kind] / total, 9))
        for entry in entries
    ]


def write_pairs(out: Path, entries: Sequence[PairEntry], sources: Mapping[str, Any]) -> None:
    """The two text files of a folder of pairs."""
    lines = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries)
    write_texts(out, "pairs.jsonl", lines, sources)
