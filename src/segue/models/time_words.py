"""Words that an image model never learned, and layers along time did: each is told what it understands.

A small text encoder that was trained on still pictures knows no "slides to the right", and what it makes of such words
disturbs the picture. The layers of the image model are then told the caption without them, or with other words in their
place, and the layers along time are told the whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segue.types import Conditioning, TextEncoder

WORDS = "time_words"
"""What `Conditioning.extra` calls the embeddings that layers along time are told; without them, the text."""
Heard = tuple[tuple[str, str], ...]
"""Words, and what the image model hears in their place: others, or "" for nothing."""


@dataclass(frozen=True)
class TimeText:
    """A TextEncoder around an image model's.

    Args:
        encoder: the image model's.
        heard: what that is not told as it is said; longer words go first.
    """

    encoder: TextEncoder
    heard: Heard

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """The text that the image model hears, and under WORDS what was said."""
        shown = self.encoder([heard_of(prompt, self.heard) for prompt in prompts])
        return replace(shown, extra={**shown.extra, WORDS: self.encoder(prompts).text})


def heard_of(prompt: str, heard: Heard) -> str:
    """A prompt as an image model hears it: "a bouncing ant, 3d" without "bouncing" is "an ant, 3d".

    Of words that begin alike, the longest are meant.
    """
    others = {words.lower(): other for words, other in heard}
    if not others:
        return prompt
    words = "|".join(re.escape(one) for one in sorted(others, key=len, reverse=True))

    def instead(match: re.Match[str]) -> str:
        other, article = others[match["words"].lower()], match["article"]
        if article is None:
            return other and match["space"] + other
        following = other or prompt[match.end() :].lstrip()
        if not following:
            return ""
        new = "an" if following[0].lower() in "aeiou" else "a"
        new = new.capitalize() if article[0].isupper() else new
        return f"{new} {other}" if other else new

    return re.sub(rf"(?P<article>\ban?\s+)?(?P<space>\s*)\b(?P<words>{words})\b", instead, prompt, flags=re.I).strip()
