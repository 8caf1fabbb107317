"""A hundred edits with known right answers, by all methods, with their knobs swept: what is hit, and what is kept.

    python benchmarks/editing.py --packages runs/packages --judge runs/judge/judge-24.safetensors -o runs/editing
    python benchmarks/editing.py ... --share .2 --methods sdedit cycle          # fewer edits, fewer methods
    python benchmarks/editing.py ... --plot docs/editing.svg --sheets

Sources are rendered emoji on coloured grounds (`editing_cases.py`): 40 are recoloured, 30 drawn flat or as line art, 30
turned into another animal. Each method makes each edit with the same model, steps and seed, by `segue.Edit`, and with
all values of its knob. What is made is kept: a run that was stopped goes on. Methods that are told the area of change
are told the source's own object, grown by some pixels.

* right: the judge, which learned from other renders, finds what was asked for: the noun among its five likeliest, and
  the colour's hues (recolour), the style (style), or no longer the old noun as the likeliest (species).
* PSNR, SSIM: between result and source. A perfect edit's own are in the last row: more is kept only by changing less.
* ground: mean absolute change, in levels of 255, where neither the source nor the right answer has its object.
* from right: the distance that is named above the table, between the result and the right answer.
* rows: of the network, for one edit.

Behind each number stands its 95 % interval (bootstrap over edits).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from editing_cases import SIDE, Case, cases, known_emoji
from editing_table import RIGHT, plot, table
from torch import Tensor
from torch.nn.functional import max_pool2d

import segue
from segue.errors import SegueError
from segue.evaluation.colour import object_colours, object_pixels
from segue.evaluation.distances import best_distance
from segue.evaluation.fidelity import psnr, ssim
from segue.evaluation.judge_file import read_judge
from segue.evaluation.recognition import Judge
from segue.media.clip import Clip, TensorFrames
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import Tally
from segue.tasks.edit import Edit
from segue.tasks.edit_settings import Change, EditArea, Method
from segue.tasks.sampling import Sampling
from segue.training.journal import save_sheet
from segue.types import Perceptual

KNOBS: dict[Method, tuple[str, tuple[float, ...]]] = {
    "sdedit": ("strength", (0.3, 0.45, 0.6, 0.75, 0.9)),
    "cycle": ("strength", (0.4, 0.6, 0.8, 1.0)),
    "ddib": ("strength", (0.4, 0.6, 0.8, 1.0)),
    "inpaint": ("strength", (0.6, 0.8, 1.0)),
    "instruct": ("picture_guidance", (1.0, 1.3, 1.6, 2.0)),
}
"""What is swept of each method."""
SAYS_SOURCE = ("cycle", "ddib")
GROWN = 9
"""Pixels of the window that an object's area is grown by."""
MEASURED = 1
"""Version of the measures."""


@dataclass(frozen=True)
class Setting:
    """A method with a value of its knob."""

    method: Method
    value: float

    @property
    def knob(self) -> str:
        """What is swept."""
        return KNOBS[self.method][0]

    def task(self, case: Case, source: Path, mask: Path, steps: int | None) -> Edit:
        """What is asked for."""
        change: dict[str, Any] = {self.knob: self.value}
        if self.method in SAYS_SOURCE:
            change["source_prompt"] = case.source_prompt
        area = EditArea((str(mask),)) if self.method == "inpaint" else EditArea()
        words = case.instruction if self.method == "instruct" else case.prompt
        sampling = Sampling(steps, size=(SIDE, SIDE))
        return Edit(str(source), words, self.method, change=Change(**change), area=area, sampling=sampling)


@dataclass
class Bench:
    """All that a run has.

    Args:
        models: by method.
        out: where results lie.
        steps: of each run; None is the model's own number.
        judge: says what a picture shows.
        distance: between pictures.
    """

    models: Mapping[Method, LatentDiffusion]
    out: Path
    steps: int | None
    judge: Judge
    distance: Perceptual
    _files: dict[int, tuple[Path, Path]] = field(default_factory=dict, init=False)

    def row(self, number: int, case: Case, setting: Setting) -> dict[str, Any]:
        """What is known of one edit; it is made if it is not there."""
        model = self.models[setting.method]
        source, mask = self.files(number, case)
        key = json.dumps([MEASURED, self.distance.name, model.fingerprint, self.steps, source.stem, asdict(setting)])
        key = hashlib.blake2b(f"{key} {case.prompt}".encode(), digest_size=8).hexdigest()
        path = self.out / "results" / f"{key}.json"
        if path.is_file():
            return json.loads(path.read_text("utf-8"))
        tally = Tally(timed=False)
        watched = replace(model, denoiser=tally.watching(model.denoiser))
        picture = setting.task(case, source, mask, self.steps).run(watched).frames[0:1]
        path.parent.mkdir(parents=True, exist_ok=True)
        Clip(TensorFrames.rounded(picture), 1).save(path.with_suffix(".png"))
        found = {"number": number, "kind": case.kind, **asdict(setting), "rows": tally.rows, "picture": key}
        found |= self.measured(case, picture)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(found), "utf-8")
        part.replace(path)
        return found

    def files(self, number: int, case: Case) -> tuple[Path, Path]:
        """The source and the area of its object, as pictures."""
        if number not in self._files:
            name = hashlib.blake2b(case.source.numpy().tobytes(), digest_size=6).hexdigest()
            paths = self.out / "sources" / f"{name}.png", self.out / "sources" / f"{name}-area.png"
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            area = grown(object_pixels(case.source[None]))[0].float().expand(3, -1, -1)
            for path, picture in zip(paths, (case.source, area), strict=True):
                if not path.is_file():
                    Clip(TensorFrames.rounded(picture[None]), 1).save(path)
            self._files[number] = paths
        return self._files[number]

    def measured(self, case: Case, picture: Tensor) -> dict[str, float]:
        """All measures of a result, (1, 3, h, w)."""
        source, right = case.source[None], case.right[None]
        ground = ~grown(object_pixels(source) | object_pixels(right))
        apart = (picture - source).abs().mean(1)[ground]
        return {
            RIGHT: float(self.right(case, picture)),
            "PSNR": float(psnr(picture, source).clamp(max=60)),
            "SSIM": float(ssim(picture, source)),
            "ground": float(255 * apart.mean()),
            "from right": float(self.distance(picture, right)),
        }

    def right(self, case: Case, picture: Tensor) -> bool:
        """Whether the picture is what was asked for."""
        verdict = self.judge(picture)[0]
        known = case.noun in verdict.nouns
        if case.kind == "recolour":
            return known and object_colours(picture)[0].word == case.colour
        if case.kind == "style":
            return known and verdict.style == case.style
        return known and verdict.nouns[0] not in case.source_prompt

    def perfect(self, every: Sequence[Case]) -> list[dict[str, Any]]:
        """The rows of right answers themselves."""
        rows = enumerate(every)
        return [{"number": i, "kind": one.kind, "rows": 0, **self.measured(one, one.right[None])} for i, one in rows]


def grown(area: Tensor) -> Tensor:
    """An area, and what is near it."""
    return max_pool2d(area.float()[:, None], GROWN, 1, GROWN // 2)[:, 0] > 0


def settings(methods: Sequence[Method]) -> list[Setting]:
    """All values of all knobs."""
    return [Setting(method, value) for method in methods for value in KNOBS[method][1]]


def rows(bench: Bench, every: Sequence[Case], asked: Sequence[Setting], until: float) -> Iterator[dict[str, Any]]:
    """All edits, edit by edit, while there is time; what cannot be made is told."""
    for number, case in enumerate(every):
        for setting in asked:
            if time.monotonic() > until:
                return
            try:
                yield bench.row(number, case, setting)
            except SegueError as error:
                print(f"{case.prompt}, {setting}: {error}", file=sys.stderr, flush=True)
        print(f"{number + 1} of {len(every)}: {case.prompt}", flush=True)


def sheet(bench: Bench, every: Sequence[Case], found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Sixteen edits: the sources, what each method made of them at the best value of its knob, the right answers."""
    shown = range(0, len(every), max(1, len(every) // 16))[:16]
    lines = [[every[number].source for number in shown]]
    for method in dict.fromkeys(row["method"] for row in found):
        values = {row["value"] for row in found if row["method"] == method}
        hits = {v: sum(r[RIGHT] for r in found if r["method"] == method and r["value"] == v) for v in values}
        best = max(sorted(values), key=hits.__getitem__)
        made = {row["number"]: row["picture"] for row in found if (row["method"], row["value"]) == (method, best)}
        line = [picture_of(bench.out, made[number]) for number in shown if number in made]
        if len(line) == len(shown):
            lines.append(line)
            print(f"row {len(lines)}: {method}, {KNOBS[method][0]} {best:g}")
    lines.append([every[number].right for number in shown])
    save_sheet(path, torch.stack([picture for line in lines for picture in line]), len(shown))


def picture_of(out: Path, key: str) -> Tensor:
    """A result, (3, h, w)."""
    from PIL import Image

    with Image.open(out / "results" / f"{key}.png") as image:
        return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255).permute(2, 0, 1)


def main() -> None:
    """See this module's text."""
    given = arguments().parse_args()
    model = segue.load(given.model)
    asked: list[Method] = given.methods
    models: dict[Method, LatentDiffusion] = {method: model for method in asked if method != "instruct"}
    if given.instruct is not None:
        models["instruct"] = taught(given.model, given.instruct)
    methods: list[Method] = [*models]
    bench = Bench(models, given.out, given.steps, read_judge(given.judge), best_distance())
    every = cases(known_emoji(given.packages), share=given.share)
    until = time.monotonic() + 60 * given.minutes
    with torch.no_grad():
        found = list(rows(bench, every, settings(methods), until))
        print(f"{len(every)} edits; from right: {bench.distance.name}; seed 0; steps {given.steps or 'as usual'}")
        print("\n".join(table(found, bench.perfect(every), KNOBS)))
    if given.plot is not None:
        plot(found, bench.perfect(every), given.plot)
    if given.sheets:
        sheet(bench, every, found, given.out / "edits.png")


def taught(model: str, instruct: str) -> LatentDiffusion:
    """A model that follows instructions, by its name or with the file of an adapter."""
    file = Path(instruct)
    return segue.load(model, instruct=file) if file.suffix == ".safetensors" else segue.load(instruct)


def arguments() -> argparse.ArgumentParser:
    """What may be said."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--packages", type=Path, default=Path("runs/packages"), help="folder of the corpus's packages")
    parser.add_argument("--judge", type=Path, required=True, help="as benchmarks/models.py keeps it")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/editing"))
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--instruct", help="a model or a file of an adapter that follows instructions: adds it")
    parser.add_argument("--methods", nargs="+", choices=[*KNOBS], default=[*KNOBS])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--share", type=float, default=1.0, help="of the hundred edits")
    parser.add_argument("--minutes", type=float, default=1e6, help="make no more after so many")
    parser.add_argument("--plot", type=Path, help="an SVG file for the curves")
    parser.add_argument("--sheets", action="store_true", help="16 edits by each method, as a picture")
    return parser


if __name__ == "__main__":
    main()
