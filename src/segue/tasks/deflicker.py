"""Films whose frames are made to agree: no flicker, and what moves takes its texture along."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from segue.errors import TaskError
from segue.tasks.contents import sha256_of
from segue.tasks.on_file import OnFile
from segue.tasks.sampling import Execution
from segue.tasks.shots import shots_said, spelled_cuts
from segue.types import Progress, silent

if TYPE_CHECKING:
    from segue.media.clip import Clip

Mode = Literal["fast", "balanced", "accurate"]
Matching = Literal["flow", "patchmatch"]
Detail = Literal["auto", "carried", "own"]

WINDOW = 7
"""Frames on each side that a frame is made to agree with, if nobody says."""
MOST = 10.0
"""Of contrast and sharpness."""
BYTES, BYTES_BESIDE, BYTES_OWN, BYTES_BETWEEN = 1850, 225, 125, 4
"""Of memory that a pixel of a frame takes, and each frame of the window beside it; measured, holes in the heap among it
and libraries not. How much more, if a frame may have its own detail and is seen over twice the window. With keys, each
frame between two of them: a picture of 3 bytes, and of a way of 7 to either, one for each stage."""
SMALLEST = 16
"""Pixels of the shorter side of a frame, in which movement can still be looked for."""
COARSE = (1, 2, 4, 8)
MATCHED = 1_200_000
"""Pixels of a frame up to which it is matched as it is."""
_KINDS = {"mode": get_args(Mode), "matching": get_args(Matching), "detail": get_args(Detail)}
_OF_FILMS = {"window": None, "mode": "fast", "grain": 1.0, "detail": "auto", "strength": 1.0}
"""Fields, and their defaults, that say how a frame is made of its neighbours."""


@dataclass(frozen=True)
class DeflickerPlan:
    """What was found out before any frame was made.

    Args:
        sha256: of the film.
        guide: sha256 of the guide, "" if there is none.
        keys: sha256 of the key pictures, "" if there are none.
        shots: the frames that begin a shot, 0 among them: no frame is made to agree with one of another shot.
        device: where frames were matched and blended.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    sha256: str
    guide: str = ""
    keys: str = ""
    shots: list[int] = field(default_factory=lambda: [0])
    device: str = "cpu"


@dataclass(frozen=True)
class Deflicker(OnFile):
    """A film whose frames agree.

    What a frame shows is found again in the frames around it, and becomes their mean: its low band, which flickers, and
    as much of its detail as they have in common. No frame agrees with one beyond a cut. Needs no model.

    Args:
        input: a video, an animation or a folder of pictures.
        guide: a film that shows the same, frame by frame, and does not flicker, such as the one that a restyled film
            was made from: what moves where is looked for in it. Left out, the film itself, with brightness levelled.
        keys: a folder of pictures that are named by the number of a frame, from 0: all frames are made of these, and
            follow the movement of the film, which is the guide.
        window: frames on each side that a frame is made to agree with; left out, 7.
        mode: fast doubles what is blended; balanced brings each frame along a way of its own; accurate searches for all
            of these, and moves them to where frames agree with their mean.
        matching: flow, optical flow, or patchmatch, which takes longer, follows movement that flow loses, and brings
            pixels along as they are.
        grain: how much there is of the detail that frames do not share, from 0, a clean mean that takes noise away, to
            1, as much as in the film; it moves with what it lies on.
        detail: whose detail a frame shows. carried is that of a few frames, brought along, for film whose frames differ
            in it, as they do if each was drawn anew; own is its own, for film whose light alone flickers; auto takes
            own for shots in which neighbours show the same.
        strength: how far from the film to the mean of frames, in (0, 1].
        contrast: of the result, about the middle grey; 1 leaves it.
        sharpness: of the result; 1 leaves it, above sharpens, below softens.
        cuts: where shots begin: auto finds them, none is one shot, or the numbers of frames, such as 48,120.
        coarse: how many times smaller frames are where they are matched, along a side; left out, 1 up to 1.2
            megapixels, and more for larger ones.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    name: ClassVar[str] = "deflicker"
    plan_type: ClassVar[type[DeflickerPlan]] = DeflickerPlan

    input: str
    guide: str | None = None
    keys: str | None = None
    window: int | None = None
    mode: Mode = "fast"
    matching: Matching = "flow"
    grain: float = 1.0
    detail: Detail = "auto"
    strength: float = 1.0
    contrast: float = 1.0
    sharpness: float = 1.0
    cuts: str | tuple[int, ...] = "auto"
    coarse: int | None = None

    def __post_init__(self) -> None:
        for name in ("input", "guide", "keys"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else str(value))
            if value is not None and not str(value):
                raise TaskError(f"{name} must be the name of a file or a folder, got ''")
        for name, kinds in _KINDS.items():
            if getattr(self, name) not in kinds:
                raise TaskError(f"{name} must be {', '.join(kinds[:-1])} or {kinds[-1]}, got {getattr(self, name)!r}")
        if self.matching == "patchmatch" and self.mode == "balanced":
            raise TaskError(
                "mode balanced makes what fast makes where matching is patchmatch, whose ways are whole pixels: "
                "leave it out, or take accurate"
            )
        if self.window is not None and self.window < 1:
            raise TaskError(f"window must be a number of frames from 1, got {self.window}")
        if self.coarse is not None and self.coarse not in COARSE:
            raise TaskError(f"coarse must be one of {', '.join(map(str, COARSE))}, got {self.coarse}")
        if not 0 <= self.grain <= 1:
            raise TaskError(f"grain must be in [0, 1], got {self.grain}")
        if not 0 < self.strength <= 1:
            raise TaskError(f"strength must be in (0, 1], got {self.strength}")
        for name in ("contrast", "sharpness"):
            if not 0 <= getattr(self, name) <= MOST:
                raise TaskError(f"{name} must be in [0, {MOST:g}], where 1 changes nothing; got {getattr(self, name)}")
        object.__setattr__(self, "cuts", spelled_cuts(self.cuts))
        if self.keys is not None:
            self._check_keys()

    def _check_keys(self) -> None:
        if self.guide is not None:
            raise TaskError("with keys, the film itself is the guide: leave out guide, or keys")
        for name, usual in _OF_FILMS.items():
            if getattr(self, name) != usual:
                raise TaskError(
                    f"with keys, frames are made of the pictures of {self.keys} and not of their neighbours: "
                    f"leave out {name} {getattr(self, name)}"
                )

    def shots(self, frames: int) -> tuple[int, ...] | None:
        """The first frames of all shots of a film of so many frames; None if they are to be found.

        Raises:
            TaskError: it has fewer frames.
        """
        return shots_said(str(self.cuts), frames, self.path.name)

    def resolved(self, size: tuple[int, int], frames: int) -> Deflicker:
        """The same task with nothing left open, for a film of this (width, height) and number of frames."""
        fits = [n for n in COARSE if n == 1 or min(reduced(size, n)) >= SMALLEST]
        coarse = self.coarse or next((n for n in fits if size[0] * size[1] <= MATCHED * n * n), fits[-1])
        window = None if self.keys is not None else min(self.window or WINDOW, frames - 1)
        absolute = {
            name: str(Path(value).expanduser().absolute())
            for name in ("input", "guide", "keys")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, window=window, coarse=coarse, **absolute)

    def contents(self, device: str) -> DeflickerPlan:
        """What it is made of, and where it would be made; shots are not looked for.

        Args:
            device: its kind, such as "cpu".
        """
        guide, keys = ("" if name is None else sha256_of(Path(name).expanduser()) for name in (self.guide, self.keys))
        return DeflickerPlan(sha256_of(self.path), guide, keys, device=device)

    def check_unchanged(self, now: DeflickerPlan, plan: DeflickerPlan, frames: int) -> None:
        """Find out whether a plan belongs to what is there now.

        Args:
            now: of the files that are there.
            plan: of a result that was made before.
            frames: of the film.

        Raises:
            TaskError: a file has changed, or there are other shots than the film has, or than the task says.
        """
        for path, name in ((self.input, "sha256"), (self.guide, "guide"), (self.keys, "keys")):
            if getattr(now, name) != getattr(plan, name):
                raise TaskError(f"{path} is not what this was made with: its contents have changed")
        if plan.shots[:1] != [0] or plan.shots != sorted(set(plan.shots)):
            raise TaskError(f"the plan does not belong to this task: shots begin at 0 and rise, got {plan.shots}")
        if plan.shots[-1] >= frames:
            raise TaskError(
                f"the plan does not belong to this film of {frames} frames, 0 to {frames - 1}: no shot begins at "
                f"{plan.shots[-1]}"
            )
        said = self.shots(frames)
        if said is not None and list(said) != plan.shots:
            raise TaskError(
                f"the plan does not belong to this task: cuts {self.cuts} makes shots that begin at {list(said)}, and "
                f"the plan has {plan.shots}"
            )

    @property
    def others(self) -> tuple[str, ...]:
        """The names of all other files that the result depends on."""
        return tuple(name for name in (self.guide, self.keys) if name is not None)

    def notes(self, size: tuple[int, int]) -> tuple[str, ...]:
        """What is good to know before it is run on frames of this (width, height), a line each."""
        coarse = self.resolved(size, 2).coarse or 1
        if coarse == 1 or self.coarse is not None:
            return ()
        large, small = ("{}x{}".format(*each) for each in (size, reduced(size, coarse)))
        return (f"frames of {large} pixels are matched at {small}, and blended as they are; see --coarse",)

    def memory(self, size: tuple[int, int], frames: int, span: int = 0) -> int:
        """Bytes that it takes at once, about.

        Args:
            size: (width, height) of the film.
            frames: how many it has.
            span: the most frames between two keys; see `KeyFrames.span`.
        """
        window = self.resolved(size, frames).window or 0
        beside = BYTES_BESIDE if self.detail == "carried" else BYTES_BESIDE + BYTES_OWN
        return size[0] * size[1] * (BYTES + beside * window + BYTES_BETWEEN * span)

    def run(
        self,
        execution: Execution | None = None,
        progress: Progress = silent,
        plan: DeflickerPlan | None = None,
        *,
        device: str | None = None,
        work: Path | None = None,
    ) -> Clip:
        """The film whose frames agree, with the sound and the rate of the input.

        All frames are made before it returns, and lie on disk without loss.

        Args:
            execution: threads.
            progress: told of every pair of frames that is matched, and of every frame.
            plan: of a result that was made before; all inputs must still be the same.
            device: "cpu" or "cuda"; left out, that of the plan, or the fastest.
            work: a folder, best that of the result, in which a hidden one keeps what is done: the same task, run
                again, goes on there. It is removed with the frames of the clip: `clip.frames.discard()`.

        Raises:
            TaskError: the film, the guide or the keys do not fit each other or the task.
            MediaError: one of them cannot be read, or the disk is full.
            InterruptedRunError: on Ctrl-C, with the clip of the frames that are finished.
        """
        from segue.tasks.deflicker_run import deflickered

        return deflickered(self, execution or Execution(), progress, plan, device, work)


def reduced(size: tuple[int, int], coarse: int) -> tuple[int, int]:
    """(width, height) of frames of this size where they are matched."""
    return -(-size[0] // coarse), -(-size[1] // coarse)
