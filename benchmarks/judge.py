"""The judge that benchmarks of models ask, and the corpora that it learns from and is measured on."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segue.evaluation.colour import SECTORS, object_colours
from segue.evaluation.features import floats
from segue.evaluation.judge_file import read_about, read_judge, write_judge
from segue.evaluation.recognition import Judge, Renders, accuracy, train_judge
from segue.models.perceptual import EfficientNetFeatures

SIDE = 128  # pixels at which pictures are judged; so large are the corpora
SHADED = {"3d": "shaded", "gradient": "shaded"}
"""Neither a person nor the judge tells these two apart with certainty, so they are judged as one style."""


@dataclass(frozen=True)
class Scale:
    """How much is generated and looked at."""

    taught: int = 24  # renders of each thing that the judge learns from, and a third as many of each drawn style
    kept_back: int = 300  # renders of each style that the judge is measured on
    copies: int = 256  # pictures that the codec is measured on
    seeds: int = 2  # pictures of each noun
    colour_seeds: int = 4  # pictures of each unseen combination
    styled: int = 16  # nouns that are asked for in each style
    diverse: int = 8  # prompts of DIVERSE, and seeds of each
    nouns: int | None = None
    steps: int | None = None


QUICK = Scale(4, 12, 8, 1, 1, 2, 2, 4, 2)


@dataclass(frozen=True)
class Shelf:
    """A corpus whose pictures stay on the disk."""

    folder: Path
    pictures: NDArray[np.uint8]
    lines: list[dict[str, Any]]

    @classmethod
    def open(cls, folder: Path) -> Shelf:
        """What `segue train corpus` wrote."""
        if not (folder / "sources.json").is_file():
            raise SystemExit(f"there is no corpus in {folder}; segue train corpus builds one, see --help")
        lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]
        return cls(folder, np.load(folder / "pictures.npy", mmap_mode="r"), lines)

    def canonical(self, row: int) -> bool:
        """Whether the object stands in the middle, upright, at the usual size, be it mirrored or not."""
        placed = self.lines[row]["placement"]
        return not (placed["dx"] or placed["dy"] or placed.get("angle")) and placed["scale"] == 0.9

    def style(self, row: int) -> str:
        """How the picture is drawn, as far as a judge can tell."""
        said = str(self.lines[row].get("style", "3d"))
        return SHADED.get(said, said)

    def renders(self, rows: Sequence[int]) -> Renders:
        """The pictures of these rows, with their labels."""
        nouns, styles = zip(*((self.lines[row]["noun"], self.style(row)) for row in rows), strict=True)
        return Renders(self.bytes(rows), nouns, styles)

    def bytes(self, rows: Sequence[int]) -> torch.Tensor:
        """The pictures of these rows, (n, h, w, 3)."""
        return torch.from_numpy(np.array(self.pictures[list(rows)]))

    def some(self, rows: Sequence[int], count: int, seed: int = 0) -> list[int]:
        """Up to so many of the rows, without repeats."""
        rng = np.random.default_rng(seed)
        return sorted(int(row) for row in rng.choice(list(rows), min(count, len(rows)), replace=False))


def say(what: str, done: float, total: float) -> None:
    """Progress, on one line of the error stream, where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r{what}: {done:.0f} of {total:.0f}    ", end="" if done < total else "\n", file=sys.stderr, flush=True)


def learned(shelf: Shelf, scale: Scale) -> list[int]:
    """The rows that the judge learns from: moved pictures alone.

    In the middle, a thing on a ground is the same picture in corpora of all seeds, the one that a generator learned
    from among them. Of moved ones the corpora of two seeds share hardly any: 3 in 7000, moved by less than a pixel.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for row, line in enumerate(shelf.lines):
        if not shelf.canonical(row):
            groups.setdefault((line["concept"], line.get("style", "3d")), []).append(row)
    return [
        row
        for (_, style), rows in groups.items()
        for row in shelf.some(rows, scale.taught if style == "3d" else -(-scale.taught // 3))
    ]


def measured(shelf: Shelf, scale: Scale) -> dict[str, Renders]:
    """What the judge is measured on, by style: pictures that are not moved."""
    kept: dict[str, list[int]] = {}
    for row, line in enumerate(shelf.lines):
        if shelf.canonical(row):
            kept.setdefault(line.get("style", "3d"), []).append(row)
    return {style: shelf.renders(shelf.some(rows, scale.kept_back)) for style, rows in kept.items()}


def find_judge(shelf: Shelf, scale: Scale) -> Judge:
    """The judge of a corpus: the one that lies in its folder, or a new one, which is put there."""
    features = EfficientNetFeatures.load(side=SIDE)
    sources = json.loads((shelf.folder / "sources.json").read_text("utf-8"))
    rows = learned(shelf, scale)
    chosen = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    about = {"features": features.name, "rows": chosen, "corpus": sources["pictures_sha256"]}
    path = shelf.folder / f"judge-{scale.taught}.safetensors"
    if path.is_file():
        said = read_about(path)
        if {key: said.get(key) for key in about} == about:
            return read_judge(path)
    judge = train_judge(features, shelf.renders(rows), progress=say)
    write_judge(judge, path, about)
    return judge


def measure_judge(judge: Judge, shelf: Shelf, scale: Scale) -> dict[str, Any]:
    """What the judge says about renders that it never saw, and what the hues say about their colours."""
    table: dict[str, Any] = {}
    for style, renders in sorted(measured(shelf, scale).items()):
        table[style] = asdict(accuracy(judge(renders.pictures, progress=say), renders.nouns, renders.styles))
    rows = [
        row
        for row, line in enumerate(shelf.lines)
        if line["colour"] in SECTORS and line.get("style", "3d") == "3d" and shelf.canonical(row)
    ]
    rows = shelf.some(rows, scale.kept_back)
    colours = [colour.word for colour in object_colours(floats(shelf.bytes(rows)))]
    agreed = [word == shelf.lines[row]["colour"] for word, row in zip(colours, rows, strict=True)]
    return {"renders": table, "colour": sum(agreed) / len(agreed), "nouns": len(judge.nouns)}
