"""How should latents be mixed, keys be aligned, and branches attend? Each way of it, on the same pairs of prompts.

    python benchmarks/structure.py -o runs/structure
    python benchmarks/structure.py -o runs/structure --pairs 2 --sheet one one-early-outer

Each film has 17 frames at even places of its line, not evenly seen, so that a variant answers for its own jumps. All
branches fork from both keys at one step. A row is written for each pair and variant, and what is there is not run
again. Measured with LPIPS on AlexNet: the length of the way, its variance and largest step; the distance of the two
keys, and how far each variant moves the second; ghosting; sharpness of the frames in between against that of the keys;
network rows, those of passengers included, and seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

import torch
from torch import Tensor

import segue
from segue.diffusion.solvers import find_solver
from segue.evaluation.ghosting import exposures
from segue.evaluation.intervals import mean_interval
from segue.evaluation.smoothness import steps_of
from segue.media.clip import TensorFrames
from segue.models.attention import attached, sites
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.models.perceptual import Lpips
from segue.temporal.alignment import Alignment
from segue.temporal.attention import SharedAttention
from segue.temporal.grow import Grower
from segue.temporal.keys import Keys
from segue.temporal.mix import Mix
from segue.temporal.structure import Interpolation, Structure
from segue.temporal.tree import Node, Tree
from segue.training.journal import save_sheet

FRAMES = 17
PAIRS = (
    ("a lion", "a tiger"), ("a red apple", "a green apple"), ("a sun", "a moon"), ("a car", "a bus"),
    ("a cat", "a panda"), ("a castle", "a volcano"), ("a blue heart", "a red star"), ("a tulip", "a sunflower"),
    ("an octopus", "a rocket"), ("a guitar", "a trumpet"), ("a robot", "a teddy bear"), ("a crab", "a butterfly"),
)  # fmt: skip
COLUMNS = ("largest", "pdv", "length", "keys", "moved", "ghosting", "worst_ghost", "sharpness", "rows", "seconds")


@dataclass(frozen=True)
class Variant:
    """One way of making a film.

    Args:
        fork: the share of the run at which branches fork.
        seeds: of the two keys.
        structure: how the second key is aligned.
        interpolation: how branches attend.
        mix: how latents are mixed.
    """

    fork: float = 0.4
    seeds: tuple[int, int] = (1, 2)
    structure: Structure = field(default_factory=Structure)
    interpolation: Interpolation = field(default_factory=Interpolation)
    mix: Mix = "whole"


ONE = (1, 1)
VARIANTS = {
    # How latents are mixed, with two seeds; and texts alone, where one seed leaves nothing else to mix.
    "whole": Variant(),
    "channels": Variant(mix="channels"),
    "linear": Variant(mix="linear"),
    "early-whole": Variant(fork=0.1),
    "early-channels": Variant(fork=0.1, mix="channels"),
    "early-linear": Variant(fork=0.1, mix="linear"),
    "text": Variant(fork=0.05, seeds=ONE),
    # The parts of structure, each alone.
    "noise.5": Variant(structure=Structure(noise=0.5)),
    "noise1": Variant(structure=Structure(noise=1.0)),
    "attention.5": Variant(structure=Structure(attention=0.5)),
    "attention1": Variant(structure=Structure(attention=1.0)),
    "attention1-whole-run": Variant(structure=Structure(attention=1.0, range=1.0)),
    "statistics.5": Variant(structure=Structure(statistics=0.5)),
    "statistics1": Variant(structure=Structure(statistics=1.0)),
    "statistics1-whole-run": Variant(structure=Structure(statistics=1.0, range=1.0)),
    # With one seed, which is how films are made where nothing else is asked for.
    "one": Variant(seeds=ONE),
    "one-attention.5": Variant(seeds=ONE, structure=Structure(attention=0.5)),
    "one-attention1": Variant(seeds=ONE, structure=Structure(attention=1.0)),
    "one-statistics.5": Variant(seeds=ONE, structure=Structure(statistics=0.5, range=1.0)),
    "one-outer": Variant(seeds=ONE, interpolation=Interpolation(1.0)),
    "one-outer-whole-run": Variant(seeds=ONE, interpolation=Interpolation(1.0, 1.0)),
    "one-inner": Variant(seeds=ONE, interpolation=Interpolation(1.0, 0.6, "inner")),
    "one-early": Variant(0.1, ONE),
    "one-early-outer.5": Variant(0.1, ONE, interpolation=Interpolation(0.5)),
    "one-early-outer": Variant(0.1, ONE, interpolation=Interpolation(1.0)),
    "one-early-outer-whole-run": Variant(0.1, ONE, interpolation=Interpolation(1.0, 1.0)),
    "one-early-outer-texts": Variant(0.1, ONE, interpolation=Interpolation(1.0, cross=True)),
    "one-early-outer-texts-whole-run": Variant(0.1, ONE, interpolation=Interpolation(1.0, 1.0, cross=True)),
    "one-early-inner": Variant(0.1, ONE, interpolation=Interpolation(1.0, 0.6, "inner")),
    "one-early-attention.5": Variant(0.1, ONE, Structure(attention=0.5)),
    "one-early-all": Variant(0.1, ONE, Structure(attention=0.5, statistics=0.5), Interpolation(1.0)),
}


@dataclass(frozen=True)
class Film:
    """What one variant made of one pair."""

    frames: Tensor
    rows: int
    seconds: float


def film(model: LatentDiffusion, pair: tuple[str, str], how: Variant, told: type[Keys] = Keys) -> Film:
    """The 17 frames, and what they took; `told` is how texts are mixed."""
    tally, sharing = Tally(), SharedAttention()
    steps, (width, height), scale = model.defaults.steps, model.defaults.size, model.defaults.guidance_scale
    texts = model.text([*pair, "", ""])
    grower = Grower(
        tally.watching(model.denoiser),
        model.schedule(steps, model.defaults.size, solver=model.defaults.solver),
        find_solver(model.defaults.solver).solver,
        told(texts[[0, 1]], texts[[2, 3]], (scale, scale), how.seeds),
        (model.codec.channels, height // model.codec.scale, width // model.codec.scale),
        model.device,
        batch=8,
        alignment=Alignment(how.structure, how.interpolation, how.mix, sharing),
    )
    fork = max(1, round(how.fork * steps))
    places = [i / (FRAMES - 1) for i in range(1, FRAMES - 1)]
    keys = Tree.of_keys(2)
    tree = keys.with_nodes(Node(place, fork, (0, 1), place, wave=1) for place in places)
    began = time.perf_counter()
    with torch.no_grad(), attached(sites(model.parts["unet"]), sharing):
        for names in (range(2), range(2, FRAMES)):
            for _ in grower.run(tree, names, frozenset({fork})):
                pass
        latents = torch.stack([grower.final(name) for name in tree.frames()])
        seconds = time.perf_counter() - began
        return Film(model.codec.decode(latents).float().clamp(0, 1).cpu(), tally.rows, seconds)


def sharpness(frames: Tensor) -> float:
    """Energy of the gradients of the frames in between, against that of the keys, which are mixed by place."""
    across, down = frames.diff(dim=3).square().mean((1, 2, 3)), frames.diff(dim=2).square().mean((1, 2, 3))
    energy, share = across + down, torch.linspace(0, 1, len(frames))
    return float((energy / (energy[0] * (1 - share) + energy[-1] * share))[1:-1].mean())


def measured(made: Film, plain: Tensor, distance: Lpips) -> dict[str, float]:
    """The numbers of one film; `plain` is its last frame where nothing was aligned."""
    clip = TensorFrames.rounded(made.frames)
    with torch.no_grad():
        steps, _ = steps_of(clip, distance)
        ghosts = exposures(clip).score[1:-1]
        apart, moved = (float(distance(a[None], made.frames[-1:])) for a in (made.frames[0], plain))
    return {
        "largest": max(steps),
        "pdv": 1000 * pvariance(steps),
        "length": sum(steps),
        "keys": apart,
        "moved": moved,
        "ghosting": float(ghosts.mean()),
        "worst_ghost": float(ghosts.max()),
        "sharpness": sharpness(made.frames),
        "rows": made.rows,
        "seconds": made.seconds,
    }


def read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows that are there."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return {(row["pair"], row["variant"]): row for row in rows}


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Means over pairs, and half a 95 % confidence interval of the mean largest step."""
    by: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by.setdefault(row["variant"], {})[row["pair"]] = row
    lines = [f"{'':28}{'pairs':>6}" + "".join(f"{name:>12}" for name in (*COLUMNS, "+- largest"))]
    for name in [name for name in VARIANTS if name in by]:
        found = by[name]
        means = [fmean(row[column] for row in found.values()) for column in COLUMNS]
        means.append(mean_interval([row["largest"] for row in found.values()]).half)
        lines.append(f"{name:28}{len(found):6d}" + "".join(f"{value:12.3f}" for value in means))
    return "\n".join(lines)


def main() -> None:
    """Write a line of JSON for each pair and variant, and print the table of all that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--pairs", type=int, default=len(PAIRS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--sheet", nargs="+", choices=list(VARIANTS), help="draw these, a row each; measure nothing")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    model = segue.load(given.model)
    if given.sheet:
        shown = [film(model, pair, VARIANTS[name]).frames for pair in PAIRS[: given.pairs] for name in given.sheet]
        save_sheet(given.out / "sheet.png", torch.cat(shown), FRAMES)
        return
    path, distance = given.out / "rows.jsonl", Lpips.load("alex")
    done = read(path)
    for pair in PAIRS[: given.pairs]:
        named, plain = " -> ".join(pair), dict[tuple[int, int], Tensor]()
        for name in given.variants:
            how = VARIANTS[name]
            if (named, name) in done:
                continue
            if how.seeds not in plain:
                plain[how.seeds] = film(model, pair, Variant(1 - 1e-9 - 1 / model.defaults.steps, how.seeds)).frames[-1]
            row = {"pair": named, "variant": name, **measured(film(model, pair, how), plain[how.seeds], distance)}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print(table(read(path).values()))


if __name__ == "__main__":
    main()
