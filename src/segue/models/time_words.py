"""Words that an image model never learned, and layers along time did: each is told what it understands.

A small text encoder that was trained on still pictures knows no "slides to the right", and what it makes of such words
disturbs the picture. The layers of the image model are then told the caption without them, or with other words in their
place, and the layers along time are told the whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

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
        tokens: whether layers along time are told the tokens themselves as well, beside what the encoder makes of them.
            A small encoder, trained on captions of still pictures, makes so little of other words that "falls" and
            "rises" are hardly to be told apart; their tokens are.
    """

    encoder: TextEncoder
    heard: Heard
    tokens: bool = False

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """The text that the image model hears, and under WORDS what was said."""
        shown = self.encoder([heard_of(prompt, self.heard) for prompt in prompts])
        return replace(shown, extra={**shown.extra, WORDS: self.said(prompts)})

    def said(self, prompts: Sequence[str]) -> Float[Tensor, "b n d"]:
        """What layers along time are told."""
        made = self.encoder(prompts).text
        if not self.tokens:
            return made
        encoder: Any = self.encoder
        return torch.cat([_even(made), _even(encoder.tokens(prompts))], -1)


def _even(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Scaled to a root mean square of 1, token by token."""
    return tokens / tokens.square().mean(-1, keepdim=True).clamp(min=1e-12).sqrt()


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
