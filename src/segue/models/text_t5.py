"""Prompts to token embeddings with a T5 encoder, which is large: it works once per prompt, and waits in main memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import AutoTokenizer, T5EncoderModel

from segue.errors import CheckpointError, TaskError
from segue.models.text import parse_weights, stamp_of
from segue.models.weights import quiet, read_network

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformers import T5Tokenizer

REMEMBERED = 32
"""Prompts whose embeddings are kept: 8 MB each for T5-XXL and 512 tokens."""

_ONE_MEMORY = ("cpu", "mps")
_HOME = torch.device("cpu")


@dataclass(frozen=True)
class T5Text:
    """Token embeddings of prompts, always of the same number of tokens, as the models were trained: padding counts.

    Each prompt is encoded alone, so that its numbers do not depend on its companions, and only once for as long as the
    encoder's weights stay as they are. Weights of words multiply the embeddings, which are then scaled so that their
    mean magnitude stays as it was, as `ClipText` does; the text on either side of a change of weight is cut into tokens
    on its own.

    Args:
        encoder: in eval mode.
        tokenizer: of the same vocabulary.
        length: tokens of every prompt, with its end token.
        device: where embeddings go.
        visits: whether the encoder comes to `device` by itself while it works; not where a placement moves it.
    """

    encoder: T5EncoderModel
    tokenizer: T5Tokenizer
    length: int
    device: torch.device
    visits: bool = True
    _known: OrderedDict[tuple[int, ...], Tensor] = field(
        init=False, repr=False, compare=False, default_factory=OrderedDict[tuple[int, ...], "Tensor"]
    )

    @property
    def width(self) -> int:
        """Numbers per token."""
        return int(self.encoder.config.d_model)

    def __call__(self, prompts: Sequence[str]) -> Float[Tensor, "b n d"]:
        """One row per prompt, float32.

        Raises:
            TaskError: no prompts, or one is too long.
        """
        if not prompts:
            raise TaskError("expected at least one prompt to encode; got none")
        cut = [self._cut(prompt) for prompt in prompts]
        read = self._read([ids for ids, _ in cut])
        return torch.stack([_weighted(read[ids], weights) for ids, weights in cut]).to(self.device)

    def _cut(self, prompt: str) -> tuple[tuple[int, ...], list[float]]:
        """Token ids of a prompt, its end token among them, and their weights."""
        ids, weights = list[int](), list[float]()
        for text, weight in parse_weights(prompt):
            part: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            ids += part
            weights += [weight] * len(part)
        if len(ids) >= self.length:
            raise TaskError(
                f"a prompt may have {self.length - 1} tokens for this model, about {self.length * 2 // 3} words; "
                f"got {len(ids)}: shorten {prompt[:60]!r}"
            )
        return (*ids, self._id("eos")), [*weights, 1.0]

    def _id(self, kind: Literal["eos", "pad"]) -> int:
        tokenizer: Any = self.tokenizer  # its stubs know tokenizers without these
        return int(getattr(tokenizer, f"{kind}_token_id"))

    def _read(self, asked: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], Tensor]:
        """What the encoder makes of tokens. What it must still be asked, it is asked in one visit to the device."""
        wanted = dict.fromkeys(asked)
        # Before the visit: weights that are visiting lie elsewhere, and are the same.
        stamp = stamp_of(self.encoder)
        read = {ids: self._known[(*stamp, *ids)] for ids in wanted if stamp and (*stamp, *ids) in self._known}
        if unknown := [ids for ids in wanted if ids not in read]:
            with visiting(self.encoder, self.device) if self.visits else nullcontext(), torch.no_grad():
                read |= {ids: self._encoded(ids) for ids in unknown}
        for ids in wanted if stamp else ():
            self._known[(*stamp, *ids)] = read[ids]
            self._known.move_to_end((*stamp, *ids))
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return read

    def _encoded(self, ids: tuple[int, ...]) -> Float[Tensor, "n d"]:
        padding = [self._id("pad")] * (self.length - len(ids))
        tokens = torch.tensor([[*ids, *padding]], device=self.encoder.device)
        return self.encoder(tokens).last_hidden_state[0].float().cpu()


def _weighted(embeddings: Float[Tensor, "n d"], weights: Sequence[float]) -> Float[Tensor, "n d"]:
    if all(weight == 1 for weight in weights):
        return embeddings
    factors = embeddings.new_tensor([*weights, *[1.0] * (len(embeddings) - len(weights))])
    weighted = embeddings * factors[:, None]
    return weighted * (embeddings.abs().mean() / weighted.abs().mean())


@contextmanager
def visiting(network: T5EncoderModel, device: torch.device) -> Generator[None]:
    """Have a network on a device for as long as the `with` lasts; if it finds no room there, it works where it is.

    Weights do not change, so those in main memory stay there, and leaving copies nothing.
    """
    tensors = [*network.parameters(), *network.buffers()]
    homes = [tensor.data for tensor in tensors]
    try:
        try:
            for tensor in tensors:
                tensor.data = tensor.data.to(device)
        except torch.OutOfMemoryError:
            _put(tensors, homes)
        yield
    finally:
        _put(tensors, homes)


def _put(tensors: Sequence[Tensor], places: Sequence[Tensor]) -> None:
    for tensor, place in zip(tensors, places, strict=True):
        tensor.data = place


def waits(device: torch.device) -> bool:
    """Whether a text encoder of a model on this device waits elsewhere: in main memory, if the device has its own."""
    return device.type not in _ONE_MEMORY


def read_t5(
    folder: Path, part: str, length: int, device: torch.device, dtype: torch.dtype
) -> tuple[T5Text, tuple[Path, ...]]:
    """The T5 encoder of a model folder, and the files that it came from.

    In half precision it computes in bfloat16, whatever the rest does: its feed-forward layers leave the range of
    float16.

    Args:
        folder: of the diffusers layout.
        part: the encoder's; its tokenizer's has the same number.
        length: tokens of every prompt.
        device: of the model.
        dtype: of the model.

    Raises:
        CheckpointError: the encoder is damaged or another, or there is no tokenizer that goes with it.
    """
    precision = torch.bfloat16 if dtype.itemsize == 2 else dtype
    encoder, files = read_network(T5EncoderModel, folder / part, "model", _HOME if waits(device) else device, precision)
    tokenizer = _read_tokenizer(folder / part.replace("text_encoder", "tokenizer"))
    known, embedded = len(tokenizer), int(encoder.config.vocab_size)
    if not 2 < known <= embedded:
        raise CheckpointError(f"{folder}: its T5 tokenizer knows {known} tokens, {part} {embedded}: they are no pair")
    return T5Text(encoder, tokenizer, length, device), files


def _read_tokenizer(folder: Path) -> T5Tokenizer:
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{folder} holds no tokenizer.json, which a T5 tokenizer is read from (a spiece.model alone does not do): "
            "take it from the hub's google/t5-v1_1-xxl, or from a newer copy of the model"
        )
    try:
        with quiet():
            # Of the two classes of older versions, the one that needs no sentencepiece.
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder} holds no T5 tokenizer ({' '.join(str(error).split())[:200]})") from error
