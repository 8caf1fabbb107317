"""Five ways from one picture to another, at equal network rows and at equal time: which is smooth, and which is sharp?

    python benchmarks/transition.py -o runs/transition --corpus runs/judge     # goes on where it was
    python benchmarks/transition.py -o runs/transition --sheet 0 9 30          # films that are there, a row for each

The methods are in `methods.py`. All draw the same keys: 40 pairs of prompts, seeds of their own for each, the model's
own steps, guidance and solver. All show 17 frames.

Equal rows: each method may spend the network rows of 17 pictures that are drawn alone (two a step where there is
guidance), which the walk takes to the row. Methods whose pictures cost less draw more, and choose; the cross-fade has
no use for more than two pictures. So no method has to do with fewer steps than another, or to leave frames out.

Equal time: each may take as long as the walk. Seconds for a row, with all that a method does beside the network (it
decodes, it measures), are means over the films of the first table; the budget of the second is the first, in rows,
times the walk's over the method's. Seconds are those of the processor, all threads together, where the model runs on
one, since others are at work on most machines; those of the clock elsewhere. They end with decoded pictures.

The 40 pairs were not chosen: the nouns of `training/concepts.toml`, sorted, were shuffled by Python's random.Random(0)
and taken two by two. Of every five pairs the fourth is in colours of the same generator, and the first thing of the
fifth is one of the combinations of thing and colour that no training picture shows, shuffled next by it. The first
eight pairs were for choosing the settings of ours; the others are measured.

Fidelity is the Fréchet distance of all in-betweens of a method to the corpus' upright 3D renders on white, in
efficientnet-lite0 stage statistics, each in units of its deviation over the whole corpus. Its interval is a jackknife
over pairs.
Means have Student's 95 % intervals over pairs, and so have the paired differences that the verdict is made of.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import pvariance
from typing import Any

import numpy as np
import torch
from judge import SIDE, Shelf
from methods import FRAMES, METHODS, Case, Stage, rows_of
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from verdict import report

import segue
from segue.errors import SegueError
from segue.evaluation.features import extract
from segue.evaluation.ghosting import exposures
from segue.evaluation.smoothness import steps_of
from segue.media.clip import TensorFrames
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.models.perceptual import EfficientNetDistance, EfficientNetFeatures, is_here
from segue.tasks.branching import Branching
from segue.training.journal import save_sheet
from segue.types import Perceptual

CHOOSING = (
    ("an eggplant", "a cat face"), ("a hammer", "a swan"), ("a teddy bear", "an evergreen tree"),
    ("a purple delivery truck", "a red crystal ball"), ("a red turtle", "a rainbow"), ("a star", "a horse face"),
    ("a turtle", "a ghost"), ("a frog", "a palm tree"),
)  # fmt: skip
PAIRS = (
    ("a teal dolphin", "a purple sun"), ("a blue violin", "a fox"), ("a crying face", "an anchor"),
    ("a croissant", "a shark"), ("a tulip", "an ear of corn"), ("an orange violin", "a blue lollipop"),
    ("a purple T-Rex", "an owl"), ("a cherries", "a running shoe"), ("a trumpet", "a kite"),
    ("a soccer ball", "a locomotive"), ("a yellow chicken", "a green light bulb"),
    ("a green car", "a deciduous tree"), ("a baby chick", "an angry face"),
    ("a smiling face with heart-eyes", "a zebra"), ("a lemon", "a snow-capped mountain"),
    ("a red honeybee", "a blue bell"), ("a green butterfly", "a heart"), ("a bomb", "a cupcake"),
    ("a T-Rex", "a mouse face"), ("a basketball", "a dress"), ("a purple butterfly", "an orange key"),
    ("a green cat face", "a cheese wedge"), ("an apple", "a crescent moon"), ("a bus", "a koala"),
    ("a cup of coffee", "a fire engine"), ("a pink robot", "a yellow volcano"), ("a blue rose", "a carrot"),
    ("a mushroom", "a snail"), ("a tornado", "a four leaf clover"), ("a dog face", "a pizza"),
    ("a red pencil", "a purple water wave"), ("a red dress", "a rose"), ("a lady beetle", "an avocado"),
    ("an elephant", "a cherry blossom"), ("a grinning face", "an alien"), ("a red hot pepper", "an orange scissors"),
    ("a pink elephant", "a wrapped gift"), ("a snowflake", "a gem stone"), ("a pear", "a desert island"),
    ("a globe", "a penguin"),
)  # fmt: skip
TABLES = ("rows", "time")
SAMPLE = 1000
"""Pictures of the corpus that tell how much its features vary."""
ALWAYS_ALIKE = ("cross-fade", "walk", "ours")
"""Methods that make the same film for all budgets that it fits into."""


@dataclass
class Bench:
    """What all films are made and measured with.

    Args:
        model: whose network calls are counted in `tally`.
        tally: of them.
        placing: the name of the distance that methods place their frames by, and that steps are told in.
        distance: that one.
        other: a second one, which no method has placed its frames by.
        features: for fidelity; None where they are not at hand, like `other`.
        steps: of every picture.
        out: the folder of rows, films and features.
    """

    model: LatentDiffusion
    tally: Tally
    placing: str
    distance: Perceptual
    other: Perceptual | None
    features: EfficientNetFeatures | None
    steps: int
    out: Path

    @property
    def budget(self) -> int:
        """The network rows of 17 pictures that are drawn alone."""
        return FRAMES * rows_of(self.model.defaults, self.steps)

    def clock(self) -> float:
        """Seconds; see above."""
        return time.process_time() if self.model.device.type == "cpu" else time.perf_counter()

    def row(self, number: int, pair: tuple[str, str], method: str, table: str, budget: int) -> dict[str, Any]:
        """One film, made and measured; its frames and features are put beside the rows."""
        calls, rows, began = self.tally.calls, self.tally.rows, self.clock()
        case = Case(pair, (2 * number, 2 * number + 1), self.steps)
        with torch.no_grad():
            made = METHODS[method](Stage(case, self.model, self.distance, self.placing), budget)
        took = {"seconds": self.clock() - began, "calls": self.tally.calls - calls, "rows": self.tally.rows - rows}
        name = f"{number:02d}-{method}-{table}"
        save_sheet(self.out / "films" / f"{name}.png", made.frames, FRAMES)
        if self.features is not None:
            # In 8 bits, as the corpus is.
            found = extract(self.features, TensorFrames.rounded(made.frames)[1:-1])
            save_file({"found": found}, self.out / "features" / f"{name}.safetensors")
        about = {"number": number, "pair": list(pair), "method": method, "table": table, "film": name}
        settings = {"model": self.model.fingerprint, "steps": self.steps, "distance": self.placing, "budget": budget}
        return {**about, **settings, "native": made.native, **took, **self.measured(made.frames)}

    def measured(self, frames: Tensor) -> dict[str, float]:
        """The numbers of one film."""
        clip = TensorFrames.rounded(frames)
        with torch.no_grad():
            steps, _ = steps_of(clip, self.distance)
            ghosts = exposures(clip).score[1:-1]
            found = {"length": sum(steps), "pdv": 1000 * pvariance(steps), "largest": max(steps)}
            if self.other is not None:
                other, _ = steps_of(clip, self.other)
                found |= {"other_pdv": 1000 * pvariance(other), "other_largest": max(other)}
        return {**found, "ghosting": float(ghosts.mean()), "worst_ghosting": float(ghosts.max())}


def corpus_features(folder: Path, features: EfficientNetFeatures, out: Path) -> dict[str, Tensor]:
    """Of a corpus: "renders", the upright 3D ones on white, and "spread", how features vary over all that it shows.

    On white alone some features hardly vary, and what is nearly white would be worlds away from white. Kept beside the
    rows, as it takes a while.
    """
    shelf = Shelf.open(folder)
    sources = json.loads((folder / "sources.json").read_text("utf-8"))
    path = out / f"corpus-{sources['pictures_sha256'][:12]}.safetensors"
    if not path.is_file():
        rows = [
            row
            for row, line in enumerate(shelf.lines)
            if line.get("style", "3d") == "3d" and line["background"] == "white" and shelf.canonical(row)
        ]
        every = extract(features, shelf.bytes(shelf.some(range(len(shelf.lines)), SAMPLE)))
        spread = every.std(0).clamp(min=1e-3)
        save_file({"renders": extract(features, shelf.bytes(rows)) / spread, "spread": spread}, path)
    return load_file(path)


def read(path: Path, bench: Bench) -> list[dict[str, Any]]:
    """The rows that are there. Those of another model are in the way: tables would mix what cannot be compared."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    strange = [row for row in rows if (row["model"], row["steps"]) != (bench.model.fingerprint, bench.steps)]
    if strange:
        raise SystemExit(f"{path} has rows of another model or number of steps: choose another folder, or remove it")
    return rows


def budgets(rows: Sequence[dict[str, Any]], rows_of_all: int) -> dict[str, int]:
    """The rows of each method for the table of equal time, by what a row took in that of equal rows."""
    first = [row for row in rows if row["table"] == "rows"]
    took = {
        method: sum(row["seconds"] for row in first if row["method"] == method)
        / max(1, sum(row["rows"] for row in first if row["method"] == method))
        for method in METHODS
    }
    return {method: round(rows_of_all * took["walk"] / took[method]) for method in METHODS}


def measure(bench: Bench, pairs: int) -> list[dict[str, Any]]:
    """All rows of both tables; what is there is not made again."""
    path = bench.out / "rows.jsonl"
    rows = read(path, bench)

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    for table in TABLES:
        allowed = budgets(rows, bench.budget) if table == "time" else dict.fromkeys(METHODS, bench.budget)
        for number, pair in enumerate(PAIRS[:pairs]):
            for method in METHODS:
                known = {row["table"]: row for row in rows if (row["number"], row["method"]) == (number, method)}
                if table in known:
                    continue
                if table == "time" and method in ALWAYS_ALIKE and known["rows"]["rows"] <= allowed[method]:
                    add({**known["rows"], "table": table, "budget": allowed[method]})
                else:
                    add(bench.row(number, pair, method, table, allowed[method]))
            print(f"{table} {number + 1}/{pairs}: {pair[0]} to {pair[1]}", flush=True)
    return rows


def sheet(out: Path, numbers: Sequence[int]) -> None:
    """Films that are there as one picture: of each pair, the methods one below the other."""
    films = [out / "films" / f"{number:02d}-{method}-rows.png" for number in numbers for method in METHODS]
    strips = [np.asarray(Image.open(film)) for film in films]
    Image.fromarray(np.concatenate(strips)).save(out / "sheet.png")
    print(f"wrote {out}/sheet.png: {', '.join(METHODS)}, from top to bottom, for each pair")


def prepare(given: argparse.Namespace) -> Bench:
    """The model, and what there is to measure it with."""
    model, tally = segue.load(given.model), Tally()
    for folder in ("films", "features"):
        (given.out / folder).mkdir(parents=True, exist_ok=True)
    placing = next((name for name in ("lpips-alex", "efficientnet-lite0") if is_here(name)), "pixels")
    distance = Branching(distance=placing).perceptual()
    features, other = None, None
    if is_here("efficientnet-lite0"):
        features = EfficientNetFeatures.load(side=SIDE)
        other = EfficientNetDistance.load() if placing != "efficientnet-lite0" else None
    counted = replace(model, denoiser=tally.watching(model.denoiser))
    return Bench(counted, tally, placing, distance, other, features, given.steps or model.defaults.steps, given.out)


def main() -> None:
    """Write a line of JSON for each film, and print both tables and what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/transition"))
    parser.add_argument("--model", default=None, help="as segue.load takes it")
    parser.add_argument("--corpus", type=Path, help="what in-betweens are compared with: see benchmarks/models.py")
    parser.add_argument("--pairs", type=int, default=len(PAIRS), help="so many of the 40 only")
    parser.add_argument("--steps", type=int, help="instead of the model's own")
    parser.add_argument("--sheet", type=int, nargs="+", metavar="NUMBER", help="draw films of these pairs, from 0")
    given = parser.parse_args()
    if given.sheet:
        sheet(given.out, given.sheet)
        return
    try:
        bench = prepare(given)
        rows = measure(bench, given.pairs)
        wanted = [row for row in rows if row["number"] < given.pairs]
        corpus: dict[str, Tensor] | None = None
        if given.corpus is not None and bench.features is not None:
            corpus = corpus_features(given.corpus, bench.features, given.out)
    except SegueError as error:
        raise SystemExit(str(error)) from None
    if corpus is None:
        print(report(wanted, {}, None))
        return
    files = {row["film"]: given.out / "features" / f"{row['film']}.safetensors" for row in wanted}
    found = {film: load_file(file)["found"] / corpus["spread"] for film, file in files.items()}
    print(report(wanted, found, corpus["renders"]))


if __name__ == "__main__":
    main()
