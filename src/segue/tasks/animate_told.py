"""What the frames of a clip are told: the same for all of them, or words and guidance that change over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segue.temporal.clock import Clock
from segue.temporal.curve import Curve
from segue.temporal.wording import Wording

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion
    from segue.tasks.animate import Animate
    from segue.types import Conditioning


@dataclass(frozen=True)
class Over:
    """Words and guidance at any frame of a clip.

    Args:
        prompt: what it shows; the weight of words may be a curve.
        negative: what is not wanted, likewise.
        guidance: a number, or a curve.
        fps: frames per second, by which the times of curves are counted.
    """

    prompt: str
    negative: str
    guidance: float | str
    fps: float

    @staticmethod
    def of(task: Animate, fps: float | None = None) -> Over:
        """What a task says, with nothing left open; of a stretch of a longer clip, at the speed of that."""
        return Over(task.told, task.negative, task.sampling.guidance_scale[0], fps or float(task.fps or 1))

    def scales(self, numbers: Sequence[int]) -> list[float]:
        """Of guidance, at each frame."""
        track = Curve.of(self.guidance).on(Clock(self.fps))
        return [track.at(number / self.fps) for number in numbers]

    def texts(self, model: LatentDiffusion, numbers: Sequence[int]) -> tuple[Conditioning, Conditioning]:
        """What is wanted at each frame, and what is not."""
        pairs = [self._said(number / self.fps) for number in numbers]
        every = list(dict.fromkeys(text for pair in pairs for text in pair))
        encoded = model.text(every)
        wanted, unwanted = ([every.index(pair[side]) for pair in pairs] for side in (0, 1))
        return encoded[wanted], encoded[unwanted]

    def _said(self, seconds: float) -> tuple[str, str]:
        found = list[str]()
        for text in (self.prompt, self.negative):
            wording, clock = Wording.of(text), Clock(self.fps)
            found.append(wording.said([curve.on(clock).at(seconds) for curve in wording.curves]))
        return found[0], found[1]
