"""What a growing tree does so that its keys, and the branches between them, are alike: see `structure`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from segue.diffusion.schedule import Schedule
from segue.diffusion.starts import from_seeds
from segue.temporal.attention import Attending, SharedAttention
from segue.temporal.keys import Keys
from segue.temporal.mix import Mix, mixed
from segue.temporal.passengers import Passenger, WithPassengers
from segue.temporal.statistics import Statistics, Tuning
from segue.temporal.structure import Interpolation, Structure
from segue.temporal.trajectory import Trajectory
from segue.temporal.tree import Node
from segue.types import Denoiser, RowId, State

if TYPE_CHECKING:
    from torch import Tensor

FIRST = 0
"""The key that the others are aligned to."""


@dataclass(frozen=True)
class Alignment:
    """How the keys of a film are aligned, and branches mixed; left alone, it changes nothing.

    Args:
        structure: how keys take after those before them.
        interpolation: how branches attend to the keys beside them.
        mix: how latents of parents are mixed where a branch forks.
        sharing: the adapter that is attached to the network's sites, where anything of this needs one.
    """

    structure: Structure = field(default_factory=Structure)
    interpolation: Interpolation = field(default_factory=Interpolation)
    mix: Mix = "whole"
    sharing: SharedAttention | None = None

    def __post_init__(self) -> None:
        if self.sharing is None and self.attends:
            raise ValueError("shared attention needs its adapter, attached to the sites of the network")

    @property
    def attends(self) -> bool:
        """Whether rows attend to others."""
        return self.interpolation.acts or (self.structure.leans and self.structure.attention > 0)

    def kept(self, steps: int) -> frozenset[int]:
        """The steps of keys whose latents others need as they run."""
        ranges = [self.structure.range] if self.structure.leans else []
        ranges += [self.interpolation.range] if self.interpolation.acts else []
        return frozenset(range(round(max(ranges) * steps) + 1)) if ranges else frozenset()


@dataclass(frozen=True)
class Aligned:
    """An alignment at work on the keys of one film.

    Args:
        alignment: the settings.
        keys: what the model is told.
        schedule: its noise levels.
        trajectories: of all nodes that have been run.
        given: the keys that are pictures: nothing is done to them, but others are aligned to the first.
        same: keys that are others once more, by the number of the other.
    """

    alignment: Alignment
    keys: Keys
    schedule: Schedule
    trajectories: Mapping[int, Trajectory]
    given: Mapping[int, Trajectory]
    same: Mapping[int, int]

    def start(self, names: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> State:
        """Keys in their starting noise, each mixed with that of the key before it."""
        every = from_seeds(self.keys.seeds, [_row(key) for key in range(len(self.keys))], self.schedule, shape, device)
        begun: list[Tensor] = []
        for key, own in enumerate(every.x):
            if key in self.given:
                begun.append(self.given[key].at(0).to(own))
            elif key in self.same:
                begun.append(begun[self.same[key]])
            else:
                noise = self.alignment.structure.at("noise", float(key))
                share = torch.tensor([noise], dtype=torch.float64)
                begun.append(mixed(own[None], begun[-1][None], share)[0] if begun else own)
        return State(torch.stack([begun[name] for name in names]), every.step[list(names)], tuple(map(_row, names)))

    def statistics(self, nodes: Mapping[RowId, Node]) -> Statistics | None:
        """The operator that tunes these nodes; None if there is nothing to do."""
        structure = self.alignment.structure
        if not structure.leans or structure.statistics == 0:
            return None
        tunings: dict[RowId, Tuning] = {}
        for row, node in nodes.items():
            lean, sides = self._lean(node.position), self._sides(node)
            if lean > 0 or sides:
                guides = tuple((self.trajectories[key], share) for key, share in sides)
                power = structure.at("statistics", node.position)
                tunings[row] = Tuning(self.trajectories[FIRST], lean, guides, power)
        return Statistics(tunings, structure.envelope(1.0)) if tunings else None

    def around(self, denoiser: Denoiser, nodes: Mapping[RowId, Node]) -> Denoiser:
        """The denoiser of these nodes, with the keys that they look at as passengers."""
        sharing = self.alignment.sharing
        if sharing is None or not self.alignment.attends:
            return denoiser
        ends = {key for node in nodes.values() for key, _ in self._sides(node)}
        attending = {_row(key): self._attending(Node(float(key))) for key in ends}
        attending |= {row: self._attending(node) for row, node in nodes.items()}
        passengers = {
            _row(key): Passenger(self.trajectories[key], self.keys.at([float(key)]))
            for key in sorted({FIRST, *ends})
            if key in self.trajectories
        }
        return WithPassengers(denoiser, sharing, attending, passengers)

    def _attending(self, node: Node) -> Attending:
        structure, how = self.alignment.structure, self.alignment.interpolation
        sides = tuple((_row(key), share) for key, share in self._sides(node)) if how.acts else ()
        lean = structure.envelope(structure.at("attention", node.position) * self._lean(node.position))
        return Attending(_row(FIRST), lean, sides, how.envelope(node.position), how.fusion, how.cross)

    def _sides(self, node: Node) -> tuple[tuple[int, float], ...]:
        """The keys beside a branch, with their shares; none for a key."""
        if node.is_key:
            return ()
        left, share = self.keys.place(node.position)
        right = min(left + 1, len(self.keys) - 1)
        return tuple((self.same.get(key, key), part) for key, part in ((left, 1 - share), (right, share)) if part > 0)

    def _lean(self, position: float) -> float:
        """How far what is done to keys is done at a position: not at the first key, nor at pictures, wholly at the
        others, and in a line between.
        """
        left, share = self.keys.place(position)
        right = min(left + 1, len(self.keys) - 1)
        fixed = {FIRST, *self.given}
        leans = [float(self.same.get(key, key) not in fixed) for key in (left, right)]
        return leans[0] * (1 - share) + leans[1] * share


def _row(key: int) -> RowId:
    return RowId("key", key)
