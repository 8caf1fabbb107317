"""What a picture is called: several true captions for each, so that a prompt need not be worded in one way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

TEMPLATES = ("{}", "{}", "{a} {}", "{a} {}", "{a} {}", "the {}", "3d {}", "emoji of {a} {}")


@dataclass(frozen=True)
class Concept:
    """A line of concepts.toml with what the packages say about that emoji."""

    character: str
    name: str
    noun: str
    colour: str = ""
    also: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    recolour: bool = True
    flip: bool = True


def article(noun: str) -> str:
    """ "a" or "an", by the first letter (the list has no silent h)."""
    return "an" if noun[:1].lower() in "aeio" or noun.startswith("umbrella") else "a"


def names(concept: Concept, colour: str) -> list[str]:
    """What the object may be called when it is shown in `colour` ("" where its colour has no word).

    A colour that is not the concept's own must be said; its own may be left out.
    """
    words = [concept.noun, concept.noun, *concept.also]
    if colour == concept.colour:
        plain = [concept.name.lower(), *words]
        return plain + [f"{colour} {word}" for word in words] if colour else plain
    return [f"{colour} {word}" for word in words]


def captions(concept: Concept, colour: str, background: str, *, colour_needed: bool = False) -> list[str]:
    """All captions of a picture, the same one more than once where it should be seen more often.

    colour_needed: the bare noun means another picture (a green apple is no "apple", a blue heart no "heart").
    """
    called = names(concept, colour)
    if colour_needed:
        called = [word for word in called if word.startswith(colour)]
    plain = [template.format(word, a=article(word)) for word in called for template in TEMPLATES]
    tags = [tag for tag in concept.keywords if usable_tag(tag, concept, colour)][:6]
    tagged = [f"{called[i % len(called)]}, {tag}" for i, tag in enumerate(tags)]
    everything = plain + tagged
    if background == "white":
        return everything * 3 + [f"{caption} on a white background" for caption in plain]
    return [f"{caption} on {article(background)} {background} background" for caption in everything] + [
        f"{caption}, {background} background" for caption in plain
    ]


def usable_tag(tag: str, concept: Concept, colour: str) -> bool:
    """Whether a keyword of the package may stand behind the name: no colour that is not shown, not the name again."""
    said = tag.lower()
    wrong = COLOUR_WORDS.intersection(said.split()) - {colour}
    return not wrong and said not in (concept.noun.lower(), concept.name.lower()) and said.isascii() and len(said) < 20


COLOUR_WORDS = frozenset(
    {"red", "orange", "yellow", "green", "teal", "blue", "purple", "pink"}
    | {"brown", "black", "white", "gray", "grey", "gold", "golden", "silver"}
)


def vocabulary(concepts: Iterable[Concept]) -> list[str]:
    """The nouns that a model trained on these concepts knows, in order, each once."""
    return list(dict.fromkeys(concept.noun for concept in concepts))
