"""Drawing a film anew: part after part, each frame kept on disk as soon as it is finished."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segue.diffusion.noise import start_noise
from segue.errors import DiskError, ExhaustedError, ExhaustedRunError, InterruptedRunError, TaskError
from segue.media.clip import Clip, Excerpt, Provenance, as_floats
from segue.media.disk import written_whole
from segue.media.spool import Spool
from segue.motion.cuts import cuts
from segue.tasks.bank import BankUse
from segue.tasks.deflicker_known import Measured, known_shots
from segue.tasks.record import ModelRecord, Record, versions
from segue.tasks.sampling import Execution
from segue.tasks.stylize import OURS, Stylize
from segue.tasks.stylize_agree import FOLLOWS, Agreeing, strayed
from segue.tasks.stylize_draw import Drawing
from segue.tasks.stylize_geometry import FinishedFrames
from segue.tasks.stylize_inputs import Inputs, blends, check_seen, read_into
from segue.tasks.stylize_look import Looking, has_anchors
from segue.tasks.stylize_outlook import ANCHORS, FURTHER, check_calls, rows_of
from segue.tasks.stylize_plan import StylizePlan, parts_of
from segue.tasks.stylize_prepare import Prepared, Steering
from segue.tasks.stylize_rival import drawn_by
from segue.tasks.stylize_settings import PLAIN
from segue.tasks.stylize_told import Telling
from segue.tasks.unfinished import KeptFrames, Unfinished
from segue.temporal.anchors import choose_anchors, further_anchors
from segue.temporal.frame_attention import Pattern
from segue.temporal.passengers import Noised, Passenger
from segue.types import Frames, Progress

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

READING = "reading the film"
TERMS = 2
"""Of guidance: what is not wanted, and what is."""
FOUND = 140
"""Bytes a pixel that ways to frames around take on disk, for each frame around: of the film three sizes, of what is
drawn one, and four distances."""


def stylized(
    prepared: Prepared,
    execution: Execution,
    progress: Progress,
    plan: StylizePlan | None,
    work: Path | None,
    save_bank: Path | None,
    run: type[StylizeRun] | None = None,
) -> Clip:
    """What `Stylize.run` says; `run` is another kind of run for another task."""
    task, asked, model = prepared.task, prepared.asked, prepared.steered
    if save_bank is not None and not has_anchors(Pattern.parse(task.agreement.attention or PLAIN)):
        raise TaskError(
            f"a bank is made of frames that others look at, and with attention {task.agreement.attention!r} there are "
            "none: add first, anchors or every K"
        )
    made = replace(asked.contents(model.device.type), networks=prepared.networks)
    if plan is not None:
        plan.check_unchanged(made, len(prepared.clip), task.shape.window or 1)
        made = replace(plan, device=made.device)
    how = execution.pinned()
    check_calls(task, min(len(prepared.clip), task.shape.window or 1), how)
    key = _key(asked, made, model, how, plan is not None)
    unfinished = Unfinished.temporary() if work is None else Unfinished.of(work, asked.name, key)
    try:
        with how.applied(model) as ready:
            return (run or StylizeRun)(prepared, ready, made, how, progress, unfinished, save_bank).clip()
    except BaseException:
        # What is drawn of a part is worth going on with, too.
        if not any(unfinished.folder.glob("part-*")):
            unfinished.remove_if_empty()
        raise


def _key(task: Any, plan: StylizePlan, model: LatentDiffusion, execution: Execution, planned: bool) -> str:
    """A hash of everything that the frames depend on; where the files lie is not among it."""
    fields = json.dumps(asdict(replace(task, input="input")), sort_keys=True)
    for name, sha256 in plan.others.items():
        fields = fields.replace(json.dumps(name)[1:-1], sha256)
    told = [
        fields,
        asdict(plan) if planned else [plan.sha256, sorted(plan.others.values()), plan.device],
        asdict(ModelRecord.of(model)) | {"name": ""},
        asdict(execution),
        versions(),
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass
class StylizeRun:
    """One run: what is done already is taken from disk, and each frame is there as soon as it is finished.

    Args:
        prepared: the task, and all that it takes.
        ready: the model, as it is run.
        plan: what is known so far.
        execution: batches and threads.
        progress: told of all work in one number: a row of a step each.
        unfinished: where what is done is kept.
        save_bank: where frames are written that others looked at, if anywhere.
    """

    prepared: Prepared
    ready: LatentDiffusion
    plan: StylizePlan
    execution: Execution
    progress: Progress
    unfinished: Unfinished
    save_bank: Path | None = None
    drawing: Drawing = field(init=False)
    _begun: bool = field(default=False, init=False)

    def clip(self) -> Clip:
        """The finished film.

        Raises:
            InterruptedRunError: on Ctrl-C, or as memory ran out, with the clip of the frames that are finished.
        """
        self._check_room()
        frames = KeptFrames(self.unfinished, self.inputs.geometry.drawn)
        shown = self.inputs.geometry.shown(self.inputs.film.frames)
        try:
            with ExitStack() as opened:
                source = opened.enter_context(Spool(self.folder / "source", shown.size))
                read_into(source, shown, self.progress, READING)
                pictures = {one.name: opened.enter_context(self._annotated(one)) for one in self.prepared.controls}
                self._plan(source)
                self.drawing, self._begun = self._drawing(source, pictures), True
                self._make(frames)
                if self.save_bank is not None:
                    self._save_bank(self.save_bank)
        except KeyboardInterrupt:
            raise self._ended(frames) from None
        except ExhaustedError as error:
            raise self._ended(frames, error) from None
        return self._clip(frames)

    @property
    def task(self) -> Stylize:
        """With nothing left open."""
        return self.prepared.task

    @property
    def inputs(self) -> Inputs:
        """The film."""
        return self.prepared.inputs

    @property
    def folder(self) -> Path:
        """Where what is done is kept."""
        return self.unfinished.folder

    def _annotated(self, steering: Steering) -> Spool:
        """The pictures of a control, on disk.

        Raises:
            TaskError: they show nothing at all.
        """
        spool = Spool(self.folder / f"control-{steering.name}", self.inputs.geometry.drawn)
        try:
            read_into(spool, self.prepared.pictures(steering, self.progress), self.progress, f"finding {steering.name}")
            check_seen(spool, steering.wanted.kind, self.prepared.named(steering))
        except BaseException:
            spool.close()
            raise
        return spool

    def _drawing(self, source: Spool, pictures: Mapping[str, Spool]) -> Drawing:
        agreement = self.task.agreement
        pattern = Pattern.parse(agreement.attention or PLAIN)
        looking = Looking(self.ready, pattern, self.plan.anchors, keeps=has_anchors(pattern), parts=self.plan.parts)
        drawing = self._drawn_by(source, pictures, looking)
        looking.references = self._riding(drawing)
        if agreement.bank is not None:
            path, first = Path(agreement.bank), drawing.first
            looking.given = self._bank_use.load(path, drawing.schedule, start=first, terms=TERMS)
        return drawing

    def _drawn_by(self, source: Spool, pictures: Mapping[str, Spool], looking: Looking) -> Drawing:
        telling = Telling(self.prepared, self.ready, pictures)
        return Drawing(self.task, self.ready, source, telling, looking, self.plan, self.folder, self.progress)

    @property
    def _bank_use(self) -> BankUse:
        names = tuple(one.name for one in self.prepared.controls)
        assert self.task.sampling.solver is not None
        return BankUse(self.prepared.steered, self.task.sampling.solver, self.inputs.geometry.drawn, names)

    def _save_bank(self, path: Path) -> None:
        parts = len(self.plan.parts)
        self.drawing.recall(parts)
        bank = self.drawing.looking.bank(parts)
        assert bank is not None, "there are frames that others look at"
        self._bank_use.save(bank, path)

    def _riding(self, drawing: Drawing) -> tuple[Passenger, ...]:
        """Reference pictures, as frames look at them."""
        pictures = self.prepared.references
        if not pictures or drawing.looking.pattern.references == ():
            return ()
        noise = start_noise(self.task.seed, drawing.shape).to(self.ready.device)
        latents = self.ready.codec.encode(torch.stack(pictures)).float().to(self.ready.device)
        told = drawing.telling.references(pictures, self.prepared.controls)
        pairs = zip(latents, told, strict=True)
        return tuple(Passenger(Noised(x0, noise, drawing.schedule), cond) for x0, cond in pairs)

    def _make(self, frames: KeptFrames) -> None:
        """All frames that are not there yet."""
        with Spool(self.folder / "drawn", frames.size) as drawn:
            agreeing = Agreeing(self.drawing, drawn, frames.spool, self._measured(frames))
            agreeing.go_on()
            for number in range(len(self.plan.parts)):
                if self._stop(number) > len(drawn):
                    self._draw(number, drawn)
                    agreeing.go_on()

    def _draw(self, number: int, drawn: Spool) -> None:
        """The pictures of a part up to where the next begins; what it has in common with the last is cross-faded."""
        part = range(*self.plan.parts[number])
        pictures_of = self._pictures(number)
        before = range(*self.plan.parts[number - 1]) if number else range(0)
        old_pictures_of = self._pictures(number - 1) if part.start < before.stop else pictures_of
        together = self.execution.decoded_at_once(self.ready, drawn.size)
        for first in range(part.start, self._stop(number), together):
            numbers = range(first, min(first + together, self._stop(number)))
            if numbers.stop <= len(drawn):
                continue
            pictures = pictures_of(range(first - part.start, numbers.stop - part.start))
            if first < before.stop:
                faded = range(first, min(numbers.stop, before.stop))
                old = old_pictures_of(range(first - before.start, faded.stop - before.start))
                weights = [(frame - part.start + 1) / (before.stop - part.start + 1) for frame in faded]
                shares = torch.tensor(weights).view(-1, 1, 1, 1)
                pictures[: len(faded)] = torch.lerp(old, pictures[: len(faded)], shares)
            drawn.append(pictures[max(0, len(drawn) - first) :])
        # What parts with anchors left is looked at to the end.
        for old_number in range(number):
            if not self.drawing.looking.records(old_number):
                self.drawing.path(old_number).unlink(missing_ok=True)

    def _pictures(self, number: int) -> Callable[[range], Float[Tensor, "t 3 h w"]]:
        """The pictures of a drawn part, by their places in it."""
        if self.task.method == OURS:
            latents, pictures = self.drawing(number), None
        else:
            latents, pictures = drawn_by(self.task.method, self.drawing, number)
        start, share = self.plan.parts[number][0], self.task.beginning.detail

        def decoded(places: range) -> Tensor:
            if pictures is not None:
                return as_floats(pictures[places.start : places.stop])
            made = self.ready.codec.decode(latents[places.start : places.stop]).float().cpu()
            if not share:
                return made
            return (made + share * self.drawing.lost(range(start + places.start, start + places.stop))).clamp(0, 1)

        return decoded

    def _stop(self, number: int) -> int:
        """How many frames are drawn when this part is."""
        parts = self.plan.parts
        return parts[number][1] if number + 1 == len(parts) else min(parts[number][1], parts[number + 1][0])

    def _plan(self, source: Frames) -> None:
        """Find out where shots begin, and what is drawn at once."""
        if self.plan.parts:
            return
        frames, known = len(source), self.folder / "shots.json"
        said = self.task.shots(frames) or known_shots(known, frames)
        if said is None:
            said = (0, *cuts(source, progress=self.progress)) if frames > 1 else (0,)
            with written_whole(known) as part:
                part.write_text(json.dumps(said), encoding="utf-8")
        shape = self.task.shape
        parts = parts_of(said, frames, shape.window or 1, shape.overlap or 0)
        anchors = tuple[int, ...]()
        if Pattern.parse(self.task.agreement.attention or PLAIN).anchors:
            # Those of a part can be looked at by it, and by all behind it.
            first = choose_anchors(Excerpt(source, range(*parts[0])), most=ANCHORS)
            anchors = (*first, *further_anchors(source, parts, first, most=FURTHER))
        self.plan = replace(self.plan, shots=list(said), parts=parts, anchors=list(anchors))

    def _measured(self, frames: KeptFrames) -> Measured:
        return Measured(self.folder / "measured.jsonl", len(frames))

    def _clip(self, frames: KeptFrames, complete: bool = True) -> Clip:
        film = self.inputs.film
        measured = self._measured(frames)
        follows = measured.mean(FOLLOWS)
        scores = {
            **measured.scores(),
            "follows": follows,
            "shots": len(self.plan.shots),
            "parts": len(self.plan.parts),
            "evaluations": self._evaluations(),
            "deflickered_at": list(self.drawing.moments),
        }
        notes = (*self.prepared.notes, *strayed(follows))
        told = self.prepared.model, self.execution, scores, complete, notes
        record = Record.of(self.prepared.asked.name, self.prepared.asked, self.plan, *told)
        shown = FinishedFrames(frames, self.inputs.geometry)
        return Clip(shown, film.fps, film.audio, Provenance(record.to_dict()))

    def _evaluations(self) -> int | None:
        """Rows that the network was given, those that rode along among them; None for a method that gives it others."""
        if self.task.method != OURS:
            return None
        looking, parts = self.drawing.looking, self.plan.parts
        rows = sum(stop - first + looking.riding(number) for number, (first, stop) in enumerate(parts))
        return rows * rows_of(self.task, self.ready)

    def _ended(self, frames: KeptFrames, exhausted: ExhaustedError | None = None) -> InterruptedRunError:
        count, total = len(frames), len(self.inputs.film)
        ended = InterruptedRunError if exhausted is None else ExhaustedRunError
        why = "interrupted" if exhausted is None else str(exhausted)
        partial = self._clip(frames, complete=False) if count and self._begun else None
        begun = count or any(self.folder.glob("part-*"))
        kept = f"; the same command goes on from there ({self.folder})" if begun and self.unfinished.lasting else ""
        return ended(f"{why}; {count} of {total} frames are finished{kept}", partial)

    def _check_room(self) -> None:
        home, frames = self.folder, len(self.inputs.film)
        width, height = self.inputs.geometry.drawn
        # The film, the drawn frames and the finished ones; and what is found of those around.
        found = FOUND * min(frames, 2 * (self.task.shape.window or 1)) if blends(self.task) else 0
        needed, free = width * height * (9 * frames + found), shutil.disk_usage(home).free + self.unfinished.bytes
        if needed > free:
            raise DiskError(
                f"finished frames, and what they are made of, are kept in {home} until the film is written, which "
                f"takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: free some space, or write to "
                "another disk"
            )
