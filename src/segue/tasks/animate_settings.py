"""How a clip moves, and by what it is held together: the fields of a task that makes one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from segue.errors import TaskError
from segue.temporal.curve import Value, value_of

Engine = Literal["joint", "zero-shot"]
Begun = Literal["picture", "latents"]
Way = Literal[
    "right", "left", "up", "down", "bounce", "spin", "spin-left", "grow", "shrink", "swing", "wobble", "still"
]
OF_ZERO_SHOT = ("way", "begun", "attention")
USUAL_STRENGTH = 0.5
USUAL_ATTENTION = {"picture": "reference, self", "latents": "first"}
"""Whom frames look at: the picture that they are made of, or the first frame alone, as in Text2Video-Zero."""
MOST_MOTION = 10.0


@dataclass(frozen=True)
class Movement:
    """How it moves.

    Args:
        engine: joint denoises all frames together, by a model that was made for that; zero-shot moves the first frame,
            and lets a model of single pictures draw the others so that they look at it. Left out, what the model can.
        motion: how strongly it moves: 1 as usual, 0 not at all. May be a curve over the clip ("0s:0, 2s:1").
        loop: let the last frame lead back to the first.
        context_guidance: how strongly frames are held to given pictures, by models that learned to go without: 1 as
            the model does it. Left out, 1.
        window: frames that are denoised together where there are more; they overlap. Left out, as many as the model
            was made for.
        way: where all of it goes, of zero-shot: right, left, up, down, bounce, spin, spin-left, grow, shrink, swing,
            wobble or still. Left out, what the prompt says, or else right.
        begun: what is moved, of zero-shot: picture, the finished first frame; latents, those early in its run, as in
            Text2Video-Zero, which changes more. Left out, picture.
        strength: share of the run, in (0, 1], in which moved pictures are drawn anew, of zero-shot, and of models that
            carry things along their way. Left out, 0.5, or as such a model does it.
        attention: what frames attend to, of zero-shot, as stylize spells it. Left out, "reference, self", the moved
            picture; of latents, "first".
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    engine: Engine | None = None
    motion: Value | None = None
    loop: bool = False
    context_guidance: float | None = None
    window: int | None = None
    way: Way | None = None
    begun: Begun | None = None
    strength: float | None = None
    attention: str | None = field(default=None)

    def __post_init__(self) -> None:
        for name, kinds in (("engine", get_args(Engine)), ("way", get_args(Way)), ("begun", get_args(Begun))):
            value = getattr(self, name)
            if value is not None and value not in kinds:
                raise TaskError(f"{name} must be {', '.join(kinds[:-1])} or {kinds[-1]}, got {value!r}")
        if self.motion is not None:
            object.__setattr__(self, "motion", value_of(self.motion, "motion", 0, MOST_MOTION))
        if self.context_guidance is not None and not 0 <= self.context_guidance <= 100:
            raise TaskError(f"context_guidance must be in [0, 100], got {self.context_guidance}")
        if self.window is not None and self.window < 2:
            raise TaskError(f"window must be 2 or more frames, got {self.window}")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise TaskError(f"strength must be in (0, 1], got {self.strength}")
        if self.engine == "joint" and (said := [name for name in OF_ZERO_SHOT if getattr(self, name) is not None]):
            raise TaskError(
                f"{', '.join(said)} say how a model of single pictures makes frames agree, and the joint engine has "
                "learned that: leave them out"
            )
        if self.begun == "latents" and self.strength is not None:
            raise TaskError("strength says how much of a moved picture is drawn anew: leave it out, or begun latents")
