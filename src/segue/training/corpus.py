"""Build the corpus: every concept on grounds, recoloured, moved and turned, in four styles; with true captions.

A corpus is a folder of three files:

      pictures.npy      uint8 (n, size, size, 3)
      manifest.jsonl    one line a picture: concept, noun, colour, background, style, placement, weight, captions
      sources.json      packages, versions, licences, hashes; the recipe of the corpus; the hash of pictures.npy
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from segue.errors import TrainingError
from segue.training.bounds import Amount, Count, Natural, Rate, Share
from segue.training.captions import Concept, ConceptLine, Look, captions
from segue.training.journal import watched
from segue.training.naming import meanings, others, recolours, told_apart
from segue.training.pictures import (
    DARK,
    GROUNDS,
    HUES,
    Picture,
    Placement,
    composite,
    decode,
    dominant_hue,
    ground,
    lit,
    place,
    recolour,
    render,
    to_bytes,
    turned_side,
)
from segue.training.sources import PACKAGES, STYLES, Emoji, Package, Shelf
from segue.training.stack import Stack

COLOURED = tuple(word for word in GROUNDS if word != "white")

MIRRORED = 0.25
"""Share of the pictures of things that are not alike on both sides."""

FREER = 3
"""How much oftener things are shown in other colours of which none is usual, so that the seed chooses among them."""

GRID = 1 / 16
"""Steps in which objects are shifted, as a share of the picture: whole cells of the latents of a codec that makes
pictures of 128 pixels or more 8 times smaller. Shifted by whole cells, an object looks the same to a network of
convolutions, so that what it learns in one place it knows in all."""

MILD = ((0.72, 0.0), (0.72, 0.0), (0.8, 15.0), (0.9, 15.0))
WILD = (*((0.5, 0.0),) * 4, (1.0, 0.0), *((1.0, 30.0),) * 3, (0.9, 180.0))
"""Sides, as shares of the picture, and turns, in degrees either way, drawn with equal chances. Few, since a small
network learns poses one by one: of continuous ones, it drew blobs."""

CONCEPTS = Path(__file__).with_name("concepts.toml")


@dataclass(frozen=True)
class CorpusConfig:
    """What is shown, how many variants of each kind, and how often each kind is drawn (weights need not sum to 1).

    which: "listed" shows the frozen list; "published" every emoji that may be used, for runs on a GPU and for the
    codec; "unseen" the few that are kept back from both, so that a codec can be judged on what it never saw.
    poses: "few" shows things in the same places, sizes and turns again and again, "any" in ever others: so that the
    pictures of a judge, which has another seed, are none of those that a generator learns from.
    """

    which: Literal["listed", "published", "unseen"] = "listed"
    size: Annotated[int, Field(ge=8)] = 128
    seed: Natural = 7
    moved: Count = 64  # shifted, scaled, turned, perhaps mirrored variants of a concept in its own colour
    moved_colours: Natural = 4  # the same for each recolour
    wild: Share = 0.35  # the share of those that are moved so far that captions say it
    poses: Literal["few", "any"] = "few"
    styled: Annotated[int, Field(ge=4)] = 8  # pictures of a concept in each drawn style
    captions: Count = 24  # kept for each picture
    pictures: Natural = 0  # kept of each concept, drawn by the weights below, and then alike; 0 keeps them all
    weight_listed: Rate = 1.0  # how much oftener listed concepts are drawn than others, where there are others
    weight_plain: Amount = 0.06  # its own colour, in the middle, on white
    weight_ground: Amount = 0.08  # its own colour, in the middle, on a coloured ground
    weight_colour: Amount = 0.10  # recoloured, in the middle
    weight_moved: Amount = 0.60  # anywhere else
    weight_styled: Amount = 0.16  # flat, gradient, line art


@dataclass(frozen=True)
class Entry:
    """A picture's line in the manifest."""

    concept: str
    noun: str
    colour: str
    background: str
    style: str
    placement: Placement
    weight: float
    captions: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class ConceptList:
    """concepts.toml: the concepts by emoji, and the (emoji, colour) pairs that are never shown."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    concepts: dict[str, ConceptLine]
    held_out: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    @classmethod
    def read(cls, path: Path = CONCEPTS) -> ConceptList:
        """Raises TrainingError for an unknown field or colour."""
        try:
            found = TypeAdapter(cls).validate_python(tomllib.loads(path.read_text("utf-8")))
        except (OSError, ValidationError, tomllib.TOMLDecodeError) as error:
            raise TrainingError(f"{path} is no list of concepts: {error}") from error
        asked = {colour for colours in found.held_out.values() for colour in colours}
        if not asked <= set(HUES):
            unknown = ", ".join(sorted(asked - set(HUES)))
            raise TrainingError(f"{path}: held-out colours must be among {', '.join(HUES)}; got {unknown}")
        if strangers := [character for character in found.held_out if character not in found.concepts]:
            raise TrainingError(f"{path}: held out are colours of {', '.join(strangers)}, not among the concepts")
        return found

    @property
    def unsaid(self) -> list[str]:
        """What no picture may be called: the held-out colours before all words for the thing."""
        lines = ((self.concepts[character], colours) for character, colours in self.held_out.items())
        return [f"{colour} {word}" for line, colours in lines for colour in colours for word in (line.noun, *line.also)]


def chosen(shelf: Shelf, listed: ConceptList, which: str) -> tuple[list[Concept], list[Emoji]]:
    """The concepts to show, each with its emoji, in a fixed order."""
    if which == "listed":
        emoji = [shelf.emoji(character) for character in listed.concepts]
        return [_concept(e, listed.concepts[e.character]) for e in emoji], emoji
    everything = shelf.everything()
    back = {e.character for e in unseen(everything, listed)}
    emoji = [e for e in everything if (e.character in back) == (which == "unseen")]
    return [_concept(e, _described(e, listed)) for e in emoji], emoji


def unseen(everything: Sequence[Emoji], listed: ConceptList) -> list[Emoji]:
    """Every twentieth emoji of those that are not listed and have all styles: no recipe is ever trained on them."""
    others = [e for e in everything if e.character not in listed.concepts and len(e.drawings) == len(STYLES)]
    return others[5::20]


def _concept(emoji: Emoji, line: ConceptLine) -> Concept:
    return Concept(**vars(line), character=emoji.character, name=emoji.name, keywords=emoji.keywords)


def _described(emoji: Emoji, listed: ConceptList) -> ConceptLine:
    """The line of an emoji: the list's, or for one that is not listed what its picture says about its colour."""
    if emoji.character in listed.concepts:
        return listed.concepts[emoji.character]
    people = emoji.group == "People & Body"
    degrees, share = dominant_hue(decode(emoji.picture))
    near = min(HUES, key=lambda word: abs((HUES[word][0] - degrees + 180) % 360 - 180))
    clear = share > 0.55 and not people and near not in emoji.name.lower()
    return ConceptLine(emoji.name.lower(), near if clear else "", flip=emoji.group != "Symbols")


def variants(
    concept: Concept, colours: Sequence[str], styles: Sequence[str], config: CorpusConfig, rng: np.random.Generator
) -> Iterator[tuple[Look, float]]:
    """The look of every picture of a concept, and its weight; the weights sum to at most 1."""
    own = concept.colour
    for _ in range(2):
        yield Look(own, placement=faced(rng, concept)), config.weight_plain / 2
    for word in COLOURED:
        yield Look(own, word, placement=faced(rng, concept)), config.weight_ground / len(COLOURED)
    for colour in colours:
        weight = config.weight_colour / len(colours)
        yield Look(colour, placement=faced(rng, concept)), weight * 0.5
        yield Look(colour, _ground(rng), placement=faced(rng, concept)), weight * 0.5
    each = config.moved_colours * (FREER if concept.free else 1)
    shown = [own] * config.moved + [c for c in colours for _ in range(each)]
    for i, colour in enumerate(shown):
        word = "white" if i % 5 < 2 else _ground(rng)
        placement = moved(rng, concept, config.poses, wild=i % 12 < 12 * config.wild)
        yield Look(colour, word, placement=placement), config.weight_moved / len(shown)
    for style in styles:
        weight = config.weight_styled / len(styles)
        yield Look(own, style=style), weight * 0.4
        for i in range(config.styled - 1):
            colour = str(rng.choice([own, *colours])) if style != "line art" and i % 3 == 1 else own
            word = _ground(rng) if i % 3 != 2 or i % 2 else "white"
            placement = faced(rng, concept) if i % 3 == 0 else moved(rng, concept, config.poses, wild=False)
            yield Look(colour, word, style, placement), weight * 0.6 / (config.styled - 1)


def faced(rng: np.random.Generator, concept: Concept) -> Placement:
    """In the middle, as it is or mirrored."""
    return Placement(flip=_mirrored(rng, concept))


def _mirrored(rng: np.random.Generator, concept: Concept) -> bool:
    return concept.flip and bool(rng.random() < MIRRORED)


def _ground(rng: np.random.Generator) -> str:
    return str(rng.choice(COLOURED))


def moved(rng: np.random.Generator, concept: Concept, poses: str, *, wild: bool) -> Placement:
    """A change of place, size and turn that keeps the object whole inside the picture.

    A wild one has a name (small, in a corner, upside down ...); a mild one has none, so that the seed chooses.
    """
    side, angle, offsets = (_one_of_few if poses == "few" else _any)(rng, concept, wild)
    dx, dy = (round(float(offset), 4) for offset in offsets)
    return Placement(round(side / turned_side(angle), 3), dx, dy, angle, _mirrored(rng, concept))


def _one_of_few(
    rng: np.random.Generator, concept: Concept, wild: bool
) -> tuple[float, float, NDArray[np.floating[Any]]]:
    """The side of the square around an object, its turn, and how far it is shifted to the right and down."""
    poses = [pose for pose in (WILD if wild else MILD) if concept.turn or not pose[1]]
    side, turn = poses[rng.integers(len(poses))]
    angle = turn * float(rng.choice([-1, 1])) + 0.0  # the sum has no negative zero
    cells = math.floor((1 - side) / 2 / GRID)
    return side, angle, rng.integers(-cells, cells + 1, 2) * GRID


def _any(rng: np.random.Generator, concept: Concept, wild: bool) -> tuple[float, float, NDArray[np.floating[Any]]]:
    """The same, of which no two are alike."""
    angle = 0.0
    if concept.turn and (chance := rng.random()) < 0.6:
        angle = round(float(rng.uniform(20, 35) * rng.choice([-1, 1]) if wild else rng.uniform(-20, 20)), 1)
        angle = 180.0 if wild and chance < 0.06 else angle
    side = float(rng.uniform(0.5, 1.0) if wild else rng.uniform(0.72, 1.0))
    return side, angle, rng.uniform(side / 2 - 0.5, 0.5 - side / 2, 2)


def draw(picture: Picture, concept: Concept, look: Look, size: int) -> Picture:
    """One picture of the corpus, (size, size, 3), from an emoji in the style that the look names."""
    if look.style == "line art":
        picture = lit(picture) if look.background in DARK else picture
    elif look.colour != concept.colour:
        picture = recolour(picture, look.colour, tint=concept.colour in ("gray", "white"))
    return composite(place(picture, size, look.placement), ground(look.background, size))


def can_recolour(concept: Concept, picture: Picture) -> bool:
    """Whether turning one hue changes the object as a whole: more than 55 % of what is colourful has that hue."""
    return concept.colour in ("gray", "white") or dominant_hue(picture)[1] > 0.55


def build(
    out: Path,
    tarballs: Path,
    config: CorpusConfig,
    concepts_path: Path = CONCEPTS,
    packages: Sequence[Package] = PACKAGES,
) -> int:
    """Write the corpus to the folder `out` and return its number of pictures: for the list about three minutes.

    While it is built over an older one, the folder holds no corpus.
    """
    listed = ConceptList.read(concepts_path)
    concepts, emoji = chosen(Shelf.read(tarballs, packages), listed, config.which)
    means = meanings(concepts, listed.unsaid)
    entries: list[Entry] = []
    out.mkdir(parents=True, exist_ok=True)
    (out / "sources.json").unlink(missing_ok=True)
    pictures, watch = Stack(out / "pictures.npy", (config.size, config.size, 3)), watched("concepts", len(concepts))
    with pictures, watch as tell:
        for index, (concept, one) in enumerate(zip(told_apart(concepts, means), emoji, strict=True)):
            rng = np.random.default_rng((config.seed, index))
            factor = config.weight_listed if concept.character in listed.concepts else 1.0
            for look, weight, said, picture in shown(concept, styles_of(one, config.size), means, config, rng):
                pictures.append(picture)
                known: dict[str, Any] = {"weight": factor * weight, "captions": said, **vars(look)}
                entries.append(Entry(concept.character, concept.noun, **known))
            tell(index + 1)
        count = len(entries)
    lines = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries)
    write_texts(out, "manifest.jsonl", lines, {**sources_of(packages, concepts_path), "config": asdict(config)})
    return count


def shown(
    concept: Concept,
    originals: Mapping[str, Picture],
    means: Mapping[str, str],
    config: CorpusConfig,
    rng: np.random.Generator,
) -> Iterator[tuple[Look, float, tuple[str, ...], NDArray[np.uint8]]]:
    """Every picture of a concept: its look, weight, captions, and its bytes (size, size, 3).

    Args:
        concept: as `told_apart` leaves it.
        originals: what `styles_of` gives for its emoji.
        means: what `meanings` gives for all concepts.
    """
    colours = recolours(concept, means) if can_recolour(concept, originals["3d"]) else []
    shared, taken = means[concept.noun.lower()] != concept.character, others(concept, means)
    drawn = [style for style in originals if style != "3d" and not (style == "line art" and shared)]
    looks = variants(concept, colours, drawn, config, rng)
    for look, weight in some(looks, config.pictures, rng) if config.pictures else looks:
        kept = rng.choice(captions(concept, look, taken=taken), config.captions)
        picture = to_bytes(draw(originals[look.style], concept, look, config.size))
        yield look, weight, tuple(str(caption) for caption in kept), picture


def some(looks: Iterable[tuple[Look, float]], count: int, rng: np.random.Generator) -> list[tuple[Look, float]]:
    """So many of them, or as many as have a weight, none twice: drawn by their weights, which are then equal."""
    there = [(look, weight) for look, weight in looks if weight > 0]
    weights = np.array([weight for _, weight in there])
    count = min(count, len(there))
    rows = np.sort(rng.choice(len(there), count, replace=False, p=weights / weights.sum()))
    return [(there[row][0], 1 / count) for row in rows]


def styles_of(emoji: Emoji, size: int) -> dict[str, Picture]:
    """The emoji in every style that there is of it, drawings at the size of the 3D picture, or at `size` if larger."""
    found = {"3d": decode(emoji.picture)}
    side = max(size, found["3d"].shape[1])
    return found | {style: render(svg, side) for style, svg in emoji.drawings.items()}


def sources_of(packages: Sequence[Package], concepts_path: Path) -> dict[str, Any]:
    """What pictures of emoji are made of: the packages, and which list of concepts it was."""
    return {
        "packages": [asdict(package) for package in packages],
        "concepts_sha256": hashlib.sha256(concepts_path.read_bytes()).hexdigest(),
    }


def write_texts(out: Path, name: str, lines: str, sources: Mapping[str, Any], *, pictures: str = "pictures") -> None:
    """The two text files beside the pictures; sources.json comes last, so a folder that has it is whole.

    Args:
        out: the folder.
        name: of the file that describes what is there.
        lines: of it.
        sources: what it was made of; the hash of the pictures is added.
        pictures: what their file is called, without its ending.
    """
    with (out / f"{pictures}.npy").open("rb") as file:
        said = {**sources, f"{pictures}_sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    for title, text in ((name, lines), ("sources.json", json.dumps(said, indent=1))):
        part = out / f"part-{title}"
        part.write_text(text, "utf-8")
        part.replace(out / title)
