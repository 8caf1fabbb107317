"""The tree of latent blending's own README, spelled in two ways, and drawn.

Two keys begin at step 0; there are 3 branches from step 3 on, 7 from step 6, and 10 from step 9. Given as shares of the
run, the same tree fits any number of steps.
"""

from __future__ import annotations

from pathlib import Path

import segue
from segue.temporal.drawing import draw
from segue.temporal.plan import Fixed
from segue.temporal.tree import Tree

STEPS = 12


def planned(branching: segue.Branching) -> Tree:
    """The whole tree, before anything is computed; only fixed trees are known so early."""
    planner = branching.planner(STEPS, keys=2, frames=10)
    if not isinstance(planner, Fixed):
        raise SystemExit("this tree grows while it is computed")
    return planner.resolve(2)


by_steps = planned(segue.Branching(branches=(2, 3, 7, 10), at=(0, 3, 6, 9)))
by_shares = planned(segue.Branching(branches=(2, 3, 7, 10), at=(0, 0.25, 0.5, 0.75)))
if by_steps != by_shares:
    raise SystemExit("the two spellings should give one tree")

Path("tree.svg").write_text(draw(by_steps, STEPS, ["a red apple", "a green apple"]), encoding="utf-8")
print(f"wrote tree.svg: {len(by_steps.nodes)} trajectories, {len(by_steps.frames())} of them run to the end")
