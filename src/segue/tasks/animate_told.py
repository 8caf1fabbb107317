"""What the frames of a clip are told: the same for all of them, or words and numbers that change over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segue.temporal.clock import Clock
from segue.temporal.curve import Curve, Value
from segue.temporal.prompts import Prompts

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion
    from segue.tasks.animate import Animate
    from segue.types import Conditioning


@dataclass(frozen=True)
class Over:
    """Words and numbers at any frame of a clip.

    Args:
        prompts: what it shows.
        negative: what is not wanted.
        guidance: a number, or a curve.
        motion: how strongly it moves, likewise.
        fps: frames per second, by which times are counted.
        frames: of the clip; the number behind the last one is the first frame again, to which a loop leads back.
    """

    prompts: Prompts
    negative: Prompts
    guidance: Value
    motion: Value
    fps: float
    frames: int

    @staticmethod
    def of(task: Animate) -> Over:
        """What a task says, with nothing left open. Of a stretch of a longer clip, that is the task of the whole."""
        motion = task.movement.motion
        return Over(
            task.prompts,
            Prompts.of(task.negative),
            task.sampling.guidance_scale[0],
            1.0 if motion is None else motion,
            float(task.fps or 1),
            task.frames,
        )

    def check(self) -> None:
        """Raise TaskError for a time that the clip cannot have, such as a beat."""
        for told in (self.prompts, self.negative):
            for place in range(len(told)):
                told.at(told.places.on(self._clock).times[place], self._clock)
        for value in (self.guidance, self.motion):
            Curve.of(value).on(self._clock)

    @property
    def changes(self) -> bool:
        """Whether frames are told different words, or are guided differently."""
        words = self.prompts.is_level and self.negative.is_level
        return not (words and Curve.of(self.guidance).is_constant)

    @property
    def is_even(self) -> bool:
        """Whether all frames are told the same of what moves, and how strongly."""
        return told_alike(self.prompts, self.motion)

    def scales(self, numbers: Sequence[int]) -> list[float]:
        """Of guidance, at each frame."""
        return self._values(self.guidance, numbers)

    def dials(self, numbers: Sequence[int]) -> list[float]:
        """How strongly it moves, at each frame."""
        return self._values(self.motion, numbers)

    def texts(self, model: LatentDiffusion, numbers: Sequence[int]) -> tuple[Conditioning, Conditioning]:
        """What is wanted at each frame, and what is not. Between two prompts each token is mixed on the sphere."""
        pairs = [
            tuple(told.at(self._seconds(number), self._clock) for told in (self.prompts, self.negative))
            for number in numbers
        ]
        said = [text for pair in pairs for parts in pair for text, _ in parts]
        # All prompts, whatever part of the clip this is: what is encoded together has one length.
        every = list(dict.fromkeys([*said, *(text for told in self._several for text in told.at_first)]))
        encoded = model.text(every)
        wanted, unwanted = (_mixed(encoded, every, [pair[side] for pair in pairs]) for side in (0, 1))
        return wanted, unwanted

    @property
    def _several(self) -> tuple[Prompts, ...]:
        both = (self.prompts, self.negative)
        return both if any(len(told) > 1 for told in both) else ()

    def _values(self, value: Value, numbers: Sequence[int]) -> list[float]:
        track = Curve.of(value).on(self._clock)
        return [track.at(self._seconds(number)) for number in numbers]

    def _seconds(self, number: int) -> float:
        return number % self.frames / self.fps

    @property
    def _clock(self) -> Clock:
        return Clock(self.fps)


def told_alike(prompts: Prompts, motion: Value) -> bool:
    """Whether all frames of a clip are told the same of what moves, and how strongly."""
    return prompts.is_level and Curve.of(motion).is_constant


def unreached(task: Animate) -> tuple[str, ...]:
    """A line for prompts whose time comes after the last frame of a task with nothing left open."""
    over = Over.of(task)
    end = (over.frames - 1) / over.fps
    times = over.prompts.places.on(Clock(over.fps)).times
    late = [time for time in times[1:] if time > end]
    if not late:
        return ()
    return (f"the last frame is {end:g} s into the clip, before {late[0]:g} s, when a prompt would hold alone",)


def _mixed(encoded: Conditioning, every: list[str], rows: Sequence[tuple[tuple[str, float], ...]]) -> Conditioning:
    """One row for each mix of texts, which are all encoded."""
    from segue.temporal.texts import mixed
    from segue.types import Conditioning

    if all(len(parts) == 1 for parts in rows):
        return encoded[[every.index(parts[0][0]) for parts in rows]]
    found = list[Conditioning]()
    for parts in rows:
        texts, shares = zip(*parts, strict=True)
        found.append(mixed(encoded[[every.index(text) for text in texts]], shares, "tokens"))
    return Conditioning.cat(found)
