"""The words of movements: how things are said to move, and which of them a caption asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Motion = Literal[
    "slide left",
    "slide right",
    "slide up",
    "slide down",
    "bounce",
    "spin clockwise",
    "spin counterclockwise",
    "grow",
    "shrink",
    "swing",
    "wobble",
    "still",
]
MOTIONS: tuple[Motion, ...] = get_args(Motion)


@dataclass(frozen=True)
class Wording:
    """How a movement is said of a thing.

    Args:
        before: words that stand before the thing ("a bouncing ball").
        after: participles that stand behind it ("a ball bouncing").
        verbs: what it does ("a ball bounces").
        undone: the movement that a film played backwards shows.
        mirrored: the movement in a mirror, left and right exchanged.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    verbs: tuple[str, ...]
    undone: Motion
    mirrored: Motion


WORDINGS: dict[Motion, Wording] = {
    "slide left": Wording(
        (),
        ("sliding to the left", "moving to the left", "sliding left"),
        ("slides to the left", "moves to the left", "slides left", "moves left"),
        "slide right",
        "slide right",
    ),
    "slide right": Wording(
        (),
        ("sliding to the right", "moving to the right", "sliding right"),
        ("slides to the right", "moves to the right", "slides right", "moves right"),
        "slide left",
        "slide left",
    ),
    "slide up": Wording(
        ("rising",), ("rising", "moving up", "sliding up"), ("rises", "moves up", "slides up"), "slide down", "slide up"
    ),
    "slide down": Wording(
        ("falling",),
        ("falling", "moving down", "sliding down"),
        ("falls", "moves down", "slides down"),
        "slide up",
        "slide down",
    ),
    "bounce": Wording(
        ("bouncing", "bouncing"),
        ("bouncing", "bouncing up and down"),
        ("bounces", "bounces up and down"),
        "bounce",
        "bounce",
    ),
    "spin clockwise": Wording(
        ("spinning", "rotating"),
        ("spinning", "spinning clockwise"),
        ("spins", "spins clockwise", "rotates clockwise"),
        "spin counterclockwise",
        "spin counterclockwise",
    ),
    "spin counterclockwise": Wording(
        ("spinning", "rotating"),
        ("spinning", "spinning counterclockwise"),
        ("spins", "spins counterclockwise", "rotates counterclockwise"),
        "spin clockwise",
        "spin clockwise",
    ),
    "grow": Wording(("growing",), ("growing", "getting bigger"), ("grows", "gets bigger"), "shrink", "grow"),
    "shrink": Wording(("shrinking",), ("shrinking", "getting smaller"), ("shrinks", "gets smaller"), "grow", "shrink"),
    "swing": Wording(
        ("swinging", "swinging"),
        ("swinging", "swinging from side to side"),
        ("swings", "swings from side to side"),
        "swing",
        "swing",
    ),
    "wobble": Wording(("wobbling", "wobbling"), ("wobbling",), ("wobbles",), "wobble", "wobble"),
    "still": Wording(("motionless",), ("standing still",), ("stands still", "is still"), "still", "still"),
}
"""Every wording of training captions; what is said of both ways of a movement leaves the way open."""

SLIDING = ("sliding", "moving")
"""Said before things that slide any way."""


MEANT: frozenset[Motion] = frozenset({"slide right", "spin clockwise"})
"""What is meant by words that leave the way open."""


def asked(caption: str) -> frozenset[Motion]:
    """The movements that a caption may mean, by the longest wording in it; none where it says nothing of movement."""
    said = " " + re.sub(r"[^a-z]+", " ", caption.lower()).strip() + " "
    found: dict[str, set[Motion]] = {}
    for motion, wording in WORDINGS.items():
        for words in (*wording.before, *wording.after, *wording.verbs):
            if f" {words} " in said:
                found.setdefault(words, set()).add(motion)
    if not found:
        slides = any(f" {word} " in said for word in SLIDING)
        return frozenset(motion for motion in MOTIONS if slides and motion.startswith("slide"))
    return frozenset(found[max(found, key=len)])
