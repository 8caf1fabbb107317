"""Things that move as they are told: 16 captions that no clip of the corpus shows, and 8 pictures that begin to move.

    python benchmarks/moving.py -o runs/shown --packages runs/packages               # goes on where it was
    python benchmarks/moving.py -o runs/shown --packages runs/packages --seeds 0 1 2
    python benchmarks/moving.py ... --model emoji --motion motion.safetensors --steps 12

Each clip is made by `segue.Animate`, as `segue animate` makes it, with the settings that are usual for the model. The
pictures are rendered emoji on coloured grounds.

* as told: whether the movement that is seen, by its flow, is one that the caption may mean.
* subject: VBench's subject consistency in the features of EfficientNet: how alike each frame is to the one before and
  to the first; that of a film that stands still is 1. Beside it stands that of clips of the corpus with the same
  movement: a true movement does not leave the features alone, either.
* ground: the share of pixels that stay as they are (2 % of a full range) over the whole clip; the same of the corpus.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from editing_cases import known_emoji
from jaxtyping import Float
from torch import Tensor

import segue
from segue.evaluation.dimensions import consistency
from segue.evaluation.motion_seen import motion_match
from segue.evaluation.motion_words import MOTIONS, Motion
from segue.media.clip import Clip, TensorFrames
from segue.media.reader import read
from segue.models.bundle import LatentDiffusion
from segue.models.perceptual import EfficientNetFeatures
from segue.tasks.animate import Animate
from segue.tasks.sampling import Sampling
from segue.training.journal import save_sheet
from segue.training.moving_words import EVALUATION_CAPTIONS

PICTURES: tuple[tuple[str, str, str, Motion], ...] = (
    ("🐱", "blue", "a cat face bounces", "bounce"),
    ("🚗", "green", "a car moves to the right", "slide right"),
    ("🍓", "white", "a strawberry falls", "slide down"),
    ("🎈", "yellow", "a balloon rises", "slide up"),
    ("🌻", "purple", "a sunflower grows", "grow"),
    ("🍕", "gray", "a pizza spins clockwise", "spin clockwise"),
    ("🔔", "pink", "a swinging bell", "swing"),
    ("🐢", "orange", "a turtle moves to the left", "slide left"),
)
"""A character, the ground that it is on, and what becomes of the picture."""
SIDE = 128
SEEN_AT = 128
SHOWN = 8
"""Frames of a clip in a sheet."""
COMPARED = 12
"""Clips of the corpus, of each movement."""
STILL = 0.02
"""What changes less over a clip, of a full range, stays as it is."""


@dataclass(frozen=True)
class Wanted:
    """A clip to make.

    Args:
        caption: what it shows.
        motion: what that means.
        picture: its first frame; None draws one.
    """

    caption: str
    motion: Motion
    picture: Path | None = None

    @property
    def name(self) -> str:
        """Of its files."""
        return ("picture " if self.picture else "") + self.caption


def wanted(out: Path, packages: Path | None) -> Iterator[Wanted]:
    """All clips of a seed; pictures are drawn into `out`."""
    for caption, motion in EVALUATION_CAPTIONS:
        yield Wanted(caption, motion)
    known = {one.concept.character: one for one in known_emoji(packages)} if packages else {}
    for character, ground, caption, motion in PICTURES if packages else ():
        file = out / f"{known[character].noun}.png"
        if not file.exists():
            Clip(TensorFrames.rounded(known[character].picture(ground)[None]), 1).save(file)
        yield Wanted(caption, motion, file)


def made(model: LatentDiffusion, one: Wanted, seed: int, steps: int | None, file: Path) -> Float[Tensor, "t 3 h w"]:
    """The frames of a clip, from its file if it was made before."""
    if not file.exists():
        image = None if one.picture is None else str(one.picture)
        clip = Animate(one.caption, image, seed=seed, sampling=Sampling(steps)).run(model)
        save_sheet(file, clip.frames[:], columns=len(clip))
    return torch.stack(list(read(str(file)).frames[0:1][0].chunk(_count(model), dim=2)))


def _count(model: LatentDiffusion) -> int:
    assert model.moving is not None
    return model.moving.frames


def kept(clip: Float[Tensor, "t 3 h w"], features: EfficientNetFeatures) -> dict[str, float]:
    """How far a clip stays what it was."""
    still = (clip - clip[:1]).abs().amax((0, 1)) < STILL
    subject = consistency(TensorFrames.rounded(clip), features).score
    return {"subject": round(subject, 4), "ground": round(float(still.float().mean()), 3)}


def measured(clip: Float[Tensor, "t 3 h w"], one: Wanted, features: EfficientNetFeatures) -> dict[str, Any]:
    """What is found out about a clip."""
    match = motion_match(TensorFrames.rounded(clip), one.caption)
    seen = {
        "seen": match.seen,
        "shift": [round(value, 3) for value in match.shift],
        "turn": round(match.turn, 1),
        "growth": round(match.growth, 3),
    }
    return {"as told": match.matches, **seen, **kept(clip, features)}


def corpus(folder: Path, frames: int, features: EfficientNetFeatures) -> dict[str, dict[str, float]]:
    """By movement, how far clips of the corpus stay what they were; measured once."""
    file = folder / f"kept-{features.name}-{frames}.json"
    if not file.exists():
        stored = np.load(folder / "frames.npy", mmap_mode="r")
        lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]
        found: dict[str, dict[str, float]] = {}
        for motion in MOTIONS:
            rows = [row for row, line in enumerate(lines) if line["motion"] == motion and line["speed"] == "usual"]
            all_of = [kept(_pictures(stored[row][:frames]), features) for row in rows[:COMPARED]]
            found[motion] = {key: fmean(one[key] for one in all_of) for key in all_of[0]}
        file.write_text(json.dumps(found, indent=1), "utf-8")
    return json.loads(file.read_text("utf-8"))


def _pictures(stored: np.ndarray[Any, Any]) -> Float[Tensor, "t 3 h w"]:
    return torch.from_numpy(np.ascontiguousarray(stored)).permute(0, 3, 1, 2).float() / 255


def table(rows: Sequence[dict[str, Any]], true: dict[str, dict[str, float]]) -> str:
    """All clips, and what share of them does what it is told."""
    lines = [
        "| caption | seed | seen | as told | subject | corpus | ground | corpus |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        other = true.get(row["motion"], {})
        numbers = [row["subject"], other.get("subject"), row["ground"], other.get("ground")]
        cells = " | ".join("" if number is None else f"{number:.3f}" for number in numbers)
        lines.append(
            f"| {row['name']} | {row['seed']} | {row['seen']} | {'yes' if row['as told'] else 'no'} | {cells} |"
        )
    for kind, chosen in (("captions", False), ("pictures", True)):
        of = [row for row in rows if row["picture"] == chosen]
        if of:
            right = sum(row["as told"] for row in of)
            lines.append(f"\n{kind}: {right} of {len(of)} as told, subject {fmean(row['subject'] for row in of):.3f}")
    return "\n".join(lines)


def main() -> None:
    """Make the clips that are missing, their sheets, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji-motion")
    parser.add_argument("--motion", help="a file of layers along time, for a model of pictures")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a folder for what is made")
    parser.add_argument(
        "--packages", type=Path, help="the packages of segue train corpus, which pictures are drawn from"
    )
    parser.add_argument("--clips", type=Path, help="the corpus of segue train clips, to compare with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int)
    chosen = parser.parse_args()
    model = segue.load(chosen.model, motion=chosen.motion)
    out: Path = chosen.out / (f"{model.fingerprint[:8]}-{chosen.steps or 'usual'}")
    out.mkdir(parents=True, exist_ok=True)
    features, rows = EfficientNetFeatures.load(side=SEEN_AT), list[dict[str, Any]]()
    clips = list(wanted(out, chosen.packages))
    for seed in chosen.seeds:
        shown: dict[bool, list[Tensor]] = {False: [], True: []}
        for one in clips:
            clip = made(model, one, seed, chosen.steps, out / f"{one.name} {seed}.png")
            found = measured(clip, one, features)
            drawn = one.picture is not None
            rows.append({"name": one.name, "motion": one.motion, "picture": drawn, "seed": seed, **found})
            print(json.dumps(rows[-1]), flush=True)
            at = torch.linspace(0, len(clip) - 1, min(SHOWN, len(clip))).round().long()
            shown[drawn].append(clip[at])
        for drawn, of in shown.items():
            if of:
                save_sheet(out / f"{'pictures' if drawn else 'captions'}-{seed}.png", torch.cat(of), columns=SHOWN)
    true = corpus(chosen.clips, _count(model), features) if chosen.clips else {}
    print(f"\n{table(rows, true)}\n\nsheets in {out}")


if __name__ == "__main__":
    main()
