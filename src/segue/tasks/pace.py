"""How a film runs in time: speed, loops, sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from segue.errors import TaskError

if TYPE_CHECKING:
    from segue.media.audio import Audio
    from segue.temporal.clock import Clock
    from segue.temporal.easing import Easing


@dataclass(frozen=True)
class Pace:
    """How a film runs in time. Left alone, it has one speed from end to end, as far as pictures differ.

    Args:
        easing: linear, smooth (slow at every key), hold:SECONDS (keys stand still), points:TIME WAY,TIME WAY,... (from
            "0 0" to "1 1"), beats or onsets of the sound (keys fall on them), beats:PULSE (speed pulses too).
        loop: none, loop (from the last key on to the first, so that it can be played over and over) or pingpong
            (there and back).
        audio: a sound file, or a video with sound, that is put under the film from its beginning.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    easing: str = "linear"
    loop: Literal["none", "loop", "pingpong"] = "none"
    audio: str | None = None

    def __post_init__(self) -> None:
        if self.audio is not None:
            object.__setattr__(self, "audio", str(self.audio))
        if self.loop not in ("none", "loop", "pingpong"):
            raise TaskError(f"loop must be none, loop or pingpong, got {self.loop!r}")
        self.curve()
        if self._listens and self.audio is None:
            raise TaskError(f"easing {self.easing!r} needs a sound to follow: give it as audio")

    @property
    def _listens(self) -> bool:
        return self.easing.startswith(("beats", "onsets"))

    def curve(self) -> Easing:
        """The easing, read.

        Raises:
            TaskError: it is none.
        """
        from segue.temporal.easing import parse_easing

        return parse_easing(self.easing)

    def sound(self) -> Audio | None:
        """What is put under the film.

        Raises:
            MediaError: the file cannot be read, or has no sound.
        """
        if self.audio is None:
            return None
        from pathlib import Path

        from segue.media.audio import Audio

        return Audio(Path(self.audio).expanduser())

    def clock(self, fps: float, *, beats: bool = False) -> Clock:
        """What frames and beats are in seconds; the sound is only listened to where something needs its beats.

        Raises:
            MediaError: the sound cannot be read, or has no beat.
        """
        from segue.media.beats import find_beats, find_onsets
        from segue.temporal.clock import Clock

        sound = self.sound()
        if sound is None or not (beats or self._listens):
            return Clock(fps)
        if self.easing.startswith("onsets") and not beats:
            return Clock(fps, onsets=find_onsets(sound))
        return Clock(fps, beats=find_beats(sound).times, onsets=find_onsets(sound))
