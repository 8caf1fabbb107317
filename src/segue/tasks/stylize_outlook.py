"""What a film takes that is drawn anew: evaluations of the network, and memory; said before the run."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from segue.models.attended import attended_bytes, attended_tokens
from segue.models.bundle import LatentDiffusion
from segue.models.capacity import memory_of
from segue.tasks.deflicker import BYTES, BYTES_BESIDE
from segue.tasks.sampling import Execution
from segue.tasks.stylize import OURS, Stylize
from segue.tasks.stylize_look import Looking, has_anchors
from segue.tasks.stylize_plan import parts_of
from segue.tasks.stylize_settings import PLAIN
from segue.temporal.frame_attention import Pattern
from segue.types import RowId

PLACE = 8
"""Bytes of the number of a token."""
ANCHORS = 2
"""Frames that are chosen in the first part of a film for all to look at, at most."""
FURTHER = 4
"""Frames that are chosen besides, of all other parts, for what these show anew, at most."""


def outlook(task: Stylize, model: LatentDiffusion, frames: int, controls: int, execution: Execution) -> tuple[str, ...]:
    """A line that says what is evaluated, one of what waits in memory for others, and one where memory is short.

    Args:
        task: with nothing left open.
        model: with its controls.
        frames: of the film.
        controls: how many there are.
        execution: batches.
    """
    assert task.sampling.size is not None and task.sampling.steps is not None
    window = task.shape.window or 1
    parts = parts_of([0], frames, window, task.shape.overlap or 0)
    rows, looks = rows_of(task, model), Pattern.parse(task.agreement.attention or PLAIN)
    riding = len(task.references.reference) * len(parts) if looks.references != () else 0
    riding += (ANCHORS * looks.anchors + looks.first) * (len(parts) - 1)
    counted = f"{frames} frame{'s' * (frames > 1)} in {len(parts)} part{'s' * (len(parts) > 1)}"
    more = ", more where shots begin" if task.shape.cuts == "auto" and frames > 1 else ""
    total = rows * (sum(stop - first for first, stop in parts) + riding)
    cost = f": {rows} evaluations a frame, about {total} in all" if task.method == OURS else ""
    said = [f"{counted} of up to {window}{more}{cost}"]
    several = len(parts) > 1 or bool(more)
    held = held_bytes(task, model, min(frames, window), execution, several=several) if frames > 1 else 0
    if has_anchors(looks):
        numbers = prod(task.sampling.size) // model.codec.scale**2 * model.codec.channels * 4 * steps_of(task)
        most = ANCHORS + FURTHER * (looks.anchors and several)
        said.append(f"a bank of what frames look at takes up to {_size(most * numbers)} (--save-bank)")
    if held:
        said.append(f"what frames look at takes {_size(held)} of memory in every step")
    width, height = task.sampling.size
    blended = BYTES + BYTES_BESIDE * (task.agreement.around or 0) if task.agreement.around else 0
    # Latents, and control pictures of both terms, are held of all frames of a part.
    needed = held + width * height * (blended + min(frames, window) * (1 + 2 * 3 * controls))
    free = memory_of(model.device).free
    if free and needed > free:
        said.append(
            f"about {_size(needed)} of memory are taken at once beside the model, and {_size(free)} are free: a "
            "smaller --window, --size or --max-batch takes less"
        )
    return tuple(said)


def rows_of(task: Stylize, model: LatentDiffusion) -> int:
    """Evaluations of the network that a frame takes: of each guidance term, at each step that is run."""
    steps, count = task.sampling.steps or 1, steps_of(task)
    guided = task.sampling.guidance_scale != (1.0,) and not model.denoiser.embeds_guidance
    start = task.sampling.guidance_start or 0.0
    both = sum(step / steps >= start for step in range(steps - count, steps)) if guided else 0
    return count + both


def steps_of(task: Stylize) -> int:
    """How many steps are run."""
    steps, begun = task.sampling.steps or 1, task.beginning
    return steps if begun.start == "noise" else max(1, int(steps * (begun.strength or 1.0)))


def held_bytes(
    task: Stylize, model: LatentDiffusion, frames: int, execution: Execution, *, several: bool = False
) -> int:
    """Bytes that wait in memory in a step, at most, for others to look at them.

    Args:
        task: with nothing left open.
        model: with its controls.
        frames: of a part.
        execution: batches.
        several: whether there are parts behind the first.

    Raises:
        TaskError: another method is to let frames attend to each other in one call, and they do not fit into one.
    """
    if task.method != OURS:
        return _held_by_another(task, model, frames, execution)
    pattern = Pattern.parse(task.agreement.attention or PLAIN)
    # Those of a bank ride along, and wait in memory as all others do: how many they are, its file says.
    pattern = replace(pattern, bank=())
    if pattern == Pattern(own=True):
        return 0
    assert task.sampling.size is not None
    anchors = tuple(range(min(frames, ANCHORS))) if pattern.anchors else ()
    rows = [RowId("clip", frame) for frame in range(frames)]
    looking, pictures = Looking(model, pattern, anchors), len(task.references.reference)
    held = looking.rows_held(rows, execution.max_batch, pictures)
    if several and has_anchors(pattern):
        before = len(pattern.ahead(frames)) + (ANCHORS + FURTHER) * pattern.anchors
        before += pictures * (pattern.references != ())
        held = max(held, looking.rows_held(rows, execution.max_batch, pictures, before))
    return held * attended_bytes(model, task.sampling.size)


def _held_by_another(task: Stylize, model: LatentDiffusion, frames: int, execution: Execution) -> int:
    """Likewise, of a method that is not ours; 0 where it is no more than a frame or two."""
    from segue.temporal.rivals.catalogue import find_rival
    from segue.temporal.rivals.fatezero import FateZero
    from segue.temporal.rivals.tokenflow import TokenFlow

    method, size = find_rival(task.method), task.sampling.size
    assert size is not None
    check_calls(task, frames, execution)
    if isinstance(method, TokenFlow):
        rows, places = method.held(frames, _terms(task))
        return rows * attended_bytes(model, size) + places * PLACE * attended_tokens(model, size)
    if isinstance(method, FateZero):
        (asked, seen), most = method.held(frames), method.most
        own, words = (attended_bytes(model, size, kinds=(kind,), most=most) for kind in ("self", "cross"))
        # Where a clip is cut into several calls, what the middle frame is waits for the later ones, too.
        middle = _terms(task) * attended_bytes(model, size) if frames * _terms(task) > execution.max_batch else 0
        return asked * (own + words) + seen * own + middle
    return 0


def check_calls(task: Stylize, frames: int, execution: Execution) -> None:
    """Whether the calls of another method are large enough for it.

    Args:
        task: with nothing left open.
        frames: of a part, at most.
        execution: batches.

    Raises:
        TaskError: frames that attend to each other in one call do not fit into one.
    """
    from segue.temporal.rivals.catalogue import RIVALS
    from segue.temporal.rivals.tokenflow import TokenFlow

    method = RIVALS[task.method]() if task.method in RIVALS else None
    if isinstance(method, TokenFlow):
        method.check_calls(frames, _terms(task), execution.max_batch)


def _terms(task: Stylize) -> int:
    """Of guidance."""
    return 1 if task.sampling.guidance_scale == (1.0,) else 2


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
