"""What the model is told at a position, where more changes over a film than the mix of two texts.

The weight of words may follow a curve, and so may the scale of a LoRA. Then the prompts are encoded anew for each
position, and each row of a batch carries its own scales.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from segue.temporal.texts import Words, mixed
from segue.types import Conditioning

if TYPE_CHECKING:
    from segue.temporal.keys import Along

Said = Callable[[float], str]
"""A prompt at every position."""

Text = tuple[str, tuple[float, ...]]
"""A prompt with its weights, and the scales of LoRAs that it is encoded under."""


Encode = Callable[[Sequence[str], Sequence[float]], Conditioning]
"""Prompts to conditioning, one row each, under LoRAs of some scales."""


@dataclass(frozen=True)
class Told:
    """Texts and LoRA scales at every position.

    Args:
        shares: how much of each prompt there is at a position, adding up to 1.
        positive: what is wanted, prompt by prompt; () if no text changes beyond its mix.
        negative: what is not, likewise.
        encode: of all texts together, since rows can be mixed only if they have one length.
        scales: of each LoRA that is told its scale row by row.
        extra: the name under which rows carry their scales.
        encoded: whether the scales change what texts are encoded to.
        words: how texts are mixed.
    """

    shares: Callable[[float], Sequence[float]]
    positive: tuple[Said, ...]
    negative: tuple[Said, ...]
    encode: Encode
    scales: tuple[Along, ...] = ()
    extra: str = ""
    encoded: bool = False
    words: Words = "line"

    def __call__(
        self, positions: Sequence[float], positive: Conditioning, negative: Conditioning
    ) -> tuple[Conditioning, Conditioning]:
        """Conditionings at positions, of which all is known but what changes beyond the mix."""
        if self.positive:
            known = self._texts(positions)
            positive, negative = (
                _with_text(part, [self._mixed(prompts, place, known) for place in positions])
                for part, prompts in ((positive, self.positive), (negative, self.negative))
            )
        if self.scales:
            values = [[scale(place) for scale in self.scales] for place in positions]
            extra = {self.extra: torch.tensor(values, dtype=torch.float32)}
            positive, negative = (replace(part, extra={**part.extra, **extra}) for part in (positive, negative))
        return positive, negative

    def _mixed(self, prompts: tuple[Said, ...], position: float, known: Mapping[Text, Conditioning]) -> Conditioning:
        """One row: what these prompts are at a position, mixed by their shares there."""
        scales = self._scales_of(position)
        texts, shares = zip(*self._parts(prompts, position), strict=True)
        return mixed(Conditioning.cat([known[text, scales] for text in texts]), shares, self.words)

    def _texts(self, positions: Sequence[float]) -> dict[Text, Conditioning]:
        """All texts at these positions, those of the same scales encoded together."""
        wanted: dict[tuple[float, ...], dict[str, None]] = {}
        for place in positions:
            said = wanted.setdefault(self._scales_of(place), {})
            said |= {
                text: None for prompts in (self.positive, self.negative) for text, _ in self._parts(prompts, place)
            }
        # Beside all others, so that each has the length of the longest, whatever it weighs.
        beside = [said(0.0) for said in (*self.positive, *self.negative)]
        rows: dict[Text, Conditioning] = {}
        for scales, said in wanted.items():
            texts = self.encode([*said, *beside], scales)
            rows |= {(text, scales): texts[[number]] for number, text in enumerate(said)}
        return rows

    def _parts(self, prompts: tuple[Said, ...], position: float) -> list[tuple[str, float]]:
        shares = zip(prompts, self.shares(position), strict=True)
        return [(said(position), share) for said, share in shares if share > 0]

    def _scales_of(self, position: float) -> tuple[float, ...]:
        """The scales that texts are encoded under."""
        return tuple(scale(position) for scale in self.scales) if self.encoded else ()


def _with_text(known: Conditioning, rows: Sequence[Conditioning]) -> Conditioning:
    """What texts are encoded to is taken from the rows, all else from what is known."""
    text = Conditioning.cat(rows)
    return replace(known, text=text.text, text_mask=text.text_mask, pooled=text.pooled)
