"""Edited films, and what keeps them from flickering: frame by frame, from one noise, and as `segue edit` makes them.

    python benchmarks/edited_films.py clips benchmarks/edited_films.toml -o runs/edited-films --packages runs/packages
    python benchmarks/edited_films.py clips edited_films.toml -o runs/edited-films --methods sdedit --sheets

Of each clip `--frames` frames are taken, `--rate` of a second, and brought to the size that the model draws; and with
`--packages` emoji are rendered that move before plain ground, of which the right answer is known: the same film with
the other thing. Every method makes every edit in three ways, with the same model, steps and seed: frame by frame, each
from noise of its own; all from one noise; and as `segue edit` does where nothing is said. Films are kept, and made anew
when anything of these differs; after a change of the code, remove them. Inpainting is given one mask, of the first
frame: an ellipse that the TOML says, or the object itself, and it follows what moves.

* flicker: temporal noise of the film by itself, in levels of 255.
* warp, at 8: mean absolute change of neighbours and of frames 8 apart, along the flow of the clip, in levels of 255.
* sharpness: root mean square gradient in percent of that of the film that was made frame by frame.
* PSNR: between film and clip, in dB. changed: the distance that is named above the table, between the same.
* ground: mean absolute change where neither the clip nor the right answer has its object, in levels of 255; from right:
  the distance between the film and the right answer. Of rendered films alone.
* rows: of the network for a frame. cost: seconds of the processor over those of frame by frame.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from editing import SAYS_SOURCE, grown, taught
from editing_cases import Known, known_emoji
from stylize import Film, edits, frames_digest
from torch import Tensor
from torch.nn.functional import avg_pool2d

import segue
from segue.errors import SegueError
from segue.evaluation.colour import object_pixels
from segue.evaluation.distances import best_distance
from segue.evaluation.fidelity import psnr
from segue.evaluation.movement import movement
from segue.evaluation.sharpness import sharpness
from segue.evaluation.warp_error import warp_error
from segue.media.clip import Clip, TensorFrames
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.tasks.contents import sha256_of
from segue.tasks.edit import Edit
from segue.tasks.edit_settings import Change, EditArea, Method
from segue.tasks.sampling import Sampling
from segue.tasks.stylize_settings import Agreement, Shape
from segue.training.captions import Look, article
from segue.training.corpus import draw
from segue.training.journal import save_sheet
from segue.training.pictures import Placement
from segue.types import Perceptual

ALONE, SHARED, OURS = "frame by frame", "shared noise", "segue edit"
APART = Agreement("self", deflicker=0, blend=0.0)
WAYS: dict[str, dict[str, Any]] = {
    ALONE: {"noise": "independent", "agreement": APART},
    SHARED: {"noise": "shared", "agreement": APART},
    OURS: {"noise": "shared", "agreement": Agreement()},
}
"""How frames are made to agree."""
METHODS: tuple[Method, ...] = ("sdedit", "cycle", "inpaint")
MEASURES = {
    "flicker": 2, "warp": 2, "at 8": 2, "sharpness": 0, "PSNR": 1, "changed": 3, "ground": 1, "from right": 3,
    "rows": 0,
}  # fmt: skip
"""The columns, with the digits behind the point."""
RENDERED = (
    (("teapot", "red", ""), ("teapot", "red", "blue"), "yellow", "make it blue"),
    (("cat face", "orange", ""), ("dog face", "brown", ""), "green", "turn it into a dog face"),
    (("star", "yellow", ""), ("heart", "red", ""), "blue", "turn it into a heart"),
)
"""Emoji, by noun and colour, and the colour that they are given; what they become; the ground; the wish."""
SIDE, FINER, SHOWN = 128, 4, 8
MEASURED = 1
"""Version of the measures."""


@dataclass(frozen=True)
class Shot:
    """A clip and what is made of it.

    Args:
        clip: its name.
        frames: in the size that is drawn.
        folder: where these lie as pictures.
        source_prompt: what it shows.
        prompt: what it is to show.
        instruction: the same as a wish.
        mask: white where the first frame is to change.
        right: what a perfect edit would be, where it is known.
    """

    clip: str
    frames: TensorFrames
    folder: Path
    source_prompt: str
    prompt: str
    instruction: str
    mask: Path
    right: TensorFrames | None = None

    def task(self, method: Method, way: str, steps: int | None, seed: int) -> Edit:
        """What is asked for."""
        said = WAYS[way]
        source = self.source_prompt if method in SAYS_SOURCE else None
        return Edit(
            str(self.folder),
            self.instruction if method == "instruct" else self.prompt,
            method,
            seed=seed,
            change=Change(noise=said["noise"], source_prompt=source),
            area=EditArea((str(self.mask),)) if method == "inpaint" else EditArea(),
            agreement=said["agreement"],
            shape=Shape(model_size=True, cuts="none"),
            sampling=Sampling(steps, size=self.frames.size),
        )


def clips(given: argparse.Namespace, model: LatentDiffusion) -> list[Shot]:
    """Those of the TOML."""
    table = tomllib.loads(given.edits.read_text("utf-8"))
    found: list[Shot] = []
    for edit in edits(given.clips, given.edits, model, given):
        said = table[edit.clip]
        mask = edit.folder.with_name(f"{edit.folder.name}-mask.png")
        write_picture(ellipse(edit.frames.size, said["ellipse"]), mask)
        found.append(Shot(edit.clip, edit.frames, edit.folder, edit.source, edit.prompt, said["instruction"], mask))
    return found


def ellipse(size: tuple[int, int], places: Sequence[float]) -> Tensor:
    """White within an ellipse: its middle and its half axes, in shares of the sides; (3, h, w)."""
    x, y, wide, high = places
    down, right = torch.meshgrid(*((torch.arange(side) + 0.5) / side for side in reversed(size)), indexing="ij")
    return (((right - x) / wide) ** 2 + ((down - y) / high) ** 2 <= 1).float().expand(3, -1, -1)


def write_picture(picture: Tensor, path: Path) -> None:
    """A picture as a file, unless it is there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        Clip(TensorFrames.rounded(picture[None]), 1).save(path)


def rendered(given: argparse.Namespace) -> Iterator[Shot]:
    """Emoji that go about before plain ground, and the same films of what they are to become."""
    known = {(one.noun, one.concept.colour): one for one in known_emoji(given.packages)}
    for old, new, behind, instruction in RENDERED:
        frames, right = (
            TensorFrames.rounded(moving(known[noun, own], painted or own, behind, given.frames))
            for noun, own, painted in (old, new)
        )
        source, prompt = (
            on_ground(noun, painted or own, behind, old[0] == new[0]) for noun, own, painted in (old, new)
        )
        folder = given.out / "clips" / f"{old[0].replace(' ', '-')}-{frames_digest(frames)}"
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            Clip(frames, int(given.rate)).save(folder)
        mask = folder.with_name(f"{folder.name}-mask.png")
        thing = object_pixels(frames[0:1]) | object_pixels(right[0:1])
        write_picture(grown(thing).float().expand(3, -1, -1), mask)
        yield Shot(old[0], frames, folder, source, prompt, instruction, mask, right)


def on_ground(noun: str, colour: str, behind: str, coloured: bool) -> str:
    """What a rendered film shows, in words; with its colour where that is what changes."""
    named = f"{colour} {noun}" if coloured else noun
    return f"a {named} on {article(behind)} {behind} background"


def moving(thing: Known, colour: str, behind: str, count: int) -> Tensor:
    """Frames in which a thing sways, comes nearer and leans, by parts of pixels; (t, 3, h, w)."""
    pictures: list[Tensor] = []
    for number in range(count):
        turn = 2 * math.pi * number / 24
        where = Placement(
            0.72 + 0.06 * math.sin(turn), 0.08 * math.sin(turn), 0.04 * math.sin(2 * turn), 8 * math.sin(turn)
        )
        drawn = draw(thing.styles["3d"], thing.concept, Look(colour, behind, "3d", where), FINER * SIDE)
        pictures.append(torch.from_numpy(np.ascontiguousarray(drawn, np.float32)).permute(2, 0, 1))
    return avg_pool2d(torch.stack(pictures), FINER).clamp(0, 1)


@dataclass
class Bench:
    """All that a run has.

    Args:
        models: by method.
        out: where films lie.
        steps: of each run; None is the model's own number.
        seed: of the noise.
        distance: between pictures.
    """

    models: Mapping[Method, LatentDiffusion]
    out: Path
    steps: int | None
    seed: int
    distance: Perceptual

    def film(self, shot: Shot, method: Method, way: str) -> Film:
        """Its place, by all that it depends on."""
        # By what its files hold, and not by where they lie.
        task = {**asdict(shot.task(method, way, self.steps, self.seed)), "input": None, "area": sha256_of(shot.mask)}
        asked = [frames_digest(shot.frames), task, self.models[method].fingerprint]
        name = hashlib.blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest()
        return Film(shot, f"{method}, {way}", self.out / "films" / name)

    def draw(self, film: Film, shot: Shot, method: Method, way: str) -> None:
        """Make a film, and count what it takes."""
        model, tally = self.models[method], Tally(timed=False)
        began, count = time.process_time(), len(shot.frames)
        task = shot.task(method, way, self.steps, self.seed)
        clip = task.run(replace(model, denoiser=tally.watching(model.denoiser)))
        frames = TensorFrames.rounded(clip.frames[0:count])
        film.keep(frames, {"seconds": (time.process_time() - began) / count, "rows": tally.rows / count})

    def measure(self, film: Film, shot: Shot, alone: TensorFrames) -> None:
        """Add all measures to what is known of a film; `alone` is the one that was made frame by frame."""
        record, frames = film.record, film.frames
        said = [MEASURED, self.distance.name]
        if frames is None or record.get("measured") == said:
            return
        warped = warp_error(frames, shot.frames, intervals=(1, min(8, len(frames) - 1)), to_first=False)
        kept, noise = sharpness(frames, alone).kept, movement(frames).noise
        values = {
            "flicker": 255 * float(noise.nanmean()),
            "warp": 255 * (warped.at(1).absolute or math.nan),
            "at 8": 255 * (warped.spans[-1].absolute or math.nan),
            "sharpness": 100 * ((kept and kept.gradients) or math.nan) ** 0.5,
            "PSNR": float(psnr(frames[:], shot.frames[:]).clamp(max=60).mean()),
            "changed": self._apart(frames, shot.frames),
        }
        if shot.right is not None:
            things = grown(object_pixels(shot.frames[:]) | object_pixels(shot.right[:]))
            values["ground"] = 255 * float((frames[:] - shot.frames[:]).abs().mean(1)[~things].mean())
            values["from right"] = self._apart(frames, shot.right)
        film.note(record | values | {"measured": said})

    def _apart(self, one: TensorFrames, other: TensorFrames) -> float:
        return fmean(self.distance(one[i : i + 1], other[i : i + 1]).item() for i in range(len(one)))


def filled(bench: Bench, shots: Sequence[Shot], methods: Sequence[Method], until: float) -> list[Film]:
    """All films; what is missing is made while there is time, and what cannot be made is told."""
    found: list[Film] = []
    for shot, method in product(shots, methods):
        alone = bench.film(shot, method, ALONE)
        for way in WAYS:
            film = bench.film(shot, method, way)
            if film.frames is None and time.monotonic() < until:
                try:
                    bench.draw(film, shot, method, way)
                except SegueError as error:
                    print(f"{shot.clip}, {film.method}: {error}", file=sys.stderr, flush=True)
                    continue
                print(f"{shot.clip}, {film.method}: {film.record['seconds']:.2f} s a frame", flush=True)
            if alone.frames is not None and film.frames is not None:
                bench.measure(film, shot, alone.frames)
                found.append(film)
    return found


def table(films: Sequence[Film]) -> list[str]:
    """As markdown: means over clips, a line for each method and way."""
    lines = [f"| | {' | '.join(MEASURES)} | cost |", "|---" * (len(MEASURES) + 2) + "|"]
    for method in dict.fromkeys(film.method for film in films):
        records = {film.edit.clip: film.record for film in films if film.method == method}
        first = f"{method.partition(',')[0]}, {ALONE}"
        alone = {film.edit.clip: film.record for film in films if film.method == first}
        cells = [mean([record.get(name) for record in records.values()], digits) for name, digits in MEASURES.items()]
        costs = [record["seconds"] / alone[clip]["seconds"] for clip, record in records.items() if clip in alone]
        lines.append(f"| {method} | {' | '.join(cells)} | {mean(costs, 2)} |")
    return lines


def mean(values: Sequence[float | None], digits: int) -> str:
    """Of those that are known; nothing where none is."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return f"{fmean(known):.{digits}f}" if known else ""


def sheets(films: Sequence[Film], out: Path) -> None:
    """A picture for each clip and method: the clip, and the film made in each way, from the first frame on."""
    for shot in {film.edit.clip: film.edit for film in films}.values():
        for method in dict.fromkeys(film.method.partition(",")[0] for film in films):
            own = [film for film in films if film.edit is shot and film.method.startswith(method)]
            rows = [shot.frames, *(film.frames for film in own), *([] if shot.right is None else [shot.right])]
            count = min(SHOWN, len(shot.frames))
            picks = [round(number * (len(shot.frames) - 1) / max(1, count - 1)) for number in range(count)]
            pictures = [row[pick : pick + 1] for row in rows if row is not None for pick in picks]
            save_sheet(out / f"sheet-{shot.clip.replace(' ', '-')}-{method}.png", torch.cat(pictures), len(picks))
    print(f"rows of the sheets: clip, {', '.join(WAYS)}, and the right answer where it is known")


def arguments() -> argparse.ArgumentParser:
    """What may be said."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("edits", type=Path, help="a TOML such as benchmarks/edited_films.toml")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--packages", type=Path, help="folder of the corpus's packages: adds rendered films")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--instruct", help="a model or a file of an adapter that follows instructions: adds it")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS, help="with nothing, --instruct alone")
    parser.add_argument("--frames", type=int, default=12, help="of each clip")
    parser.add_argument("--rate", type=float, default=8.0, help="frames of a second that are taken")
    parser.set_defaults(length=math.inf)
    parser.add_argument("--area", type=int, help="pixels of a picture; the model's own, if left out")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no other film after so many")
    parser.add_argument("--sheets", action="store_true", help="draw a sheet for each clip and method")
    return parser


def main() -> None:
    """See this module's text."""
    given = arguments().parse_args()
    until = time.monotonic() + 60 * given.minutes
    model, asked = segue.load(given.model), tuple[Method, ...](given.methods)
    models: dict[Method, LatentDiffusion] = dict.fromkeys(asked, model)
    if given.instruct is not None:
        models["instruct"] = taught(given.model, given.instruct)
    bench = Bench(models, given.out, given.steps, given.seed, best_distance())
    with torch.no_grad():
        shots = clips(given, model)
        if given.packages is not None:
            shots += rendered(given)
        films = filled(bench, shots, [*models], until)
    print(f"{model.name}, {given.frames} frames, {len(shots)} clips; changed, from right: {bench.distance.name}")
    for said, own in (("clips", False), ("rendered", True)):
        if some := [film for film in films if (film.edit.right is not None) == own]:
            print("\n".join([said, "", *table(some), ""]))
    if given.sheets:
        sheets(films, given.out)


if __name__ == "__main__":
    main()
