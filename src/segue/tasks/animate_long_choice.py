"""How a long clip is made when nobody has said all of it, and what that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segue.errors import TaskError
from segue.tasks.animate_long_settings import USUAL_FRAMES, Filling, How, Long
from segue.temporal.clock import Clock
from segue.temporal.curve import Curve
from segue.temporal.plan_levels import Levels

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion
    from segue.tasks.animate import Animate

FORKED = 0.8
"""Share of the steps in which a model of films fills between two frames, from a mix of both."""
PART = 16
"""Frames of a part by a model of single pictures."""


def long_of(task: Animate, model: LatentDiffusion) -> Long:
    """With nothing left open, for a task whose frames and engine are known.

    Raises:
        TaskError: the model cannot, or what was said does not go together.
    """
    asked, moving = task.long, model.moving
    joint = task.movement.engine == "joint"
    given = moving.given if moving is not None and joint else ()
    how = asked.long or ("keys" if asked.of_keys else _usual(task, model))
    if task.frames == 1:
        how = "whole"
    if how == "whole":
        if asked.pin is not None:
            raise TaskError(
                "nothing is pinned where all frames are denoised together: leave pin out, or take long keys"
            )
        return Long("whole")
    if task.control:
        raise TaskError("a clip that is drawn after a control is made as a whole: leave long out")
    if how == "parts":
        if joint and "first" not in given:
            raise TaskError(f"{model.name} can be given no first frame, so that nothing follows on it: take long keys")
        if task.movement.loop or task.last_image is not None:
            raise TaskError(
                "parts know nothing of the end of the clip: leave loop and last_image out, or take long keys"
            )
        if task.movement.begun == "latents":
            raise TaskError("parts go on from pictures: leave out begun latents, or take long whole")
        return Long("parts", pin=asked.weight)
    return Long("keys", asked.factors, _fills(task, model, given), asked.weight)


def _usual(task: Animate, model: LatentDiffusion) -> How:
    """How a clip is made of which nobody says so."""
    moving = model.moving
    if moving is not None and not moving.words:
        return "parts" if _is_longer(task, model) else "whole"
    if moving is not None and moving.from_still and carries(task):
        # However long it is: what leads back to a picture, or up to it, is carried as a whole.
        return "parts" if goes_on(task, model) else "whole"
    if task.frames > USUAL_FRAMES and not task.control:
        return "keys"
    return "parts" if goes_on(task, model) else "whole"


def goes_on(task: Animate, model: LatentDiffusion) -> bool:
    """Whether frames that are more than a model looks at are made in parts, by one that sets pictures in motion.

    Windows that overlap would not do: one that is shown no frame has nothing that it could set in motion.
    """
    return model.moving is not None and model.moving.from_still and _is_longer(task, model)


def is_carried(task: Animate) -> bool:
    """Whether a task whose movement is known carries one picture, and draws it anew in a share of the run."""
    movement = task.movement
    if movement.engine != "joint" or movement.strength in (None, 1.0) or len(task.pictures) > 1:
        return False
    track = Curve.of(1.0 if movement.motion is None else movement.motion).on(Clock(float(task.fps or 1)))
    return task.frames > 1 and min(track.at(frame / float(task.fps or 1)) for frame in range(task.frames)) > 0


def carries(task: Animate) -> bool:
    """Whether that picture has one course for all of the clip, however long it is: nothing of it changes on the way."""
    from segue.tasks.animate_told import told_alike

    motion = task.movement.motion
    return is_carried(task) and told_alike(task.prompts, 1.0 if motion is None else motion)


def _is_longer(task: Animate, model: LatentDiffusion) -> bool:
    """Whether there are more frames than a model looks at, and nothing is said of the last one."""
    moving = model.moving
    ends_open = not (task.movement.loop or task.last_image)
    if moving is None or task.movement.engine != "joint":
        return False
    return task.frames > (task.movement.window or moving.frames) and ends_open


def _fills(task: Animate, model: LatentDiffusion, given: tuple[str, ...]) -> tuple[Filling, ...]:
    ends = {"first", "last"} <= set(given)
    usual: Filling = "joint" if ends else "branches"
    fills = task.long.fills or (usual,)
    levels = len(task.long.factors)
    if len(fills) not in (1, levels):
        raise TaskError(f"fill is one for all levels, or one for each of {levels}; got {len(fills)}")
    if "joint" in fills and not ends:
        raise TaskError(
            f"{model.name} cannot be given both a first and a last frame, and fills nothing between two: take fill "
            "branches or flow"
        )
    if "branches" in fills and task.prompt is None:
        raise TaskError(f"{model.name} takes no words, and branches are drawn after words: take fill joint or flow")
    return fills * levels if len(fills) == 1 else fills


def evaluations(task: Animate, terms: int, still: bool = False) -> int:
    """About how many network evaluations a task takes that is made by keys or parts, and has nothing left open.

    Args:
        task: whose frames are made.
        terms: of guidance.
        still: whether a model of films draws a picture first, which it sets in motion.
    """
    steps, movement = task.sampling.steps or 1, task.movement
    zero_shot = movement.engine == "zero-shot"
    share = movement.strength or 1.0 if zero_shot or is_carried(task) else 1.0
    drawn, branch = max(1, int(steps * share)), max(1, int(steps * (movement.strength or 0.5)))
    first = steps if still or (zero_shot and task.image is None) else 0
    if task.long.long == "parts":
        length = PART if zero_shot else movement.window or PART
        parts = -(-(task.frames - 1) // max(1, length - 1))
        return terms * (first + drawn * (task.frames + (2 * parts if zero_shot else parts - 1)))
    plan = Levels(task.frames, task.long.factors, movement.loop)
    rows = drawn * (len(plan.outline) + (1 if zero_shot else 0))
    for gap in plan.gaps():
        for stretch in gap.stretches:
            how = task.long.fills[min(stretch.level, len(task.long.fills) - 1)]
            rows += {"flow": 0, "branches": branch, "joint": max(1, int(steps * FORKED))}[how] * len(stretch.frames)
    return terms * (first + rows)


def outlook_of(task: Animate, terms: int, still: bool = False) -> tuple[str, ...]:
    """What a long clip is made of, and what it takes, a line each; see `evaluations`."""
    begun = f"{task.frames} frames at {task.fps:g} per second, "
    about = f"about {evaluations(task, terms, still)} evaluations"
    size = task.sampling.size
    assert size is not None
    kept = f"{_bytes(3 * size[0] * size[1] * task.frames)} on disk while it is made"
    if task.long.long == "parts":
        made = "all of the first picture" if carries(task) else "each from the last frames of the one before"
        return (f"{begun}in parts, {made}: {about}, {kept}",)
    plan = Levels(task.frames, task.long.factors, task.movement.loop)
    fills = ", then ".join(
        f"{factor} times as many by {how}" for factor, how in zip(task.long.factors, task.long.fills, strict=True)
    )
    return (f"{begun}{len(plan.outline)} key frames first, {fills}: {about}, {kept}",)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
