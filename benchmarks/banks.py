"""Does a second clip look like the first, if it looks at the first one's anchors? Three pairs of clips.

    python benchmarks/banks.py -o runs/banks
    python benchmarks/banks.py -o runs/banks --seconds 200    # again and again: what is there is kept

Two clips of different things are restyled with one prompt that leaves the style open, the second with other noise than
the first, and several times: by itself ("first, previous, self"), with the first one's anchor from a bank in the place
of its own first frame ("bank"), looking at nothing else ("bank only"), and both with the anchor's statistics on top
("tuned").

Distance is that of deep features, named below, from each frame of the second film to the nearest of the first, in the
mean; colour is the distance of mean colours, in levels of 256. Nearer is by how much both are less than those of the
clip by itself, with intervals over all films of a way.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from inloop import clip
from joint_attention import Begun, keep, kept_at
from torch import Tensor

import segue
from segue.evaluation.features import Features, extract
from segue.evaluation.intervals import mean_interval
from segue.media.clip import TensorFrames
from segue.models.attended import model_sites
from segue.models.bundle import LatentDiffusion
from segue.models.perceptual import EfficientNetFeatures
from segue.temporal.bank import Bank, Recording, tuned
from segue.temporal.frame_attention import Pattern, frame_attention
from segue.training.journal import save_sheet
from segue.types import Operator

STRENGTH = 0.8
PATTERN = Pattern.parse("first, previous, self")
WAYS: dict[str, tuple[Pattern, float]] = {
    "alone": (PATTERN, 0.0),
    "bank": (PATTERN.continued(), 0.0),
    "bank tuned": (PATTERN.continued(), 0.5),
    "bank only": (Pattern.parse("bank"), 0.0),
    "bank only tuned": (Pattern.parse("bank"), 0.5),
}
"""Whom the second clip looks at, and how strongly it is tuned to the bank."""
PAIRS = (
    ("a red apple", "a tomato", "a pumpkin"),
    ("a cat face", "a dog face", "a fox face"),
    ("a teddy bear", "a rabbit", "a panda"),
)


@dataclass(frozen=True)
class Pair:
    """Two clips and a prompt, and the films that are there."""

    model: LatentDiffusion
    out: Path
    number: int
    count: int

    def path(self, name: str) -> Path:
        """Where a film is kept."""
        return self.out / f"{self.number}-{name.replace(' ', '-')}-{self.count}.safetensors"

    def make(self, seed: int) -> None:
        """The first film, and the second one of a seed in each way, as far as they are missing."""
        missing = [way for way in WAYS if not self.path(f"{way}-{seed}").is_file()]
        if not missing and self.path("first").is_file():
            return
        recording = Recording()
        keep(self.path("first"), self._run(self._begun(0, 0), PATTERN, recording=recording), {})
        second, bank = self._begun(1, seed), recording.bank()
        for way in missing:
            pattern, power = WAYS[way]
            operators = [tuned(bank, second.start.ids, power)] if power else []
            given = bank if pattern.bank is None else None
            frames = self._run(second, pattern, operators, bank=given)
            keep(self.path(f"{way}-{seed}"), frames, {})

    def _begun(self, which: int, seed: int) -> Begun:
        *things, prompt = PAIRS[self.number]
        source = TensorFrames.rounded(clip(self.model, things[which], 1 + which, self.count).frames[:])
        return Begun.of(self.model, source, prompt, seed=seed, strength=STRENGTH)

    def _run(
        self,
        begun: Begun,
        pattern: Pattern,
        operators: Sequence[Operator] = (),
        *,
        recording: Recording | None = None,
        bank: Bank | None = None,
    ) -> Tensor:
        model, rows = self.model, begun.start.ids
        with frame_attention(
            model.denoiser, model_sites(model), pattern, rows, recording=recording, bank=bank
        ) as denoiser:
            return begun.done(model, denoiser, operators)


def apart(first: Tensor, second: Tensor, features: Features) -> tuple[float, float]:
    """How far the frames of a film are from the nearest of another, and how far their mean colours."""
    one, other = extract(features, first), extract(features, second)
    colours = first.mean((0, 2, 3)) - second.mean((0, 2, 3))
    return float(torch.cdist(other, one).amin(1).mean()), 255 * float(colours.square().mean().sqrt())


def main() -> None:
    """Make the films that are missing, print the table and draw the sheets of those that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no other film after these")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    model, began = segue.load(given.model), time.monotonic()
    pairs = [Pair(model, given.out, number, given.frames) for number in range(len(PAIRS))]
    with torch.no_grad():
        for seed in given.seeds:
            for pair in pairs:
                if time.monotonic() - began <= given.seconds:
                    pair.make(seed)
        features = EfficientNetFeatures.load()
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for pair in pairs:
            films = [] if (first := kept_at(pair.path("first"))) is None else [first]
            for seed in given.seeds if films else ():
                made = {way: kept_at(pair.path(f"{way}-{seed}")) for way in WAYS}
                whole = {way: film for way, film in made.items() if film is not None}
                if len(whole) == len(WAYS):
                    films += whole.values()
                    for way, film in whole.items():
                        found[way].append(apart(films[0], film, features))
            if films:
                picks = range(0, given.frames, max(1, given.frames // 4))
                save_sheet(
                    given.out / f"{pair.number}.png", torch.stack([f[i] for f in films for i in picks]), len(picks)
                )
        print(
            f"{features.name}: {len(found['alone'])} films\n"
            f"{'':18}{'distance':>10}{'nearer':>16}{'colour':>10}{'nearer':>16}"
        )
        for way, values in found.items() if found["alone"] else ():
            print(f"{way:18}" + "".join(told(values, found["alone"], place) for place in (0, 1)))


def told(values: Sequence[tuple[float, float]], alone: Sequence[tuple[float, float]], place: int) -> str:
    """The mean of a number, and by how much it is smaller than that of the clip by itself."""
    gain = mean_interval([other[place] - own[place] for own, other in zip(values, alone, strict=True)])
    return f"{fmean(own[place] for own in values):10.2f}{gain.value:8.2f} +-{gain.half:5.2f}"


if __name__ == "__main__":
    main()
