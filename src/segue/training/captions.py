"""What a picture is called: several true captions for each, so that a prompt need not be worded in one way."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass

from pydantic import ConfigDict

from segue.training.pictures import CANONICAL, Placement

TEMPLATES = {
    "3d": ("{}", "{}", "{a} {}", "{a} {}", "{a} {}", "{a} {}", "the {}", "3d {}", "{a} {}, 3d", "emoji of {a} {}"),
    "flat": ("flat icon of {a} {}", "flat icon of {a} {}", "{a} {}, flat", "{a} {}, flat style", "flat {}"),
    "gradient": ("gradient icon of {a} {}", "{a} {}, gradient", "{a} {}, gradient style", "gradient {}"),
    "line art": (
        "line art of {a} {}",
        "line art of {a} {}",
        "line art of {a} {}",
        "{a} {}, line art",
        "line drawing of {a} {}",
    ),
}
"""How a thing is asked for in each style; what names no style is 3D."""

LONGEST = 16
"""Words in a caption; more would not fit the text encoder's 24 tokens."""


@dataclass(frozen=True)
class ConceptLine:
    """A line of concepts.toml, as it is written there."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    noun: str
    colour: str = ""
    also: tuple[str, ...] = ()
    recolour: bool = True
    flip: bool = True
    turn: bool = True
    free: bool = False


@dataclass(frozen=True, kw_only=True)
class Concept(ConceptLine):
    """A line with what the packages say about that emoji."""

    character: str
    name: str
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """How a concept is shown in one picture."""

    colour: str
    background: str = "white"
    style: str = "3d"
    placement: Placement = CANONICAL


def article(noun: str) -> str:
    """ "a" or "an", by the first letter (the list has no silent h)."""
    return "an" if noun[:1].lower() in "aeio" or noun.startswith("umbrella") else "a"


def names(concept: Concept, colour: str) -> list[str]:
    """What the object may be called when it is shown in `colour` ("" where its colour has no word).

    A colour that is not the concept's own must be said, but for things that are free to have any (a car, no lemon), of
    which every other caption leaves it out; its own may always be left out.
    """
    words = [concept.noun, concept.noun, *concept.also]
    if colour == concept.colour:
        plain = [concept.name.lower(), *words]
        return plain + [f"{colour} {word}" for word in words] if colour else plain
    said = [f"{colour} {word}" for word in words]
    return said + words if concept.free else said


def captions(concept: Concept, look: Look, *, taken: Container[str] = frozenset()) -> list[str]:
    """All captions of a picture, the same one more than once where it should be seen more often.

    A placement that has a name is said in two of three captions and left out in the third: a prompt that leaves it out
    leaves it to the seed. So it is with grounds: three of five captions leave them out, since guidance drives out what
    few pictures of a caption have. A mirrored object is always called so: where the seed was to choose which way things
    face, the small network drew both at once (a T-Rex with two heads). Line art has no colour to name.

    taken: names, in lower case, that mean other emoji (a green apple is no "apple", a blue heart no "heart", and an
    airplane that stands there small is no "small airplane").
    """
    called = names(concept, look.colour)
    if look.style == "line art":
        called = names(concept, concept.colour)[: len(concept.also) + 3]
    called = [word for word in called if word.lower() not in taken]
    size, place = placed(look.placement)
    facing = ["mirrored"] if look.placement.flip else []
    templates = TEMPLATES[look.style]
    plain = [", ".join([template.format(word, a=article(word)), *facing]) for word in called for template in templates]
    sized = [word for word in (f"{size} {word}".strip() for word in called) if word.lower() not in taken]
    said = [*facing, *place]
    exact = [", ".join([template.format(word, a=article(word)), *said]) for word in sized for template in templates]
    tags = [tag for tag in concept.keywords if usable_tag(tag, concept, look.colour)][:6]
    tagged = [", ".join([called[i % len(called)], tag, *facing]) for i, tag in enumerate(tags)]
    tagged = tagged if look.style == "3d" else []
    everything = plain + exact * 2 if size or place else plain + tagged
    everything = [caption for caption in everything if shown_thing(caption).lower() not in taken]
    return [caption for caption in _on_ground(everything, look.background) if len(caption.split()) <= LONGEST]


def shown_thing(caption: str) -> str:
    """What a caption begins with, without its article: "small airplane" of "a small airplane, upside down"."""
    return re.sub(r"^(an?|the) ", "", caption.partition(",")[0])


def _on_ground(said: list[str], background: str) -> Iterator[str]:
    for i, caption in enumerate(said):
        if background == "white":
            yield from (caption, caption, caption)
            if i % 2:
                yield f"{caption} on a white background"
        else:
            on = f"{caption} on {article(background)} {background} background"
            yield from (on, caption, caption, caption, on if i % 2 else f"{caption}, {background} background")


def placed(placement: Placement) -> tuple[str, list[str]]:
    """What a placement is called: an adjective of size ("" for the usual one) and phrases of turn and place."""
    size = "small" if placement.scale < 0.6 else "big" if placement.scale > 0.95 else ""
    said: list[str] = []
    if abs(placement.angle) > 150:
        said.append("upside down")
    elif abs(placement.angle) > 20:
        said.append(f"tilted to the {'left' if placement.angle > 0 else 'right'}")
    side = "left" if placement.dx < -0.15 else "right" if placement.dx > 0.15 else ""
    level = "top" if placement.dy < -0.15 else "bottom" if placement.dy > 0.15 else ""
    if side and level:
        said.append(f"in the {level} {side} corner")
    elif side:
        said.append(f"on the {side}")
    elif level:
        said.append(f"at the {level}")
    return size, said


def usable_tag(tag: str, concept: Concept, colour: str) -> bool:
    """Whether a keyword of the package may stand behind the name: no colour that is not shown, no style, no name."""
    said = tag.lower()
    wrong = COLOUR_WORDS.intersection(said.split()) - {colour}
    known = (concept.noun.lower(), concept.name.lower(), *TEMPLATES)
    return not wrong and said not in known and said.isascii() and len(said) < 20


COLOUR_WORDS = frozenset(
    {"red", "orange", "yellow", "green", "teal", "blue", "purple", "pink"}
    | {"brown", "black", "white", "gray", "grey", "gold", "golden", "silver"}
)
