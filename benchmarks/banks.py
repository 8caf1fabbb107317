"""Does a second clip look like the first, if it looks at the first one's anchors? Three pairs of clips.

    python benchmarks/banks.py -o runs/banks
    python benchmarks/banks.py -o runs/banks --seconds 200    # again and again: what is there is kept

Two clips of different things are restyled with one prompt that leaves the style open, the second with other noise than
the first, and twice: by itself ("first, previous, self"), and with the first one's anchor from a bank in the place of
its own first frame. Distance is that of deep features, named below, from each frame of the second film to the nearest
of the first, in the mean; colour is the distance of mean colours, in levels of 256. Intervals are over all films.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

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
from segue.temporal.bank import Bank, Recording
from segue.temporal.frame_attention import Pattern, frame_attention
from segue.training.journal import save_sheet

STRENGTH = 0.8
PATTERN = Pattern.parse("first, previous, self")
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
        return self.out / f"{self.number}-{name}-{self.count}.safetensors"

    def make(self, seed: int) -> None:
        """The first film, and the second one of a seed with and without the bank, as far as they are missing."""
        names = "first", f"alone-{seed}", f"bank-{seed}"
        if all(self.path(name).is_file() for name in names):
            return
        first, recording = self._begun(0, 0), Recording()
        frames = self._run(first, PATTERN, recording=recording)
        keep(self.path("first"), frames, {})
        second, bank = self._begun(1, seed), recording.bank()
        keep(self.path(f"alone-{seed}"), self._run(second, PATTERN), {})
        keep(self.path(f"bank-{seed}"), self._run(second, PATTERN.continued(), bank=bank), {})

    def _begun(self, which: int, seed: int) -> Begun:
        *things, prompt = PAIRS[self.number]
        source = TensorFrames.rounded(clip(self.model, things[which], 1 + which, self.count).frames[:])
        return Begun.of(self.model, source, prompt, seed=seed, strength=STRENGTH)

    def _run(
        self, begun: Begun, pattern: Pattern, *, recording: Recording | None = None, bank: Bank | None = None
    ) -> Tensor:
        model, rows = self.model, begun.start.ids
        with frame_attention(
            model.denoiser, model_sites(model), pattern, rows, recording=recording, bank=bank
        ) as denoiser:
            return begun.done(model, denoiser)


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
        gains: list[tuple[float, float]] = []
        print(f"{features.name:34}{'alone':>9}{'bank':>9}{'colour':>9}{'bank':>9}")
        for pair in pairs:
            shown = [first] if (first := kept_at(pair.path("first"))) is not None else []
            for seed in given.seeds:
                alone, bank = (kept_at(pair.path(f"{name}-{seed}")) for name in ("alone", "bank"))
                if shown and alone is not None and bank is not None:
                    (far, pale), (near, like) = (apart(shown[0], film, features) for film in (alone, bank))
                    gains.append((far - near, pale - like))
                    print(f"{PAIRS[pair.number][2] + f', noise {seed}':34}{far:9.3f}{near:9.3f}{pale:9.2f}{like:9.2f}")
                    shown += [alone, bank]
            if shown:
                picks = range(0, given.frames, max(1, given.frames // 4))
                sheet = torch.stack([film[i] for film in shown for i in picks])
                save_sheet(given.out / f"{pair.number}.png", sheet, len(picks))
        if len(gains) > 1:
            for name, values in zip(("nearer", "nearer in colour"), zip(*gains, strict=True), strict=True):
                found = mean_interval(values)
                print(f"{name}: {found.value:.3f} +- {found.half:.3f} (95 %, {len(values)} films)")


if __name__ == "__main__":
    main()
