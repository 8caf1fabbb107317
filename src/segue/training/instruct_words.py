"""What a person says who wants a picture changed: each change in many words, with and without the name of the thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from segue.training.captions import article

Kind = Literal["colour", "style", "ground", "turn", "flip", "size", "thing"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BY_RULE: tuple[Kind, ...] = KINDS[:-1]
"""What a rule can change in a picture; another thing has to be drawn."""

UPSIDE_DOWN, UPRIGHT, LEFT, RIGHT = "upside down", "upright", "left", "right"
"""What a turn may lead to."""
BIGGER, SMALLER = "bigger", "smaller"

_COLOUR = (
    "make it {}",
    "make it {}",
    "turn it {}",
    "paint it {}",
    "colour it {}",
    "change its colour to {}",
    "change the color to {}",
    "it should be {}",
    "make the {noun} {}",
    "turn the {noun} {}",
    "paint the {noun} {}",
    "{a} {} {noun}",
)
_GROUND = (
    "make the background {}",
    "make the background {}",
    "change the background to {}",
    "put it on {a} {} background",
    "put it on {a} {} background",
    "give it {a} {} background",
    "{} background",
    "put the {noun} on {a} {} background",
    "on {a} {} background",
)
_WHITE = ("remove the background", "take the background away", "put it on plain white")
_STYLE = {
    "3d": ("make it 3d", "make it 3d", "turn it into 3d", "make it a 3d emoji", "draw it in 3d", "make the {noun} 3d"),
    "flat": ("make it flat", "make it a flat icon", "turn it into a flat icon", "draw it flat", "in flat style"),
    "gradient": (
        "make it a gradient icon",
        "turn it into a gradient icon",
        "in gradient style",
        "draw it with gradients",
    ),
    "line art": (
        "make it line art",
        "make it line art",
        "turn it into line art",
        "make it a line drawing",
        "draw it as line art",
        "make the {noun} line art",
        "line art of {a} {noun}",
        "draw only its lines",
    ),
}
_TURN = {
    UPSIDE_DOWN: (
        "turn it upside down",
        "turn it upside down",
        "flip it upside down",
        "make it upside down",
        "turn the {noun} upside down",
        "upside down",
        "stand it on its head",
    ),
    UPRIGHT: ("set it upright", "turn it upright", "turn it the right way up", "make the {noun} stand upright"),
    LEFT: ("tilt it to the left", "turn it to the left", "lean it to the left", "tilt the {noun} to the left"),
    RIGHT: ("tilt it to the right", "turn it to the right", "lean it to the right", "tilt the {noun} to the right"),
}
_FLIP = ("mirror it", "flip it", "mirror the {noun}", "let it face the other way", "flip it from left to right")
_SIZE = {
    BIGGER: ("make it bigger", "make it bigger", "make it larger", "bigger", "enlarge it", "make the {noun} bigger"),
    SMALLER: ("make it smaller", "make it smaller", "make it small", "smaller", "shrink it", "make the {noun} smaller"),
}
_THING = (
    "turn it into {a} {}",
    "turn it into {a} {}",
    "make it {a} {}",
    "change it to {a} {}",
    "turn the {noun} into {a} {}",
    "replace the {noun} with {a} {}",
    "it should be {a} {}",
)


def instructions(kind: Kind, wanted: str, nouns: Sequence[str]) -> tuple[str, ...]:
    """All that may be said for a change; what should be said more often stands there more than once.

    Args:
        kind: what is changed.
        wanted: what it becomes: a colour, a ground or a style by its word, what a turn or a change of size leads to,
            another thing by its name; "" for a mirrored picture.
        nouns: what the thing is called, one or more names, without a colour.
    """
    said = {
        "colour": lambda: _COLOUR,
        "ground": lambda: (*_GROUND, *(_WHITE if wanted == "white" else ())),
        "style": lambda: _STYLE[wanted],
        "turn": lambda: _TURN[wanted],
        "flip": lambda: _FLIP,
        "size": lambda: _SIZE[wanted],
        "thing": lambda: _THING,
    }[kind]()
    found: list[str] = []
    for place, words in enumerate(said):
        noun = nouns[place % len(nouns)]
        before = wanted if "{a} {}" in words else noun
        found.append(words.format(wanted, noun=noun, a=article(before)))
    return tuple(found)
