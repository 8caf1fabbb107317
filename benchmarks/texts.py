"""How should the texts of two keys be mixed between them? In a line, spherically, or with lengths put right.

    python benchmarks/texts.py -o runs/texts --corpus runs/corpus
    python benchmarks/texts.py -o runs/texts --sheet early-line early-whole --pairs 3

The films of benchmarks/structure.py, with one seed for both keys. What lies between them is then mostly the text's
doing where branches fork at a twentieth of the run ("early"), and half of it where they fork as films do by default
("usual"). Their frames lie at even places. A way of mixing that only moves them along the same pictures would seem to
help; so it is also tried in whole transitions, whose frames lie at even distances ("film"). A row is written for each
pair and variant, and what is there is not run again. Besides what that benchmark measures: the Fréchet distance of all
pictures in between to pictures of a corpus, in the features of efficientnet-lite0; all against a line's, pair by pair,
with 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import torch
from judge import SIDE, Shelf
from safetensors.torch import load_file, save_file
from structure import FRAMES, PAIRS, Film, Variant, film, measured, read
from torch import Tensor

import segue
from segue.diffusion.guidance import classifier_free
from segue.evaluation.features import extract
from segue.evaluation.frechet import frechet_distance
from segue.evaluation.intervals import Interval, jackknife, mean_interval
from segue.models.bundle import LatentDiffusion
from segue.models.perceptual import EfficientNetFeatures, Lpips
from segue.temporal.keys import Keys
from segue.temporal.mix import mixed
from segue.training.journal import save_sheet
from segue.types import Conditioning, Guided

MORE = (
    ("a dog", "a fox"), ("a green apple", "an orange"), ("a mountain", "a wave"), ("a penguin", "an owl"),
)  # fmt: skip
COLUMNS = ("largest", "pdv", "length", "ghosting", "worst_ghost", "sharpness")
MANY = 800
"""Pictures of the corpus."""


class Line(Keys):
    """Texts are mixed in a line."""

    def at(self, positions: Sequence[float]) -> Guided:
        """The guided conditioning, as `Keys` has it but for how texts are mixed."""
        places = [self.place(position) for position in positions]
        left, right = [key for key, _ in places], [min(key + 1, len(self) - 1) for key, _ in places]
        share = torch.tensor([share for _, share in places], dtype=torch.float64)
        positive, negative = (
            Conditioning(
                torch.stack([self.one(*row) for row in zip(part.text[left], part.text[right], share, strict=True)])
            )
            for part in (self.positive, self.negative)
        )
        return classifier_free(positive, negative, self.guidance_at(positions), start=self.guidance_start)

    def one(self, a: Tensor, b: Tensor, share: Tensor) -> Tensor:
        """The tokens of one row, (n, d)."""
        return a.lerp(b, float(share))


class Whole(Line):
    """One angle for all tokens."""

    def one(self, a: Tensor, b: Tensor, share: Tensor) -> Tensor:
        """The tokens of one row, (n, d)."""
        return mixed(a[None], b[None], share[None])[0]


class Tokens(Line):
    """An angle for each token."""

    def one(self, a: Tensor, b: Tensor, share: Tensor) -> Tensor:
        """The tokens of one row, (n, d)."""
        return mixed(a[None], b[None], share[None], "channels")[0]


class Lengths(Line):
    """A line, with the length of each token put right."""

    def one(self, a: Tensor, b: Tensor, share: Tensor) -> Tensor:
        """The tokens of one row, (n, d)."""
        return torch.cat(
            [mixed(x[None, None], y[None, None], share[None], "linear")[0] for x, y in zip(a, b, strict=True)]
        )


WAYS: dict[str, type[Keys]] = {"line": Line, "whole": Whole, "tokens": Tokens, "lengths": Lengths}
FORKS = {"early": 0.05, "usual": 0.4, "film": None}
VARIANTS = {f"{when}-{way}": (fork, kind) for when, fork in FORKS.items() for way, kind in WAYS.items()}


def made(model: LatentDiffusion, pair: tuple[str, str], name: str) -> Film:
    """What a variant makes of a pair."""
    fork, kind = VARIANTS[name]
    if fork is not None:
        return film(model, pair, Variant(fork, (1, 1)), kind)

    def at(keys: Keys, positions: Sequence[float]) -> Guided:
        told = (keys.positive, keys.negative, keys.guidance_scale, keys.seeds, keys.damper)
        return kind(*told, guidance_start=keys.guidance_start).at(positions)

    began = time.perf_counter()
    with patch.object(Keys, "at", at):
        clip = segue.Transition(pair, seeds=(1,), seconds=FRAMES, fps=1).run(model)
    return Film(clip.frames[0:FRAMES], 0, time.perf_counter() - began)


def apart(one: Sequence[Tensor], other: Sequence[Tensor], corpus: Tensor) -> Interval:
    """How much further from the corpus the pictures of `one` are than those of `other`, with the same pairs in both."""

    def beyond(left_out: int | None = None) -> float:
        kept = [i for i in range(len(one)) if i != left_out]
        first, second = (
            frechet_distance(torch.cat([found[i] for i in kept]), corpus, "efficientnet-lite0").value
            for found in (one, other)
        )
        return first - second

    return jackknife(beyond(), [beyond(i) for i in range(len(one))])


def table(rows: dict[tuple[str, str], dict[str, Any]], features: dict[str, Tensor], corpus: Tensor | None) -> str:
    """Means over pairs, and differences from the line of the same fork on the pairs that have both."""
    heads = (*COLUMNS, "largest-line", "pdv-line", "ghosting-line", "sharpness-line", "frechet-line")
    lines = [f"{'':16}{'pairs':>6}" + "".join(f"{name:>18}" for name in heads)]
    for name in VARIANTS:
        line = name.partition("-")[0] + "-line"
        found = {pair: row for (pair, variant), row in rows.items() if variant == name and (pair, line) in rows}
        if not found:
            continue
        cells = [f"{fmean(row[column] for row in found.values()):.4f}" for column in COLUMNS]
        if name != line:
            for column in ("largest", "pdv", "ghosting", "sharpness"):
                away = mean_interval([row[column] - rows[pair, line][column] for pair, row in found.items()])
                cells.append(f"{away.value:+.4f} ±{away.half:.4f}")
            if corpus is not None:
                sides = ([features[f"{pair}|{variant}"] for pair in found] for variant in (name, line))
                further = apart(next(sides), next(sides), corpus)
                cells.append(f"{further.value:+.0f} ±{further.half:.0f}")
        lines.append(f"{name:16}{len(found):6d}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    """Write a line of JSON for each pair and variant, and print the table of all that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--corpus", type=Path, help="a folder that `segue train corpus` wrote")
    parser.add_argument("--pairs", type=int, default=len(PAIRS + MORE))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--most", type=int, default=10**9, help="films to make in this call")
    parser.add_argument("--sheet", nargs="+", choices=list(VARIANTS), help="draw these, a row each; measure nothing")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    model, pairs = segue.load(given.model), (PAIRS + MORE)[: given.pairs]
    if given.sheet:
        shown = [made(model, pair, name).frames for pair in pairs for name in given.sheet]
        save_sheet(given.out / "sheet.png", torch.cat(shown), FRAMES)
        return
    rows, kept = given.out / "rows.jsonl", given.out / "features.safetensors"
    distance, look = Lpips.load("alex"), EfficientNetFeatures.load(side=SIDE)
    features = load_file(kept) if kept.is_file() else dict[str, Tensor]()
    todo = [(pair, name) for pair in pairs for name in given.variants if (" -> ".join(pair), name) not in read(rows)]
    for pair, name in todo[: given.most]:
        found, named = made(model, pair, name), " -> ".join(pair)
        features[f"{named}|{name}"] = extract(look, found.frames[1:-1])
        save_file(features, kept.with_suffix(".part"))
        kept.with_suffix(".part").replace(kept)
        row = {"pair": named, "variant": name, **measured(found, found.frames[-1], distance)}
        with rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    corpus, known = None, given.out / "corpus.safetensors"
    if known.is_file():
        corpus = load_file(known)["features"]
    elif given.corpus:
        shelf = Shelf.open(given.corpus)
        corpus = extract(look, shelf.bytes(shelf.some(range(len(shelf.lines)), MANY)))
        save_file({"features": corpus}, known)
    print(table(read(rows), features, corpus))


if __name__ == "__main__":
    main()
