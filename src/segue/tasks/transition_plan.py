"""What was decided while a transition was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from segue.errors import TaskError

if TYPE_CHECKING:
    from segue.temporal.plan import Planner
    from segue.temporal.simplex import Route
    from segue.temporal.tree import Node, Tree


@dataclass(frozen=True)
class TransitionPlan:
    """What was decided while a transition was made; replayed, it makes the same film whatever the clock says.

    Args:
        nodes: of the tree, each [position, step, left parent, right parent, share, stop, wave]; keys have parents -1
            (and a step above 0 where they are mixes of several), and a stop of -1 is the end.
        grown: how many of the nodes were placed by the tree's planner; the others serve single frames.
        shots: what each frame shows: [node, node, share].
        ended: why the tree stopped growing.
        pictures: sha256 of the files that are keys, in the order of the keys.
        area: sha256 of the mask and the timing, as far as there are any.
        depths: where branches fork first between every two keys, as shares of the run, if previews chose them.
        preview_calls: of the network, for these previews.
        preview_rows: likewise.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    nodes: list[tuple[float, int, int, int, float, int, int]]
    grown: int
    shots: list[tuple[int, int, float]]
    ended: str
    pictures: list[str] = field(default_factory=list[str])
    area: list[str] = field(default_factory=list[str])
    depths: list[float] = field(default_factory=list[float])
    preview_calls: int = 0
    preview_rows: int = 0

    def previewed(self, depths: Sequence[float], calls: int, rows: int) -> TransitionPlan:
        """The same plan, which says what depths were chosen between every two keys, and what the network was asked."""
        said = ", ".join(f"{depth:.3g}" for depth in depths)
        ended = f"{self.ended}; depth {said} by previews, which took {rows} rows"
        return replace(self, ended=ended, depths=list(depths), preview_calls=calls, preview_rows=rows)


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


def checked_tree(plan: TransitionPlan, route: Route, frames: int, steps: int) -> Tree:
    """The tree that a plan states, if it can be replayed.

    Args:
        plan: as it was stored.
        route: the keys that the film passes.
        frames: how many it has.
        steps: of a run.

    Raises:
        TaskError: the plan is damaged, or one of another task.
    """
    tree = tree_of(plan)
    tree.check(steps)
    begun = {name for name, node in enumerate(tree.nodes) if node.is_key and node.step > 0}
    if tree.keys != len(route) or begun != set(route.blends) or len(plan.shots) != frames:
        raise TaskError("the plan does not belong to this task: it has other keys or another number of frames")
    shown = set(tree.frames())
    for left, right, share in plan.shots:
        if not {left, right} <= shown or not 0 <= share <= 1:
            raise TaskError(f"the plan is damaged: it has no frames {left} and {right} to mix by {share}")
    return tree


def row_steps_of(planner: Planner, keys: int, steps: int) -> int:
    """Row-steps that growing a tree will take, keys included, for a progress bar."""
    from segue.temporal.plan import Adaptive, Fixed, Replay
    from segue.temporal.preview import Chosen

    planner = planner.adaptive if isinstance(planner, Chosen) else planner
    if isinstance(planner, Adaptive):
        # Where the depth varies, the first key's stands for all: what counts is that the bar moves evenly.
        levels = planner.levels()
        gaps, left, total = keys - 1, planner.max_branches, keys * steps
        for wave in range(64):
            count = min(gaps * 2**wave, left)
            total += count * (steps - levels[min(wave, len(levels) - 1)])
            left -= count
        return total
    if not isinstance(planner, Fixed | Replay):
        raise TypeError(f"cannot tell how long {type(planner).__name__} will take")
    full = planner.tree if isinstance(planner, Replay) else planner.resolve(keys)
    return sum((steps if node.stop is None else node.stop) - node.step for node in full.nodes)


def why_ended(planner: Planner, branches: int) -> str:
    """Why a tree grew no further, in words."""
    from segue.temporal.plan import Adaptive
    from segue.temporal.preview import Chosen

    grown = planner.adaptive if isinstance(planner, Chosen) else planner
    if not isinstance(grown, Adaptive):
        return f"the tree was given: {branches} branches"
    if branches >= grown.max_branches:
        return f"the budget of {grown.max_branches} branches was used"
    return f"the budget of {grown.budget} seconds was used, with {branches} branches"
