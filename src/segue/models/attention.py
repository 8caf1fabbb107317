"""Where a network attends, and how to step in: adapters wrap what is there, for as long as a `with` lasts."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from diffusers.models.attention import TemporalBasicTransformerBlock
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxAttnProcessor
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch.nn.functional import scaled_dot_product_attention

from segue.errors import TaskError
from segue.types import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float
    from torch import Tensor, nn

Kind = Literal["self", "cross", "temporal", "joint"]
_OVER_TIME = (TransformerTemporalModel, TemporalBasicTransformerBlock, AnimateDiffTransformer3D)
_call: ContextVar[Call] = ContextVar("call")


class Plain(Protocol):
    """The attention that an adapter wraps, with everything that was attached to it before."""

    def __call__(
        self, hidden: Float[Tensor, "b n d"], context: Float[Tensor, "b m e"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Attend from `hidden` to `context`, or to itself if None. More rows of context than of hidden are an error.

        Where the site is "joint", both are tokens of the text and then of the picture, as many of the text as the call
        says. A context may be longer by whole pictures, each of which counts as lying where the own one lies.
        """
        ...


class Adapter(Protocol):
    """What happens at a site instead of plain attention."""

    def __call__(
        self,
        plain: Plain,
        hidden: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m e"] | None,
        call: Call,
        site: Site,
    ) -> Float[Tensor, "b n d"]:
        """The site's answer. `plain(hidden, context)` is what it would have said; `call` tells who the rows are."""
        ...


@dataclass(frozen=True)
class Site:
    """One place where a network attends.

    Args:
        name: the module's name in the network, such as "mid_block.attentions.0.transformer_blocks.0.attn1".
        kind: within a picture ("self"), to the text ("cross"), across frames ("temporal"), or picture and text at once
            ("joint").
        module: the attention module.
    """

    name: str
    kind: Kind
    module: Attention | FluxAttention

    @contextmanager
    def wrap(self, adapter: Adapter) -> Generator[None]:
        """Let `adapter` answer at this site; afterwards the module is as it was, whatever was attached before.

        Raises:
            TaskError: picture and text attend at once, by a processor that cannot be stepped into.
        """
        before: Any = self.module.processor
        wrapper: Any = (_Joint if _is_sequence(self) else _Wrapped)(before, adapter, self)
        self.module.set_processor(wrapper)
        try:
            yield
        finally:
            self.module.set_processor(before)


def sites(network: nn.Module, prefix: str = "") -> tuple[Site, ...]:
    """All attention of a UNet, control network or transformer, in the order in which its modules are listed.

    Args:
        network: any.
        prefix: what their names begin with, so that they are told apart from those of other networks.
    """
    found: list[Site] = []
    over_time: tuple[str, ...] = ()
    for name, module in network.named_modules():
        if isinstance(module, _OVER_TIME):
            over_time += (f"{name}.",)
        if isinstance(module, Attention | FluxAttention):
            found.append(Site(prefix + name, _kind(module, name.startswith(over_time) if over_time else False), module))
    return tuple(found)


@contextmanager
def attached(places: Iterable[Site], adapter: Adapter) -> Generator[None]:
    """Let one adapter answer at several sites."""
    with ExitStack() as stack:
        for site in places:
            stack.enter_context(site.wrap(adapter))
        yield


@contextmanager
def announced(call: Call) -> Generator[None]:
    """Tell the adapters which call they are part of; every Network runs its module inside of this."""
    token = _call.set(call)
    try:
        yield
    finally:
        _call.reset(token)


@dataclass(frozen=True)
class _Wrapped:
    """A diffusers attention processor around another one."""

    before: Any
    adapter: Adapter
    site: Site

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Any = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        mask = args[0] if args else kwargs.get("attention_mask")

        def plain(hidden: Tensor, context: Any = None) -> Tensor:
            if mask is not None and (len(hidden) != len(hidden_states) or context is not encoder_hidden_states):
                raise TaskError(
                    f"attention of {self.site.name} is masked, and a mask of one row does not fit what others show; "
                    "leave shared attention out, or the mask"
                )
            return self.before(attn, hidden, context, *args, **kwargs)

        return self.adapter(plain, hidden_states, encoder_hidden_states, _call.get(), self.site)


@dataclass(frozen=True)
class _Joint:
    """A diffusers attention processor around another one, where text and picture attend at once.

    The adapter sees both as one sequence of tokens, the text first: as blocks of a single stream have them anyway.
    """

    before: Any
    adapter: Adapter
    site: Site

    def __post_init__(self) -> None:
        if not isinstance(self.before, _Joint | JointAttnProcessor2_0 | FluxAttnProcessor):
            raise TaskError(
                f"attention of {self.site.name} runs by {type(self.before).__name__}, which rows cannot share; "
                "expected that of Stable Diffusion 3 or FLUX. Leave structure and interpolation out"
            )

    def __call__(
        self,
        attn: Attention | FluxAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Any:
        if attention_mask is not None:
            raise ValueError("attention of text and picture at once is expected to have no mask")
        streams = _Streams(attn, hidden_states, encoder_hidden_states, image_rotary_emb, self._processor())
        return streams.parted(self.answer(streams, streams.tokens, None))

    def answer(self, streams: _Streams, tokens: Tensor, context: Tensor | None) -> Tensor:
        return self.adapter(partial(self._plain, streams), tokens, context, _call.get(), self.site)

    def _plain(self, streams: _Streams, hidden: Tensor, context: Tensor | None = None) -> Tensor:
        if isinstance(self.before, _Joint):
            return self.before.answer(streams, hidden, context)
        return streams.within(hidden) if context is None else streams.towards(hidden, context)

    def _processor(self) -> Any:
        return self.before._processor() if isinstance(self.before, _Joint) else self.before


class _Streams:
    """One call of an attention in which text and picture take part, each by its own projections, or by the same ones.

    Args:
        attn: the module.
        picture: its tokens; those of the text before them, if both go through the same projections.
        text: its tokens, if they have projections of their own.
        rotary: cosines and sines of the places of all tokens, the text first; None if keys know no places.
        processor: of diffusers, which answers where everything is as it is.
    """

    def __init__(
        self,
        attn: Attention | FluxAttention,
        picture: Tensor,
        text: Tensor | None,
        rotary: tuple[Tensor, Tensor] | None,
        processor: Any,
    ) -> None:
        self.attn: Any = attn
        self.picture, self.text, self.rotary, self.processor = picture, text, rotary, processor
        self.own = 0 if text is None else text.shape[1]
        self.tokens = picture if text is None else torch.cat([text, picture], dim=1)

    def parted(self, tokens: Tensor) -> Any:
        """An answer as diffusers' blocks want it."""
        return tokens if self.text is None else (tokens[:, self.own :], tokens[:, : self.own])

    def within(self, tokens: Tensor) -> Tensor:
        """What the processor answers."""
        places = {} if self.rotary is None else {"image_rotary_emb": self.rotary}
        if self.text is None:
            return self.processor(self.attn, tokens, **places)
        # The very tensors that came, so that passing through changes no bit.
        streams = (self.picture, self.text) if tokens is self.tokens else self.parted(tokens)
        picture, text = self.processor(self.attn, *streams, **places)
        return torch.cat([text, picture], dim=1)

    def towards(self, tokens: Tensor, context: Tensor) -> Tensor:
        """What tokens answer when keys and values are those of the context: the processor's own formula."""
        attn = self.attn
        query = self._rotated(self._heads(tokens, "q", attn.norm_q), 0)
        further = context.shape[1] - tokens.shape[1]
        key = self._rotated(self._heads(context, "k", attn.norm_k), further)
        value = self._heads(context, "v", None)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        answer = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2).to(tokens.dtype)
        picture, text = answer[:, self.own :], answer[:, : self.own]
        if getattr(attn, "to_out", None) is not None:
            picture = attn.to_out[1](attn.to_out[0](picture))
        if self.text is not None and not attn.context_pre_only:
            text = attn.to_add_out(text)
        return torch.cat([text, picture], dim=1)

    def _heads(self, tokens: Tensor, which: Literal["q", "k", "v"], norm: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Projected and normed, each stream by its own layers: [b n heads d]."""
        attn, parts = self.attn, list[Any]()
        if self.text is not None:
            added = getattr(attn, f"add_{which}_proj")(tokens[:, : self.own])
            parts.append((added, None if norm is None else getattr(attn, f"norm_added_{which}")))
        parts.append((getattr(attn, f"to_{which}")(tokens[:, self.own :]), norm))
        split = ((part.unflatten(-1, (attn.heads, -1)), own) for part, own in parts)
        return torch.cat([part if own is None else own(part) for part, own in split], dim=1)

    def _rotated(self, heads: Tensor, further: int) -> Tensor:
        """Turned by their places; pictures further than the own one lie where that lies."""
        if self.rotary is None:
            return heads
        first = _call.get().text_tokens
        size = len(self.rotary[0]) - first
        if further % size:
            raise ValueError(f"a context must be longer by whole pictures of {size} tokens; got {further} more")
        places = [torch.cat([part, *[part[first:]] * (further // size)]) for part in self.rotary]
        rotated: Any = apply_rotary_emb  # its stubs know one tensor of two
        return rotated(heads, (places[0], places[1]), sequence_dim=1)


def _is_sequence(site: Site) -> bool:
    """Whether what attends at a site are tokens for the processor of a transformer, not of a UNet."""
    known = isinstance(site.module.processor, _Joint | JointAttnProcessor2_0 | FluxAttnProcessor)
    return site.kind == "joint" or known


def _kind(module: Attention | FluxAttention, over_time: bool) -> Kind:
    if over_time:
        return "temporal"
    if isinstance(module, FluxAttention) or getattr(module, "add_q_proj", None) is not None:
        return "joint"
    return "cross" if module.is_cross_attention else "self"
