"""Captions of things that move: those of a corpus, with words for the movement."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from segue.evaluation.motion_words import SLIDING, WORDINGS, Motion
from segue.training.captions import TEMPLATES, Concept, Look, article, names, shown_thing

Speed = Literal["slow", "usual", "fast"]
PACE: dict[Speed, tuple[str, ...]] = {"slow": ("slowly",), "usual": (), "fast": ("quickly", "fast")}
"""What is said of a speed that is not the usual one, wherever a movement is said."""

LONGEST = 14
"""Words in a caption. Those of movements are no words of the embedded text encoder, which spells them in up to five of
its 24 tokens."""

EXTRA_NAMES: Mapping[str, tuple[str, ...]] = {"🏀": ("ball", "ball"), "⚽": ("ball",)}
"""What else things may be called that no still needs: balls are what bounces."""

HELD_OUT: tuple[tuple[str, str, Motion], ...] = (
    ("🏀", "red", "bounce"),
    ("🍓", "red", "bounce"),
    ("🎈", "red", "slide up"),
    ("🚀", "blue", "slide up"),
    ("🍎", "red", "slide down"),
    ("🚗", "blue", "slide right"),
    ("🐢", "green", "slide left"),
    ("🐟", "orange", "slide left"),
    ("🚌", "yellow", "slide right"),
    ("🍩", "brown", "spin clockwise"),
    ("🌹", "red", "grow"),
    ("🍄", "red", "grow"),
    ("🎂", "", "shrink"),
    ("🔔", "yellow", "swing"),
    ("🍌", "yellow", "wobble"),
    ("🐘", "gray", "still"),
)
"""Things with colour and movement that no clip shows, so that a model can be asked for what it has not learned by
heart."""

EVALUATION_CAPTIONS: tuple[tuple[str, Motion], ...] = (
    ("a bouncing red ball", "bounce"),
    ("a strawberry bounces up and down", "bounce"),
    ("a red balloon rises", "slide up"),
    ("a blue rocket moves up", "slide up"),
    ("a red apple falls", "slide down"),
    ("a blue car slides to the right", "slide right"),
    ("a green turtle moves to the left", "slide left"),
    ("an orange fish sliding to the left", "slide left"),
    ("a yellow bus moves to the right", "slide right"),
    ("a doughnut spins clockwise", "spin clockwise"),
    ("a growing red rose", "grow"),
    ("a red mushroom grows", "grow"),
    ("a birthday cake gets smaller", "shrink"),
    ("a swinging bell", "swing"),
    ("a wobbling banana", "wobble"),
    ("an elephant stands still", "still"),
)
"""A caption for each of HELD_OUT."""


def motion_phrases() -> tuple[str, ...]:
    """All that captions say of movements and their speed, each once."""
    said = [words for one in WORDINGS.values() for words in (*one.before, *one.after, *one.verbs)]
    return tuple(sorted({*said, *SLIDING, *(word for words in PACE.values() for word in words)}))


def may_move(concept: Concept, colour: str, motion: Motion) -> bool:
    """Whether a clip may show it: things that look alike however they are turned show no turn, and some are held out.

    Where one way round is held out, so is the other: a clip may be played backwards and mirrored.
    """
    turns = motion.startswith("spin") or motion in ("swing", "wobble")
    wording = WORDINGS[motion]
    ways = {motion, wording.undone, wording.mirrored}
    withheld = {kept for character, tone, kept in HELD_OUT if (character, tone) == (concept.character, colour)}
    return (concept.turn or not turns) and not ways & withheld


def moving_caption(
    concept: Concept,
    look: Look,
    motion: Motion | None,
    speed: Speed,
    rng: np.random.Generator,
    *,
    taken: Container[str] = frozenset(),
) -> str:
    """A true caption of a clip, one of hundreds.

    The movement stands before the thing, behind it, or in a verb, each as often. The ground is left out of three in
    five, as in a corpus; size and place, which change, are not said.

    Args:
        concept: what moves.
        look: colour, ground and style; of the placement, only whether it is mirrored.
        motion: how it moves; None for a caption that says nothing of it.
        speed: how fast.
        rng: chooses the words.
        taken: names, in lower case, that mean other emoji.
    """
    called = called_when(concept, look, taken)
    facing = ", mirrored" if look.placement.flip else ""
    while True:
        word, template = (str(rng.choice(options)) for options in (called, TEMPLATES[look.style]))
        said = _moved(word, template, motion, PACE[speed], rng) if motion else template.format(word, a=article(word))
        caption = _on_ground(said + facing, look.background, rng)
        if len(caption.split()) <= LONGEST and shown_thing(caption).lower() not in taken:
            return caption


def called_when(concept: Concept, look: Look, taken: Container[str] = frozenset()) -> list[str]:
    """What a thing is called when it looks so; line art has no colour to name."""
    called = replace(concept, also=(*concept.also, *EXTRA_NAMES.get(concept.character, ())))
    found = names(called, look.colour)
    if look.style == "line art":
        found = names(called, concept.colour)[: len(called.also) + 3]
    return [word for word in found if word.lower() not in taken]


def _moved(word: str, template: str, motion: Motion, pace: tuple[str, ...], rng: np.random.Generator) -> str:
    wording = WORDINGS[motion]
    sliding = motion.startswith("slide") and rng.random() < 0.2  # That leaves the way open.
    before = wording.before or (SLIDING if sliding else ())
    form = rng.integers(3)
    hurried = f" {rng.choice(pace)}" if pace else ""
    if form == 0 and before:
        words = f"{hurried} {rng.choice(before)}".strip()
        return template.format(f"{words} {word}", a=article(words))
    thing, comma, rest = template.format(word, a=article(word)).partition(",")
    # "flat icon of a car slides" would be said of the icon.
    words = str(rng.choice(wording.after if form == 1 or " of " in thing else wording.verbs))
    return f"{thing} {words}{hurried}{comma}{rest}"


def _on_ground(caption: str, background: str, rng: np.random.Generator) -> str:
    said = rng.random() < (1 / 6 if background == "white" else 2 / 5)
    return f"{caption} on {article(background)} {background} background" if said else caption
