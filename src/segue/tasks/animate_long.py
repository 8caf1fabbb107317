"""Long clips, key frames first: an outline that is made together, and gaps that are filled one by one, in any order."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from segue.media.clip import as_floats, to_uint8
from segue.media.disk import disk_errors, remove, written_whole
from segue.media.spool import Spool
from segue.models.paused import lay_down, taken_up
from segue.tasks.animate import Animate
from segue.tasks.animate_controls import Controls
from segue.tasks.animate_joint import Joint
from segue.tasks.animate_long_choice import FORKED, goes_on
from segue.tasks.animate_long_joint import JointBetween
from segue.tasks.animate_long_parts import Parts
from segue.tasks.animate_long_still import Still
from segue.tasks.animate_told import Over
from segue.tasks.animate_zero_shot import ZeroShot, course_of
from segue.tasks.sampling import Execution
from segue.temporal.filling import flowed
from segue.temporal.pinned import Tone, brought, pinned, trend
from segue.temporal.plan_levels import Gap, Levels, Stretch
from segue.temporal.zero_shot_motion import carried
from segue.types import Progress

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

OUTLINE, TONES, STATES = "outline", "outline.safetensors", "states"
_PIXELS = "pixels"
_WAIT = 0.05
"""Seconds between two looks at what others have finished."""


@dataclass
class Keys:
    """A clip whose key frames are made first; see `segue.temporal.plan_levels`.

    Args:
        task: with nothing left open.
        model: ready to run.
        execution: how many are decoded together.
        folder: where the outline and finished gaps are kept.
        progress: told of what is finished.
        help: entered once the outline is there: other processes that make gaps, too.
    """

    task: Animate
    model: LatentDiffusion
    execution: Execution
    folder: Path
    progress: Progress
    help: AbstractContextManager[None] = field(default_factory=nullcontext[None])

    @property
    def scores(self) -> Mapping[str, Any]:
        """How it was made, and how far key frames had drifted before they were pinned."""
        found = {"engine": self.task.movement.engine, "long": "keys", "outline": len(self.plan.outline)}
        if Over.of(self.task).changes:
            return found
        return {**found, "drift": round(float(self._tones["drift"]), 5)}

    @cached_property
    def plan(self) -> Levels:
        """What is made when."""
        return Levels(self.task.frames, self.task.long.factors, self.task.movement.loop)

    def pictures(self, first: int) -> Iterator[Float[Tensor, "t 3 h w"]]:
        """See `segue.tasks.animate_run.Maker`."""
        try:
            self.prepare()
            with self.help:
                yield from self._in_order(first)
        finally:
            self.close()

    def _in_order(self, first: int) -> Iterator[Float[Tensor, "t 3 h w"]]:
        gaps = {gap.first: gap for gap in self.plan.gaps()}
        for place, number in enumerate(self.plan.outline):
            if number >= first:
                yield self.key(place)[None]
            if number in gaps and gaps[number].last > first:
                made = self._finished(gaps[number])
                yield made[max(0, first - number - 1) :]
            if number in gaps:
                # It is done, and nobody need make it again.
                with written_whole(self.path(gaps[number])) as part:
                    part.touch()

    def close(self) -> None:
        """Let go of the outline's file."""
        if "_outline" in self.__dict__:
            self.__dict__.pop("_outline").close()

    def prepare(self) -> None:
        """Make the outline, unless it lies there."""
        if (self.folder / TONES).exists():
            return
        states = self.folder / STATES
        with disk_errors(states):
            states.mkdir(exist_ok=True)
        tones, wanted, spool = list[Tone](), list[Tone](), self._outline
        for pictures in self._outlined(states):
            for picture in as_floats(to_uint8(pictures)):
                if len(tones) >= len(spool):
                    spool.append(picture[None])
                tones.append(Tone.of(picture[None]))
                wanted.append(self._expected(len(wanted)))
                self.progress("drawing key frames", len(tones), len(self.plan.outline))
        self._keep_tones(Tone.cat(tones), Tone.cat(wanted))

    def _keep_tones(self, own: Tone, wanted: Tone) -> None:
        """Write what each key frame's tone is, and what it becomes: without what grows over the time of the film.

        What grows because words or guidance do is wanted, and no drift.
        """
        drift = own
        if not Over.of(self.task).changes:
            grown = trend(Tone(own.mean - wanted.mean, own.std - wanted.std), self.plan.outline)
            drift = Tone(own.mean - grown.mean, own.std - grown.std)
        size = float(drift.apart(own)[-1])
        parts = {"mean": own.mean, "std": own.std, "wanted mean": drift.mean.clone(), "wanted std": drift.std.clone()}
        lay_down(self.folder / TONES, {**parts, "drift": torch.tensor(size)})

    def key(self, place: int) -> Float[Tensor, "3 h w"]:
        """A key frame by its place in the outline, its drift taken away, of 256 levels a colour."""
        own, wanted = (Tone(self._tones[f"{name}mean"], self._tones[f"{name}std"]) for name in ("", "wanted "))
        picture = self._outline[place : place + 1]
        at = [place]
        return as_floats(to_uint8(brought(picture, own[at], wanted[at], self.task.long.weight)))[0]

    @cached_property
    def _outline(self) -> Spool:
        size = self.task.sampling.size
        assert size is not None
        return Spool(self.folder / OUTLINE, size)

    @cached_property
    def _tones(self) -> Mapping[str, Tensor]:
        found = taken_up(self.folder / TONES)
        assert found is not None
        return found

    def _outlined(self, states: Path) -> Iterator[Float[Tensor, "t 3 h w"]]:
        """Pictures of the outline, as they are drawn."""
        numbers, fps = self.plan.outline, self.plan.fps(float(self.task.fps or 1))
        if self.task.movement.engine == "zero-shot":
            controls = Controls(self.task, self.model)
            maker = ZeroShot(self.task, self.model, controls, self.execution, states, self.progress, numbers)
            maker.pin = self.task.long.weight
            return maker.pictures(0)
        task = replace(self.task, seconds=len(numbers) / fps, fps=fps)
        if goes_on(task, self.model):
            parts = Parts(task, self.model, self.execution, states, self.progress, numbers, self.task)
            return parts.pictures(0)
        return Joint(task, self.model, self.execution, states, self.progress, numbers, {}, self.task).pictures(0)

    def _expected(self, place: int) -> Tone:
        """What the tone of a key frame would be if nothing drifted, up to what is the same for all of them."""
        first = self._outline[0:1]
        if self.task.movement.engine != "zero-shot":
            return Tone.of(first)
        return Tone.of(carried(first, self._course[[self.plan.outline[place]]]))

    def fill(self, gap: Gap) -> Float[Tensor, "t 3 h w"]:
        """All that lies between two key frames, level by level, of 256 levels a colour."""
        count = len(self.plan.outline)  # the gap behind the last one, of a loop, ends at the first
        known = {gap.first: self.key(gap.number), gap.last: self.key((gap.number + 1) % count)}
        for stretch in gap.stretches:
            made = self._made(stretch, known[stretch.first], known[stretch.last])
            known |= dict(zip(stretch.inner, as_floats(to_uint8(made)), strict=True))
        return torch.stack([known[number] for number in gap.inner]) if gap.inner else known[gap.first][None][:0]

    def _made(self, stretch: Stretch, left: Tensor, right: Tensor) -> Float[Tensor, "t 3 h w"]:
        fills = self.task.long.fills
        how, shares = fills[min(stretch.level, len(fills) - 1)], stretch.shares()
        if how == "flow":
            return self._flowed(stretch, left, right)
        every = [0.0, *shares, 1.0]
        weight = self.task.long.weight
        if how == "branches":
            controls = Controls(self.task, self.model)
            own = Still(self.task, self.model, controls, self.execution, self.folder, self.progress, stretch.frames)
            return own.between(left, right, every, weight)
        return self._jointly(stretch, left, right)

    def _jointly(self, stretch: Stretch, left: Tensor, right: Tensor) -> Float[Tensor, "t 3 h w"]:
        """By a model of films, which is told both ends and the speed of the stretch."""
        numbers, shares = stretch.frames, [0.0, *stretch.shares(), 1.0]
        fps = stretch.fps(float(self.task.fps or 1))
        movement = replace(self.task.movement, loop=False)
        task = replace(self.task, seconds=len(numbers) / fps, fps=fps, movement=movement)
        given, states = (
            {0: left, len(numbers) - 1: right},
            self.folder / f"{STATES}-{stretch.first:06d}-{stretch.level}",
        )
        with disk_errors(states):
            states.mkdir(exist_ok=True)
        maker = JointBetween(
            task, self.model, self.execution, states, self.progress, numbers, given, self.task,
            strength=FORKED, shares=shares,
        )  # fmt: skip
        drawn = torch.cat(list(maker.pictures(0)))
        remove(states)
        return pinned(drawn, given, self.task.long.weight, shares)[1:-1]

    def _flowed(self, stretch: Stretch, left: Tensor, right: Tensor) -> Float[Tensor, "t 3 h w"]:
        """By flow; where all moves as it is known to, only what departs from that is left to be found."""
        if self.task.movement.engine != "zero-shot":
            return flowed(left, right, stretch.shares())
        maps = self._course[[number % self.task.frames for number in stretch.frames]]
        ways = [maps @ torch.linalg.inv(maps[place]) for place in (0, -1)]
        lefts, rights = (carried(end[None], way)[1:-1] for end, way in zip((left, right), ways, strict=True))
        found = [flowed(a, b, [share]) for a, b, share in zip(lefts, rights, stretch.shares(), strict=True)]
        return torch.cat(found)

    @cached_property
    def _course(self) -> Float[Tensor, "t 3 3"]:
        """Of each frame of a zero-shot clip, where what is in the first one goes."""
        return course_of(self.task)

    def _finished(self, gap: Gap) -> Float[Tensor, "t 3 h w"]:
        """A gap, by whoever makes it; others are made while somebody else is at it."""
        while (made := self._read(gap)) is None:
            self.path(gap).unlink(missing_ok=True)  # if it is there, it cannot be read
            if not self.make_next(gap.number):
                time.sleep(_WAIT)
        self.progress("filling", gap.last, self.task.frames)
        return made

    def make_next(self, first: int = 0) -> bool:
        """Make the first gap from this one on that nobody has made or is making; whether there was one."""
        for gap in self.plan.gaps()[first:]:
            if self.path(gap).exists():
                continue
            with self.claimed(gap) as mine:
                if not mine or self.path(gap).exists():
                    continue
                lay_down(self.path(gap), {_PIXELS: to_uint8(self.fill(gap))})
                return True
        return False

    @property
    def finished(self) -> bool:
        """Whether all gaps are made."""
        return all(self.path(gap).exists() for gap in self.plan.gaps())

    def _read(self, gap: Gap) -> Float[Tensor, "t 3 h w"] | None:
        found = taken_up(self.path(gap))
        return as_floats(found[_PIXELS]) if found else None

    def path(self, gap: Gap) -> Path:
        """Where its frames lie once it is made; empty once they have been taken."""
        return self.folder / f"gap-{gap.number:06d}.safetensors"

    @contextmanager
    def claimed(self, gap: Gap) -> Generator[bool]:
        """Whether nobody else is making it; then it is ours until the end of the block, or of this process."""
        lock: IO[bytes]
        path = self.folder / f"gap-{gap.number:06d}.lock"
        with disk_errors(path), path.open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True
