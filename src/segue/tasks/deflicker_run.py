"""Making the frames of a film agree: one after the other, each kept on disk as soon as it is made."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segue.errors import DiskError, ExhaustedError, ExhaustedRunError, InterruptedRunError, MediaError, TaskError
from segue.evaluation.sharpness import sharpness
from segue.evaluation.warp_error import change
from segue.media.clip import Clip, Excerpt, Provenance
from segue.media.disk import remove, written_whole
from segue.media.recent import RecentFrames
from segue.models.devices import find_device
from segue.models.exhaustion import told_if_exhausted
from segue.motion.blend import Blending, blended
from segue.motion.cuts import cuts
from segue.motion.fields import Fields
from segue.motion.finish import Finish
from segue.motion.flow_match import FlowMatcher
from segue.motion.guide import Levelled
from segue.motion.keyframes import keyed, neighbours
from segue.motion.match import Match, Matcher
from segue.motion.patchmatch import PatchMatcher
from segue.tasks.deflicker import COARSE, Deflicker, DeflickerPlan, reduced
from segue.tasks.deflicker_inputs import Inputs
from segue.tasks.deflicker_known import Measured, Row, known_shots
from segue.tasks.heap import give_back
from segue.tasks.record import Record, versions
from segue.tasks.sampling import Execution, with_threads
from segue.tasks.unfinished import FRAMES, KeptFrames, Passed, Unfinished
from segue.types import Frames, Progress

if TYPE_CHECKING:
    from jaxtyping import Float
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
    if made.guide == made.sha256:
        raise TaskError(f"the guide {settled.guide} is the film itself, which is what leads without one: leave it out")
    if plan is not None:
        task.check_unchanged(made, plan, len(inputs.film))
        made = replace(made, shots=plan.shots)
    how = execution.pinned()
    key = _key(settled, made, how, None if plan is None else plan.shots)
    unfinished = Unfinished.temporary() if work is None else Unfinished.of(work, task.name, key)
    try:
        with torch.no_grad(), with_threads(execution.threads):
            return DeflickerRun(settled, inputs, made, plan is not None, how, progress, unfinished).clip()
    except BaseException:
        unfinished.remove_if_empty()
        raise


def _key(task: Deflicker, plan: DeflickerPlan, execution: Execution, shots: list[int] | None) -> str:
    """A hash of everything that the frames depend on; where the files lie is not among it.

    Args:
        task: with nothing left open.
        plan: what the files are.
        execution: threads.
        shots: None if they are still to be found, as they are in the same film by the same versions.
    """
    fields = asdict(replace(task, input="input"))
    files = {"guide": plan.guide, "keys": plan.keys}
    told = [fields | files, plan.sha256, plan.device, shots, execution.threads, versions()]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


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
        frames = self._kept_frames()
        self._check_room()
        measured = Measured(self.unfinished.folder / "measured.jsonl", len(frames))
        try:
            self._plan_shots()
            width, height = frames.size
            less = "take a smaller --window" if self.inputs.keys is None else "give keys that are nearer to each other"
            with told_if_exhausted(f"making frames of {width}x{height} pixels agree", less):
                self._make(frames, measured)
        except KeyboardInterrupt:
            raise self._ended(frames, measured) from None
        except ExhaustedError as error:
            raise self._ended(frames, measured, error) from None
        return self._clip(frames, measured)

    def _kept_frames(self) -> KeptFrames:
        try:
            return KeptFrames(self.unfinished, self.film.size)
        except DiskError:
            raise
        except MediaError:
            self.progress("starting over, as the frames that were kept are damaged", 1, 1)
            remove(self.unfinished.folder / FRAMES)
            return KeptFrames(self.unfinished, self.film.size)

    def _clip(self, frames: Frames, measured: Measured, complete: bool = True) -> Clip:
        film, task = self.inputs.film, self.task
        pairs = measured.count - sum(start < measured.count for start in self.plan.shots)
        notes = (*self.inputs.notes, *task.notes(film.size), *measured.doubts(pairs, self.inputs.guide is not None))
        scores = {**measured.scores(), "shots": len(self.plan.shots)}
        record = Record.of(task.name, task, self.plan, None, self.execution, scores, complete, notes)
        return Clip(frames, film.fps, film.audio, Provenance(record.to_dict()))

    def _ended(
        self, frames: KeptFrames, measured: Measured, exhausted: ExhaustedError | None = None
    ) -> InterruptedRunError:
        count, total = len(frames), len(self.film)
        ended = InterruptedRunError if exhausted is None else ExhaustedRunError
        why = "interrupted" if exhausted is None else str(exhausted)
        partial = self._clip(frames, measured, complete=False) if count else None
        lasting = count and self.unfinished.lasting
        kept = f"; the same command goes on from there ({self.unfinished.folder})" if lasting else ""
        return ended(f"{why}; {count} of {total} frames are finished{kept}", partial)

    def _check_room(self) -> None:
        home, frames = self.unfinished.folder, len(self.film)
        width, height = self.film.size
        small = prod(reduced(self.film.size, self.task.coarse or 1))
        # What is found is kept from when it is first needed, so far ahead, until twice as far behind.
        found = PACKED * small * len(self._strides) * min(frames, 3 * self._seen + 1)
        needed, free = 3 * width * height * frames + found, shutil.disk_usage(home).free + self.unfinished.bytes
        if needed > free:
            raise DiskError(
                f"finished frames, and what is found of those around, are kept in {home} until the film is written, "
                f"which takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: free some space, or write to "
                "another disk"
            )

    def _plan_shots(self) -> None:
        """Find out where shots begin, once."""
        if not self.planned:
            said, known = self.task.shots(len(self.film)), self.unfinished.folder / "shots.json"
            if said is None:
                said = known_shots(known, len(self.film))
            if said is None:
                shown = self.inputs.guide or self.inputs.film
                said = (0, *cuts(shown.frames, progress=self.progress))
                with written_whole(known) as part:
                    part.write_text(json.dumps(said), encoding="utf-8")
            self.plan = replace(self.plan, shots=list(said))
        if self.inputs.keys is not None:
            self.inputs.keys.check_shots(self.plan.shots, len(self.film))

    @cached_property
    def blending(self) -> Blending:
        """How frames are made of their neighbours."""
        return Blending(self.task.window or 0, self.task.mode, self.task.grain, detail=self.task.detail)

    @property
    def _seen(self) -> int:
        """How many frames ahead, and behind, of one that is made others are looked at."""
        keys = self.inputs.keys
        return max(self.blending.reach, self.blending.every) if keys is None else keys.span(len(self.inputs.film))

    @cached_property
    def film(self) -> Frames:
        """The film, which several look at side by side."""
        return RecentFrames(self.inputs.film.frames, self._seen + 4)

    @cached_property
    def guide(self) -> Frames:
        """What is compared."""
        if self.inputs.keys is not None:
            return self.film
        return Levelled(self.film) if self.inputs.guide is None else RecentFrames(self.inputs.guide.frames, self._seen)

    def _fields(self) -> Fields:
        """What is found where in other frames."""
        task = self.task
        matcher = PatchMatcher() if task.matching == "patchmatch" else FlowMatcher()
        (self.unfinished.folder / "fields").mkdir(exist_ok=True)
        return Fields(
            Counting(matcher, self._count),
            self.guide,
            cuts=self.plan.shots[1:],
            folder=self.unfinished.folder / "fields",
            level=COARSE.index(task.coarse or 1),
            memory=self._held,
            device=self.plan.device,
        )

    def _make(self, frames: KeptFrames, measured: Measured) -> None:
        """All frames that are not there yet."""
        first, passed = len(frames), Passed(self.unfinished.folder / "fields", 2 * self._seen)
        fields, left = self._fields(), range(first, len(self.film))
        self._count(self._done_at(first))
        for number in range(measured.count, first):
            measured.add(self._measure(fields, frames, number))
        for number, picture in self._pictures(fields, left):
            frames.spool.append(self._finished(picture.cpu(), number)[None])
            measured.add(self._measure(fields, frames, number))
            passed.forget(number)
            give_back()
            self._count(1)

    def _pictures(self, fields: Fields, left: range) -> Iterator[tuple[int, Float[Tensor, "3 h w"]]]:
        """The number and the picture of each frame, made of its neighbours or of the keys."""
        keys = self.inputs.keys
        if keys is None:
            for number, picture, _ in blended(self.film, fields, self.blending, numbers=left):
                yield number, picture
            return
        made = keyed(keys.pictures, keys.places, fields, numbers=left)
        searched = min(left.start, *neighbours(keys.places, fields, left.start)) if left else 0
        for number in left:
            # A key is gone to from its nearest frame to the farthest, and decoders like it the other way.
            for each in range(searched, max(number, *neighbours(keys.places, fields, number))):
                fields.way(each, each + 1)
                searched = each + 1
            yield next(made)[:2]

    def _finished(self, picture: Float[Tensor, "3 h w"], number: int) -> Float[Tensor, "3 h w"]:
        if self.task.strength < 1:
            picture = torch.lerp(self.film[number : number + 1][0], picture, self.task.strength)
        return Finish(self.task.contrast, self.task.sharpness)(picture[None])[0]

    def _measure(self, fields: Fields, frames: Frames, number: int) -> Row:
        """See `Measured`."""
        before, here = number - 1, slice(number, number + 1)
        share = None
        if self.inputs.keys is None:
            shown, film = (Excerpt(each, range(number, number + 1)) for each in (frames, self.film))
            kept = sharpness(shown, film).kept
            share = kept.gradients if kept else None
        if not fields.joined(number, before):
            return None, None, share, None
        back = fields.way(number, before)
        stays = replace(back, way=torch.zeros_like(back.way))
        apart = [
            change(each[before:number].to(self.plan.device), each[here].to(self.plan.device), way).absolute
            for each, way in ((self.film, back), (frames, back), (self.film, stays))
        ]
        return apart[0], apart[1], share, apart[2]

    @cached_property
    def _strides(self) -> list[int]:
        """How far apart pairs of frames are that are searched."""
        window = self.blending.window if self.inputs.keys is None else 1
        return [n for n in range(1, window + 1) if self.task.mode == "accurate" or n & (n - 1) == 0]

    @property
    def _held(self) -> int:
        """Bytes of what was found that stay in memory: some windows of it, as reading the rest again is quick."""
        width, height = self.film.size
        pixels = width * height // (self.task.coarse or 1) ** 2
        return PACKED * pixels * 3 * (self.blending.window + 1)

    def _done_at(self, frames: int) -> int:
        """Units of work behind so many finished frames: a pair that is searched counts as much as a frame."""
        ahead = self.blending.reach if self.inputs.keys is None else self._seen
        seen = min(len(self.film), frames + ahead) if frames else 0
        shots = [(first, min(stop, seen)) for first, stop in pairwise([*self.plan.shots, len(self.film)])]
        return frames + sum(max(0, stop - first - stride) for first, stop in shots for stride in self._strides)

    def _count(self, units: int) -> None:
        total = self._done_at(len(self.film))
        self._done = min(total, self._done + units)
        self.progress(STAGE, self._done, total)
