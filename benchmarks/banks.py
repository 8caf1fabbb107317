"""Does a second clip look like the first, if it is given the first one's bank? Pairs of clips, several seeds.

    python benchmarks/banks.py clips benchmarks/edits.toml -o runs/banks --frames 6 --rate 3 --sheets
    python benchmarks/banks.py clips edits.toml -o runs/banks --pair first second "a panda" --seeds 1 2 3

Clips are cut as `benchmarks/stylize.py` cuts them. The first of a pair is drawn anew, and what its frames looked at is
kept as a bank. The second is drawn after the same prompt, with each seed in four ways: by itself; looking at the bank,
and nothing more (a power of 0); and with its colours and contrast half or wholly at those of the bank, too.

* distance: of deep features, named below, from each frame of the second film to the nearest of the first, in the mean;
  nearer is by how much it is less than that of the film by itself with the same seed.
* colour: root mean square distance of the films' mean colours, in levels of 255.
* sharpness: root mean square gradient in percent of that of the film by itself.
* changed: the distance that is named below between film and clip, so that what the clip shows is not lost.

Behind the means stand 95 % intervals (bootstrap; pairs are drawn, and seeds of each).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from stylize import Common, Edit, Film, drawn, edits
from stylize_table import OURS
from torch import Tensor

import segue
from segue.errors import SegueError
from segue.evaluation.distances import best_distance
from segue.evaluation.features import Features, extract
from segue.evaluation.intervals import bootstrapped
from segue.evaluation.sharpness import sharpness
from segue.media.clip import TensorFrames
from segue.models.bundle import LatentDiffusion
from segue.models.perceptual import EfficientNetFeatures
from segue.tasks.stylize_settings import Agreement
from segue.training.journal import save_sheet
from segue.types import Perceptual

ALONE = "by itself"
WAYS = {ALONE: None, "bank, power 0": 0.0, "bank, power 0.5": 0.5, "bank": 1.0}
"""How far colours and contrast go to those of the bank; None where there is no bank."""
PAIRS = (
    ("bigbuckbunny", "wolf", "a panda"),
    ("portrait", "bigbuckbunny", "a robot"),
    ("wolf", "portrait", "a fox"),
)
COLUMNS = {"distance": 1, "nearer": 1, "colour": 1, "sharpness": 0, "changed": 3}
"""With the digits behind the point."""
SHOWN = 4


@dataclass(frozen=True)
class Pair:
    """Two clips that are made to show the same.

    Args:
        first, second: the clips, with the prompt of both.
        out: where films are kept.
        common: strength, controls, steps and guidance of all films; its seed is that of the first.
    """

    first: Edit
    second: Edit
    out: Path
    common: Common

    @property
    def name(self) -> str:
        return f"{self.first.clip}, {self.second.clip}: {self.second.prompt}"

    @property
    def bank(self) -> Path:
        """What the frames of the first film looked at."""
        return self.film(None).path.with_suffix(".safetensors")

    def film(self, way: str | None, seed: int = 0) -> Film:
        """The second film, drawn in a way; or the first."""
        own = "first" if way is None else f"{way}, seed {seed}"
        said = json.dumps([self.name, self.first.digest, self.second.digest, vars(self.common), own])
        return Film(self.second, own, self.out / "films" / hashlib.blake2b(said.encode(), digest_size=8).hexdigest())

    def make(self, model: LatentDiffusion, seed: int) -> None:
        """The films that are missing, and their bank."""
        first = self.film(None)
        if first.frames is None or not self.bank.is_file():
            self.bank.parent.mkdir(parents=True, exist_ok=True)
            task = replace(self.common.task(self.first, OURS), agreement=Agreement())
            first.keep(*drawn(model, task, len(self.first.frames), save_bank=self.bank))
        for way, power in WAYS.items():
            film = self.film(way, seed)
            if film.frames is None:
                task = replace(self.common.task(self.second, OURS), seed=seed, agreement=Agreement())
                if power is not None:
                    task = replace(task, agreement=Agreement(bank=str(self.bank), bank_power=power))
                film.keep(*drawn(model, task, len(self.second.frames)))

    def row(self, way: str, seed: int, features: Features, distance: Perceptual) -> dict[str, float] | None:
        """What is measured of a film; None if it is not there."""
        first, film, alone = self.film(None).frames, self.film(way, seed).frames, self.film(ALONE, seed).frames
        if first is None or film is None or alone is None:
            return None
        kept, clip = sharpness(film, alone).kept, self.second.frames
        own = nearest(film[:], first[:], features)
        return {
            "distance": own,
            "nearer": nearest(alone[:], first[:], features) - own,
            "colour": 255 * float((film[:].mean((0, 2, 3)) - first[:].mean((0, 2, 3))).square().mean().sqrt()),
            "sharpness": math.nan if kept is None or kept.gradients is None else 100 * kept.gradients**0.5,
            "changed": fmean(distance(film[i : i + 1], clip[i : i + 1]).item() for i in range(len(clip))),
        }

    def sheet(self, seeds: Sequence[int]) -> None:
        """The first clip and film, the second clip, and its film in all ways with each seed; a row each."""
        films = [self.first.frames, self.film(None).frames, self.second.frames]
        films += [self.film(way, seed).frames for seed in seeds for way in WAYS]
        pictures = [film[i : i + 1] for film in films if film is not None for i in picks(film)]
        save_sheet(self.out / f"sheet-{self.name.replace(' ', '_').replace(':', '')}.png", torch.cat(pictures), SHOWN)


def picks(film: TensorFrames) -> list[int]:
    """Numbers of frames that are shown of a film."""
    return [round(i * (len(film) - 1) / (SHOWN - 1)) for i in range(SHOWN)]


def nearest(film: Tensor, other: Tensor, features: Features) -> float:
    """How far the frames of a film are from the nearest of another."""
    return float(torch.cdist(extract(features, film), extract(features, other)).amin(1).mean())


def pairs(given: argparse.Namespace, model: LatentDiffusion, common: Common) -> list[Pair]:
    """All pairs, with their clips cut."""
    clips = {edit.clip: edit for edit in edits(given.clips, given.edits, model, given)}
    found: list[Pair] = []
    for first, second, prompt in given.pair or PAIRS:
        if missing := {first, second} - clips.keys():
            raise SystemExit(f"{given.edits} does not say how {missing.pop()} is cut: it knows {', '.join(clips)}")
        one, other = (replace(clips[name], prompt=prompt) for name in (first, second))
        found.append(Pair(one, other, given.out, common))
    return found


def table(rows: Mapping[str, Mapping[tuple[str, int], Mapping[str, float]]]) -> list[str]:
    """As markdown: means over pairs and seeds, with their intervals."""
    whole = [case for case in rows[ALONE] if all(case in one for one in rows.values())]
    lines = [f"| {len(whole)} films | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for way, known in rows.items() if whole else ():
        cells: list[str] = []
        for name, digits in COLUMNS.items():
            found = bootstrapped([known[case][name] for case in whole], [case[0] for case in whole])
            cells.append(f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    for pair in dict.fromkeys(case[0] for case in whole):
        said = [fmean(rows[way][case]["nearer"] for case in whole if case[0] == pair) for way in WAYS]
        lines += [
            "",
            f"{pair}: nearer by " + ", ".join(f"{value:.1f} ({way})" for way, value in zip(WAYS, said, strict=True)),
        ]
    return lines


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("edits", type=Path, help="a TOML that says how clips are cut, see benchmarks/stylize.py")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--pair", nargs=3, action="append", metavar=("FIRST", "SECOND", "PROMPT"))
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--length", type=float, default=4.0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--area", type=int)
    parser.add_argument("--strength", type=float)
    parser.add_argument("--control", action="append", default=[], metavar="NAME[=SCALE]")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="of the second clips; the first have 0")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no other film after these")
    parser.add_argument("--sheets", action="store_true")
    return parser.parse_args(given)


def main(words: Sequence[str] | None = None) -> None:
    """Make the films that are missing, and print the table of those that are there."""
    given, began = arguments(words), time.monotonic()
    given.out.mkdir(parents=True, exist_ok=True)
    common = Common(given.strength, tuple(given.control), given.steps, given.guidance, 0)
    rows: dict[str, dict[tuple[str, int], dict[str, float]]] = {way: {} for way in WAYS}
    try:
        model, features, distance = segue.load(given.model), EfficientNetFeatures.load(), best_distance()
        with torch.no_grad():
            every = pairs(given, model, common)
            for seed in given.seeds:
                for pair in every:
                    if time.monotonic() - began <= given.seconds:
                        pair.make(model, seed)
                    for way in WAYS:
                        if (row := pair.row(way, seed, features, distance)) is not None:
                            rows[way][pair.name, seed] = row
    except SegueError as error:
        raise SystemExit(str(error)) from None
    lines = [f"{model.name}, {vars(common)}, {given.frames} frames, seeds {given.seeds}"]
    lines += [f"distance: {features.name}; changed: {distance.name}", "", *table(rows)]
    print("\n".join(lines))
    (given.out / "table.md").write_text("\n".join(lines) + "\n", "utf-8")
    for pair in every if given.sheets else ():
        pair.sheet(given.seeds)


if __name__ == "__main__":
    main()
