"""Long clips part after part: each goes on from the last frames of the one before, and what it loses adds up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segue.media.clip import as_floats, to_uint8
from segue.media.disk import disk_errors, remove
from segue.models.paused import lay_down, taken_up
from segue.models.time_carried import Paced
from segue.tasks.animate import Animate
from segue.tasks.animate_controls import Controls
from segue.tasks.animate_joint import Joint, course_of
from segue.tasks.animate_long_choice import PART, carries
from segue.tasks.animate_told import Over
from segue.tasks.animate_zero_shot import ZeroShot
from segue.tasks.sampling import Execution
from segue.temporal.pinned import pinned
from segue.types import Progress

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

_PIXELS, _STATES, _FIRST = "pixels", "states", "first.safetensors"


@dataclass
class Parts:
    """A clip in parts; see `segue.tasks.animate_run.Maker`.

    A model that is told of known frames is told of the last two, which show where things go (Blattmann et al. 2023,
    arXiv:2304.08818, section 3.2); one that sets pictures in motion of one, as is all that it has learned; and so are
    others.

    What carries things along their way carries that of the clip's first picture, however long the clip is, so that
    parts do not become worse. Where a thing comes back, a part ends, and the next one begins with that picture again,
    as what moves does from rest.

    Args:
        task: with nothing left open.
        model: ready to run.
        execution: how many are decoded together.
        folder: where parts are kept that the next one goes on from.
        progress: told of what is finished.
        numbers: by which frames are named, where they are some of a longer clip's, made by a model of films.
        whole: the longer clip's task, by whose time they are told words and numbers.
    """

    task: Animate
    model: LatentDiffusion
    execution: Execution
    folder: Path
    progress: Progress
    numbers: tuple[int, ...] | None = None
    whole: Animate | None = None

    @property
    def scores(self) -> Mapping[str, Any]:
        """How it was made, and in how long parts."""
        return {"engine": self.task.movement.engine, "long": "parts", "part": self.length}

    @property
    def length(self) -> int:
        """Frames that are made together, known ones, too."""
        moving, movement = self.model.moving, self.task.movement
        if movement.engine == "zero-shot" or moving is None:
            return PART
        window = movement.window or moving.frames
        return window if moving.most is None else min(window, moving.most)

    @property
    def overlap(self) -> int:
        """Frames of a part that are known from the one before."""
        moving, joint = self.model.moving, self.task.movement.engine == "joint" and self.model.family != "svd"
        goes_by_two = joint and moving is not None and not moving.from_still
        return min(2 if goes_by_two else 1, self.length - 1)

    def parts(self) -> list[range]:
        """Numbers of the frames of each part, without those that are known."""
        count, step = self.task.frames, self.length - self.overlap
        known = min(self.overlap, count)
        # Where a thing comes back, a part ends, after once or more.
        period = self._course.period if self._course is not None else None
        turn = period * max(1, step // period) if period else count
        begins = [
            begin for start in range(known, count, turn) for begin in range(start, min(count, start + turn), step)
        ]
        found = [range(begin, end) for begin, end in pairwise([*begins, count])]
        return [range(found[0].stop), *found[1:]] if found else [range(count)]

    def pictures(self, first: int) -> Iterator[Float[Tensor, "t 3 h w"]]:
        """See `segue.tasks.animate_run.Maker`."""
        for number, part in enumerate(self.parts()):
            if part.stop <= first:
                continue
            made = self._read(number)
            if made is None:
                made = self._made(number, part, self._course)
                lay_down(self._path(number), {_PIXELS: to_uint8(made)})
                made = as_floats(to_uint8(made))
            if number > 1:
                remove(self._path(number - 2))
            yield made[max(0, first - part.start) :]

    @property
    def _carries(self) -> bool:
        """Whether all parts have one course, along which the first picture's thing is carried."""
        return self.task.frames > self.length and carries(self.whole or self.task)

    def _begun(self) -> Float[Tensor, "3 h w"]:
        """The first picture, for which the first part is made, as long as parts can be; it is kept."""
        found = taken_up(self._path(_FIRST))
        if found is None:
            made = to_uint8(self._made(0, range(self.length), None))
            found = {_PIXELS: made[:1].clone()}
            lay_down(self._path(0), {_PIXELS: made})
            lay_down(self._path(_FIRST), found)
        return as_floats(found[_PIXELS])[0]

    @cached_property
    def _course(self) -> Paced | None:
        """Of the first picture's thing; None of parts that each begin anew."""
        if not self._carries:
            return None
        return course_of(self.model, Over.of(self.whole or self.task), self._begun(), float(self.task.fps or 1))

    def _made(self, number: int, part: range, course: Paced | None) -> Float[Tensor, "t 3 h w"]:
        states = self.folder / f"{_STATES}-{number:06d}"
        with disk_errors(states):
            states.mkdir(exist_ok=True)
        known = self._ending(number - 1) if number else torch.empty(0)
        begun = len(known)
        frames = tuple(range(part.start - begun, part.stop))
        if self.task.movement.engine == "zero-shot":
            made = self._still(frames, known, states)
        else:
            made = self._joint(frames, known, states, course)
        remove(states)
        return made[begun:]

    def _still(self, frames: tuple[int, ...], known: Tensor, states: Path) -> Float[Tensor, "t 3 h w"]:
        maker = ZeroShot(
            self.task, self.model, Controls(self.task, self.model), self.execution, states, self.progress, frames,
            known[0] if len(known) else None, self.task.long.weight,
        )  # fmt: skip
        return torch.cat(list(maker.pictures(0)))

    def _joint(
        self, frames: tuple[int, ...], known: Tensor, states: Path, course: Paced | None
    ) -> Float[Tensor, "t 3 h w"]:
        part = replace(self.task, seconds=len(frames) / float(self.task.fps or 1))
        if course is not None:
            # As it is carried, and not as it was drawn, so that no part takes over what one before has lost.
            numbers = course.numbers(frames[:1]) * Over.of(self.whole or self.task).dials([0])[0]
            known = course.course.carried(numbers)
        given, whole = dict(enumerate(known)), self.whole or self.task
        numbers = frames if self.numbers is None else tuple(self.numbers[place] for place in frames)
        carried = None if course is None else (course, frames)
        maker = Joint(part, self.model, self.execution, states, self.progress, numbers, given, whole, carried)
        made = torch.cat(list(maker.pictures(0)))
        return pinned(made, given, self.task.long.weight) if given else made

    def _ending(self, number: int) -> Float[Tensor, "t 3 h w"]:
        """The last frames of a part that was made."""
        made = self._read(number)
        assert made is not None
        return made[-self.overlap :]

    def _read(self, number: int) -> Float[Tensor, "t 3 h w"] | None:
        found = taken_up(self._path(number))
        # The first part was made before it was known where parts end.
        kept = len(self.parts()[0]) if number == 0 else None
        return as_floats(found[_PIXELS])[:kept] if found else None

    def _path(self, number: int | str) -> Path:
        return self.folder / (number if isinstance(number, str) else f"part-{number:06d}.safetensors")
