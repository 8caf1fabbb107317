"""What a clip takes of evaluations and of memory, said before the run."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from segue.tasks.animate_long_choice import is_carried, outlook_of
from segue.tasks.sampling import Execution
from segue.temporal.frame_attention import Pattern
from segue.types import RowId

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion
    from segue.tasks.animate import Animate

LATENTS = 4
"""Tensors of a clip's latents at once: noisy and clean ones, what windows answer, and what a solver remembers."""
PICTURES = 6
"""The same of pictures while they are decoded, and lost detail is put back."""
FLOAT = 4


def outlook(task: Animate, model: LatentDiffusion, execution: Execution) -> tuple[str, ...]:
    """What was decided of what was left open, and what it takes, a line each.

    Args:
        task: with nothing left open.
        model: makes the frames.
        execution: batches.
    """
    steps, count, movement = task.sampling.steps or 1, task.frames, task.movement
    guided = not model.denoiser.embeds_guidance and task.sampling.guidance_scale != (1.0,)
    terms = 2 if guided else 1
    still = movement.engine == "joint" and draws_still(task, model)
    if task.long.long != "whole":
        return outlook_of(task, terms, still)
    begun = f"{count} frames at {task.fps:g} per second, "
    memory = memory_told(task, model, terms, execution)
    if movement.engine == "joint":
        by, both = (model.moving.engine if model.moving else "") or "frames denoised together", 1
        if model.family == "svd" and count > 1 and (task.last_image or movement.loop):
            by, both = f"{by}, forwards and backwards", 2
        if still:
            by = f"{by}, from a picture that is drawn first"
        share = movement.strength or 1.0 if is_carried(task) else 1.0
        rows = both * count * max(1, int(steps * share)) + steps * still
        return (f"{begun}by {by}: about {terms * rows} evaluations", *memory)
    share = movement.strength or 1.0
    each = int(steps * share) * count + (steps if task.image is None and movement.begun == "picture" else 0)
    goes = "as its control" if task.control else str(movement.way)
    return (f"{begun}of a picture that moves ({goes}; zero-shot): about {terms * each} evaluations", *memory)


def draws_still(task: Animate, model: LatentDiffusion) -> bool:
    """Whether a model of films first draws the picture that it sets in motion, as nobody gives it one."""
    moving = model.moving
    return moving is not None and moving.from_still and not task.pictures and task.frames > 1


def memory_told(task: Animate, model: LatentDiffusion, terms: int, execution: Execution) -> tuple[str, ...]:
    """A line on the memory that a clip takes whose frames are made together; none where nobody knows.

    Args:
        task: with nothing left open.
        model: makes the frames.
        terms: of guidance.
        execution: batches.
    """
    from segue.models.capacity import memory_of

    needed = taken_bytes(task, model, terms, execution)
    if not needed:
        return ()
    free = memory_of(model.device).free
    said = f"{_bytes(needed)} of memory or more are taken at once beside the model"
    if free and needed > free:
        said += f", and {_bytes(free)} are free: a smaller --size, --window or --max-batch takes less"
    return (said,)


def taken_bytes(task: Animate, model: LatentDiffusion, terms: int, execution: Execution) -> int:
    """Bytes that are taken at once beside the model, at least; 0 where nobody knows what its networks are given.

    Args:
        task: with nothing left open.
        model: makes the frames.
        terms: of guidance.
        execution: batches.
    """
    from segue.models.temporal_codec import TemporalCodec
    from segue.models.working import working_bytes

    size, count, codec = task.sampling.size, task.frames, model.codec
    assert size is not None
    joint = task.movement.engine == "joint"
    window = min(count, task.movement.window or count) if joint else 1
    together = codec.together if isinstance(codec, TemporalCodec) else execution.decoded_at_once(model, size)
    together = min(together, count)
    rows = min(terms * count, max(execution.max_batch, window))
    working = working_bytes(model, rows, size, together)
    if not working:
        return 0
    latents = count * codec.channels * prod(size) // codec.scale**2
    held = 0 if joint else _looked_at(task, model, execution)
    return working + FLOAT * (LATENTS * latents + PICTURES * together * 3 * prod(size)) + held


def _looked_at(task: Animate, model: LatentDiffusion, execution: Execution) -> int:
    """Bytes that wait in a step for frames that look at them."""
    from segue.models.attended import attended_bytes
    from segue.tasks.stylize_look import Looking

    pattern = Pattern.parse(str(task.movement.attention))
    if pattern == Pattern(own=True):
        return 0
    assert task.sampling.size is not None
    rows = [RowId("clip", frame) for frame in range(task.frames)]
    pictures = int(pattern.references != () and task.movement.begun == "picture")
    held = Looking(model, pattern).rows_held(rows, execution.max_batch, pictures)
    return held * attended_bytes(model, task.sampling.size)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
