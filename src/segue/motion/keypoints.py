"""Key points over time: who is who, spikes taken out, and all points smoothed without lag.

    steady = smoothed(found)        tracked, without spikes, short gaps filled, Savitzky-Golay

What a pose network finds is of each frame alone: persons come in any order, points jump and tremble. A skeleton drawn
from that makes limbs twitch. Body, hands and face are treated alike; a gap stays a gap and is never filtered across.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.signal import savgol_filter

from segue.errors import TaskError
from segue.types import KeyPoints
from segue.types.keypoints import BODY

_COMMON = 3  # points that two poses need in common to be compared
_PACE = 4  # frames over which a person's velocity is measured
_ALONE = 3.3  # A curve through three points beyond the end trembles so much more than one through points on both sides.
_SURE = 4.0  # A spike stands out from what its neighbours say by so many times the usual.
_LEAST = {"body": 0.02, "parts": 0.008}  # ... and by this share of the figure at least: hands and faces are small


def smoothed(points: KeyPoints, *, window: int = 7, order: int = 2, fill: int = 4, longest_spike: int = 3) -> KeyPoints:
    """Key points in order: persons tracked, spikes replaced, short gaps filled, and every run of points smoothed.

    Savitzky and Golay's filter (1964) fits a polynomial to the frames around each, so that it has no lag; at the ends
    of a run, the polynomial of its last window counts. Runs shorter than the window get the largest odd window that
    fits, and those that no polynomial smooths are left as they are.

    Args:
        points: as they were found.
        window: frames of the filter, odd; 1 smooths nothing.
        order: of its polynomial, below the window.
        fill: the longest gap that is filled, in frames, from what is before and behind it.
        longest_spike: frames; what jumps away for longer than this is believed.

    Raises:
        TaskError: numbers that are out of range.
    """
    if window < 1 or window % 2 == 0 or not 0 <= order < window:
        raise TaskError(f"smoothing needs an odd window and an order from 0 to below it, got {window} and {order}")
    if min(fill, longest_spike) < 0:
        raise TaskError(f"frames to fill and of a spike are 0 or more, got {fill} and {longest_spike}")
    calm = filled(despiked(tracked(points), longest=longest_spike), longest=fill)
    places = calm.places.double().cpu().numpy().copy()
    for track in _tracks(places):
        for start, stop in _runs(np.isfinite(track[:, 0])):
            size = min(window, stop - start - (stop - start + 1) % 2)
            if size > order:
                track[start:stop] = savgol_filter(track[start:stop], size, order, axis=0, mode="interp")
    return _with(calm, places)


def tracked(points: KeyPoints, *, gate: float = 0.5, memory: int = 12) -> KeyPoints:
    """Each person in one place of their own, from the frame where they appear to the last.

    Poses of neighbouring frames are matched so that all of them together move least (Kuhn 1955), from where each was
    going: two persons who cross stay who they are, also when one hides the other for some frames. What has fewer than
    three points is nobody.

    Args:
        points: persons of each frame in any order.
        gate: how far a person may jump, in shares of their size; farther, it is another one. A share that grows with
            the frames in which nothing was seen.
        memory: frames after which someone who is gone is forgotten, and would be another person.

    Raises:
        TaskError: the gate is not above 0, or the memory below 0.
    """
    if not gate > 0 or memory < 0:
        raise TaskError(f"a gate is above 0 and a memory 0 frames or more, got {gate} and {memory}")
    places = points.places.double().cpu().numpy()
    persons: list[_Person] = []
    for frame, poses in enumerate(places):
        here = [number for number, pose in enumerate(poses) if np.isfinite(pose[:, 0]).sum() >= _COMMON]
        known = [person for person in persons if frame - person.frames[-1] <= memory + 1]
        costs = np.array([[person.cost(poses[number], frame, gate) for number in here] for person in known])
        rows, columns = linear_sum_assignment(costs) if costs.size else ((), ())
        left = set(here)
        for row, column in zip(rows, columns, strict=True):
            if costs[row, column] < _NEVER:
                known[row].see(frame, here[column], poses[here[column]])
                left.discard(here[column])
        for number in sorted(left):
            persons.append(_Person())
            persons[-1].see(frame, number, poses[number])
    count = max(1, len(persons))
    ordered = torch.full((len(places), count, *points.places.shape[2:]), torch.nan, dtype=points.places.dtype)
    sure = torch.zeros(len(places), count, points.places.shape[2], dtype=points.confidence.dtype)
    for place, person in enumerate(persons):
        for frame, number in zip(person.frames, person.numbers, strict=True):
            ordered[frame, place] = points.places[frame, number].cpu()
            sure[frame, place] = points.confidence[frame, number].cpu()
    return KeyPoints(ordered, sure, points.size)


def despiked(points: KeyPoints, *, longest: int = 3) -> KeyPoints:
    """Points that jump away and back are put where their neighbours in time say.

    A run of up to `longest` frames is a spike if every point of it is far from the curve through the two points before
    and the two behind it: far compared to how points of this track usually are, and to the figure. The clearest spike
    of a track goes first, as it makes its neighbours look wrong.

    Args:
        points: persons tracked.
        longest: frames; 0 leaves everything as it is.
    """
    places = points.places.double().cpu().numpy().copy()
    sizes = _sizes(places)
    for person in range(places.shape[1]):
        for number in range(places.shape[2]):
            kind = "body" if number < BODY.stop else "parts"
            _despike(places[:, person, number], _LEAST[kind] * sizes[person], longest)
    return _with(points, places)


def filled(points: KeyPoints, *, longest: int = 4) -> KeyPoints:
    """Gaps of up to so many frames between points of a track are filled by the curve through their neighbours.

    Their confidence is the lower one of both sides. Longer gaps, and what is before or after a track, stay.
    """
    places = points.places.double().cpu().numpy().copy()
    sure = points.confidence.clone()
    for person in range(places.shape[1]):
        for number in range(places.shape[2]):
            track = places[:, person, number]
            there = np.isfinite(track[:, 0])
            for start, stop in _runs(~there):
                if start > 0 and stop < len(track) and stop - start <= longest:
                    track[start:stop] = _between(track, there, start, stop)
                    sure[start:stop, person, number] = min(sure[start - 1, person, number], sure[stop, person, number])
    return KeyPoints(torch.from_numpy(places).to(points.places), sure, points.size)


_NEVER = 1e6  # what a match costs that may not be


@dataclass
class _Person:
    """Someone who was seen."""

    frames: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    poses: list[np.ndarray] = field(default_factory=list)

    def see(self, frame: int, number: int, pose: np.ndarray) -> None:
        self.frames.append(frame)
        self.numbers.append(number)
        self.poses.append(pose)

    def cost(self, pose: np.ndarray, frame: int, gate: float) -> float:
        """How far a pose is from where this person should be, in shares of their size."""
        gone = frame - self.frames[-1]
        expected = self.poses[-1] + self._velocity() * gone
        far = np.linalg.norm(pose - expected, axis=-1)
        far = far[np.isfinite(far)]
        size = max(_size(pose), _size(self.poses[-1]))
        if len(far) < _COMMON or not size > 0:
            return _NEVER
        share = float(np.median(far)) / size
        return share if share <= gate * math.sqrt(gone) else _NEVER

    def _velocity(self) -> np.ndarray:
        """Pixels per frame in which most points went lately."""
        poses, frames = self.poses[-_PACE - 1 :], self.frames[-_PACE - 1 :]
        steps = [
            np.nanmedian(now - before, axis=0) / (frame - earlier)
            for before, now, earlier, frame in zip(poses, poses[1:], frames, frames[1:], strict=False)
            if np.isfinite(now - before).any()
        ]
        return np.median(steps, axis=0) if steps else np.zeros(2)


def _despike(track: np.ndarray, least: float, longest: int) -> None:
    """Replace the spikes of a track (t, 2), in place."""
    there = np.isfinite(track[:, 0])
    off = {run: _off(track, there, run) for run in range(1, longest + 1)}
    for _ in range(int(there.sum()) if longest else 0):
        usual = off[1]
        limit = max(least, _SURE * float(np.nanmedian(usual))) if np.isfinite(usual).any() else np.inf
        worst, at, length = limit, -1, 0
        for run, far in off.items():
            if np.isfinite(far).any() and np.nanmax(far) > worst:
                worst, at, length = float(np.nanmax(far)), int(np.nanargmax(far)), run
        if at < 0:
            return
        track[at : at + length] = _between(track, there, at, at + length)  # On the curve: no spike from now on.
        # Only what is judged by these frames is judged anew; from beyond, three neighbours more are all that counts.
        reach = longest + 3
        first, stop = max(0, at - reach), at + length + reach
        begin = max(0, first - reach)
        part = slice(begin, stop + reach)
        for run in off:
            off[run][first:stop] = _off(track[part], there[part], run)[first - begin : stop - begin]


def _off(track: np.ndarray, there: np.ndarray, run: int) -> np.ndarray:
    """For each frame, how far all of a run that begins there are from the curve through their neighbours, at least.

    NaN where the run is not whole, or too much of its neighbours is missing; 0 where it is no way out and back.
    """
    least = np.full(len(track), np.nan)
    for start, stop in _runs(there):
        last = stop - run
        for first, end in (
            (start, start + 1),
            (start + 1, start + 2),
            (start + 2, last - 1),
            (last - 1, last),
            (last, last + 1),
        ):
            at = np.arange(max(first, start), min(end, last + 1))
            if not len(at):
                continue
            knots = _knots(run, int(at[0]) - start, stop - int(at[-1]) - run)
            if len(knots) < 3:
                continue
            off = _far(track, at, run, knots)
            if knots[0] < 0 < knots[-1]:
                # A step is no spike, nor is what is beside one, which the line to its own side passes through.
                off = np.minimum(off, _far(track, at, run, (-1, run)))
                off *= off > 0.75 * np.linalg.norm(track[at + run] - track[at - 1], axis=-1)
            else:
                off = off / _ALONE if run == 1 else off * 0
            least[at] = off
    return least


def _far(track: np.ndarray, at: np.ndarray, run: int, knots: tuple[int, ...]) -> np.ndarray:
    """How far the nearest frame of each run is from the polynomial through the knots."""
    expected = np.einsum("rk,mkd->mrd", _weights(run, knots), track[at[:, None] + np.array(knots)])
    return np.linalg.norm(track[at[:, None] + np.arange(run)] - expected, axis=-1).min(-1)


def _knots(run: int, before: int, behind: int) -> tuple[int, ...]:
    """The neighbours by which a run is judged, counted from its first frame: two on each side, or three on one."""
    one_sided = 3 if 0 in (before, behind) else 2
    ahead = range(run, run + min(behind, one_sided))
    return (*range(-min(before, one_sided), 0), *ahead)


@cache
def _weights(run: int, knots: tuple[int, ...]) -> np.ndarray:
    """Lagrange's: of the polynomial through values at the knots, at the frames of a run."""
    weights = np.ones((run, len(knots)))
    for i, knot in enumerate(knots):
        for other in knots[:i] + knots[i + 1 :]:
            weights[:, i] *= (np.arange(run) - other) / (knot - other)
    return weights


def _between(track: np.ndarray, there: np.ndarray, start: int, stop: int) -> np.ndarray:
    """What a track should be in a run of frames, by those right beside it."""
    before = next((k for k in range(3) if start - k - 1 < 0 or not there[start - k - 1]), 3)
    behind = next((k for k in range(3) if stop + k >= len(there) or not there[stop + k]), 3)
    knots = _knots(stop - start, before, behind)
    return _weights(stop - start, knots) @ track[start + np.array(knots)]


def _runs(there: np.ndarray) -> list[tuple[int, int]]:
    """The starts and ends of unbroken runs."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], there.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _tracks(places: np.ndarray) -> list[np.ndarray]:
    """Views (t, 2) of each point of each person."""
    return [places[:, person, number] for person in range(places.shape[1]) for number in range(places.shape[2])]


def _size(pose: np.ndarray) -> float:
    """The diagonal of what there is of a pose, in pixels."""
    there = pose[np.isfinite(pose[:, 0])]
    return float(np.linalg.norm(there.max(0) - there.min(0))) if len(there) > 1 else 0.0


def _sizes(places: np.ndarray) -> list[float]:
    """The usual size of each person."""
    found: list[float] = []
    for person in range(places.shape[1]):
        sizes = [size for pose in places[:, person] if (size := _size(pose)) > 0]
        found.append(float(np.median(sizes)) if sizes else 1.0)
    return found


def _with(points: KeyPoints, places: np.ndarray) -> KeyPoints:
    return replace(points, places=torch.from_numpy(places).to(points.places))
