"""Making the frames of a film agree: one after the other, each kept on disk as soon as it is made."""

from __future__ import annotations

import hashlib
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segue.errors import DiskError, ExhaustedError, ExhaustedRunError, InterruptedRunError
from segue.evaluation.sharpness import sharpness
from segue.evaluation.warp_error import warp_error
from segue.media.clip import Clip, Provenance
from segue.media.disk import written_whole
from segue.media.spool import Spool
from segue.models.devices import find_device
from segue.models.exhaustion import told_if_exhausted
from segue.motion.blend import Blending, blended
from segue.motion.cuts import cuts
from segue.motion.fields import Fields
from segue.motion.finish import Finish
from segue.motion.flow_match import FlowMatcher
from segue.motion.guide import Levelled
from segue.motion.match import Match, Matcher
from segue.motion.patchmatch import PatchMatcher
from segue.tasks.deflicker import COARSE, Deflicker, DeflickerPlan
from segue.tasks.deflicker_inputs import Inputs
from segue.tasks.record import Record, versions
from segue.tasks.sampling import Execution, with_threads
from segue.tasks.unfinished import Unfinished
from segue.types import Frames, Progress

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

STAGE = "making frames agree"
PACKED = 14
"""Bytes a pixel of what is found of a pair of frames."""


def deflickered(
    task: Deflicker,
    execution: Execution,
    progress: Progress,
    plan: DeflickerPlan | None,
    device: str | None,
    work: Path | None,
) -> Clip:
    """What `Deflicker.run` says."""
    inputs = Inputs.of(task)
    settled = task.resolved(inputs.film.size, len(inputs.film))
    where = find_device(device or (plan.device if plan else None))
    made = settled.contents(where.type)
    if plan is not None:
        task.check_unchanged(made, plan)
        made = replace(made, shots=plan.shots)
    how = execution.pinned()
    key = _key(settled, made, how)
    unfinished = Unfinished.temporary() if work is None else Unfinished.of(work, task.name, key)
    with torch.no_grad(), with_threads(execution.threads):
        return DeflickerRun(settled, inputs, made, plan is not None, how, progress, unfinished).clip()


def _key(task: Deflicker, plan: DeflickerPlan, execution: Execution) -> str:
    """A hash of everything that the frames depend on; where the files lie is not among it."""
    fields = asdict(replace(task, input="input"))
    told = [fields | {"guide": plan.guide, "keys": plan.keys}, plan.sha256, plan.device, execution.threads, versions()]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class KeptFrames:
    """Frames that lie on disk, in a hidden folder that goes with them when they are no longer needed."""

    def __init__(self, unfinished: Unfinished, size: tuple[int, int]) -> None:
        self.unfinished = unfinished
        self.spool = Spool(unfinished.folder / "frames", size)
        self._end = weakref.finalize(self, self.spool.close)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.spool.size

    def __len__(self) -> int:
        return len(self.spool)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        return self.spool[window]

    def levels(self, window: slice, /) -> UInt8[Tensor, "t 3 h w"]:
        """The pictures of a window, 256 levels a colour."""
        return self.spool.levels(window)

    def discard(self) -> None:
        """Remove the folder; there are no frames any more."""
        self._end()
        self.unfinished.remove()


@dataclass(frozen=True)
class Counting:
    """An engine of correspondence that says when it has found something."""

    matcher: Matcher
    tell: Callable[[int], None]

    @property
    def name(self) -> str:
        """That of the engine."""
        return self.matcher.name

    def __call__(
        self,
        a: Float[Tensor, "b 3 h w"],
        b: Float[Tensor, "b 3 h w"],
        start: tuple[Match, Match] | None = None,
    ) -> tuple[Match, Match]:
        """See `Matcher`."""
        found = self.matcher(a, b, start)
        self.tell(len(a))
        return found


class Passed:
    """A folder of files that are made on the way, and are needed for some frames more.

    Args:
        folder: of them; made if it is missing.
        needed: for how many frames after the one that they were made for.
    """

    def __init__(self, folder: Path, needed: int) -> None:
        self.folder, self.needed = folder, needed
        folder.mkdir(exist_ok=True)
        self._made: dict[Path, int] = {}

    def forget(self, number: int) -> None:
        """Remove what no frame from this one on needs."""
        for file in self.folder.iterdir():
            if self._made.setdefault(file, number) < number - self.needed:
                del self._made[file]
                file.unlink()


@dataclass
class DeflickerRun:
    """One run: what is done already is taken from disk, and each frame is there as soon as it is made.

    Args:
        task: with nothing left open.
        inputs: the film, and what it is made to agree by.
        plan: what is known so far.
        planned: whether the plan says where shots begin.
        execution: threads.
        progress: told of all work in one number: a pair of frames that is matched counts as much as a frame.
        unfinished: where what is done is kept.
    """

    task: Deflicker
    inputs: Inputs
    plan: DeflickerPlan
    planned: bool
    execution: Execution
    progress: Progress
    unfinished: Unfinished
    _done: int = field(default=0, init=False)

    def clip(self) -> Clip:
        """The finished film.

        Raises:
            InterruptedRunError: on Ctrl-C, or as memory ran out, with the clip of the frames that are finished.
        """
        self._check_room()
        frames = KeptFrames(self.unfinished, self.inputs.film.size)
        try:
            self._plan_shots()
            width, height = frames.size
            with told_if_exhausted(f"making frames of {width}x{height} pixels agree", "take a smaller --window"):
                for picture in self._made(len(frames)):
                    frames.spool.append(picture[None])
                    self._count(1)
            scores = self._scores(frames)
        except KeyboardInterrupt:
            raise self._ended(frames) from None
        except ExhaustedError as error:
            raise self._ended(frames, error) from None
        return self._clip(frames, scores)

    def _clip(self, frames: Frames, scores: dict[str, Any], complete: bool = True) -> Clip:
        film, task = self.inputs.film, self.task
        notes = (*self.inputs.notes, *task.notes(film.size))
        record = Record.of(task.name, task, self.plan, None, self.execution, scores, complete, notes)
        return Clip(frames, film.fps, film.audio, Provenance(record.to_dict()))

    def _ended(self, frames: KeptFrames, exhausted: ExhaustedError | None = None) -> InterruptedRunError:
        count, total = len(frames), len(self.inputs.film)
        ended = InterruptedRunError if exhausted is None else ExhaustedRunError
        why = "interrupted" if exhausted is None else str(exhausted)
        partial = self._clip(frames, {}, complete=False) if count else None
        kept = f"; the same command goes on from there ({self.unfinished.folder})" if self.unfinished.lasting else ""
        return ended(f"{why}; {count} of {total} frames are finished{kept}", partial)

    def _check_room(self) -> None:
        width, height = self.inputs.film.size
        needed, home = 3 * width * height * len(self.inputs.film), self.unfinished.folder
        free = shutil.disk_usage(home).free + sum(file.stat().st_size for file in home.glob("frames/*"))
        if needed > free:
            raise DiskError(
                f"finished frames are kept in {home} until the film is written, which takes {needed / 1e9:.1f} GB, and "
                f"{free / 1e9:.1f} GB are free: free some space, or write to another disk"
            )

    def _plan_shots(self) -> None:
        """Find out where shots begin, once."""
        said, known = self.task.shots(len(self.inputs.film)), self.unfinished.folder / "shots.json"
        if self.planned:
            return
        if said is None and known.exists():
            said = json.loads(known.read_text(encoding="utf-8"))
        elif said is None:
            shown = self.inputs.guide or self.inputs.film
            said = (0, *cuts(shown.frames, progress=self.progress))
            with written_whole(known) as part:
                part.write_text(json.dumps(said), encoding="utf-8")
        self.plan = replace(self.plan, shots=list(said))

    @cached_property
    def _guide(self) -> Frames:
        """What is compared."""
        return Levelled(self.inputs.film.frames) if self.inputs.guide is None else self.inputs.guide.frames

    def _made(self, first: int) -> Iterator[Float[Tensor, "3 h w"]]:
        """The frames from this one on."""
        task, film = self.task, self.inputs.film.frames
        window = task.window or 0
        passed = Passed(self.unfinished.folder / "fields", 2 * window)
        matcher = PatchMatcher() if task.matching == "patchmatch" else FlowMatcher()
        fields = Fields(
            Counting(matcher, self._count),
            self._guide,
            cuts=self.plan.shots[1:],
            folder=passed.folder,
            level=COARSE.index(task.coarse or 1),
            memory=self._held,
            device=self.plan.device,
        )
        self._count(self._done_at(first))
        blending = Blending(window, task.mode, task.grain)
        for number, picture, _ in blended(film, fields, blending, numbers=range(first, len(film))):
            passed.forget(number)
            yield self._finished(picture.cpu(), number)

    def _finished(self, picture: Float[Tensor, "3 h w"], number: int) -> Float[Tensor, "3 h w"]:
        if self.task.strength < 1:
            picture = torch.lerp(self.inputs.film.frames[number : number + 1][0], picture, self.task.strength)
        return Finish(self.task.contrast, self.task.sharpness)(picture[None])[0]

    @cached_property
    def _strides(self) -> list[int]:
        """How far apart pairs of frames are that are searched."""
        window = self.task.window or 0
        return [n for n in range(1, window + 1) if self.task.mode == "accurate" or n & (n - 1) == 0]

    @property
    def _held(self) -> int:
        """Bytes of what was found that are asked for again."""
        width, height = self.inputs.film.size
        pixels = width * height // (self.task.coarse or 1) ** 2
        return PACKED * pixels * 2 * (self.task.window or 0) * len(self._strides)

    def _done_at(self, frames: int) -> int:
        """Units of work behind so many finished frames."""
        seen = min(len(self.inputs.film), frames + (self.task.window or 0)) if frames else 0
        shots = [(first, min(stop, seen)) for first, stop in pairwise([*self.plan.shots, len(self.inputs.film)])]
        return frames + sum(max(0, stop - first - stride) for first, stop in shots for stride in self._strides)

    def _scores(self, frames: Frames) -> dict[str, Any]:
        """What it has changed: how far neighbours differ along the movement of the guide, and how sharp they are."""
        film = self.inputs.film.frames
        before, after = (
            warp_error(each, self._guide, intervals=(1,), to_first=False, progress=self.progress).at(1).absolute
            for each in (film, frames)
        )
        kept = sharpness(frames, film, progress=self.progress).kept
        return {
            "warp_error_before": _rounded(before),
            "warp_error": _rounded(after),
            "sharpness_kept": _rounded(kept.gradients if kept else None),
            "shots": len(self.plan.shots),
        }

    def _count(self, units: int) -> None:
        total = self._done_at(len(self.inputs.film))
        self._done = min(total, self._done + units)
        self.progress(STAGE, self._done, total)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)
