"""Which engine makes a clip, and how it moves where nobody has said so; what neither can do is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from segue.errors import TaskError
from segue.tasks.animate_settings import OF_ZERO_SHOT, USUAL_ATTENTION, USUAL_STRENGTH, Engine, Movement, Way
from segue.temporal.curve import Curve
from segue.temporal.prompts import Prompts

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion
    from segue.tasks.animate import Animate


def chosen(task: Animate, model: LatentDiffusion) -> Engine:
    """The engine that was asked for, or that suits the model.

    Raises:
        TaskError: it cannot take all that the task says.
    """
    if model.instructs:
        raise TaskError(f"{model.name} changes pictures that it is shown: take segue edit, or a model of another kind")
    if model.lora_curves:
        raise TaskError(
            "a LoRA whose scale changes acts on single rows, and the frames of a clip look at each other: give each "
            f"LoRA one number, got {model.lora_curves[0]!r}"
        )
    carries = model.moving is not None and model.moving.from_still
    fields = OF_ZERO_SHOT if carries else (*OF_ZERO_SHOT, "strength")
    of_zero_shot = [name for name in fields if getattr(task.movement, name) is not None]
    by_default = "joint" if model.moving is not None and not (of_zero_shot or task.control) else "zero-shot"
    engine = task.movement.engine or by_default
    if engine == "zero-shot":
        _check_zero_shot(task, model)
        return engine
    if model.moving is None:
        raise TaskError(
            f"{model.name} was made for single pictures, and cannot denoise frames together: leave engine out "
            "(zero-shot), or take a model that was made for films"
        )
    if task.movement.strength is not None and not carries:
        raise TaskError(
            f"strength says how much of pictures that were moved is drawn anew, and {model.name} moves none: leave it "
            "out"
        )
    _check_told(task, model)
    _check_given(task, model)
    return engine


def _check_zero_shot(task: Animate, model: LatentDiffusion) -> None:
    if model.moving is not None and not model.moving.words:
        raise TaskError(f"{model.name} makes films of pictures, and no pictures of words: leave engine out")
    if task.prompt is None:
        raise TaskError("a model of single pictures draws frames after words: say what the picture shows (PROMPT)")
    if task.last_image is not None:
        raise TaskError(
            "a model of single pictures is given no last frame: take one that was made for films, or "
            "segue transition --key-image first=A --key-image last=B"
        )
    for name in ("context_guidance", "window"):
        if getattr(task.movement, name) is not None:
            raise TaskError(f"{name} is of models that were made for films, and {model.name} was not: leave it out")
    if task.movement.loop and _is_curved(task.movement):
        raise TaskError(
            "a loop of a model of single pictures goes there and back by itself: give motion as one number, got "
            f"{task.movement.motion!r}"
        )


def _check_told(task: Animate, model: LatentDiffusion) -> None:
    """What a model that was made for films is told in words and numbers."""
    moving, motion = model.moving, task.movement.motion
    assert moving is not None
    if task.prompt is not None and not moving.words:
        raise TaskError(f"{model.name} goes by a picture alone, and takes no words: leave out {task.prompt!r}")
    if task.prompt is None and moving.words:
        raise TaskError(f"{model.name} draws what words say: say what is to move (PROMPT)")
    if not moving.words and any(isinstance(scale, str) for scale in task.sampling.guidance_scale):
        raise TaskError(
            f"{model.name} is guided by a scale that rises along the clip by itself: give guidance_scale as one number"
        )
    told = (Prompts.of(task.prompt or ""), Prompts.of(task.negative))
    if moving.one_text and not all(words.is_level for words in told):
        raise TaskError(
            f"{model.name} is told one text for all frames that it denoises together: give a prompt, and a negative "
            "one, without times"
        )
    if motion in (None, 1.0):
        return
    if not moving.words and _is_curved(task.movement):
        raise TaskError(
            f"{model.name} is told once for all frames how much moves: give motion as one number, got {motion!r}"
        )
    if moving.words and not moving.dial:
        raise TaskError(f"{model.name} cannot be told how strongly frames move: leave motion out, got {motion}")


def _check_given(task: Animate, model: LatentDiffusion) -> None:
    """Which of its frames are pictures."""
    moving = model.moving
    assert moving is not None
    for name, place in (("image", "first"), ("last_image", "last")):
        if getattr(task, name) is not None and place not in moving.given:
            can = f"the {' and the '.join(moving.given)} frame alone" if moving.given else "no frame"
            raise TaskError(f"{model.name} can be given {can} as a picture: leave {name} out")
        if getattr(task, name) is None and place == "first" and not moving.words:
            raise TaskError(f"{model.name} sets a picture in motion: give one (--image PICTURE)")
    if task.movement.context_guidance is not None and not (task.pictures or moving.from_still):
        raise TaskError("context_guidance holds frames to given pictures, and there are none: give --image")
    strength = task.movement.strength or moving.strength
    if task.movement.context_guidance is not None and task.movement.loop and moving.from_still and strength < 1:
        raise TaskError(
            "context_guidance holds frames to a picture, and those of a loop are carried along and told of none: leave "
            "it out, or the loop"
        )


def movement_of(task: Animate, model: LatentDiffusion, engine: Engine) -> Movement:
    """With nothing left open.

    Raises:
        TaskError: what was said does not go together.
    """
    asked = task.movement
    motion = 1.0 if asked.motion is None else asked.motion
    if engine == "joint":
        assert model.moving is not None
        held = 1.0 if asked.context_guidance is None and task.pictures else asked.context_guidance
        window, strength = asked.window or model.moving.frames, asked.strength
        if model.moving.from_still:
            strength = strength or model.moving.strength
        return replace(asked, engine=engine, motion=motion, context_guidance=held, window=window, strength=strength)
    begun = asked.begun or "picture"
    if begun == "latents" and task.image is not None:
        raise TaskError("of a given picture there are no latents early in a run: leave out begun latents, or image")
    if task.control:
        return replace(asked, engine=engine, begun="latents", attention=asked.attention or "first")
    return replace(
        asked,
        engine=engine,
        motion=motion,
        way=asked.way or _way(task),
        begun=begun,
        strength=(asked.strength or USUAL_STRENGTH) if begun == "picture" else None,
        attention=asked.attention or USUAL_ATTENTION[begun],
    )


def _way(task: Animate) -> Way:
    """What all prompts say, or the first."""
    from segue.temporal.zero_shot_motion import way_of

    ways = list[Way]()
    for words in Prompts.of(task.prompt or "").at_first:
        if (way := way_of(words)) is not None and way not in ways:
            ways.append(way)
    if len(ways) > 1:
        raise TaskError(
            f"a model of single pictures moves all of a clip by one way, and the prompts say {' and '.join(ways)}: "
            "leave all but one out, or give --way"
        )
    usual: Way = "right"
    return ways[0] if ways else usual


def _is_curved(movement: Movement) -> bool:
    return movement.motion is not None and not Curve.of(movement.motion).is_constant
