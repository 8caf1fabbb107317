"""`segue evaluate`: a film in numbers, and what they mean."""

from __future__ import annotations

import json
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from segue.cli.fields import verb
from segue.errors import TaskError

if TYPE_CHECKING:
    from segue.evaluation.report import Report

MOST_COLUMNS = 110


@dataclass(frozen=True)
class Judging:
    """What to judge.

    Args:
        video: a video, an animation, or a folder of pictures.
        source: the film that it was made from, of the same size and number of frames: how faithful it is.
        seam: the number of a frame where parts of the film meet, such as a key or a join; may be repeated.
        column: the number of the first pixel column to the right of a line where parts of the pictures meet, such as
            tiles; may be repeated.
        row: the number of the first pixel row below such a line; may be repeated.
        prompt: what the film should show; frames are scored by --clip-model, or by --judge.
        source_prompt: what the film shows that it was made from: which share of frames fits --prompt no less.
        caption: words that say how what it shows should move, such as "a bouncing ball": whether it does.
        clip_model: a folder or a hub repository of CLIP, in safetensors, such as openai/clip-vit-large-patch14.
        judge: a file of a classifier of a corpus's things, by which films of the embedded model are scored.
        aesthetic: a safetensors file of a linear head on the features of --clip-model, such as LAION's.
        against: pictures or a film to be compared with as sets: the Fréchet distance in features that are named.
        before: the film before it was restored, held against --source as well.
        mask: white where an edit of --source was to change it: what was kept outside is told, and nothing else. A
            picture beside its --source is told so, too.
        json: print one JSON object, with the steps of all frames, instead of text.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    video: Path
    source: Path | None = None
    seam: tuple[int, ...] = ()
    column: tuple[int, ...] = ()
    row: tuple[int, ...] = ()
    prompt: str | None = None
    source_prompt: str | None = None
    caption: str | None = None
    clip_model: str | None = None
    judge: Path | None = None
    aesthetic: Path | None = None
    against: Path | None = None
    before: Path | None = None
    mask: Path | None = None
    json: bool = False


@verb
def evaluate(judging: Judging) -> int:
    """Say how smooth a film is, in numbers that are explained: segue evaluate x.mp4"""
    from segue.cli.progress import Meter
    from segue.evaluation.report import evaluate
    from segue.evaluation.wanted import Wanted
    from segue.media import read

    if judging.mask is not None or (judging.source is not None and len(read(judging.video)) == 1):
        return _told_of_edit(judging)
    wanted = Wanted(
        judging.prompt, judging.source_prompt, judging.clip_model, judging.judge, judging.aesthetic, judging.against,
        judging.before, judging.caption,
    )  # fmt: skip
    with Meter() as meter:
        report = evaluate(
            judging.video,
            judging.source,
            seams=judging.seam,
            columns=judging.column,
            rows=judging.row,
            wanted=wanted,
            progress=meter,
        )
        for note in report.notes:
            meter.note(note)
    print(json.dumps(report.as_dict(), allow_nan=False) if judging.json else told(report))
    return 0


def _told_of_edit(judging: Judging) -> int:
    """What an edit kept of its source, a number a line."""
    from dataclasses import asdict

    from segue.cli.progress import Meter
    from segue.evaluation.distances import best_distance
    from segue.evaluation.edited import Words, edited
    from segue.media import read
    from segue.models import perceptual

    if judging.source is None:
        raise TaskError("a mask says where an edit was to change its source: give that, too (--source)")
    words = None
    if judging.clip_model is not None and judging.prompt and judging.source_prompt:
        words = Words(judging.prompt, judging.source_prompt, perceptual.ClipNetwork.load(judging.clip_model))
    maps = perceptual.EfficientNetFeatures.load() if perceptual.is_here("efficientnet-lite0") else None
    mask = None if judging.mask is None else read(judging.mask).frames
    result, source = read(judging.video).frames, read(judging.source).frames
    with Meter() as meter:
        found = edited(result, source, mask, distance=best_distance(), maps=maps, words=words, progress=meter)
    lines = [f"{one.name:14}  {_number(one.value):>9}  {one.better:7}  {one.meaning}" for one in found.measures()]
    print(json.dumps({"edited": asdict(found)}, allow_nan=False) if judging.json else "\n".join(lines))
    return 0


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def told(report: Report) -> str:
    """All numbers of a report, one a line, as wide as the terminal."""
    found = report.smoothness
    width, height = report.size
    about = f"{report.path}  {width}x{height}, {found.frames} frames at {report.fps:.5g} per second"
    across, down = found.compared_at
    measures = report.measures()
    longest = max(len(measure.name) for measure in measures)
    columns = min(shutil.get_terminal_size().columns, MOST_COLUMNS)
    steps = f"A step is the {found.distance} between neighbouring frames, as pictures of {across}x{down}."
    lines = [about, textwrap.fill(steps, columns), ""]
    lines.append(f"{'':{longest}}  {'':>9}  better")
    for measure in measures:
        start = f"{measure.name:{longest}}  {_number(measure.value):>9}  {measure.better:7}  "
        lines.append(textwrap.fill(start + measure.meaning, columns, subsequent_indent=" " * len(start)))
    return "\n".join(lines)
