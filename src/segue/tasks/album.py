"""Pictures of nodes, each developed once: what a film was measured by is what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segue.media.clip import to_uint8

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

    from segue.tasks.ahead import Ahead
    from segue.temporal.ruler import Develop

FLOATS = 256 * 2**20
"""Bytes of pictures that stay at hand as they were developed, for those who measure. Those asked for last stay."""
LEVELS = 512 * 2**20
"""Bytes of pictures that stay at hand as they will be written, a quarter as large. Those that came first stay, as a
film is written from its beginning."""


@dataclass
class Album:
    """Develops nodes for those who measure and for those who show, and remembers what it can.

    Args:
        develop: makes pictures of latents.
        batch: pictures that are developed together. If above 1, every call is filled up to it with its last picture
            once more, so that no picture's bits depend on who asked first.
        ahead: decodes beside other work; None leaves all to those who ask.
        developed: how many pictures were made so far, those that only filled a call up left out.
    """

    develop: Develop
    batch: int = 1
    ahead: Ahead | None = None
    developed: int = field(default=0, init=False)
    _floats: dict[int, Tensor] = field(default_factory=dict[int, "Tensor"], init=False)
    _levels: dict[int, Tensor] = field(default_factory=dict[int, "Tensor"], init=False)

    def __call__(
        self, latents: Float[Tensor, "b c h w"], names: Sequence[int], positions: Sequence[float]
    ) -> Float[Tensor, "b 3 H W"]:
        """Pictures in [0, 1] of nodes, from their latents, names and positions; float32 on the CPU."""
        import torch

        self._await(names)
        # Those that were asked for last are last, and go last.
        shown = {name: self._floats.pop(name) for name in dict.fromkeys(names) if name in self._floats}
        new = [place for place, name in enumerate(names) if name not in shown and name not in names[:place]]
        for first in range(0, len(new), self.batch):
            part = new[first : first + self.batch]
            pick = part + part[-1:] * (self.batch - len(part))
            made = self.develop(latents[pick], [names[i] for i in pick], [positions[i] for i in pick])
            # Of its own each, lest one that stays keeps the whole batch.
            shown.update((names[i], picture.clone()) for i, picture in zip(part, made, strict=False))
        self._remember(shown, [names[place] for place in new])
        return torch.stack([shown[name] for name in names])

    def levels(
        self,
        names: Sequence[int],
        latents: Mapping[int, Float[Tensor, "c h w"]],
        positions: Mapping[int, float],
    ) -> list[UInt8[Tensor, "3 H W"]]:
        """The pictures of nodes as they are written, 256 levels a colour; only those that are not known are made."""
        import torch

        self._await(names)
        found = {name: self._levels[name] for name in names if name in self._levels}
        new = [name for name in dict.fromkeys(names) if name not in found]
        for first in range(0, len(new), self.batch):
            part = new[first : first + self.batch]
            made = self(torch.stack([latents[name] for name in part]), part, [positions[name] for name in part])
            found.update(zip(part, to_uint8(made), strict=True))
        return [found[name] for name in names]

    def begin(self, latents: Mapping[int, Float[Tensor, "c h w"]], positions: Mapping[int, float]) -> None:
        """Let pictures that will be asked for be developed beside other work, in whole batches, the first ones first.

        Those that are at hand or under way are not begun again, and no more are begun than can be kept.
        """
        import torch

        if self.ahead is None:
            return
        self._await(())
        new = [name for name in latents if not self.knows(name) and name not in self.ahead]
        for first in range(0, len(new) - self.batch + 1, self.batch):
            part = new[first : first + self.batch]
            if not self._can_keep(self.batch * (len(self.ahead) + 1)):
                return
            if not self.ahead.begin(
                torch.stack([latents[name] for name in part]), part, [positions[name] for name in part]
            ):
                return

    def knows(self, name: int, *, exactly: bool = False) -> bool:
        """Whether the picture of a node is at hand, as it is written; or exactly, as it was developed."""
        return name in self._floats or (not exactly and name in self._levels)

    def rest(self) -> None:
        """Measuring is over: keep the pictures only as they will be written."""
        self._floats.clear()

    def _await(self, names: Sequence[int]) -> None:
        """Take in what was developed meanwhile, and wait for these nodes if they are under way."""
        if self.ahead is not None:
            self.ahead.arrived(self._take, names)

    def _take(self, names: Sequence[int], pictures: Tensor) -> None:
        self._remember({name: picture.clone() for name, picture in zip(names, pictures, strict=True)}, names)

    def _can_keep(self, more: int) -> bool:
        """Whether so many more pictures stay at hand as they will be written; of their size the first one tells."""
        size = next((picture.nbytes for picture in self._levels.values()), 0)
        return (len(self._levels) + more) * size <= LEVELS

    def _remember(self, shown: Mapping[int, Tensor], new: Sequence[int]) -> None:
        self.developed += len(new)
        self._floats.update(shown)
        size = next(iter(shown.values())).nbytes
        for name in list(self._floats)[: -max(self.batch, FLOATS // size)]:
            del self._floats[name]
        for name in new:
            if name not in self._levels and (len(self._levels) + 1) * size // 4 <= LEVELS:
                self._levels[name] = to_uint8(shown[name][None])[0]
