"""Build the corpus: every concept on white and on coloured grounds, recoloured, moved a little; with true captions.

A corpus is a folder of three files:

      pictures.npy      uint8 (n, size, size, 3)
      manifest.jsonl    one line a picture: concept, colour, background, placement, weight, captions
      sources.json      packages, versions, licences, hashes; the recipe of the corpus; the hash of pictures.npy
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from segue.errors import TrainingError
from segue.training.captions import Concept, captions
from segue.training.pictures import (
    GROUNDS,
    HUES,
    Picture,
    Placement,
    composite,
    decode,
    dominant_hue,
    ground,
    place,
    recolour,
    to_bytes,
)
from segue.training.sources import PACKAGES, Emoji, Package, read_emoji

CONCEPTS = Path(__file__).with_name("concepts.toml")


@dataclass(frozen=True)
class CorpusConfig:
    """How many variants of each kind, and how often each kind is drawn (the weights need not sum to 1)."""

    size: int = 128
    seed: int = 7
    moved: int = 8  # shifted, scaled, perhaps mirrored variants of a concept in its own colour
    moved_colours: int = 1  # the same for each recolour
    weight_plain: float = 0.40  # its own colour, canonical, on white
    weight_ground: float = 0.22  # its own colour, canonical, on a coloured ground
    weight_colour: float = 0.22  # recoloured, canonical
    weight_moved: float = 0.16  # anything that is not canonical


@dataclass(frozen=True)
class Entry:
    """A picture's line in the manifest."""

    concept: str
    noun: str
    colour: str
    background: str
    placement: Placement
    weight: float
    captions: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class _Line:
    """A line of concepts.toml, as it is written there."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    noun: str
    colour: str = ""
    also: tuple[str, ...] = ()
    recolour: bool = True
    flip: bool = True


@dataclass(frozen=True)
class ConceptList:
    """concepts.toml: the concepts by emoji, and the (emoji, colour) pairs that are never shown."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    concepts: dict[str, _Line]
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
        return found


def concepts_from(listed: ConceptList, emoji: Sequence[Emoji]) -> list[Concept]:
    """The list joined with what the packages say."""
    return [
        Concept(character=e.character, name=e.name, keywords=e.keywords, **vars(listed.concepts[e.character]))
        for e in emoji
    ]


def recolours(concept: Concept, all_concepts: Sequence[Concept], held_out: Mapping[str, Sequence[str]]) -> list[str]:
    """The colours a concept is also shown in: not its own, none held out, none that another concept already has."""
    if not concept.recolour or not concept.colour:
        return []
    taken = {c.colour for c in all_concepts if c.noun == concept.noun}
    taken |= {c.name.lower().removesuffix(" " + concept.noun) for c in all_concepts if c.noun == concept.noun}
    if concept.colour == "brown":  # turned to red or orange it would hardly change
        taken |= {"orange"}
    return [word for word in HUES if word not in taken and word not in held_out.get(concept.character, ())]


def variants(
    concept: Concept, colours: Sequence[str], config: CorpusConfig, rng: np.random.Generator
) -> Iterator[tuple[str, str, Placement, float]]:
    """(colour, background, placement, weight) of every picture of a concept; the weights sum to at most 1."""
    grounds = [word for word in GROUNDS if word != "white"]
    own = concept.colour
    yield own, "white", Placement(), config.weight_plain
    for word in grounds:
        yield own, word, Placement(), config.weight_ground / len(grounds)
    for colour in colours:
        weight = config.weight_colour / len(colours)
        yield colour, "white", Placement(), weight * 0.7
        yield colour, str(rng.choice(grounds)), Placement(), weight * 0.3
    shown = [own] * config.moved + [c for c in colours for _ in range(config.moved_colours)]
    for i, colour in enumerate(shown):
        word = "white" if i % 2 == 0 else str(rng.choice(grounds))
        yield colour, word, moved(rng, flip=concept.flip), config.weight_moved / len(shown)


def moved(rng: np.random.Generator, *, flip: bool) -> Placement:
    """A mild change of place and size that keeps the object whole inside the picture."""
    scale = float(rng.uniform(0.7, 0.92))
    room = (1 - scale) / 2
    dx, dy = (float(v) for v in rng.uniform(-room, room, 2))
    return Placement(round(scale, 3), round(dx, 3), round(dy, 3), flip and bool(rng.random() < 0.5))


def draw(picture: Picture, concept: Concept, colour: str, background: str, placement: Placement, size: int) -> Picture:
    """One picture of the corpus, (size, size, 3)."""
    if colour != concept.colour:
        picture = recolour(picture, colour, tint=concept.colour in ("gray", "white"))
    return composite(place(picture, size, placement), ground(background, size))


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
    """Write the corpus to the folder `out` and return its number of pictures. About half a minute for 100 concepts."""
    listed = ConceptList.read(concepts_path)
    emoji = read_emoji(list(listed.concepts), tarballs, packages)
    concepts = concepts_from(listed, emoji)
    pictures: list[NDArray[np.uint8]] = []
    entries: list[Entry] = []
    for index, (concept, one) in enumerate(zip(concepts, emoji, strict=True)):
        rng = np.random.default_rng((config.seed, index))
        original = decode(one.picture)
        colours = recolours(concept, concepts, listed.held_out) if can_recolour(concept, original) else []
        shared = any(other.noun == concept.noun for other in concepts[:index])
        for colour, background, placement, weight in variants(concept, colours, config, rng):
            drawn = draw(original, concept, colour, background, placement, config.size)
            said = captions(concept, colour, background, colour_needed=shared and colour != "")
            pictures.append(to_bytes(drawn))
            entries.append(Entry(concept.character, concept.noun, colour, background, placement, weight, tuple(said)))
    _write(out, np.stack(pictures), entries, _sources(config, packages, concepts_path))
    return len(entries)


def _sources(config: CorpusConfig, packages: Sequence[Package], concepts_path: Path) -> dict[str, Any]:
    return {
        "packages": [asdict(package) for package in packages],
        "config": asdict(config),
        "concepts_sha256": hashlib.sha256(concepts_path.read_bytes()).hexdigest(),
    }


def _write(out: Path, pictures: NDArray[np.uint8], entries: Sequence[Entry], sources: dict[str, Any]) -> None:
    """All three files; sources.json comes last, so a folder that has it is whole."""
    out.mkdir(parents=True, exist_ok=True)
    part = out / "part.npy"
    np.save(part, pictures)
    sources["pictures_sha256"] = hashlib.sha256(part.read_bytes()).hexdigest()
    part.replace(out / "pictures.npy")
    lines = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries)
    for name, text in (("manifest.jsonl", lines), ("sources.json", json.dumps(sources, indent=1))):
        part = out / f"part-{name}"
        part.write_text(text, "utf-8")
        part.replace(out / name)
