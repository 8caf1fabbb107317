"""Layers along time stand behind modules of a network that sees frames one by one, and answer when they are told to.

The network is a twin of the given one: modules of its own, so that it can have hooks, and the same weights, not copied.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from torch import nn

from segue.models.temporal_layers import ClipAttention, TemporalLayer, Told

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
_told: ContextVar[Callable[[], Told] | None] = ContextVar("told", default=None)


@contextmanager
def telling(told: Callable[[], Told]) -> Generator[None]:
    """Within, layers along time answer, and ask this what they are told when the first of them needs it."""
    with held(_told, told):
        yield


@contextmanager
def held(variable: ContextVar[T | None], value: T) -> Generator[None]:
    """Within, a context variable has a value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def stand_behind(network: nn.Module, layers: Mapping[str, TemporalLayer]) -> None:
    """Let layers along time change what modules of a network answer, by the modules' names."""
    for name, layer in layers.items():
        network.get_submodule(name).register_forward_hook(_Behind(layer))


def look_around(network: nn.Module, layers: Mapping[str, ClipAttention]) -> None:
    """Let attention within frames look at all frames of the clip as well, by the names of its modules."""
    for name, layer in layers.items():
        module: Any = network.get_submodule(name)
        module.set_processor(_Around(module.processor, layer))


def key_of(name: str) -> str:
    """What the layer behind a module is called: the module's name, without dots, which keys may not have."""
    return name.replace(".", "_")


def twin_of(network: nn.Module) -> Any:
    """A network with modules of its own, down to the last, whose weights are those of the given one, and not copied."""
    return _twin(network, {})


@dataclass(frozen=True)
class _Behind:
    """A forward hook by which a layer along time stands behind a module."""

    layer: TemporalLayer

    def __call__(self, module: nn.Module, inputs: Any, answer: Any) -> Any:
        told = _told.get()
        if told is None:
            return answer
        if isinstance(answer, tuple):
            answered = cast("tuple[Tensor, ...]", answer)
            return (self.layer(answered[0], told()), *answered[1:])
        return self.layer(answer, told())


@dataclass(frozen=True)
class _Around:
    """A diffusers attention processor around another one, that looks at all frames of a clip as well."""

    before: Any
    layer: ClipAttention

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        own = self.before(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        # Who shows it something else has decided what it looks at.
        if (asked := _told.get()) is None or encoder_hidden_states is not None:
            return own
        told = asked()
        # All places of a clip as one picture: keys and values are made once, not once for each frame.
        clips = hidden_states.unflatten(0, (-1, told.frames)).flatten(1, 2)
        return self.layer(own, self.before(attn, clips, None, *args, **kwargs).reshape(own.shape), told)


def _twin(module: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    if id(module) in made:
        return made[id(module)]
    twin = copy.copy(module)
    made[id(module)] = twin
    for name, value in vars(module).items():
        # Hooks, parameters and buffers are listed in containers, which the twin must not share.
        if name in _CONTAINERS:
            twin.__dict__[name] = copy.copy(value)
    twin._modules = {name: None if child is None else _twin(child, made) for name, child in module._modules.items()}
    return twin


_CONTAINERS = frozenset(name for name, value in vars(nn.Module()).items() if isinstance(value, dict | set))
