"""What depth does: motion, ghosting and novelty of in-betweens, from forks at a tenth of the run to nearly its end.

    python benchmarks/depth.py -o runs/depth                     # a row for each pair and depth; goes on where it was
    python benchmarks/depth.py -o runs/depth --plot docs/depth.svg

Nine pictures at even places between two keys all fork at one depth, from the keys. Of each film: the flow's mean length
(in widths of the picture, summed over the film), the mean ghosting of the in-betweens (`evaluation/ghosting`), and
their novelty: what is left of an in-between when the nearest pixel mix of the two keys is taken away, as a share of the
distance between the keys. The plot shows means over pairs with 95 % intervals, each curve as a share of its highest.
"auto" is the depth that previews choose for each pair, as `--depth auto` does; it is compared with the usual depth,
pair by pair.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import segue
from segue.diffusion.solvers import find_solver
from segue.evaluation.ghosting import exposures
from segue.evaluation.intervals import mean_interval
from segue.evaluation.movement import movement
from segue.media.clip import TensorFrames, to_uint8
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.models.perceptual import LatentDistance
from segue.tasks.branching import AUTO, MOTION, USUAL_DEPTH
from segue.tasks.depths import DepthChoice
from segue.tasks.frames import Developer
from segue.temporal.grow import Grower, grow
from segue.temporal.keys import Keys
from segue.temporal.plan import Fixed, Level
from segue.temporal.ruler import Ruler
from segue.temporal.tree import Tree
from segue.types import silent

PAIRS = [
    ("a lion", "a tiger"), ("a red apple", "a lemon"), ("the sun", "a crescent moon"), ("a red car", "a bus"),
    ("a cat face", "a pizza"), ("a castle", "a volcano"), ("a red heart", "a star"), ("a tulip", "a sunflower"),
    ("an octopus", "a rocket"), ("a guitar", "a trumpet"), ("a robot", "a teddy bear"), ("a crab", "a butterfly"),
]  # fmt: skip
DEPTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
FRAMES = 9
CURVES = {"motion": "#c0392b", "ghosting": "#2c3e50", "novelty": "#27ae60"}


@dataclass(frozen=True)
class Film:
    """The two keys and what lies between them, all forked at one depth, as pictures; and what the depth was."""

    frames: torch.Tensor
    depth: float
    preview_rows: int = 0


def film(model: LatentDiffusion, pair: tuple[str, str], depth: float | str, steps: int) -> Film:
    """A film at a depth, or at the one that previews choose."""
    texts = model.text([*pair, "", ""])
    scale, size = model.defaults.guidance_scale, model.defaults.size
    shape = (model.codec.channels, size[1] // model.codec.scale, size[0] // model.codec.scale)
    began = model.defaults.guidance_start
    keys = Keys(texts[[0, 1]], texts[[2, 3]], (scale, scale), (1, 2), guidance_start=began)
    solver = find_solver(model.defaults.solver).solver
    tally = Tally(timed=False)
    denoiser = tally.watching(model.denoiser)
    grower = Grower(denoiser, model.schedule(steps, size), solver, keys, shape, model.device, batch=8)
    rows = 0
    if isinstance(depth, str):
        for _ in grower.run(Tree.of_keys(2), range(2), frozenset(range(1, steps))):
            pass
        choice = DepthChoice(grower, Developer(model.codec), 8, MOTION, tally, silent)
        (depth,) = choice()
        rows = choice.rows
    planner = Fixed((Level(0, 2), Level(min(max(1, round(depth * steps)), steps - 1), FRAMES)), steps)
    tree = Tree.of_keys(2)
    for grown in grow(grower, planner, Ruler(LatentDistance()), time.monotonic()):
        tree = grown.tree
    frames = model.codec.decode(torch.stack([grower.final(name) for name in tree.frames()])).float().cpu()
    return Film(frames, depth, rows)


def novelty(frames: torch.Tensor) -> float:
    """The share of in-betweens that is in no pixel mix of the first and the last frame."""
    first, span = frames[0].flatten(), (frames[-1] - frames[0]).flatten()
    away = frames[1:-1].flatten(1) - first
    share = (away @ span / (span @ span)).clamp(0, 1)
    return float((away - share[:, None] * span).norm(dim=1).mean() / span.norm())


def measured(frames: torch.Tensor) -> dict[str, float]:
    """The three numbers of a film."""
    clip = TensorFrames(to_uint8(frames))
    speed = movement(clip).speed
    ghosts = exposures(clip).score[1:-1]
    return {
        "motion": float(speed[~speed.isnan()].sum()),
        "ghosting": float(ghosts.mean()),
        "novelty": novelty(frames),
    }


def plot(rows: Sequence[dict[str, object]], path: Path) -> None:
    """The three curves over depth, with their intervals, as SVG."""
    wide, high, edge = 640, 360, 48
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="12">'
    ]
    parts.append(f'<rect width="{wide}" height="{high}" fill="white"/>')
    rows = [row for row in rows if row["depth"] != AUTO]
    depths = sorted({float(str(row["depth"])) for row in rows})

    def at(depth: float, value: float) -> tuple[float, float]:
        return edge + depth * (wide - 2 * edge), high - edge - value * (high - 2 * edge)

    for depth in depths:
        x, y = at(depth, 0)
        parts.append(f'<text x="{x:.0f}" y="{y + 18:.0f}" text-anchor="middle">{depth:g}</text>')
    parts.append(f'<text x="{wide / 2}" y="{high - 10}" text-anchor="middle">depth</text>')
    for number, (name, colour) in enumerate(CURVES.items()):
        found = [mean_interval([float(str(row[name])) for row in rows if row["depth"] == depth]) for depth in depths]
        top = max(one.value + one.half for one in found)
        centre, half = [one.value / top for one in found], [one.half / top for one in found]
        line = " ".join("{:.1f},{:.1f}".format(*at(d, c)) for d, c in zip(depths, centre, strict=True))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for d, c, h in zip(depths, centre, half, strict=True):
            (x, low), (_, up) = at(d, c - h), at(d, c + h)
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{up:.1f}" stroke="{colour}"/>')
        label = f"{name} (1 is {top:.3g})"
        parts.append(f'<text x="{wide - edge}" y="{24 + 16 * number}" text-anchor="end" fill="{colour}">{label}</text>')
    path.write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")


def compare(rows: Sequence[dict[str, Any]]) -> None:
    """Print what previews chose, and how it differs from the usual depth, with 95 % intervals over pairs."""
    auto, usual = ({tuple(row["pair"]): row for row in rows if row["depth"] == depth} for depth in (AUTO, USUAL_DEPTH))
    pairs = [pair for pair in PAIRS if pair in auto and pair in usual]
    print(json.dumps({"chosen": [auto[pair]["chosen"] for pair in pairs]}))
    for name in CURVES:
        change = mean_interval([auto[pair][name] - usual[pair][name] for pair in pairs])
        print(f"{name}: auto - {USUAL_DEPTH:g} = {change.value:+.4f} ± {change.half:.4f}")


def main() -> None:
    """Measure what is not measured yet, print the means, and draw them if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--pairs", type=int, default=len(PAIRS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/depth"))
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    done = {(tuple(row["pair"]), row["depth"]) for row in rows}
    model = segue.load(given.model)
    for pair in PAIRS[: given.pairs]:
        for depth in (*DEPTHS, AUTO):
            if (pair, depth) not in done:
                with torch.no_grad():
                    made = film(model, pair, depth, given.steps)
                    rows.append({"pair": pair, "depth": depth, **measured(made.frames)})
                if depth == AUTO:
                    rows[-1] |= {"chosen": made.depth, "preview_rows": made.preview_rows}
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    for depth in (*DEPTHS, AUTO):
        means = {name: np.mean([row[name] for row in rows if row["depth"] == depth]) for name in CURVES}
        print(json.dumps({"depth": depth, **{name: round(float(mean), 4) for name, mean in means.items()}}))
    compare(rows)
    if given.plot is not None:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
