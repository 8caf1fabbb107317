"""What a small decoder is worth: how near it comes to a model's own, and what changes in films that it measures.

    python benchmarks/preview.py runs/unseen --model emoji --preview auto -o runs/preview
    python benchmarks/preview.py runs/unseen --model emoji --preview runs/preview/preview --films 0

The corpus is of pictures that neither decoder was shown (segue train corpus which=unseen). "to own" is the PSNR of the
small decoder's pictures to those of the model's own decoder, of the same latents; the others are to the picture itself.
Films go from prompt to prompt, once measured by the model's own decoder and once by the small one; both show pictures
of the own one, and steps are measured on these. "moved" is how far frames lie from where they were, on average, in
distances between two of them. Seconds are those that this process computed, one thread, the least of several.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from judge import Shelf
from torch import Tensor

from segue.errors import SegueError
from segue.evaluation.features import floats
from segue.media.clip import levels_of
from segue.models.bundle import LatentDiffusion
from segue.tasks.transition import Transition
from segue.training.journal import save_sheet
from segue.training.losses import psnr
from segue.types import Codec
from segue.zoo import load

PAIRS = (
    ("a lion", "a tiger"),
    ("a red apple", "a lemon"),
    ("a castle", "a rocket"),
    ("a cat face", "a robot"),
    ("a blue car", "a yellow taxi"),
    ("a tulip", "a sunflower"),
)
COLUMNS, REPEATS = 16, 5


@dataclass
class Timed:
    """A codec whose decoding is counted."""

    codec: Codec
    pictures: int = 0
    seconds: float = 0.0
    scale: int = field(init=False)
    channels: int = field(init=False)

    def __post_init__(self) -> None:
        self.scale, self.channels = self.codec.scale, self.codec.channels

    def encode(self, frames: Tensor) -> Tensor:
        return self.codec.encode(frames)

    def decode(self, latents: Tensor) -> Tensor:
        began = time.process_time()
        made = self.codec.decode(latents)
        self.seconds, self.pictures = self.seconds + time.process_time() - began, self.pictures + len(latents)
        return made


@torch.no_grad()
def decoders(model: LatentDiffusion, quick: Codec, shelf: Shelf, count: int, out: Path | None) -> None:
    """Print how near the small decoder comes, and how long both take."""
    rows = shelf.some(range(len(shelf.lines)), min(count, len(shelf.lines)))
    pictures = floats(shelf.bytes(rows))
    latents = torch.cat([model.codec.encode(part) for part in pictures.split(16)])
    own, small = (torch.cat([codec.decode(part) for part in latents.split(4)]) for codec in (model.codec, quick))
    print(f"{len(rows)} pictures   to own {psnr(small, own):.2f} dB")
    for name, made, codec in (("own", own, model.codec), ("small", small, quick)):
        print(f"{name:8}  {psnr(made, pictures):.2f} dB   {1000 * seconds(codec, latents[:1]):.1f} ms a picture")
    if out is not None:
        shown = range(0, len(rows), max(1, len(rows) // (3 * COLUMNS)))[: 3 * COLUMNS]
        lines = [part[list(shown)].split(COLUMNS) for part in (pictures, own, small)]
        save_sheet(out, torch.cat([torch.cat(line) for line in zip(*lines, strict=True)]), columns=COLUMNS)


def seconds(codec: Codec, latents: Tensor) -> float:
    """For one picture."""
    least = float("inf")
    for _ in range(4 * REPEATS):
        began = time.process_time()
        codec.decode(latents)
        least = min(least, time.process_time() - began)
    return least


def film(task: Transition, model: LatentDiffusion) -> dict[str, Any]:
    """What a film took, from its first step to the last picture as it is written, and where its frames lie."""
    codecs = [Timed(model.codec)]
    timed = replace(model, codec=codecs[0])
    if model.preview is not None:
        codecs.append(Timed(model.preview.codec))
        timed = replace(timed, preview=replace(model.preview, codec=codecs[1]))
    began = time.process_time()
    clip = task.run(timed)
    levels_of(clip.frames, slice(0, len(clip)))
    spent = time.process_time() - began
    assert clip.provenance is not None
    plan, scores = clip.provenance.record["plan"], clip.provenance.record["scores"]
    return {
        "positions": [plan["nodes"][left][0] for left, _, _ in plan["shots"]],
        "largest": scores["largest_step"],
        "unevenness": scores["unevenness"],
        "own": codecs[0].pictures,
        "seconds": spent,
        "decoding": sum(codec.seconds for codec in codecs),
    }


def films(model: LatentDiffusion, quick: LatentDiffusion, count: int, frames: int) -> None:
    """Print what changes in films that the small decoder measures."""
    head = ("largest step", "unevenness", "in full", "decoding", "in all")
    print(f"{'film':32}{''.join(f'{name:>24}' for name in head)}{'moved':>8}")
    for prompts in PAIRS[:count]:
        task = Transition(prompts, seconds=frames / 24, fps=24, seeds=(1, 2))
        plain, measured = (film(task, one) for one in (model, quick))
        gap = 1 / (frames - 1)
        moved = [abs(a - b) / gap for a, b in zip(plain["positions"], measured["positions"], strict=True)]
        cells = [
            f"{plain[key]:.{digits}f} → {measured[key]:.{digits}f}"
            for key, digits in (("largest", 4), ("unevenness", 2), ("own", 0), ("decoding", 2), ("seconds", 2))
        ]
        name = " to ".join(prompts)
        print(f"{name:32}{''.join(f'{cell:>24}' for cell in cells)}{sum(moved) / len(moved):8.2f}")
        assert all(b >= a for a, b in pairwise(measured["positions"]))


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--preview", default="auto")
    parser.add_argument("--count", type=int, default=256, help="pictures of the corpus")
    parser.add_argument("--films", type=int, default=len(PAIRS))
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("-o", "--out", type=Path, help="file for a sheet: pictures, own, small")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    try:
        model = load(asked.model, "cpu")
        quick = load(asked.model, "cpu", preview=asked.preview, preview_for="measured")
        assert quick.preview is not None
        decoders(model, quick.preview.codec, Shelf.open(asked.corpus), asked.count, asked.out)
    except SegueError as error:
        parser.error(str(error))
    if asked.films:
        films(model, quick, asked.films, asked.frames)


if __name__ == "__main__":
    main()
