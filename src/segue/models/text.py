"""Prompts to conditioning, with CLIP text encoders: weights in parentheses, and prompts longer than their context."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from segue.errors import TaskError
from segue.models.lora_rows import are_told
from segue.types import Conditioning

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

EMPHASIS = 1.1
LARGEST = 1000
REMEMBERED = 64
"""Texts whose embeddings an encoder remembers: those of a few films, at 0.2 to 0.5 MB each for a large encoder."""
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


def stamp_of(encoder: torch.nn.Module) -> tuple[int, ...]:
    """Another one whenever a weight was changed or moved; none while the encoder learns, or is told LoRA scales.

    What an encoder answered may be remembered under it, and nothing while there is none.
    """
    weights = list(encoder.parameters())
    if are_told() or any(weight.requires_grad for weight in weights):
        return ()
    return hash(tuple((weight.data_ptr(), weight._version) for weight in weights)), len(weights)


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

    What was encoded last is remembered, whatever its weights, for as long as those of the encoder stay as they are.

    Args:
        encoder: in eval mode.
        tokenizer: with a padding token.
        clip_skip: how many of the last layers to leave out.
        normed: whether the final norm comes after the last layer that is kept.
    """

    encoder: CLIPTextModel | CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    clip_skip: int = 0
    normed: bool = True
    _known: dict[tuple[int, ...], Read] = field(
        default_factory=dict[tuple[int, ...], "Read"], init=False, repr=False, compare=False
    )

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
        return Conditioning(self.read(prompts).tokens)

    def count(self, prompts: Sequence[str]) -> int:
        """How many chunks the longest of these prompts makes; 0 for none."""
        return max((len(self._chunks(prompt)) for prompt in prompts), default=0)

    def read(self, prompts: Sequence[str], least: int = 1) -> Read:
        """What the encoder makes of prompts, one row each.

        Args:
            prompts: with their weights.
            least: how many chunks each row has at the least, to go beside what another encoder makes of the same.

        Raises:
            TaskError: no prompts.
        """
        if not prompts:
            raise TaskError("expected at least one prompt to encode; got none")
        chunked = [self._chunks(prompt) for prompt in prompts]
        longest = max(least, *(len(chunks) for chunks in chunked))
        known: dict[_Chunk, Read] = {}
        rows: list[Tensor] = []
        for chunks in chunked:
            filled = chunks + [_Chunk((), ())] * (longest - len(chunks))
            for chunk in filled:
                if chunk not in known:
                    known[chunk] = self._encode(chunk)
            rows.append(torch.cat([known[chunk].tokens for chunk in filled], dim=1))
        return Read(torch.cat(rows), torch.cat([known[chunks[0]].pooled for chunks in chunked]))

    def tokens(self, prompts: Sequence[str], least: int = 1) -> Float[Tensor, "b n d"]:
        """The embeddings of tokens as they go into the encoder, float32, laid out as `read` does, without weights.

        Of words that an encoder was not trained with, its answer tells little, and its tokens tell them apart.

        Args:
            prompts: as of `read`.
            least: likewise.

        Raises:
            TaskError: no prompts.
        """
        if not prompts:
            raise TaskError("expected at least one prompt to encode; got none")
        chunked = [self._chunks(prompt) for prompt in prompts]
        longest = max(least, *(len(chunks) for chunks in chunked))
        filled = [chunks + [_Chunk((), ())] * (longest - len(chunks)) for chunks in chunked]
        ids = torch.tensor([[id_ for chunk in chunks for id_ in self._filled(chunk.ids)] for chunks in filled])
        return self.encoder.get_input_embeddings()(ids.to(self.encoder.device)).float()

    def _filled(self, ids: Sequence[int]) -> list[int]:
        """A chunk's tokens as the encoder sees them, as many as it sees at once."""
        padding = self.context - 2 - len(ids)
        tokenizer: Any = self.tokenizer
        begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        return [begin, *ids, end, *[pad] * padding]

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

    def _encode(self, chunk: _Chunk) -> Read:
        padding = self.context - 2 - len(chunk.ids)
        read = self._recalled(chunk.ids)
        z = read.tokens
        if all(weight == 1 for weight in chunk.weights):
            return read
        weights = z.new_tensor([1.0, *chunk.weights, *[1.0] * (padding + 1)])
        weighted = z * weights[:, None]
        return Read(weighted * (z.abs().mean() / weighted.abs().mean()), read.pooled)

    def _recalled(self, ids: tuple[int, ...]) -> Read:
        """What the encoder makes of one chunk; asked only if it was not asked lately, or may answer otherwise now."""
        stamp = stamp_of(self.encoder)
        read = self._known.pop((*stamp, *ids), None) if stamp else None
        if read is None:
            read = self._seen(torch.tensor([self._filled(ids)], device=self.encoder.device))
        if stamp:
            self._known[(*stamp, *ids)] = read
            for key in list(self._known)[:-REMEMBERED]:
                del self._known[key]
        return read

    def _seen(self, ids: Tensor) -> Read:
        if self.clip_skip == 0 and self.normed:
            answer: Any = self.encoder(ids)
            tokens = answer.last_hidden_state
        else:
            answer = self.encoder(ids, output_hidden_states=True)
            tokens = answer.hidden_states[-1 - self.clip_skip]
            if self.normed:
                # transformers 5 has the final norm on the model itself, 4 on its inner text_model.
                inner: Any = getattr(self.encoder, "text_model", self.encoder)
                tokens = inner.final_layer_norm(tokens)
        # With a projection into the space that CLIP shares with pictures, that is the summary.
        pooled = getattr(answer, "text_embeds", None)
        return Read(tokens.float(), (answer.pooler_output if pooled is None else pooled).float())


@dataclass(frozen=True)
class Read:
    """What an encoder makes of prompts, float32.

    Args:
        tokens: an embedding for each token.
        pooled: one vector for each prompt: that of the end token of its first chunk, which no weight changes.
    """

    tokens: Float[Tensor, "b n d"]
    pooled: Float[Tensor, "b p"]


@dataclass(frozen=True)
class ClipPair:
    """A TextEncoder of two CLIP text models: their tokens side by side, and the pooled vector of the second.

    As Stable Diffusion XL is told (Podell et al. 2023, arXiv:2307.01952, section 2.1). Both cut a prompt with their own
    tokenizers, and fill up to the same number of chunks.

    Args:
        first: usually CLIP ViT-L.
        second: with a projection; usually OpenCLIP ViT-bigG.
        empty_is_zero: whether a prompt without words is all zeros, as some models learned it. (diffusers does this only
            to a negative prompt that was left out, and encodes one that is "".)
    """

    first: ClipText
    second: ClipText
    empty_is_zero: bool = False

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt, float32.

        Raises:
            TaskError: no prompts.
        """
        count = max(encoder.count(prompts) for encoder in (self.first, self.second))
        first, second = (encoder.read(prompts, count) for encoder in (self.first, self.second))
        tokens = torch.cat([first.tokens, second.tokens.to(first.tokens.device)], dim=-1)
        pooled = second.pooled.to(tokens.device)
        for row, prompt in enumerate(prompts):
            if self.empty_is_zero and not prompt.strip():
                tokens[row], pooled[row] = 0, 0
        return Conditioning(tokens, pooled=pooled)

    def tokens(self, prompts: Sequence[str]) -> Float[Tensor, "b n d"]:
        """The embeddings of tokens as they go into both encoders, side by side; see `ClipText.tokens`.

        Raises:
            TaskError: no prompts.
        """
        count = max(encoder.count(prompts) for encoder in (self.first, self.second))
        first, second = (encoder.tokens(prompts, count) for encoder in (self.first, self.second))
        return torch.cat([first, second.to(first.device)], dim=-1)


@dataclass(frozen=True)
class _Chunk:
    ids: tuple[int, ...]
    weights: tuple[float, ...]
