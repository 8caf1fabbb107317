"""Which emoji a name means: one each, so that no two of them are shown under one caption."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from segue.errors import TrainingError
from segue.training.captions import Concept
from segue.training.pictures import HUES

NOBODY = ""
"""What a name means that no picture may have, since it is held out."""


def meanings(concepts: Sequence[Concept], unsaid: Iterable[str] = ()) -> dict[str, str]:
    """The emoji that each name (in lower case) means, or NOBODY for those of `unsaid`.

    An emoji's own name is never another's; then come the nouns, the other words, and both with the thing's own colour.
    Of concepts with equal claims the first has the name: an apple is red, a green one has to be called so.

    Raises:
        TrainingError: a name that may not be said is an emoji's own.
    """
    found = {concept.name.lower(): concept.character for concept in concepts}
    for name in map(str.lower, unsaid):
        if found.setdefault(name, NOBODY) != NOBODY:
            raise TrainingError(f"{name!r} is held out, but that is the name of {found[name]}; drop the pair")
    for concept in concepts:
        found.setdefault(concept.noun.lower(), concept.character)
    for concept in concepts:
        for word in concept.also:
            found.setdefault(word.lower(), concept.character)
    for concept in told_apart(concepts, found):
        for word in (concept.noun, *concept.also) if concept.colour else ():
            found.setdefault(f"{concept.colour} {word}".lower(), concept.character)
    return found


def told_apart(concepts: Sequence[Concept], means: Mapping[str, str]) -> list[Concept]:
    """The concepts without the other words that mean another emoji."""
    return [replace(c, also=tuple(word for word in c.also if means[word.lower()] == c.character)) for c in concepts]


def others(concept: Concept, means: Mapping[str, str]) -> frozenset[str]:
    """The names that the concept may not be called."""
    return frozenset(name for name, character in means.items() if character != concept.character)


def recolours(concept: Concept, means: Mapping[str, str]) -> list[str]:
    """The colours a concept is also shown in: not its own, none in which its name means another emoji or nobody."""
    if not concept.recolour or not concept.colour or means[concept.noun.lower()] != concept.character:
        return []
    near = (concept.colour, "orange") if concept.colour == "brown" else (concept.colour,)  # would hardly change
    forbidden = others(concept, means)
    said = {colour: {f"{colour} {word}".lower() for word in (concept.noun, *concept.also)} for colour in HUES}
    return [colour for colour in HUES if colour not in near and not said[colour] & forbidden]
