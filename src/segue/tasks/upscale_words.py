"""What an upscaler is told of each frame: words of the user, or those that a film of Segue was made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.errors import RecordError, TaskError
from segue.tasks.record import Record, read_record
from segue.tasks.sampling import Sampling
from segue.temporal.simplex import Route

if TYPE_CHECKING:
    from segue.temporal.texts import Words


@dataclass(frozen=True)
class Story:
    """What a film shows, from its first frame to its last.

    Args:
        prompts: that it passes; [""] if nothing is known.
        points: mixes of them that it passes in order, each with a share of every prompt.
        positions: of each frame on the line of these points.
        words: how texts are mixed.
        note: what is good to know about where this came from; "" if nothing.
    """

    prompts: tuple[str, ...]
    points: tuple[tuple[float, ...], ...]
    positions: tuple[float, ...]
    words: Words = "tokens"
    note: str = ""

    @staticmethod
    def spread(prompts: Sequence[str], frames: int, note: str = "") -> Story:
        """One prompt for all frames, or several that are passed at even speed."""
        points = Route.through(len(prompts)).points
        last = len(points) - 1
        positions = tuple(last * frame / max(1, frames - 1) for frame in range(frames))
        return Story(tuple(prompts), points, positions, note=note)


def story_of(record: Record, frames: int) -> Story | None:
    """What a record says about its film, of which there are so many frames now; None if it has no prompt."""
    fields, plan = record.fields, record.plan
    if record.task == "transition":
        return _of_transition(fields, plan, frames)
    if record.task == "live":
        return _of_live(fields, frames)
    said = fields.get("prompt")
    prompts = (said,) if isinstance(said, str) else tuple(said or ())
    if not any(prompts):
        return None
    if record.task == "animate":
        return _of_animate(fields, frames)
    if record.task == "upscale" and len(plan["positions"]) == frames:
        points = tuple(tuple(point) for point in plan["points"])
        return Story(prompts, points, tuple(plan["positions"]), plan["words"])
    return Story.spread(prompts, frames)


def _of_transition(fields: dict[str, Any], plan: dict[str, Any], frames: int) -> Story:
    from segue.temporal.wording import Wording

    prompts = tuple(Wording.of(prompt).at_first for prompt in fields["prompts"])
    if len(plan["shots"]) != frames:
        note = f"its record tells of {len(plan['shots'])} frames, and it has {frames}: prompts are passed at even speed"
        return Story.spread(prompts, frames, note)
    route = Route.of(fields.get("weights", ""), len(prompts))
    if fields["pace"]["loop"] == "loop":
        route = route.closed()
    places = [float(node[0]) for node in plan["nodes"]]
    positions = tuple(places[left] * (1 - share) + places[right] * share for left, right, share in plan["shots"])
    return Story(prompts, route.points, positions, fields["likeness"].get("words", "tokens"))


def _of_animate(fields: dict[str, Any], frames: int) -> Story:
    from segue.temporal.clock import Clock
    from segue.temporal.prompts import Prompts

    prompts, fps = Prompts.of(fields["prompt"]), float(fields["fps"])
    made = max(1, round(fields["seconds"] * fps))
    if made != frames:
        note = f"its record tells of {made} frames, and it has {frames}: prompts are passed at even speed"
        return Story.spread(prompts.at_first, frames, note if len(prompts) > 1 else "")
    positions = tuple(prompts.place(number / fps, Clock(fps)) for number in range(frames))
    return Story(prompts.at_first, Route.through(len(prompts)).points, positions)


def _of_live(fields: dict[str, Any], frames: int) -> Story:
    from segue.tasks.live import Live
    from segue.tasks.upscale_live import told
    from segue.temporal.wording import Wording

    stated: dict[str, Any] = {**fields, "sampling": Sampling(**fields["sampling"])}
    task = Live(**stated)
    prompts = tuple(Wording.of(prompt).at_first for prompt in (task.prompt, *(said.prompt for said in task.script)))
    if task.frames != frames:
        note = f"its record tells of {task.frames} frames, and it has {frames}: prompts are passed at even speed"
        return Story.spread(prompts, frames, note)
    points, positions = list[tuple[float, ...]](), list[float]()
    for shares in told(task):
        if not points or points[-1] != shares:
            points.append(shares)
        positions.append(float(len(points) - 1))
    return Story(prompts, tuple(points), tuple(positions))


def recorded_at(path: Path) -> Path | None:
    """Where the record of an input lies, if there is one; None for a format that Segue does not write."""
    from segue.media.disk import record_path
    from segue.media.formats import FORMATS

    return record_path(named(path)) if path.suffix.lower() in FORMATS or path.is_dir() else None


def named(path: Path) -> Path:
    """The same place by a name of its own, which "." and ".." are not."""
    return path.resolve() if path.name in ("", "..") else path


def record_beside(path: Path) -> Record | None:
    """The record of a result of Segue, if there is one beside it.

    Raises:
        RecordError: there is one, and it cannot be read.
    """
    beside = recorded_at(path)
    return read_record(beside) if beside is not None and beside.is_file() else None


def found_story(path: Path, frames: int) -> Story:
    """What the record beside a film says that it shows; nothing, if there is none."""
    try:
        record = record_beside(path)
        story = None if record is None else story_of(record, frames)
    except (RecordError, TaskError, LookupError, TypeError, ValueError) as error:
        return Story.spread([""], frames, f"the JSON beside {path.name} does not say what it shows ({error})")
    return story or Story.spread([""], frames)
