"""Prompts to conditioning, with a CLIP text encoder: weights in parentheses, and prompts longer than its context."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from segue.errors import TaskError
from segue.types import Conditioning

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTokenizer

EMPHASIS = 1.1
LARGEST = 1000
_CLOSES = {")": "(", "]": "["}
_NUMBER = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")
_ESCAPE = re.compile(r"\\([()\[\]\\])")


def parse_weights(prompt: str) -> list[tuple[str, float]]:
    """Split a prompt into (text, weight).

    The grammar that AUTOMATIC1111's web UI made common: (text) is 1.1, [text] is 1/1.1, (text:1.3) is 1.3, nesting
    multiplies, and a backslash makes a bracket plain text. Deviation: a bracket without a partner is text, not an error
    and not an open emphasis. "(16:9)" reads as a weight; write "\\(16:9\\)".

    Raises:
        TaskError: a weight beyond 1000 in magnitude.
    """
    pairs = _pairs(prompt)
    brackets = sorted([*pairs, *pairs.values()])
    tails = {after: prompt[before + 1 : after] for before, after in pairwise(brackets)}
    pieces: list[tuple[str, float]] = []
    weights = [1.0]
    plain = 0
    for position in brackets:
        text, _ = _cut_number(prompt[plain:position], prompt[position])
        pieces.append((text, weights[-1]))
        plain = position + 1
        if position in pairs:
            close = pairs[position]
            weights.append(weights[-1] * _cut_number(tails[close], prompt[close])[1])
        else:
            weights.pop()
    pieces.append((prompt[plain:], 1.0))
    if heavy := [weight for _, weight in pieces if not abs(weight) <= LARGEST]:
        raise TaskError(f"a prompt weight must be between -{LARGEST} and {LARGEST}; got {heavy[0]:.3g}")
    return [(_ESCAPE.sub(r"\1", text), weight) for text, weight in _joined(pieces)]


def _cut_number(text: str, bracket: str) -> tuple[str, float]:
    """The text in front of a bracket without the weight that it ends in, and what the bracket weighs if it closes."""
    if bracket == ")" and (number := _NUMBER.search(text)):
        return text[: number.start()], float(number[1])
    return text, EMPHASIS if bracket == ")" else 1 / EMPHASIS


def _pairs(prompt: str) -> dict[int, int]:
    """Position of each bracket that opens a weight, with that of its partner."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    escaped = {position for match in _ESCAPE.finditer(prompt) for position in range(*match.span())}
    for position, character in enumerate(prompt):
        if position in escaped:
            continue
        if character in _CLOSES.values():
            opened.append(position)
        elif character in _CLOSES:
            place = next((k for k in reversed(range(len(opened))) if prompt[opened[k]] == _CLOSES[character]), None)
            if place is not None:
                pairs[opened[place]] = position
                del opened[place:]
    return pairs


def _joined(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Neighbours of one weight as one text, so that words are not cut where brackets were; empty ones left out."""
    joined: list[tuple[str, float]] = []
    for text, weight in pieces:
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        elif text:
            joined.append((text, weight))
    return joined


@dataclass(frozen=True)
class ClipText:
    """A TextEncoder around a CLIP text model.

    A prompt longer than the model's context is cut at word ends into chunks, each with its own begin and end token,
    encoded on its own; the chunks are laid end to end. Prompts that are encoded together get the same number of chunks
    (empty ones fill up), so that their rows can be mixed. Each chunk is encoded alone, so that a prompt's numbers do
    not depend on its companions.

    A weight w multiplies its tokens' embeddings, and the chunk is then scaled so that the mean magnitude of its numbers
    stays as it was. This is AUTOMATIC1111's emphasis with |z| in place of z, because a mean of z near 0, as small
    encoders have, would make the factor explode. With weight 1 everywhere nothing is multiplied at all.

    Args:
        encoder: in eval mode.
        tokenizer: with a padding token.
        clip_skip: how many of the last layers to leave out; the final norm is kept.
    """

    encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    clip_skip: int = 0

    def __post_init__(self) -> None:
        layers = self.encoder.config.num_hidden_layers
        if not 0 <= self.clip_skip < layers:
            raise TaskError(f"clip_skip must be between 0 and {layers - 1} for this model; got {self.clip_skip}")

    @property
    def context(self) -> int:
        """Tokens that the encoder sees at once, begin and end included."""
        return int(self.encoder.config.max_position_embeddings)

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """One row of token embeddings per prompt, float32.

        Raises:
            TaskError: no prompts.
        """
        if not prompts:
            raise TaskError("expected at least one prompt to encode; got none")
        chunked = [self._chunks(prompt) for prompt in prompts]
        longest = max(len(chunks) for chunks in chunked)
        known: dict[_Chunk, Tensor] = {}
        rows: list[Tensor] = []
        for chunks in chunked:
            filled = chunks + [_Chunk((), ())] * (longest - len(chunks))
            for chunk in filled:
                if chunk not in known:
                    known[chunk] = self._encode(chunk)
            rows.append(torch.cat([known[chunk] for chunk in filled], dim=1))
        return Conditioning(torch.cat(rows))

    def _chunks(self, prompt: str) -> list[_Chunk]:
        words = list(self._words(prompt))
        room = self.context - 2
        chunks: list[_Chunk] = []
        ids: list[int] = []
        weights: list[float] = []
        for word, weight in words:
            for part in (word[i : i + room] for i in range(0, len(word), room)):
                if len(ids) + len(part) > room:
                    chunks.append(_Chunk(tuple(ids), tuple(weights)))
                    ids, weights = [], []
                ids += part
                weights += [weight] * len(part)
        return [*chunks, _Chunk(tuple(ids), tuple(weights))]

    def _words(self, prompt: str) -> Iterator[tuple[list[int], float]]:
        """Token ids of each word, with its weight."""
        for text, weight in parse_weights(prompt):
            ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            word: list[int] = []
            for id_, token in zip(ids, self.tokenizer.convert_ids_to_tokens(ids), strict=True):
                word.append(id_)
                if token.endswith("</w>"):
                    yield word, weight
                    word = []
            if word:
                yield word, weight

    def _encode(self, chunk: _Chunk) -> Float[Tensor, "1 n d"]:
        padding = self.context - 2 - len(chunk.ids)
        begin, end, pad = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        ids = torch.tensor([[begin, *chunk.ids, end, *[pad] * padding]], device=self.encoder.device)
        z = self._hidden(ids).float()
        if all(weight == 1 for weight in chunk.weights):
            return z
        weights = z.new_tensor([1.0, *chunk.weights, *[1.0] * (padding + 1)])
        weighted = z * weights[:, None]
        return weighted * (z.abs().mean() / weighted.abs().mean())

    def _hidden(self, ids: Tensor) -> Tensor:
        if self.clip_skip == 0:
            return self.encoder(ids).last_hidden_state
        states = self.encoder(ids, output_hidden_states=True).hidden_states
        # transformers 5 has the final norm on the model itself, 4 on its inner text_model.
        inner: Any = getattr(self.encoder, "text_model", self.encoder)
        return inner.final_layer_norm(states[-1 - self.clip_skip])


@dataclass(frozen=True)
class _Chunk:
    ids: tuple[int, ...]
    weights: tuple[float, ...]
