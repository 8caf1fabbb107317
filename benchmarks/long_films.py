"""Long films: key frames first, sparse or dense, against parts that go on from the last frame, or carry one picture.

    python benchmarks/long_films.py -o runs/long_films --frames 100 1000              # goes on where it was
    python benchmarks/long_films.py -o runs/long_films --plot docs/long-films.svg
    python benchmarks/long_films.py -o runs/long_films --motion motion.safetensors    # by layers along time

Each film is made in a process of its own. Of each: network evaluations (rows, all terms of guidance) and seconds of the
processor per frame, the most memory that the process held, and, of a model of single pictures, whose way is known, how
frames depart from the first: each is moved back to where the first one is, and compared within a disc that all show.
`departure` is the root mean square difference from the first frame in the last tenth of the film, of a full range of 1;
`tone` is what of it lies in mean and contrast alone; `jitter` is the mean difference from one frame to the next;
`detail` is how steep pictures are there, as a share of how steep the first one is: filling makes it less. By layers
along time things move by themselves, and `tone` and `detail` alone are told.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

import segue
from segue.media.clip import Clip
from segue.models.denoiser import Tally
from segue.tasks.animate import Animate
from segue.tasks.animate_long_settings import Long
from segue.tasks.animate_settings import Movement
from segue.tasks.sampling import Execution, Sampling
from segue.temporal.pinned import Tone
from segue.temporal.zero_shot_motion import Course, Way, carried

PROMPT = {"spin": "a red star", "swing": "a yellow bell", "wobble": "a red apple"}
"""What moves, by its way."""
WAYS: dict[str, Long] = {
    "parts": Long("parts"),
    "parts, unpinned": Long("parts", pin=0.0),
    "keys 4,4": Long("keys", "4,4"),
    "keys 4,4, unpinned": Long("keys", "4,4", pin=0.0),
    "keys 4,4 branches,flow": Long("keys", "4,4", "branches,flow"),
    "keys 4": Long("keys", "4"),
    "keys 4,4,4": Long("keys", "4,4,4"),
    "parts, one picture carried": Long("parts"),
}
MODELS = {"parts, one picture carried": "emoji-motion"}
"""Which model makes a film, if it is not the one that was chosen."""
COLOURS = ("#c0392b", "#e59866", "#2c3e50", "#7f8c8d", "#27ae60", "#8e44ad", "#2980b9", "#d68910")
FPS = 8.0
POINTS = 100
"""Of a curve of departures."""
RADIUS = 0.45
"""Of the disc in which frames are compared, in heights of the picture."""


@dataclass(frozen=True)
class Case:
    """A film to be made."""

    how: str
    way: Way
    frames: int
    motion: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from others."""
        return self.how, self.way, self.frames, self.motion


def film(case: Case, model_name: str, steps: int | None, size: tuple[int, int] | None, seed: int) -> dict[str, Any]:
    """Make one, and measure it."""
    model = segue.load(model_name, motion=case.motion)
    tally = Tally(timed=False)
    counted = replace(model, denoiser=tally.watching(model.denoiser))
    joint = model.moving is not None
    # What learned to move is told so in words; what did not is moved along the way.
    words = f"{PROMPT[case.way]} {case.way}s" if joint else PROMPT[case.way]
    task = Animate(
        words, seed=seed, seconds=case.frames / FPS, fps=FPS, long=WAYS[case.how],
        movement=Movement() if joint else Movement(way=case.way), sampling=Sampling(steps=steps, size=size),
    )  # fmt: skip
    began = time.process_time()
    clip = task.run(counted, Execution(threads=1))
    seconds = time.process_time() - began
    found = {"how": case.how, "way": case.way, "frames": case.frames, "motion": case.motion}
    found |= {"rows": tally.rows / case.frames, "seconds": seconds / case.frames}
    found |= {"megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    return found | measured(clip, None if joint else case.way)


def measured(clip: Clip, way: Way | None) -> dict[str, Any]:
    """Departures from the first frame, read one frame at a time."""
    first = clip.frames[0:1]
    details = list[float]()
    tones = list[float]()
    apart, jitter = list[float](), list[float]()
    maps = Course(way or "still").maps(len(clip), float(clip.fps))
    inside = _disc(first.shape[2], first.shape[3])
    start, before = Tone.of(first), first
    for number in range(len(clip)):
        own = clip.frames[number : number + 1]
        tones.append(float(Tone.of(own).apart(start)))
        details.append(_steepness(own))
        back = carried(own, torch.linalg.inv(maps[[number]]))
        apart.append(float((back - first)[..., inside].square().mean().sqrt()))
        jitter.append(float((back - before)[..., inside].abs().mean()))
        before = back
    last = max(1, len(clip) // 10)
    found: dict[str, Any] = {"tone": sum(tones[-last:]) / last, "tones": _thinned(tones)}
    found |= {"detail": sum(details[-last:]) / last / details[0]}
    if way is not None:
        found |= {"departure": sum(apart[-last:]) / last, "departures": _thinned(apart)}
        found |= {"jitter": sum(jitter[1:]) / max(1, len(jitter) - 1)}
    return found


def _steepness(pictures: torch.Tensor) -> float:
    """Mean change from a pixel to those beside and below it."""
    across, down = pictures[..., :-1, 1:] - pictures[..., :-1, :-1], pictures[..., 1:, :-1] - pictures[..., :-1, :-1]
    return float((across.square() + down.square()).sqrt().mean())


def _disc(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    return (x.square() + y.square()).sqrt() < RADIUS * min(height, width)


def _thinned(values: Sequence[float]) -> list[float]:
    """Means of runs of values, as many as a curve has points."""
    count = min(POINTS, len(values))
    ends = [round(place * len(values) / count) for place in range(count + 1)]
    return [round(sum(values[a:b]) / (b - a), 5) for a, b in pairwise(ends)]


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Curves of departure over time; beside each name what it takes, as SVG."""
    longest = max(row["frames"] for row in rows)
    chosen = [row for row in rows if row["frames"] == longest]
    name = "departures" if any("departures" in row for row in chosen) else "tones"
    wide, high, edge = 760, 380, 48
    top = max(max(row.get(name, row["tones"])) for row in chosen) or 1.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="12">',
        f'<rect width="{wide}" height="{high}" fill="white"/>',
        f'<text x="{edge}" y="{high - 14}">first frame</text>',
        f'<text x="{wide - edge}" y="{high - 14}" text-anchor="end">frame {longest}</text>',
        f'<text x="{edge}" y="20">{name[:-1]} from the first frame, up to {top:.3f}</text>',
    ]
    hows = [how for how in WAYS if any(row["how"] == how for row in chosen)]
    for number, how in enumerate(hows):
        own = [row for row in chosen if row["how"] == how]
        curves, dashes = [row.get(name, row["tones"]) for row in own], ""
        if any(name not in row for row in own):
            dashes = ' stroke-dasharray="5 3"'
        curve = [sum(values) / len(own) for values in zip(*curves, strict=True)]
        colour = COLOURS[list(WAYS).index(how)]
        across = [edge + place * (wide - 2 * edge) / max(1, len(curve) - 1) for place in range(len(curve))]
        line = " ".join(
            f"{x:.1f},{high - edge - value / top * (high - 160 - edge):.1f}"
            for x, value in zip(across, curve, strict=True)
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        mean = {key: sum(row[key] for row in own) / len(own) for key in ("rows", "seconds", "megabytes")}
        said = f"{how}: {mean['rows']:.2f} evaluations and {mean['seconds']:.2f} s a frame, {mean['megabytes']:.0f} MB"
        said += ", dashed: tone alone" if dashes else ""
        parts.append(f'<text x="{wide - edge}" y="{38 + 15 * number}" text-anchor="end" fill="{colour}">{said}</text>')
    path.write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print means over what moves, a line for each length and way to make it."""
    kinds = ("rows", "seconds", "megabytes", "departure", "tone", "jitter", "detail")
    for frames in sorted({row["frames"] for row in rows}):
        for how in WAYS:
            own = [row for row in rows if (row["how"], row["frames"]) == (how, frames)]
            means = {name: [row[name] for row in own if name in row] for name in kinds}
            if own:
                told = {name: round(sum(found) / len(found), 4) for name, found in means.items() if found}
                print(json.dumps({"frames": frames, "how": how, "films": len(own), **told}))


def main() -> None:
    """Make what is not made yet, print the means, and draw them if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/long_films"))
    parser.add_argument("--frames", type=int, nargs="*", default=[])
    parser.add_argument("--how", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--ways", nargs="*", default=["spin"], choices=list(PROMPT))
    parser.add_argument("--model", default="emoji-fast")
    parser.add_argument("--motion")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--side", type=int, help="of small pictures")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", action="store_true", help="make one film in this process, and print what it takes")
    given = parser.parse_args()
    cases = [Case(how, way, frames, given.motion) for frames in given.frames for way in given.ways for how in given.how]
    size = None if given.side is None else (given.side, given.side)
    if given.one:
        print(json.dumps(film(cases[0], given.model, given.steps, size, given.seed)))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    done = {(row["how"], row["way"], row["frames"], row["motion"]) for row in rows}
    for case in cases:
        if case.key in done:
            continue
        words = ["--one", "--frames", str(case.frames), "--how", case.how, "--ways", case.way]
        words += ["--model", MODELS.get(case.how) or str(given.model)]
        words += ["--seed", str(given.seed), *(["--motion", case.motion] if case.motion else [])]
        words += [*(["--steps", str(given.steps)] if given.steps else []), *(["--side", str(size[0])] if size else [])]
        made = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, check=True, text=True)
        rows.append(json.loads(made.stdout.splitlines()[-1]))
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    table(rows)
    if given.plot is not None:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
