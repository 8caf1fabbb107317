"""Pictures that are decoded while others are still drawn: a short queue of what is under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from segue.errors import ExhaustedError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

MOST = 4
"""Batches that are under way at once: beyond, decoding is the slower of the two, and waits for nobody."""


class Begun(Protocol):
    """Latents that are being decoded."""

    def is_there(self) -> bool:
        """Whether the pictures can be had without waiting."""
        ...

    def wait(self) -> Float[Tensor, "b 3 H W"]:
        """The pictures, on the CPU, once they are there; as often as it is asked for."""
        ...


class Beside(Protocol):
    """Decodes beside other work."""

    def has_room(self, latents: Float[Tensor, "b c h w"]) -> bool:
        """Whether there is memory for it."""
        ...

    def __call__(self, latents: Float[Tensor, "b c h w"]) -> Begun:
        """Begin to decode.

        Raises:
            ExhaustedError: there was not.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """Nodes whose pictures are under way, each once, with where they lie on the line of the keys."""

    names: tuple[int, ...]
    positions: tuple[float, ...]
    begun: Begun


@dataclass
class Ahead:
    """What is under way.

    Args:
        beside: decodes beside other work.
        finished: makes the pictures of nodes, by name and position, of what was decoded.
        most: batches at once.
    """

    beside: Beside
    finished: Callable[[Tensor, Sequence[int], Sequence[float]], Tensor]
    most: int = MOST
    _batches: deque[Batch] = field(default_factory=deque[Batch], init=False)

    def __contains__(self, name: int) -> bool:
        return any(name in batch.names for batch in self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def begin(self, latents: Float[Tensor, "b c h w"], names: Sequence[int], positions: Sequence[float]) -> bool:
        """Begin a batch; False, and nothing is begun, where the queue is full or memory is short."""
        if len(self) >= self.most or not self.beside.has_room(latents):
            return False
        try:
            begun = self.beside(latents)
        except ExhaustedError:
            # It was tighter than it looked. Nothing is lost: who asks for these pictures has them decoded then.
            self.most = 0
            return False
        self._batches.append(Batch(tuple(names), tuple(positions), begun))
        return True

    def arrived(self, take: Callable[[Sequence[int], Tensor], None], wanted: Collection[int] = ()) -> None:
        """Hand over the pictures that are there, the oldest first, and those of wanted nodes, which are waited for.

        A batch leaves the queue when it has been handed over, so that one whose wait is interrupted can be had again.
        """
        for batch in list(self._batches):
            if batch.begun.is_there() or any(name in batch.names for name in wanted):
                take(batch.names, self.finished(batch.begun.wait(), batch.names, batch.positions))
                self._batches.remove(batch)
