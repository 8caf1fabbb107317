"""What was decided while a transition was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from segue.temporal.plan import Planner
    from segue.temporal.tree import Node, Tree


@dataclass(frozen=True)
class TransitionPlan:
    """What was decided while a transition was made; replayed, it makes the same film whatever the clock says.

    Args:
        nodes: of the tree, each [position, step, left parent, right parent, share, stop, wave]; keys have parents -1,
            and a stop of -1 is the end.
        grown: how many of the nodes were placed by the tree's planner; the others serve single frames.
        shots: what each frame shows: [node, node, share].
        ended: why the tree stopped growing.
        pictures: sha256 of the files that are keys, in the order of the keys.
        area: sha256 of the mask and the timing, as far as there are any.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    nodes: list[tuple[float, int, int, int, float, int, int]]
    grown: int
    shots: list[tuple[int, int, float]]
    ended: str
    pictures: list[str] = field(default_factory=list[str])
    area: list[str] = field(default_factory=list[str])


def flat(node: Node) -> tuple[float, int, int, int, float, int, int]:
    """A node as a plan states it."""
    left, right = node.parents or (-1, -1)
    return node.position, node.step, left, right, node.share, -1 if node.stop is None else node.stop, node.wave


def tree_of(plan: TransitionPlan) -> Tree:
    """The tree that a plan states."""
    from segue.temporal.tree import Node, Tree

    return Tree(
        tuple(
            Node(position, step, None if left < 0 else (left, right), share, None if stop < 0 else stop, wave)
            for position, step, left, right, share, stop, wave in plan.nodes
        )
    )


def why_ended(planner: Planner, branches: int) -> str:
    """Why a tree grew no further, in words."""
    from segue.temporal.plan import Adaptive

    if not isinstance(planner, Adaptive):
        return f"the tree was given: {branches} branches"
    if branches >= planner.max_branches:
        return f"the budget of {planner.max_branches} branches was used"
    return f"the budget of {planner.budget} seconds was used, with {branches} branches"
