"""Making a transition: grow the tree, place the frames, run what they still need."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import find_solver
from segue.errors import InterruptedRunError, TaskError
from segue.evaluation.ghosting import exposures
from segue.media.clip import Clip, Provenance
from segue.tasks.frames import DecodedFrames, Developer
from segue.tasks.key_pictures import KeyPicture, key_pictures, unchanged
from segue.tasks.masks import Kept, shown_to
from segue.tasks.record import Record
from segue.tasks.sampling import Execution, Resolved
from segue.tasks.transition import Transition
from segue.tasks.transition_plan import TransitionPlan, flat, tree_of, why_ended
from segue.temporal.clock import Clock
from segue.temporal.curve import Curve, Value
from segue.temporal.feed import Feed
from segue.temporal.given import Givens, inverted
from segue.temporal.grow import Grower, grow
from segue.temporal.keys import Along, Keys
from segue.temporal.mask import pooled
from segue.temporal.plan import Adaptive, Fixed, Planner, Replay
from segue.temporal.rebranch import Rebranching
from segue.temporal.refine import Refinement, Target
from segue.temporal.ruler import Ruler
from segue.temporal.timeline import Shot, check_timing, even_positions, missing, shots
from segue.temporal.trajectory import Trajectory
from segue.temporal.tree import Tree, neighbours
from segue.types import Progress, Solver

if TYPE_CHECKING:
    from torch import Tensor

    from segue.media.audio import Audio
    from segue.models.bundle import LatentDiffusion


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
    ruler: Ruler = field(init=False)
    started: float = field(init=False)
    clock: Clock = field(init=False)
    sound: Audio | None = field(init=False)

    def __post_init__(self) -> None:
        self.tree = Tree.of_keys(len(self.task.stops))
        self.developer = Developer(self.model.codec)
        self.ruler = Ruler(self.task.tree.perceptual(), self.developer, self.execution.decoded_at_once())
        self.started = time.monotonic()

    def clip(self) -> Clip:
        """The finished film, or an InterruptedRunError that carries what is finished of it."""
        settings = self.task.sampling.resolve(self.model, len(self.task.prompts))
        steps = settings.steps
        # Hashing large files takes seconds, in which an interrupt must not lose a finished film: so it comes first.
        _ = self.model.fingerprint
        self.clock, self.sound = (
            self.task.pace.clock(self.task.fps, beats=self.task.counts_beats),
            self.task.pace.sound(),
        )
        check_timing(len(self.task.stops), self.task.frames, self.task.pace.curve(), self.task.pace.loop, self.clock)
        planner = self._planner(steps)
        with self.execution.applied(self.model) as ready, self.task.likeness.attached(ready) as alignment:
            schedule = ready.schedule(steps, settings.size, solver=settings.solver)
            changes = self._changes(settings.size)
            keys = self._keys(ready, settings.size, changes)
            solver = find_solver(settings.solver).solver
            grower = Grower(
                denoiser=ready.denoiser,
                schedule=schedule,
                solver=solver,
                keys=keys,
                shape=settings.latent_shape(ready),
                device=ready.device,
                batch=self._rows_at_once(),
                from_parents=self.task.tree.feed("crossfeed"),
                from_first=self.task.tree.feed("first_crossfeed"),
                givens=self._givens(ready, schedule, solver, keys, settings),
                alignment=alignment,
                whole=self.task.tree.ghosting is not None,
                same={place: key for place, key in enumerate(self.task.stops) if place != key},
                # An inpainting model keeps the outside by itself: it is shown the picture.
                mask=None if changes is None or ready.inpaints else pooled(changes, ready.codec.scale),
                timing=self.task.area.schedule(settings.size, ready.codec.scale),
            )
            if changes is not None:
                self.developer.kept = Kept(changes, lambda: self._source(grower))
            try:
                plan = self._replayed(grower, planner) if self.plan else self._decided(grower, planner)
                shown = tuple(Shot(*shot) for shot in plan.shots)
                self.progress("measuring", 0, 1)
                scores = self._scores(grower, shown) | {"ended": plan.ended}
                self.progress("measuring", 1, 1)
            except KeyboardInterrupt:
                raise self._interrupted(grower) from None
        return self._finished(grower, plan, shown, scores)

    def _rows_at_once(self) -> int:
        """Pictures whose network rows fit into one call: each takes two where there is guidance."""
        unguided = set(self.task.sampling.guidance_scale) == {1.0} and self.task.tree.damper == 1.0
        return max(1, self.execution.max_batch // (1 if unguided else 2))

    def _changes(self, size: tuple[int, int]) -> Tensor | None:
        """The mask in pixels, of a file that is the one that a plan was made with."""
        if self.plan is not None:
            self.task.area.check_unchanged(self.plan.area)
        return self.task.area.changes(size)

    def _source(self, grower: Grower) -> Tensor:
        """The picture of the first key, which is what a mask keeps."""
        if 0 in self.developer.given:
            return self.developer.given[0]
        return self.model.codec.decode(grower.final(0)[None])[0].float().cpu()

    def _keys(self, model: LatentDiffusion, size: tuple[int, int], changes: Tensor | None) -> Keys:
        count, stops = len(self.task.prompts), self.task.stops
        # All texts are encoded together: rows can be mixed only if they have one length.
        texts = model.text([*self.task.prompts, *self.task.negative])
        first = self._pictures().get(0)
        texts = shown_to(model, texts, first.load(size) if first else None, changes)
        positive, negative = texts[stops], texts[[count + key for key in stops]]
        given, damper = self.task.sampling.guidance_scale, self.task.tree.damper
        return Keys(
            positive,
            negative,
            self._along(given[0]) if isinstance(given[0], str) else tuple(float(given[key]) for key in stops),
            tuple(self.task.seeds[key] for key in stops),
            self._along(damper) if isinstance(damper, str) else damper,
        )

    def _along(self, value: Value) -> Along:
        """A curve over the film, at positions of the tree. When a branch will be shown is known only once it has been
        measured; until then the keys count as evenly spread over the film's seconds."""
        track, last = Curve.of(value).on(self.clock), len(self.task.stops) - 1
        seconds = self.task.seconds / (2 if self.task.pace.loop == "pingpong" else 1)
        return lambda position: track.at(position / last * seconds)

    def _pictures(self) -> dict[int, KeyPicture]:
        return key_pictures(self.task.key_image, len(self.task.prompts))

    def _givens(
        self, model: LatentDiffusion, schedule: Schedule, solver: Solver, keys: Keys, settings: Resolved
    ) -> Givens | None:
        """The keys that are pictures, and what the film's pictures need so that these are shown as they are."""
        pictures = self._pictures()
        if not pictures:
            return None
        if self.plan is not None:
            unchanged(pictures, self.plan.pictures)
        trajectories: dict[int, Trajectory] = {}
        for key, picture in sorted(pictures.items()):
            shown = picture.load(settings.size)
            x0 = model.codec.encode(shown[None].to(model.device)).float()
            trajectories[key] = inverted(x0[0], model.denoiser, schedule, keys, key)
            self.progress("inverting pictures", len(trajectories), len(pictures))
            self.developer.given[key] = shown
            self.developer.lost[key] = shown - model.codec.decode(x0).float().cpu()[0]
        last = len(self.task.stops) - 1
        if self.task.stops[last] in pictures and last not in pictures:
            # A loop arrives at a picture as it left it.
            first = self.task.stops[last]
            trajectories[last], self.developer.lost[last] = trajectories[first], self.developer.lost[first]
        return Givens(trajectories, model.denoiser, schedule, solver, keys)

    def _planner(self, steps: int) -> Planner:
        if self.plan is None:
            planner = self.task.tree.planner(steps, len(self.task.stops), self.task.frames, self._along)
            if self.task.area.timing is not None and isinstance(planner, Fixed):
                # Regions are held to the parents up to the end, so these must run as long.
                return replace(planner, feed=Feed(1.0))
            return planner
        tree = tree_of(self.plan)
        tree.check(steps)
        if tree.keys != len(self.task.stops) or len(self.plan.shots) != self.task.frames:
            raise TaskError("the plan does not belong to this task: it has other keys or another number of frames")
        shown = set(tree.frames())
        for left, right, share in self.plan.shots:
            if not {left, right} <= shown or not 0 <= share <= 1:
                raise TaskError(f"the plan is damaged: it has no frames {left} and {right} to mix by {share}")
        return Replay(tree)

    def _replayed(self, grower: Grower, planner: Planner) -> TransitionPlan:
        """Run a stored plan. Its order is kept, so batches are the same, and with them every bit."""
        plan = self.plan
        if plan is None:
            raise ValueError("there is no plan to replay")
        self._grow(grower, planner)
        return plan

    def _decided(self, grower: Grower, planner: Planner) -> TransitionPlan:
        self._grow(grower, planner)
        grown = len(self.tree.nodes)
        gaps = self.ruler.measure(grower, self.tree, neighbours(self.tree))
        places = [self.tree.nodes[name].position for name in self.tree.frames()]
        positions = self._positions(places, gaps)
        if self.task.fill == "branches":
            self._fill(grower, positions, planner)
        shown = shots(self.tree, positions)
        ended = why_ended(planner, grown - len(self.task.stops))
        if self.task.tree.corrects:
            shown, reached = self._corrected(grower, shown, planner)
            ended = "; ".join([ended, *reached])
        return TransitionPlan(
            [flat(node) for node in self.tree.nodes],
            grown,
            [(shot.left, shot.right, shot.share) for shot in shown],
            ended,
            [picture.sha256() for _, picture in sorted(self._pictures().items())],
            self.task.area.hashes(),
        )

    def _positions(self, places: Sequence[float], gaps: Sequence[float]) -> list[float]:
        """Where the film's frames lie, by what was measured between places."""
        keys, pace = [float(k) for k in range(len(self.task.stops))], self.task.pace
        return even_positions(places, gaps, keys, self.task.frames, pace.curve(), pace.loop, self.clock)

    def _once(self, places: Sequence[float], gaps: Sequence[float]) -> list[float]:
        """The same, each position once, from the first key to the last."""
        return sorted({*self._positions(places, gaps), float(len(self.task.stops) - 1)})

    def _corrected(self, grower: Grower, shown: Sequence[Shot], planner: Planner) -> tuple[list[Shot], list[str]]:
        """The frames that come nearest to the ghosting and smoothness that are asked for, and what was reached."""
        # The film may come back over its frames, and a loop arrives where it began: each is put in order once.
        order = sorted({shot.left for shot in shown}, key=lambda name: self.tree.nodes[name].position)
        if self.task.pace.loop == "loop":
            order.append(len(self.task.stops) - 1)
        place = {name: number for number, name in enumerate(order)}
        wanted, said = self.task.tree, list[str]()
        if wanted.ghosting is not None:
            scores = partial(self._ghosts, grower)
            spirits = Rebranching(grower, self.tree, order, scores, wanted.ghosting, self._branches_left())
            for _ in spirits.run():
                self.tree = spirits.tree
                self.progress("branching deeper", spirits.spent, spirits.spent + 1)
            self.tree, order = spirits.tree, spirits.order
            said.append(spirits.ended)
        if wanted.smoothness is not None:
            until = None if wanted.budget is None else self.started + wanted.budget
            target = Target(wanted.smoothness, self._branches_left(), until)
            work = Refinement(grower, planner, self.ruler, self.tree, order, target, self._once)
            for _ in work.run():
                self.tree = work.tree
                self.progress("smoothing", work.spent, work.spent + len(order))
            self.tree, order = work.tree, work.order
            said.append(work.ended)
        return [Shot(order[place[shot.left]], order[place[shot.left]]) for shot in shown], said

    def _branches_left(self) -> int | None:
        """How many of the branches that are allowed have not been placed; those that only filled frames don't count."""
        most = self.task.tree.max_branches
        placed = len(self.tree.nodes) - len(self.task.stops) - self.filled
        return None if most is None else max(0, most - placed)

    def _ghosts(self, grower: Grower, order: Sequence[int]) -> list[float]:
        """How much of a double exposure each of these frames is, in this order."""
        film = self._frames(grower, tuple(Shot(name, name) for name in order))
        return exposures(film).score.tolist()

    def _grow(self, grower: Grower, planner: Planner) -> None:
        total = self._expected(grower, planner)
        done = 0
        for grown in grow(grower, planner, self.ruler, self.started):
            self.tree = grown.tree
            done += grown.row_steps
            self.progress("growing the tree", done, max(total, done))

    def _expected(self, grower: Grower, planner: Planner) -> int:
        """Row-steps that the tree will take, for a progress bar."""
        steps, keys = len(grower.schedule), len(grower.keys)
        if isinstance(planner, Adaptive):
            # Where the depth varies, the first key's stands for all: what counts is that the bar moves evenly.
            levels = planner.levels()
            gaps, left, total = keys - 1, planner.max_branches, keys * steps
            for wave in range(64):
                count = min(gaps * 2**wave, left)
                total += count * (steps - levels[min(wave, len(levels) - 1)])
                left -= count
            return total
        if not isinstance(planner, Fixed | Replay):
            raise TypeError(f"cannot tell how long {type(planner).__name__} will take")
        full = planner.tree if isinstance(planner, Replay) else planner.resolve(keys)
        return sum((steps if node.stop is None else node.stop) - node.step for node in full.nodes)

    def _fill(self, grower: Grower, positions: list[float], planner: Planner) -> None:
        """Run a branch for every frame that the tree cannot show yet."""
        wanted = missing(self.tree, positions)
        if not wanted:
            return
        base = self.tree
        nodes = planner.fill(base, wanted)
        self.filled = len(nodes)
        self.tree = base.with_nodes(nodes)
        names = range(len(base.nodes), len(self.tree.nodes))
        total, done = sum(len(grower.schedule) - node.step for node in nodes), 0
        # Nothing forks from these, so that no latents but their last are kept; but for frames that are added later.
        keep = grower.needed(self.tree, planner.forks(self.tree)) if self.task.tree.corrects else frozenset[int]()
        for row_steps in grower.run(self.tree, names, keep):
            done += row_steps
            self.progress("rendering frames", done, total)

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
        frames = self._frames(grower, shown)
        return Clip(frames, self.task.fps, self.sound, Provenance(record.to_dict()))

    def _frames(self, grower: Grower, shown: tuple[Shot, ...]) -> DecodedFrames:
        used = {name for shot in shown for name in (shot.left, shot.right)}
        latents = {name: grower.final(name) for name in used}
        places = {name: self.tree.nodes[name].position for name in used}
        how = self.execution.pinned()
        return DecodedFrames(latents, places, shown, self.developer, how.decoded_at_once(), how.threads)

    def _interrupted(self, grower: Grower) -> InterruptedRunError:
        """What is finished, in order, each picture once."""
        steps = len(grower.schedule)
        ready = [
            name
            for name in self.tree.frames()
            if name in grower.trajectories and steps in grower.trajectories[name].latents
        ]
        if len(ready) < 2:
            return InterruptedRunError("interrupted before two pictures were finished; there is nothing to keep")
        shown = tuple(Shot(name, name) for name in ready)
        plan = TransitionPlan(
            [flat(node) for node in self.tree.nodes],
            len(self.tree.nodes),
            [(shot.left, shot.right, shot.share) for shot in shown],
            "interrupted",
        )
        clip = self._finished(grower, plan, shown, {"frames": len(shown)}, complete=False)
        return InterruptedRunError(
            f"interrupted; {len(ready)} pictures were finished (the whole film has {self.task.frames} frames)", clip
        )
