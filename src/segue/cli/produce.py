"""What commands that make a clip have in common: names are checked first, what is finished is never lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from segue.cli.options import Output
from segue.cli.progress import Meter
from segue.cli.result import Result
from segue.errors import ExhaustedRunError, InterruptedRunError, MediaError
from segue.media.disk import check_record, free_path, partial_path, set_aside

if TYPE_CHECKING:
    from segue.media.clip import Clip

FAILED, INTERRUPTED = 1, 130


@dataclass(frozen=True)
class Job:
    """Something to make.

    Args:
        make: makes it, and tells a meter.
        default: name of the result if the user gives none.
        frames: how many it will have.
        fps: its rate.
        tree: where to draw the tree, if at all.
    """

    make: Callable[[Meter], Clip]
    default: str
    frames: int
    fps: float = 1.0
    tree: Path | None = None


def produce(job: Job, output: Output) -> int:
    """Make a clip, write it, and say so on stdout. What was finished when Ctrl-C came is written too.

    Returns:
        The command's exit code: 0, 130 after Ctrl-C, or 1 if memory ran out on the way.

    Raises:
        SegueError: the path cannot be written, found before anything is made; or what `make` raises.
    """
    began = time.monotonic()
    path = whole = output.output.expanduser() if output.output else free_path(Path(job.default))
    check(path, job.frames, job.fps, output.crf)
    if job.tree is not None:
        check_drawing(job.tree)
    complete, code = True, 0
    with Meter(output.quiet) as meter:
        if output.output is None:
            meter.note(f"the result will be {path}; choose another name with -o")
        try:
            clip = job.make(meter)
        except InterruptedRunError as error:
            if error.partial is None:
                raise
            clip, complete, code = error.partial, False, code_of(error)
            path = partial_path(path, aside=output.output is None)
            meter.note(f"{error}; writing them to {path}")
        clip = _noted(clip, path, output.crf)
        try:
            clip.save(path, crf=output.crf, progress=meter)
            written = len(clip)
        except InterruptedRunError as error:
            complete, path, written, code = False, error.path or path, error.frames, code_of(error)
            meter.note(str(error))
            if output.output is None and path == whole:
                path = set_aside(path)
                meter.note(f"it is now {path}, so that the same command finds its name free")
        if job.tree is not None:
            draw_tree(clip, job.tree)
    from segue.media.clip import ScratchFrames

    if complete and isinstance(clip.frames, ScratchFrames):
        clip.frames.discard()
    if output.json or not output.quiet:
        result = Result(path, clip, written, complete, time.monotonic() - began)
        print(json.dumps(result.as_dict(), allow_nan=False) if output.json else result.line())
    return code


def code_of(error: InterruptedRunError) -> int:
    """The exit code of a run that did not end: 130 after Ctrl-C, 1 if memory ran out."""
    return FAILED if isinstance(error, ExhaustedRunError) else INTERRUPTED


def check(path: Path, frames: int, fps: float, crf: int | None) -> None:
    """Find out before long work what would be in its way at the end.

    Args:
        path: of the result.
        frames: how many it will have.
        fps: its rate.
        crf: constant rate factor, if one was asked for.

    Raises:
        MediaError: the suffix names no format, or one that cannot hold the result.
        DiskError: nothing can be written there, or another program's JSON lies where the record goes.
    """
    from segue.media.formats import format_of
    from segue.media.writer import Writer

    if format_of(path).kind == "picture" and frames > 1:
        raise MediaError(
            f"{path.name} holds one picture, and the result has {frames}: choose a video such as "
            f"{path.stem}.mp4, or a name without suffix for a folder of pictures"
        )
    # Opening a writer finds what the folder, the format and the encoder refuse.
    Writer(path, fps, (64, 64), crf=crf).discard()
    check_record(path)


def check_drawing(path: Path) -> None:
    """Find out whether a drawing, or another file beside the result, can be written.

    Raises:
        DiskError: if not.
    """
    from segue.media.disk import disk_errors, part_of

    with disk_errors(path):
        part = part_of(path)
        part.touch()
        part.unlink()


def draw_tree(clip: Clip, path: Path) -> None:
    """Draw the tree of a transition, as its record states it.

    Raises:
        DiskError: if the file system refuses.
    """
    from segue.media.disk import written_whole
    from segue.tasks.transition_plan import TransitionPlan, tree_of
    from segue.temporal.drawing import draw
    from segue.temporal.simplex import Route

    record = clip.provenance.record if clip.provenance else {}
    task = record["fields"]
    names = Route.of(task["weights"], len(task["prompts"])).named(task["prompts"])
    tree = tree_of(TransitionPlan(**record["plan"]))
    # A loop ends at its first key.
    picture = draw(tree, task["sampling"]["steps"], [*names, names[0]])
    with written_whole(path.expanduser()) as part:
        part.write_text(picture, encoding="utf-8")


def _noted(clip: Clip, path: Path, crf: int | None) -> Clip:
    """The clip with a record that also says how it is written."""
    from segue.media.clip import Provenance
    from segue.tasks.record import WrittenAs

    record = clip.provenance.record if clip.provenance else {}
    return replace(clip, provenance=Provenance({**record, "output": asdict(WrittenAs(path.suffix, crf))}))
