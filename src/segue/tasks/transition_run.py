"""Making a transition: grow the tree, place the frames, run what they still need."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from segue.errors import ExhaustedError, ExhaustedRunError, InterruptedRunError
from segue.evaluation.ghosting import exposures
from segue.media.clip import Clip, Provenance
from segue.models.denoiser import Tally
from segue.tasks.ahead import Ahead
from segue.tasks.album import Album
from segue.tasks.frames import DecodedFrames, Developer, Sketcher
from segue.tasks.key_pictures import key_pictures
from segue.tasks.record import Record
from segue.tasks.sampling import Execution
from segue.tasks.transition import Transition
from segue.tasks.transition_plan import TransitionPlan, checked_tree, flat, row_steps_of, why_ended
from segue.tasks.transition_setting import Setting
from segue.temporal.clock import Clock
from segue.temporal.curve import Curve
from segue.temporal.feed import Feed
from segue.temporal.grow import Grower, grow
from segue.temporal.plan import Adaptive, Fixed, Planner, Replay
from segue.temporal.preview import Chosen
from segue.temporal.rebranch import Rebranching
from segue.temporal.refine import Refinement, Target
from segue.temporal.ruler import Ruler
from segue.temporal.timeline import Shot, check_timing, even_positions, missing, shots
from segue.temporal.tree import Tree, neighbours
from segue.types import Progress

if TYPE_CHECKING:
    from segue.media.audio import Audio
    from segue.models.bundle import LatentDiffusion
    from segue.tasks.depths import DepthChoice

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work that can be looked at after each of its steps, and what comes of it."""


@dataclass
class TransitionRun:
    """One run of a resolved transition.

    Args:
        task: with nothing left open.
        model: makes the pictures.
        execution: batches and threads.
        progress: told of every step.
        plan: to replay; None to decide anew.
    """

    task: Transition
    model: LatentDiffusion
    execution: Execution
    progress: Progress
    plan: TransitionPlan | None = None
    tree: Tree = field(init=False)
    filled: int = field(default=0, init=False)
    developer: Developer = field(init=False)
    album: Album = field(init=False)
    sketches: Album | None = field(init=False)
    ruler: Ruler = field(init=False)
    scout: Ruler = field(init=False)
    """What a film is measured with, and what the tree grows by: the same, unless a small decoder measures."""
    started: float = field(init=False)
    tally: Tally = field(default_factory=lambda: Tally(timed=False), init=False)
    choice: DepthChoice | None = field(default=None, init=False)
    clock: Clock = field(init=False)
    sound: Audio | None = field(init=False)
    grower: Grower = field(init=False)
    shown: tuple[Shot, ...] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.tree = Tree.of_keys(len(self.task.route))
        self.developer = Developer(self.model.codec)
        size = self.task.sampling.size or self.model.defaults.size
        batch, distance = self.execution.decoded_at_once(self.model, size), self.task.tree.perceptual()
        self.album = Album(self.developer, batch, self._ahead())
        self.scout = self.ruler = Ruler(distance, self.album)
        self.sketches, preview = None, self.model.preview
        if preview is not None and preview.use != "frames":
            self.sketches = Album(Sketcher(self.developer, preview.codec), batch)
            if preview.use == "measured":
                self.scout = Ruler(distance, self.sketches)
        self.started = time.monotonic()

    def clip(self) -> Clip:
        """The finished film, or an InterruptedRunError that carries what is finished of it."""
        steps = self.steps()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    def steps(self) -> Steps[Clip]:
        """Make the film, and return it. Yields after every step, where `grower` knows what is finished of `tree`, and
        `shown` is what the film will show, once that is known.
        """
        settings = self.task.sampling.resolve(self.model, len(self.task.prompts))
        # Hashing large files takes seconds, in which an interrupt must not lose a finished film: so it comes first.
        _ = self.model.fingerprint
        self.clock, self.sound = (
            self.task.pace.clock(self.task.fps, beats=self._counts_beats()),
            self.task.pace.sound(),
        )
        check_timing(len(self.task.route), self.task.frames, self.task.pace.curve(), self.task.pace.loop, self.clock)
        setting = Setting(
            self.task, self.model, settings, self.execution, self.clock, self.developer, self.progress, self.plan
        )
        planner = self._planner(settings.steps, setting)
        with (
            self.execution.applied(self.model) as ready,
            self.task.likeness.attached(ready, setting.along) as alignment,
        ):
            counted = replace(ready, denoiser=self.tally.watching(ready.denoiser))
            self.grower = grower = replace(setting, model=counted).grower(alignment, planner)
            if isinstance(planner, Adaptive) and self.task.tree.motion_limit is not None:
                self.choice = self._chooser(grower, self.task.tree.motion_limit)
                planner = Chosen(planner, self.choice)
            try:
                plan = yield from (self._replayed(grower, planner) if self.plan else self._decided(grower, planner))
                self.shown = shown = tuple(Shot(*shot) for shot in plan.shots)
                self.progress("measuring", 0, 1)
                scores = self._scores(grower, shown) | self._cost(plan) | {"ended": plan.ended}
                self.progress("measuring", 1, 1)
            except KeyboardInterrupt:
                raise self._interrupted(grower) from None
            except ExhaustedError as error:
                raise self._interrupted(grower, error) from None
        return self._finished(grower, plan, shown, scores)

    def _planner(self, steps: int, setting: Setting) -> Planner:
        if self.plan is not None:
            return Replay(checked_tree(self.plan, self.task.route, self.task.frames, steps))
        planner = self.task.tree.planner(steps, len(self.task.route), self.task.frames, setting.along)
        if self.task.area.timing is not None and isinstance(planner, Fixed):
            # Regions are held to the parents up to the end, so these must run as long.
            return replace(planner, feed=Feed(1.0))
        return planner

    def _counts_beats(self) -> bool:
        """Whether a curve of the task, or of one of the model's LoRAs, has times in beats."""
        knots = (knot for curve in self.model.lora_curves for knot in Curve.of(curve).knots)
        return self.task.counts_beats or any(knot.unit == "b" for knot in knots)

    def _chooser(self, grower: Grower, limit: float) -> DepthChoice:
        sketches = self.sketches if self.scout is not self.ruler else None
        # OpenCV, which finds the motion, is imported where it is needed only: it changes the environment.
        from segue.tasks.depths import DepthChoice

        known = self.album if sketches is None else sketches
        return DepthChoice(grower, known.develop, self.album.batch, limit, self.tally, self.progress, known)

    def _replayed(self, grower: Grower, planner: Planner) -> Steps[TransitionPlan]:
        """Run a stored plan. Its order is kept, so batches are the same, and with them every bit."""
        plan = self.plan
        if plan is None:
            raise ValueError("there is no plan to replay")
        self.shown = tuple(Shot(*shot) for shot in plan.shots)
        yield from self._grow(grower, planner)
        return plan

    def _decided(self, grower: Grower, planner: Planner) -> Steps[TransitionPlan]:
        yield from self._grow(grower, planner)
        grown = len(self.tree.nodes)
        gaps = self.scout.measure(grower, self.tree, neighbours(self.tree))
        places = [self.tree.nodes[name].position for name in self.tree.frames()]
        positions = self._positions(places, gaps)
        if self.task.fill == "branches":
            yield from self._fill(grower, positions, planner)
        shown = shots(self.tree, positions)
        ended = why_ended(planner, grown - len(self.task.route))
        if self.task.tree.corrects:
            shown, reached = yield from self._corrected(grower, shown, planner)
            ended = "; ".join([ended, *reached])
        pictures = key_pictures(self.task.key_image, len(self.task.prompts))
        plan = TransitionPlan(
            [flat(node) for node in self.tree.nodes],
            grown,
            [(shot.left, shot.right, shot.share) for shot in shown],
            ended,
            [picture.sha256() for _, picture in sorted(pictures.items())],
            self.task.area.hashes(),
        )
        if self.choice is not None and isinstance(planner, Chosen):
            return plan.previewed(planner.depths, self.choice.calls, self.choice.rows)
        return plan

    def _positions(self, places: Sequence[float], gaps: Sequence[float]) -> list[float]:
        """Where the film's frames lie, by what was measured between places."""
        keys, pace = [float(k) for k in range(len(self.task.route))], self.task.pace
        return even_positions(places, gaps, keys, self.task.frames, pace.curve(), pace.loop, self.clock)

    def _once(self, places: Sequence[float], gaps: Sequence[float]) -> list[float]:
        """The same, each position once, from the first key to the last."""
        return sorted({*self._positions(places, gaps), float(len(self.task.route) - 1)})

    def _corrected(
        self, grower: Grower, shown: Sequence[Shot], planner: Planner
    ) -> Steps[tuple[list[Shot], list[str]]]:
        """The frames that come nearest to the ghosting and smoothness that are asked for, and what was reached."""
        # The film may come back over its frames, and a loop arrives where it began: each is put in order once.
        order = sorted({shot.left for shot in shown}, key=lambda name: self.tree.nodes[name].position)
        if self.task.pace.loop == "loop":
            order.append(len(self.task.route) - 1)
        place = {name: number for number, name in enumerate(order)}
        wanted, said, work = self.task.tree, list[str](), None
        if wanted.smoothness is not None:
            until = None if wanted.budget is None else self.started + wanted.budget
            target = Target(wanted.smoothness, self._branches_left(), until)
            work = Refinement(grower, planner, self.ruler, self.tree, order, target, self._once)
            for _ in work.run():
                self.tree = work.tree
                self.progress("smoothing", work.spent, work.spent + len(order))
                yield
            self.tree, order = work.tree, work.order
        # After that, as it looks at each frame of the film and at no other.
        if wanted.ghosting is not None:
            scores = partial(self._ghosts, grower)
            spirits = Rebranching(grower, self.tree, order, scores, wanted.ghosting, self._branches_left())
            for _ in spirits.run():
                self.tree = spirits.tree
                self.progress("branching deeper", spirits.spent, spirits.spent + 1)
                yield
            self.tree, order = spirits.tree, spirits.order
            said.append(spirits.ended)
        if work is not None:
            work.tree, work.order = self.tree, order
            said.append(work.ended)
        return [Shot(order[place[shot.left]], order[place[shot.left]]) for shot in shown], said

    def _branches_left(self) -> int | None:
        """How many of the branches that are allowed have not been placed; those that only filled frames don't count."""
        most = self.task.tree.max_branches
        placed = len(self.tree.nodes) - len(self.task.route) - self.filled
        return None if most is None else max(0, most - placed)

    def _ghosts(self, grower: Grower, order: Sequence[int]) -> list[float]:
        """How much of a double exposure each of these frames is, in this order."""
        film = self.frames(tuple(Shot(name, name) for name in order))
        return exposures(film).score.tolist()

    def _grow(self, grower: Grower, planner: Planner) -> Steps[None]:
        steps, done = len(grower.schedule), 0
        total = row_steps_of(planner, len(grower.keys), steps)
        if grower.blends is not None:
            total += (len(grower.blends.keys.keys) - len(grower.blends.route.corners)) * steps
        for grown in grow(grower, planner, self.scout, self.started):
            self.tree = grown.tree
            self._begin_pictures()
            done += grown.row_steps
            self.progress("growing the tree", done, max(total, done))
            yield
        # Depths that were chosen on the way may have made it less than was expected.
        self.progress("growing the tree", done, done)

    def _fill(self, grower: Grower, positions: list[float], planner: Planner) -> Steps[None]:
        """Run a branch for every frame that the tree cannot show yet."""
        wanted = missing(self.tree, positions)
        if not wanted:
            return
        base = self.tree
        nodes = planner.fill(base, wanted)
        self.filled = len(nodes)
        self.tree = base.with_nodes(nodes)
        if not self.task.tree.corrects:
            self.shown = tuple(shots(self.tree, positions))
        names = range(len(base.nodes), len(self.tree.nodes))
        total, done = sum(len(grower.schedule) - node.step for node in nodes), 0
        # Nothing forks from these, so that no latents but their last are kept; but for frames that are added later.
        keep = grower.needed(self.tree, planner.forks(self.tree)) if self.task.tree.corrects else frozenset[int]()
        for row_steps in grower.run(self.tree, names, keep):
            self._begin_pictures()
            done += row_steps
            self.progress("rendering frames", done, total)
            yield

    def _scores(self, grower: Grower, shown: tuple[Shot, ...]) -> dict[str, Any]:
        """How even the film is, by the distance that placed its frames."""
        native = sum(shot.is_native for shot in shown)
        order = [shot.left for shot in shown if shot.is_native]
        if self.task.pace.loop != "none":
            order.append(order[0])
        steps = self.ruler.measure(grower, self.tree, list(pairwise(order)))
        mean = sum(steps) / max(len(steps), 1)
        return {
            "distance": self.ruler.distance.name,
            "frames": len(shown),
            "native_frames": native,
            "native_share": round(native / len(shown), 4),
            "mean_step": round(mean, 5),
            "largest_step": round(max(steps, default=0.0), 5),
            "unevenness": round(max(steps, default=0.0) / mean, 3) if mean > 0 else 1.0,
        }

    def _cost(self, plan: TransitionPlan) -> dict[str, Any]:
        """What the network was asked for the film, and of that, for previews; a replay does without these."""
        calls, rows = self.tally.calls, self.tally.rows
        if self.plan is not None:
            calls, rows = calls + plan.preview_calls, rows + plan.preview_rows
        cost: dict[str, Any] = {"calls": calls, "rows": rows}
        if plan.depths:
            cost |= {"depths": plan.depths, "preview_calls": plan.preview_calls, "preview_rows": plan.preview_rows}
        return cost

    def _finished(
        self,
        grower: Grower,
        plan: TransitionPlan,
        shown: tuple[Shot, ...],
        scores: dict[str, Any],
        complete: bool = True,
    ) -> Clip:
        notes = self.task.notes(self.model)
        record = Record.of(self.task.name, self.task, plan, self.model, self.execution, scores, complete, notes)
        frames = self.frames(shown)
        if all(shot.is_native for shot in shown):
            self.album.rest()
        return Clip(frames, self.task.fps, self.sound, Provenance(record.to_dict()))

    def frames(self, shown: tuple[Shot, ...]) -> DecodedFrames:
        """The pictures that these frames show, all of whose nodes must be finished."""
        used = {name for shot in shown for name in (shot.left, shot.right)}
        latents = {name: self.grower.final(name) for name in used}
        places = {name: self.tree.nodes[name].position for name in used}
        threads = self.execution.pinned().threads
        return DecodedFrames(latents, places, shown, self.developer, self.album.batch, threads, self.album)

    def _ahead(self) -> Ahead | None:
        from segue.models.side_stream import side_stream

        beside = side_stream(self.model)
        return None if beside is None else Ahead(beside, self.developer.finished)

    def _begin_pictures(self) -> None:
        """Let what is finished, and will be asked for, be developed while the rest is drawn."""
        if self.album.ahead is None:
            return
        if self.shown is not None:
            asked = dict.fromkeys(name for shot in self.shown for name in (shot.left, shot.right))
        else:
            asked = self.tree.frames() if self.ruler.distance.domain == "frames" and self.scout is self.ruler else ()
        ready = [name for name in asked if self.is_finished(name)]
        places = {name: self.tree.nodes[name].position for name in ready}
        self.album.begin({name: self.grower.final(name) for name in ready}, places)

    def is_finished(self, name: int) -> bool:
        """Whether the picture of a node can be shown; once it can, it does not change."""
        known = self.grower.trajectories.get(name)
        return known is not None and len(self.grower.schedule) in known.latents

    def _interrupted(self, grower: Grower, exhausted: ExhaustedError | None = None) -> InterruptedRunError:
        """What is finished, in order, each picture once; after Ctrl-C, or as memory ran out."""
        ended = InterruptedRunError if exhausted is None else ExhaustedRunError
        why = "interrupted" if exhausted is None else f"{exhausted}; it ended"
        ready = [name for name in self.tree.frames() if self.is_finished(name)]
        if len(ready) < 2:
            return ended(f"{why} before two pictures were finished; there is nothing to keep")
        shown = tuple(Shot(name, name) for name in ready)
        plan = TransitionPlan(
            [flat(node) for node in self.tree.nodes],
            len(self.tree.nodes),
            [(shot.left, shot.right, shot.share) for shot in shown],
            "interrupted",
        )
        clip = self._finished(grower, plan, shown, {"frames": len(shown)}, complete=False)
        why = "interrupted" if exhausted is None else str(exhausted)
        return ended(f"{why}; {len(ready)} pictures were finished (the whole film has {self.task.frames} frames)", clip)
