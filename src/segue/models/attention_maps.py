"""How much each token attends to each other, read from a network's attention and applied to other values."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Protocol

from diffusers.models.attention_processor import Attention

from segue.errors import TaskError
from segue.models.text import ClipPair, ClipText
from segue.types import TextEncoder

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class Place(Protocol):
    """A site of a network by its name; see `segue.models.attention.Site`."""

    @property
    def name(self) -> str:
        """Its name in the network."""
        ...


@dataclass(frozen=True)
class MapReader:
    """Attention maps of UNets and control networks: softmax(q k^T / sqrt(d)), head by head.

    What was trained into the projections (LoRA) is read with them; whatever else is attached to a site is not.
    """

    def weights(
        self, site: Place, hidden: Float[Tensor, "b n d"], context: Float[Tensor, "b m e"]
    ) -> Float[Tensor, "b heads n m"]:
        """How much each token of `hidden` attends to each of the context.

        Raises:
            TaskError: a site that makes queries, keys and values in another way.
        """
        attn = _readable(site)
        query, key = (_heads(part, attn) for part in (attn.to_q(hidden), attn.to_k(context)))
        scores = query @ key.transpose(2, 3) * attn.scale
        return (scores.float() if attn.upcast_softmax else scores).softmax(3).to(query.dtype)

    def answer(
        self, site: Place, weights: Float[Tensor, "b heads n m"], context: Float[Tensor, "b m e"]
    ) -> Float[Tensor, "b n d"]:
        """What a site says that attends to the context so.

        Raises:
            TaskError: see `weights`.
        """
        attn = _readable(site)
        mixed = weights @ _heads(attn.to_v(context), attn)
        return attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2))) / attn.rescale_output_factor


def kept_words(text: TextEncoder, source_prompt: str, prompt: str) -> tuple[tuple[int, int], ...]:
    """The tokens of a prompt that a source's prompt has, too, in the same order: pairs of their places.

    Begin and end, and what fills both up behind it, are kept, too, as in Prompt-to-Prompt (Hertz et al. 2022,
    arXiv:2208.01626, section 3.2), where a prompt is refined.

    Raises:
        TaskError: the encoder is not of the CLIP kind, whose tokens have places of their own.
    """
    encoder = text.first if isinstance(text, ClipPair) else text
    if not isinstance(encoder, ClipText):
        raise TaskError("words are told apart by the tokens of CLIP, and this model's text encoder is another one")
    count = encoder.count([source_prompt, prompt])
    old, new = (_tokens(encoder, words, count) for words in (source_prompt, prompt))
    blocks = SequenceMatcher(None, new, old, autojunk=False).get_matching_blocks()
    return tuple((a + by, b + by) for a, b, size in blocks for by in range(size))


def _tokens(encoder: ClipText, prompt: str, count: int) -> list[int]:
    """The ids at all places of a row of embeddings."""
    begin, end, pad = (getattr(encoder.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad"))
    chunks = [chunk.ids for chunk in encoder._chunks(prompt)]
    rows: list[int] = []
    for ids in [*chunks, *[()] * (count - len(chunks))]:
        rows += [begin, *ids, end, *[pad] * (encoder.context - 2 - len(ids))]
    return rows


def _heads(tokens: Tensor, attn: Any) -> Float[Tensor, "b heads n d"]:
    return tokens.unflatten(2, (attn.heads, -1)).transpose(1, 2)


def _readable(site: Place) -> Any:
    attn: Any = getattr(site, "module", None)
    if not isinstance(attn, Attention):
        raise TaskError(f"attention maps are read of UNets; {site.name} attends in another way")
    other = [name for name in ("group_norm", "spatial_norm", "norm_q", "norm_k", "norm_cross") if getattr(attn, name)]
    if other or attn.residual_connection:
        raise TaskError(f"attention maps of {site.name} cannot be read: it has {(*other, 'a residual')[0]} of its own")
    return attn
