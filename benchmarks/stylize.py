"""Films drawn anew: frame by frame, step by step to ours, and by the rivals, in one table.

    python benchmarks/stylize.py clips benchmarks/edits.toml -o runs/stylize --judge runs/judge/judge-24.safetensors
    python benchmarks/stylize.py clips edits.toml -o runs/stylize --model MODEL --clip-model FOLDER --control softedge
    python benchmarks/stylize.py clips edits.toml -o runs/stylize --sheets --study runs/blind       # of what is there

Of each clip `--length` seconds are cut, 4 if that is left out, and at most 150 frames, between the seconds that the
TOML says, and of a part of its picture where it says one; or `--frames` frames. With `--rate` so many frames of a
second are taken, so that few frames show much movement. They are made `--area` pixels large. Each method draws each
clip after each prompt, with the same model, controls, strength, steps and seed. Films are kept, and made anew when
anything of these differs; after a change of the code, remove them. `segue.Stylize` does it all. The rows below ours
are the rivals, as `--method` has them.

* Pixel-MSE: mean squared change between neighbours along the flow of the clip, of a full range of 1, times 1000.
* warp, at 8: mean absolute change of neighbours and of frames 8 apart, along the same flow, in levels of 255.
* sharpness: root mean square gradient in percent of that of the film that was drawn frame by frame; shared: how much of
  that film's own gradients is there, by regression.
* prompt: the score that is named above the table; fits: the share of frames that fit the prompt no less than what the
  clip shows (Fram-Acc); likeness: mean cosine of neighbours' features (Tem-Con).
* changed: the distance that is named above the table between film and clip; PSNR: of the two, in dB.
* s/frame: seconds of the processor. rows: of the network for a frame, guidance and what rides along counted; other
  networks, such as those of controls, are not. cost: seconds over those of frame by frame.

Behind each number stands its 95 % interval (bootstrap; clips are drawn, and prompts of each). Below the table, ours is
held against frame by frame, case by case.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from stylize_table import ALONE, OURS, Rows, scaled, table, verdict

import segue
from segue.errors import SegueError
from segue.evaluation.distances import best_distance
from segue.evaluation.fidelity import psnr
from segue.evaluation.judge_file import read_judge
from segue.evaluation.prompt_score import ClipScorer, CorpusScorer, PromptScorer, check_prompts, prompt_score
from segue.evaluation.sharpness import sharpness
from segue.evaluation.warp_error import warp_error
from segue.media.clip import Clip, TensorFrames
from segue.media.reader import read
from segue.media.resize import fit_pictures, on_grid
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.models.perceptual import ClipNetwork
from segue.tasks.contents import sha256_of
from segue.tasks.sampling import Sampling
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_controls import wanted
from segue.tasks.stylize_settings import USUAL_AGREEMENT, Agreement, Beginning, Shape
from segue.training.journal import save_sheet
from segue.types import Frames, Perceptual
from segue.zoo.load import load_control

SECONDS, MOST_FRAMES = 4.0, 150
MEASURED = 1
"""Version of the measures."""
APART = Agreement("self", deflicker=0, blend=0.0)
METHODS: dict[str, dict[str, Any]] = {
    ALONE: {"agreement": APART, "noise": "independent"},
    "+ shared noise": {"agreement": APART, "noise": "shared"},
    "+ attention": {"agreement": replace(APART, attention=USUAL_AGREEMENT.attention), "noise": "shared"},
    OURS: {"agreement": USUAL_AGREEMENT, "noise": "shared"},
    "ours, moved noise": {"agreement": USUAL_AGREEMENT, "noise": "moved"},
    "text2video-zero": {"method": "text2video-zero"},
    "pix2video": {"method": "pix2video"},
    "fatezero": {"method": "fatezero"},
    "tokenflow": {"method": "tokenflow"},
    "codec": {"method": "codec"},
    "side-by-side": {"method": "side-by-side"},
}
"""What each method says of the task; everything else is the same for all."""
SHOWN, STUDIED = 8, 12


@dataclass(frozen=True)
class Edit:
    """A clip, cut, and one thing that is to be made of it.

    Args:
        clip: name of the clip.
        frames: of it, in the size that is drawn.
        folder: where these frames lie as pictures.
        source: what it shows, in words.
        prompt: what it is to show.
        digest: of the frames.
    """

    clip: str
    frames: TensorFrames
    folder: Path
    source: str
    prompt: str
    digest: str

    @property
    def name(self) -> str:
        return f"{self.clip}: {self.prompt}"


@dataclass(frozen=True)
class Common:
    """What is the same for all methods."""

    strength: float | None
    control: tuple[str, ...]
    steps: int | None
    guidance: float | None
    seed: int

    def task(self, edit: Edit, method: str) -> Stylize:
        """What a method does with a clip and a prompt."""
        said = dict(METHODS[method])
        known = edit.source if "method" in said else None  # what rivals go by; ours never runs backwards here
        beginning = Beginning(self.strength, noise=said.pop("noise", None), source_prompt=known)
        guidance = () if self.guidance is None else (self.guidance,)
        return Stylize(
            str(edit.folder),
            edit.prompt,
            seed=self.seed,
            control=self.control,
            beginning=beginning,
            sampling=Sampling(self.steps, guidance, size=edit.frames.size),
            shape=Shape(model_size=True, window=max(64, len(edit.frames))),
            **said,
        )


@dataclass(frozen=True)
class Film:
    """What one method made of one clip and prompt: where it is kept, and what is known of it."""

    edit: Any
    method: str
    path: Path

    @property
    def frames(self) -> TensorFrames | None:
        """What was made, if it was."""
        kept = self.path.with_suffix(".npy")
        return TensorFrames(torch.from_numpy(np.load(kept))) if self.record and kept.is_file() else None

    @property
    def record(self) -> dict[str, Any]:
        """What it took, and what was measured."""
        place = self.path.with_suffix(".json")
        return json.loads(place.read_text("utf-8")) if place.is_file() else {}

    def keep(self, frames: TensorFrames, record: dict[str, Any]) -> None:
        """The frames first, so that a record has its frames."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(f".{os.getpid()}.npy")
        np.save(part, frames.pixels.numpy())
        part.replace(self.path.with_suffix(".npy"))
        self.note(record)

    def note(self, record: dict[str, Any]) -> None:
        """The record, whole or not at all."""
        part = self.path.with_suffix(f".{os.getpid()}")
        named = {"clip": self.edit.clip, "asked": self.edit.prompt, "method": self.method}
        part.write_text(json.dumps(named | record), "utf-8")
        part.replace(self.path.with_suffix(".json"))


@dataclass
class Bench:
    """All that a run of the benchmark has."""

    model: LatentDiffusion
    common: Common
    out: Path
    scorer: PromptScorer | None
    distance: Perceptual
    controls: Sequence[str] = ()

    def film(self, edit: Edit, method: str) -> Film:
        """Its place, by all that it depends on."""
        asked = [edit.digest, edit.source, edit.prompt, self.model.fingerprint, asdict(self.common), METHODS[method]]
        text = json.dumps([*asked, *self.controls], default=asdict)
        return Film(edit, method, self.out / "films" / hashlib.blake2b(text.encode(), digest_size=8).hexdigest())

    def draw(self, film: Film) -> None:
        """Make a film, and count what it takes."""
        film.keep(*drawn(self.model, self.common.task(film.edit, film.method), len(film.edit.frames)))

    def measure(self, film: Film, alone: TensorFrames) -> None:
        """Add all measures to what is known of a film; `alone` is the one that was drawn frame by frame."""
        record, frames, edit = film.record, film.frames, film.edit
        said = [MEASURED, self.scorer and self.scorer.name, self.distance.name]
        if frames is None or record.get("measured") == said:
            return
        warped = warp_error(frames, edit.frames, intervals=(1, min(8, len(frames) - 1)), to_first=False)
        kept = sharpness(frames, alone).kept
        clip = edit.frames[:]
        values: dict[str, float | None] = {
            "Pixel-MSE": scaled(warped.at(1).squared, 1000),
            "warp": scaled(warped.at(1).absolute, 255),
            "at 8": scaled(warped.spans[-1].absolute, 255),
            "sharpness": scaled(((kept and kept.gradients) or math.nan) ** 0.5, 100),
            "shared": scaled(kept and kept.shared, 100),
            "changed": fmean(self.distance(frames[i : i + 1], clip[i : i + 1]).item() for i in range(len(clip))),
            "PSNR": float(psnr(frames[:], clip).clamp(max=99).mean()),
            "s/frame": record["seconds"],
            "rows": record["rows"],
        }
        if self.scorer is not None:
            score = prompt_score(frames, edit.prompt, self.scorer, source_prompt=edit.source)
            values |= {"prompt": score.score, "fits": score.accuracy, "likeness": score.consistency}
        film.note(record | values | {"measured": said})


def drawn(
    model: LatentDiffusion, task: Stylize, count: int, save_bank: Path | None = None
) -> tuple[TensorFrames, dict[str, Any]]:
    """The frames that a task makes, and what they take: seconds and rows of the network for each, and what it notes."""
    tally = Tally(timed=False)
    began = time.process_time()
    clip = task.run(replace(model, denoiser=tally.watching(model.denoiser)), save_bank=save_bank)
    frames = TensorFrames.rounded(clip.frames[0:count])
    seconds = (time.process_time() - began) / count
    notes = [] if clip.provenance is None else list(clip.provenance.record.get("notes") or [])
    return frames, {"seconds": seconds, "rows": tally.rows / count, "notes": notes}


def control_digests(controls: Sequence[str], model: LatentDiffusion) -> list[str]:
    """What the networks of controls are made of: films that were drawn with others are no longer the same."""
    networks = [load_control(one.kind, model) for one in wanted(tuple(controls))]
    return [sha256_of(path) for network in networks for path in network.weights]


def frames_digest(frames: TensorFrames) -> str:
    """A name for what frames show."""
    return hashlib.blake2b(frames.pixels.numpy().tobytes(), digest_size=8).hexdigest()


def edits(folder: Path, table: Path, model: LatentDiffusion, given: argparse.Namespace) -> list[Edit]:
    """All clips with all their prompts; what is cut of the clips is kept as pictures."""
    found: list[Edit] = []
    for name, said in tomllib.loads(table.read_text("utf-8")).items():
        paths = sorted(path for path in folder.iterdir() if path.stem == name)
        if not paths:
            raise SystemExit(f"{table} names {name}, and there is no such clip in {folder}")
        clip = read(paths[0])
        start, rate = float(said.get("start", 0)), given.rate or float(clip.fps)
        count = given.frames or min(MOST_FRAMES, round(given.length * rate))
        stop = min(len(clip), round(float(said.get("stop", clip.seconds)) * float(clip.fps)))
        numbers = taken(range(round(start * float(clip.fps)), stop), float(clip.fps) / rate, count)
        if len(numbers) < 3:
            raise SystemExit(
                f"{paths[0]} has {len(clip)} frames, and fewer than 3 are taken from {start:g} s on: change its start, "
                "or take a higher rate"
            )
        frames = cut(clip.frames, numbers, said.get("crop"), model, given.area)
        digest = frames_digest(frames)
        kept = given.out / "clips" / f"{name}-{digest}"
        if not kept.is_dir():
            kept.parent.mkdir(parents=True, exist_ok=True)
            Clip(frames, Fraction(rate).limit_denominator(1001)).save(kept)
        found += [Edit(name, frames, kept, said["source"], prompt, digest) for prompt in said["prompts"]]
    return found


def taken(frames: range, apart: float, count: int) -> list[int]:
    """The numbers of up to `count` frames of a range, from its first on, so many frames apart.

    Raises:
        SystemExit: they are less than one apart.
    """
    if not apart >= 1:
        raise SystemExit(f"the rate is {1 / apart:g} times that of the clip: take at most its own, or leave it out")
    numbers = [round(frames.start + number * apart) for number in range(count)]
    return [number for number in numbers if number in frames]


def cut(
    frames: Frames, numbers: Sequence[int], crop: Sequence[int] | None, model: LatentDiffusion, area: int | None
) -> TensorFrames:
    """Some frames, or (left, top, width, height) of them, in the size on the model's grid that is nearest."""
    left, top, *inner = crop or (0, 0, *frames.size)
    parts = torch.cat([frames[i : i + 1][..., top : top + inner[1], left : left + inner[0]] for i in numbers])
    size = on_grid((parts.shape[3], parts.shape[2]), model.grid, area=area or math.prod(model.defaults.size))
    return TensorFrames.rounded(fit_pictures(parts, size, "stretch"))


def filled(bench: Bench, cases: Sequence[Edit], methods: Sequence[str], until: float) -> list[Film]:
    """All films; what is missing is made while there is time, and what cannot be made is told."""
    films: list[Film] = []
    for edit in cases:
        alone = bench.film(edit, ALONE)
        for method in (ALONE, *(name for name in methods if name != ALONE)):
            film = bench.film(edit, method)
            if film.frames is None and time.monotonic() < until:
                try:
                    bench.draw(film)
                except SegueError as error:
                    print(f"{edit.name}, {method}: {error}", file=sys.stderr, flush=True)
                    continue
                print(f"{edit.name}, {method}: {film.record['seconds']:.2f} s a frame", flush=True)
            reference = alone.frames
            if reference is not None and film.frames is not None:
                bench.measure(film, reference)
                films.append(film)
    return films


def by_method(films: Sequence[Film]) -> dict[str, Rows]:
    """What is known of the films of each method, by case."""
    return {
        method: {film.edit.name: film.record for film in films if film.method == method}
        for method in METHODS
        if any(film.method == method for film in films)
    }


def sheets(films: Sequence[Film], out: Path) -> None:
    """A picture for each case: the clip in the first row, then each method's film, from its first frame on."""
    for edit in {film.edit.name: film.edit for film in films}.values():
        rows = [edit.frames, *(film.frames for film in films if film.edit.name == edit.name)]
        picks = [round(i * (len(edit.frames) - 1) / (SHOWN - 1)) for i in range(min(SHOWN, len(edit.frames)))]
        pictures = [row[i : i + 1] for row in rows if row is not None for i in picks]
        name = edit.name.replace(": ", "-").replace(" ", "_")
        save_sheet(out / f"sheet-{name}.png", torch.cat(pictures), len(picks))
    print(f"rows of the sheets: clip, {', '.join(dict.fromkeys(film.method for film in films))}")


def blind(films: Sequence[Film], out: Path) -> None:
    """The films as `segue study` takes them, in a folder of their own."""
    if out.is_dir() and any(out.iterdir()):
        raise SystemExit(f"{out} is not empty: name a new folder, that no film of another table is shown")
    for film in films:
        place = out / film.edit.name.replace(": ", "-").replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        (place / "prompt.txt").write_text(film.edit.prompt, "utf-8")
        for name, frames in (("source", film.edit.frames), (film.method, film.frames)):
            if frames is not None:
                Clip(frames, STUDIED).save(place / f"{name}.mp4", crf=10)


def scorer(given: argparse.Namespace) -> PromptScorer | None:
    """What prompts are scored with, if anything."""
    if given.clip_model:
        return ClipScorer(ClipNetwork.load(given.clip_model))
    return None if given.judge is None else CorpusScorer(read_judge(given.judge))


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument(
        "edits", type=Path, help="a TOML: a table for each clip, with source, prompts and perhaps start"
    )
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--frames", type=int, help="of each clip, in place of --length")
    parser.add_argument("--length", type=float, default=SECONDS, help="seconds of each clip")
    parser.add_argument("--rate", type=float, help="frames of a second that are taken; the clip's own, if left out")
    parser.add_argument("--area", type=int, help="pixels of a picture; the model's own, if left out")
    parser.add_argument("--strength", type=float)
    parser.add_argument("--control", action="append", default=[], metavar="NAME[=SCALE]")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--clip-model", help="of CLIP, which scores prompts")
    parser.add_argument("--judge", type=Path, help="a corpus classifier that scores prompts")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no other film after these")
    parser.add_argument("--sheets", action="store_true", help="draw a sheet for each clip and prompt")
    parser.add_argument("--study", type=Path, metavar="FOLDER", help="put the films there, as segue study takes them")
    return parser.parse_args(given)


def main(words: Sequence[str] | None = None) -> None:
    """Make what is missing, measure it, and print the table of all that is there."""
    given = arguments(words)
    given.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + given.seconds
    try:
        model, by = segue.load(given.model), scorer(given)
        common = Common(given.strength, tuple(given.control), given.steps, given.guidance, given.seed)
        bench = Bench(model, common, given.out, by, best_distance(), control_digests(given.control, model))
        with torch.no_grad():
            cases = edits(given.clips, given.edits, model, given)
            if by is not None:
                check_prompts(by, *(prompt for edit in cases for prompt in (edit.prompt, edit.source)))
            films = filled(bench, cases, given.methods, until)
    except SegueError as error:
        raise SystemExit(str(error)) from None
    if not films:
        raise SystemExit("there is nothing to tell")
    rows = by_method(films)
    told = "not scored" if by is None else f"{by.title}, {by.name}"
    lines = [f"{model.name}, {asdict(common)}, {len(cases[0].frames)} frames", f"prompt: {told}"]
    lines += [f"changed: {bench.distance.name}", "", *table(rows), "", *verdict(rows)]
    print("\n".join(lines))
    (given.out / "table.md").write_text("\n".join(lines) + "\n", "utf-8")
    if given.sheets:
        sheets(films, given.out)
    if given.study is not None:
        blind(films, given.study)


if __name__ == "__main__":
    main()
