"""Figures in the clothes of some and the poses of others: N sources, each in the motions of M targets.

    python benchmarks/fashion.py -o runs/fashion --sources 3 --targets 3 --frames 12
    python benchmarks/fashion.py -o runs/fashion --pose mediapipe --sheets      # poses are found by a network
    python benchmarks/fashion.py -o runs/fashion --teach 450      # the model is tuned to each source before

Sources and targets are rendered figures (`segue.training.figure`). Of a source the model is given one picture, as a
reference, and the words for its clothes; of a target the sticks of its exact key points, frame by frame. What should
come out is known: the source, rendered in the motion of the target. Films are kept, as in `stylize.py`.

With `--teach` the model learns each source by as many steps of `segue train subject`, from pictures of it in motions
that are no target's (`LESSONS`), and is asked for it by the phrase of that recipe; ours is then shown without, too.

* Pose-MSE, missing: see `segue.evaluation.pose_mse`, of poses that are found in the film against those that it was
  given. "postures" is no pose network: it draws the source in all postures it knows and takes the one that looks most
  like the picture (`segue.training.figure_match`). The last row has the same of what should come out: bodies differ.
* overlap: of the figure's outline, which is what differs from the ground, with the target's, intersection over union.
* changed: the distance that is named above the table, to the source in that motion.
* Fréchet: in named features, of the frames of all films of a method, to those of the sources in these motions; behind
  it, to the targets' own. A model that heeds its references is nearer to the first.
* warp: as in `stylize.py`, along the flow of the target's film.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Bool, Float
from stylize import METHODS, Film, control_digests, drawn, frames_digest
from stylize_table import ALONE, OURS, shown_mean
from torch import Tensor

import segue
from segue.errors import SegueError, TaskError
from segue.evaluation.distances import best_distance
from segue.evaluation.features import extract
from segue.evaluation.frechet import frechet_distance
from segue.evaluation.pose_mse import pose_mse
from segue.evaluation.wanted import usual_features
from segue.evaluation.warp_error import warp_error
from segue.media.clip import Clip, TensorFrames
from segue.media.reader import read
from segue.models.annotate import draw_skeleton, find_annotator
from segue.models.bundle import LatentDiffusion
from segue.models.lora import applied
from segue.motion.keypoints import smoothed
from segue.tasks.sampling import Sampling
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_settings import Beginning, References, Shape
from segue.training.figure import MOTIONS, FigureClip, figure_clip
from segue.training.figure_match import nearest_postures
from segue.training.journal import save_sheet
from segue.training.recipes import subject
from segue.types import KeyPoints

GROUND = (0.93, 0.93, 0.9)
LESSONS, EVERY = ("jump", "turn", "stretch"), 3
"""The motions that a source is taught in, and of how many frames one is a lesson."""
UNTAUGHT = "ours, not taught"
POSTURES = "postures"
OTHERS = 1000
"""From which number on subjects are targets, so that none is a source as well."""
MEASURES = {"Pose-MSE": 4, "missing": 2, "overlap": 3, "changed": 3, "warp": 2, "s/frame": 2}
UNLIKE_GROUND = 0.08


@dataclass(frozen=True)
class Case:
    """A source in the motion of a target; what a `Film` of `stylize.py` is kept for.

    Args:
        source: who it should show.
        target: the film that moves.
        truth: the source in that motion.
        folder: where the target's frames, the sticks and the reference lie.
        taught: what the model learned of the source, if anything.
    """

    source: int
    target: FigureClip
    truth: FigureClip
    folder: Path
    taught: Path | None = None

    @property
    def clip(self) -> str:
        return f"source {self.source}"

    @property
    def prompt(self) -> str:
        return self.target.motion

    @property
    def name(self) -> str:
        return f"{self.clip}: {self.prompt}"

    @property
    def frames(self) -> TensorFrames:
        return TensorFrames.rounded(self.target.frames[0 : len(self.target)])

    def digests(self) -> list[str]:
        """Names for what the model is given: film, sticks and reference."""
        films = (read(self.folder / name).frames for name in ("film", "sticks", "reference.png"))
        return [frames_digest(TensorFrames.rounded(film[0 : len(film)])) for film in films]

    def task(self, method: str, steps: int | None, seed: int) -> Stylize:
        """What a method does with it."""
        said = dict(METHODS[method])
        noise = said.pop("noise", None)
        if method == OURS:
            del said["agreement"]  # the preset's own, which has the reference in it
        else:
            said["agreement"] = replace(said["agreement"], attention="reference, self")
        return Stylize(
            str(self.folder / "film"),
            subject.Config().phrase if self.taught else self.truth.subject.words,
            preset="fashion",
            seed=seed,
            control=(f"pose::{self.folder / 'sticks'}",),
            references=References((str(self.folder / "reference.png"),)),
            beginning=Beginning(1.0, "noise", noise),
            sampling=Sampling(steps, size=self.target.size),
            shape=Shape(model_size=True, window=max(64, len(self.target))),
            **said,
        )


def cases(given: argparse.Namespace, size: tuple[int, int]) -> list[Case]:
    """All sources in all motions, with what the model is given of them on disk."""
    found: list[Case] = []
    for number in range(given.targets):
        motion, target = list(MOTIONS)[number % len(MOTIONS)], OTHERS + number
        film, *_ = figures = [
            figure_clip(who, motion, size=size, frames=given.frames, ground=GROUND)
            for who in (target, *range(given.sources))
        ]
        for source, truth in enumerate(figures[1:]):
            folder = given.out / "cases" / f"{source}-{target}-{motion}-{size[0]}x{size[1]}x{given.frames}"
            found.append(Case(source, film, truth, folder))
            if folder.is_dir():
                continue
            folder.mkdir(parents=True)
            sticks = TensorFrames.rounded(draw_skeleton(film.key_points))
            Clip(TensorFrames.rounded(film.frames[0 : given.frames]), 12).save(folder / "film")
            Clip(sticks, 12).save(folder / "sticks")
            posed = figure_clip(source, "stretch", size=size, frames=1, ground=GROUND)
            Clip(TensorFrames.rounded(posed.frames[0:1]), 12).save(folder / "reference.png")
    return found


def taught(source: int, given: argparse.Namespace, size: tuple[int, int]) -> Path:
    """What a model learns of a source; where it was learned already, that."""
    folder = given.out / "subjects" / str(source)
    for motion in LESSONS:
        film = figure_clip(source, motion, size=size, frames=24, ground=GROUND)
        for number in range(0, len(film), EVERY):
            lesson = folder / "pictures" / f"{motion}-{number:02}.png"
            lesson.parent.mkdir(parents=True, exist_ok=True)
            if not lesson.exists():
                Clip(TensorFrames.rounded(film.frames[number : number + 1]), 12).save(lesson)
    asked = subject.Config(given.model, folder / "pictures", folder / "run", steps=given.teach)
    return subject.main(asked)


@contextmanager
def tuned(model: LatentDiffusion, case: Case) -> Generator[LatentDiffusion]:
    """The model, with what it learned of the source."""
    if case.taught is None:
        yield model
        return
    with applied(model, {case.taught: 1.0}) as learned:
        yield learned


def overlap_with(picture: Float[Tensor, "3 h w"], due: Bool[Tensor, "h w"]) -> float:
    """Intersection over union of what differs from the picture's edge, and an outline."""
    edge = torch.cat([picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]], 1).median(1).values
    figure = (picture - edge[:, None, None]).abs().amax(0) > UNLIKE_GROUND
    return float((figure & due).sum() / (figure | due).sum().clamp(min=1))


def overlap(frames: TensorFrames, target: FigureClip) -> float:
    """The same with the target's outline, of all frames."""
    return fmean(overlap_with(frames[i : i + 1][0], target.alpha(i) > 0.5) for i in range(len(frames)))


def measured(film: Film, case: Case, finder: Finder) -> dict[str, float]:
    """All numbers of one film."""
    frames, distance = film.frames, best_distance()
    if frames is None:
        return {}
    truth = TensorFrames.rounded(case.truth.frames[0 : len(frames)])
    warped = warp_error(frames, case.frames, intervals=(1,), to_first=False).at(1).absolute
    apart = [distance(frames[i : i + 1], truth[i : i + 1]).item() for i in range(len(frames))]
    pose, missing = posed(frames, case.truth, case.target.key_points, finder)
    return {
        "Pose-MSE": pose,
        "missing": missing,
        "overlap": overlap(frames, case.target),
        "changed": fmean(apart),
        "warp": math.nan if warped is None else 255 * warped,
        "s/frame": film.record["seconds"],
    }


Finder = Callable[[TensorFrames, FigureClip], KeyPoints]


def finder_of(kind: str) -> Finder:
    """Who finds the poses of a film of a subject that is known."""
    if kind == POSTURES:
        return lambda frames, like: nearest_postures(frames[0 : len(frames)], like).key_points
    annotator: Any = find_annotator("pose", source=None if kind == "usual" else kind, steady=smoothed)
    return lambda frames, like: annotator.key_points(frames)


def posed(frames: TensorFrames, like: FigureClip, due: KeyPoints, finder: Finder) -> tuple[float, float]:
    """Pose-MSE, and the share of points that were not found; of a film in which nobody is seen, all of them."""
    try:
        found = pose_mse(finder(frames, like), due)
    except TaskError:
        return math.nan, 1.0
    return math.nan if found.value is None else found.value, found.missing


def frechet(films: Sequence[Film], of: str) -> str:
    """The distance of all frames of some films to the sources', and to the targets', in these motions."""
    features = usual_features()

    def looked(parts: Sequence[Any]) -> torch.Tensor:
        return torch.cat([extract(features, part[0 : len(part)]) for part in parts])

    mine = looked([film.frames for film in films])
    truth, other = (looked([getattr(film.edit, whose).frames for film in films]) for whose in ("truth", "target"))
    values = [frechet_distance(mine, each, features.name).value for each in (truth, other)]
    return f"{of}: {values[0]:.2f} to the sources, {values[1]:.2f} to the targets ({features.name}, {len(mine)} frames)"


def made(model: LatentDiffusion, finder: Finder, given: argparse.Namespace) -> dict[str, list[Film]]:
    """The films of each row of the table, measured; what is missing is drawn."""
    size, controls = model.defaults.size, control_digests(["pose"], model)
    lessons = {source: taught(source, given, size) for source in range(given.sources if given.teach else 0)}
    rows = {ALONE: True, OURS: True, **({UNTAUGHT: False} if lessons else {})}
    films: dict[str, list[Film]] = {row: [] for row in rows}
    for plain in cases(given, size):
        for row, learned in rows.items():
            case, method = replace(plain, taught=lessons.get(plain.source) if learned else None), row.split(",")[0]
            with torch.no_grad(), tuned(model, case) as drawing:
                task = case.task(method, given.steps, given.seed)
                asked = [asdict(task.filled_in()), *case.digests(), drawing.fingerprint, *controls]
                name = hashlib.blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest()
                film = Film(case, method, given.out / "films" / name)
                if film.frames is None:
                    film.keep(*drawn(drawing, task, len(case.target)))
                    print(f"{case.name}, {row}: {film.record['seconds']:.2f} s a frame", flush=True)
                film.note(film.record | measured(film, case, finder))
            films[row].append(film)
        if given.sheets:
            sheet(plain, [done[-1] for done in films.values()], given.out)
    return films


def main(words: Sequence[str] | None = None) -> None:
    """Make what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--sources", type=int, default=3)
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--pose", default=POSTURES, help="finds poses: postures, usual, mediapipe, a ViTPose repository"
    )
    parser.add_argument("--teach", type=int, default=0, metavar="STEPS", help="of training on each source")
    parser.add_argument("--sheets", action="store_true")
    given = parser.parse_args(words)
    if given.teach and given.targets > len(MOTIONS) - len(LESSONS):
        parser.error(
            f"with --teach there are at most {len(MOTIONS) - len(LESSONS)} targets: sources learn by the others"
        )
    try:
        model, finder = segue.load(given.model), finder_of(given.pose)
        films = made(model, finder, given)
    except SegueError as error:
        raise SystemExit(str(error)) from None
    print(f"\n{model.name}; changed: {best_distance().name}\n\n| method | {' | '.join(MEASURES)} |")
    print("|---" * (len(MEASURES) + 1) + "|")
    for method, drawn_so in films.items():
        cells = [
            shown_mean({film.edit.name: film.record[name] for film in drawn_so}, digits)
            for name, digits in MEASURES.items()
        ]
        print(f"| {method} | {' | '.join(cells)} |")
    own = {
        case.name: posed(
            TensorFrames.rounded(case.truth.frames[0 : given.frames]), case.truth, case.target.key_points, finder
        )
        for case in (film.edit for film in films[ALONE])
    }
    told = [shown_mean({case: pair[i] for case, pair in own.items()}, digits) for i, digits in enumerate((4, 2))]
    print(f"| what should come out | {' | '.join([*told, *([''] * (len(MEASURES) - 2))])} |")
    print("\nFréchet distances:")
    for method, drawn_so in films.items():
        print(frechet(drawn_so, method))


def sheet(case: Case, films: Sequence[Film], out: Path) -> None:
    """Target, source in its motion, and the films, a row each."""
    count = len(case.target)
    picks = [round(i * (count - 1) / 5) for i in range(6)]
    rows: list[Any] = [case.target.frames, case.truth.frames, *(film.frames for film in films)]
    pictures = torch.cat([row[i : i + 1] for row in rows for i in picks])
    save_sheet(out / f"sheet-{case.source}-{case.prompt}.png", pictures, len(picks))


if __name__ == "__main__":
    main()
