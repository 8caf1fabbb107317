"""Where a network attends, and how to step in: adapters wrap what is there, for as long as a `with` lasts."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from diffusers.models.attention import TemporalBasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

from segue.types import Call

if TYPE_CHECKING:
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
        """Attend from `hidden` to `context`, or to itself if None. More rows of context than of hidden are an error."""
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
        kind: within a picture ("self"), to the text ("cross"), across frames ("temporal"), or picture and text at once.
        module: the attention module.
    """

    name: str
    kind: Kind
    module: Attention

    @contextmanager
    def wrap(self, adapter: Adapter) -> Generator[None]:
        """Let `adapter` answer at this site; afterwards the module is as it was, whatever was attached before."""
        before: Any = self.module.processor
        wrapper: Any = _Wrapped(before, adapter, self)
        self.module.set_processor(wrapper)
        try:
            yield
        finally:
            self.module.set_processor(before)


def sites(network: nn.Module) -> tuple[Site, ...]:
    """All attention of a UNet, control network or transformer, in the order in which its modules are listed."""
    found: list[Site] = []
    over_time: tuple[str, ...] = ()
    for name, module in network.named_modules():
        if isinstance(module, _OVER_TIME):
            over_time += (f"{name}.",)
        if isinstance(module, Attention):
            found.append(Site(name, _kind(module, name.startswith(over_time) if over_time else False), module))
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
        def plain(hidden: Tensor, context: Any = None) -> Tensor:
            return self.before(attn, hidden, context, *args, **kwargs)

        return self.adapter(plain, hidden_states, encoder_hidden_states, _call.get(), self.site)


def _kind(module: Attention, over_time: bool) -> Kind:
    if over_time:
        return "temporal"
    if getattr(module, "add_q_proj", None) is not None:
        return "joint"
    return "cross" if module.is_cross_attention else "self"
