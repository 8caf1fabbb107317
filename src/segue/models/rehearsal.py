"""Runs without numbers: on the meta device, where tensors are shapes alone, bytes and operations are counted."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

if TYPE_CHECKING:
    from torch import Tensor, nn

Kind = Literal["convolution", "product", "attention"]
KINDS: tuple[Kind, ...] = ("convolution", "product", "attention")


@dataclass(frozen=True)
class Work:
    """What a run asks of a machine.

    Args:
        peak: bytes of tensors that are alive at once, at most; weights are not among them.
        reordered: the same, where convolutions work on copies of their input, weights and output in an order of their
            own, as those of CPUs do.
        flops: floating-point operations by kind, a multiplication and an addition being two.
        moved: bytes that operations read and write, weights among them.
        operations: how many kernels are started.
    """

    peak: int = 0
    reordered: int = 0
    flops: dict[Kind, int] = field(default_factory=dict[Kind, int])
    moved: int = 0
    operations: int = 0

    @property
    def all_flops(self) -> int:
        """Of every kind."""
        return sum(self.flops.values())

    def times(self, count: float) -> Work:
        """The same again and again; the peak is that of one."""
        flops: dict[Kind, int] = {kind: round(value * count) for kind, value in self.flops.items()}
        return replace(self, flops=flops, moved=round(self.moved * count), operations=round(self.operations * count))


def rehearsed(run: Callable[[], Any], weights: Iterable[Tensor] = ()) -> Work:
    """What `run` asks for. It makes its own inputs, so that these are counted, and runs without gradients.

    Args:
        run: on tensors of any device; those of the meta device cost nothing.
        weights: what was there before and is not counted.
    """
    counter = _Counter(weights)
    with torch.no_grad(), _fused_attention(counter), counter:
        made = run()
        del made
    return Work(counter.peak, counter.reordered, dict(counter.flops), counter.moved, counter.operations)


class _Counter(TorchDispatchMode):
    """Keeps count of the storages that live, and of what each operation costs."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = self.reordered = self.moved = self.operations = 0
        self.flops: dict[Kind, int] = {}
        self._known = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in weights)}
        self._ours: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        made = sum(self.note(tensor) for tensor in tree_leaves(out) if isinstance(tensor, torch.Tensor))
        kind = _kind(func)
        if kind == "convolution":
            copies = sum(tensor.nbytes for tensor in tree_leaves((args, out)) if isinstance(tensor, torch.Tensor))
            self.reordered = max(self.reordered, self.live + copies)
        if kind is not None:
            self.add(kind, flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out))
        if made or func._schema.is_mutable:
            read = sum(tensor.nbytes for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor))
            self.moved += made + read
            self.operations += 1
        return out

    def note(self, tensor: Tensor) -> int:
        """The bytes that a tensor adds to what is alive: none for a view, or a weight."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known or key in self._ours:
            return 0
        self._ours[key] = storage.nbytes()
        weakref.finalize(storage, self._freed, key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        self.reordered = max(self.reordered, self.live)
        return storage.nbytes()

    def add(self, kind: Kind, flops: int) -> None:
        """Count operations of a kind."""
        self.flops[kind] = self.flops.get(kind, 0) + int(flops)

    def _freed(self, key: int) -> None:
        self.live -= self._ours.pop(key)


def _kind(func: Any) -> Kind | None:
    if func.overloadpacket not in flop_registry:
        return None
    return "convolution" if "convolution" in func.name() else "product"


@contextmanager
def _fused_attention(counter: _Counter) -> Generator[None]:
    """Attention as fused kernels do it, which never hold its whole matrix; on meta, torch would multiply it out."""

    class Fused(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            if func is not torch.nn.functional.scaled_dot_product_attention:
                return func(*args, **(kwargs or {}))
            q, k, v = (args + tuple((kwargs or {}).get(name) for name in ("query", "key", "value")[len(args) :]))[:3]
            counter.add("attention", sdpa_flop_count(q.shape, k.shape, v.shape))
            return q.new_empty(*q.shape[:-1], v.shape[-1])

    with Fused():
        yield


def weights_of(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers."""
    return [*network.parameters(), *network.buffers()]
