"""What does it do to make frames agree inside the loop? Each way of it, on clips whose motion is known exactly.

    python benchmarks/inloop.py -o runs/inloop
    python benchmarks/inloop.py -o runs/inloop --cases 2 --ways shared inside --sheet
    python benchmarks/inloop.py -o runs/inloop-fast --model emoji-fast

A picture that the model drew is moved about, which makes a clip; every frame is noised part of the way and denoised
with another prompt, each by itself but for what a way does about it. A row is written for each case and way, and what
is there is not run again.

Warp error is the root mean square difference of colours, in levels of 256, between a frame and one that is 1 or 8
later, brought there along the exact flow; flicker the same of a frame and the mean of those beside it, as the deviation
of a noise. Detail is held against that of the same film without an operator ("shared" or "independent"): the energy of
its gradients, which falls with blur and with every outline that is no longer there; edges are the slopes that one pixel
in a hundred exceeds. Moved is how far the film is from that one, and restyled how far from the clip: the root mean
square difference, in levels. Seconds are those of denoising, the operator included, for one frame.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

import segue
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import start_noise
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import from_latents
from segue.evaluation.intervals import mean_interval
from segue.evaluation.sharpness import sharpness
from segue.media.clip import TensorFrames
from segue.models.bundle import LatentDiffusion
from segue.motion.blend import Blending
from segue.motion.fields import Fields
from segue.motion.flow_match import FlowMatcher
from segue.motion.patchmatch import PatchMatcher
from segue.motion.warp import warp
from segue.tasks.image import Image
from segue.temporal.along import Along, Smaller
from segue.temporal.deflicker import Deflickering, Moments
from segue.training.journal import save_sheet
from segue.training.scene import Layer, Scene
from segue.types import RowId

FRAMES, STRENGTH, LEVELS = 24, 0.6, 3
INTERVALS = (1, 8)
CASES = (
    ("a red apple", "a green apple"), ("a cat face", "line art of a cat face"), ("a rocket", "flat icon of a rocket"),
    ("a house", "a purple house, gradient"), ("a teddy bear", "a blue teddy bear"), ("a tulip", "line art of a tulip"),
)  # fmt: skip
COLUMNS = ("warp 1", "warp 8", "flicker", "detail", "edges", "moved", "restyled", "seconds")


@dataclass(frozen=True)
class Way:
    """One way of making a film.

    Args:
        shared: whether frames begin with the same noise.
        moments: when the operator acts inside the loop; None for a film without it.
        window, grain: of the blend.
        projection, masked, reach: see `Deflickering`.
        levels: fields that may be used, from full size on.
        after: whether the finished film is blended.
        matcher: what finds the ways.
    """

    shared: bool = True
    moments: Moments | None = None
    window: int = 8
    grain: float = 1.0
    projection: bool = True
    masked: bool = True
    reach: int = 1
    levels: int = LEVELS
    after: bool = False
    matcher: PatchMatcher | FlowMatcher = field(default_factory=FlowMatcher)


INSIDE = Way(moments=Moments())
WAYS = {
    "independent": Way(shared=False),
    "shared": Way(),
    "inside": INSIDE,
    "inside, independent": replace(INSIDE, shared=False),
    # When.
    "to the end": replace(INSIDE, moments=Moments(stop=1.0, free=0)),
    "last": replace(INSIDE, moments=Moments(steps=(-1,))),
    "free 1": replace(INSIDE, moments=Moments(stop=1.0, free=1)),
    "free 4": replace(INSIDE, moments=Moments(free=4)),
    "first half": replace(INSIDE, moments=Moments(stop=0.7)),
    "second half": replace(INSIDE, moments=Moments(start=0.65)),
    "every 3": replace(INSIDE, moments=Moments(every=3)),
    "every 5": replace(INSIDE, moments=Moments(every=5)),
    "half power": replace(INSIDE, moments=Moments(0.5)),
    "after": Way(after=True),
    "inside and after": replace(INSIDE, after=True),
    # How.
    "no projection": replace(INSIDE, projection=False),
    "no mask": replace(INSIDE, masked=False),
    "reach 0": replace(INSIDE, reach=0),
    "reach 2": replace(INSIDE, reach=2),
    "full fields": replace(INSIDE, levels=1),
    "grain 0": replace(INSIDE, grain=0.0),
    "window 3": replace(INSIDE, window=3),
    "patchmatch": replace(INSIDE, matcher=PatchMatcher()),
    # As DiffSynth has it: at every fifth step, all of the picture, what the codec loses included.
    "diffsynth": replace(
        INSIDE, moments=Moments(stop=1.0, every=5, free=0), grain=0.0, projection=False, masked=False, levels=1
    ),
}


@dataclass(frozen=True)
class Film:
    """What one way made of one clip."""

    frames: Tensor
    seconds: float


def clip(model: LatentDiffusion, prompt: str, seed: int, frames: int) -> Scene:
    """A picture that goes around, turns and comes nearer, over what it has at its border."""
    picture = Image(prompt, seed=seed).run(model).frames[0:1][0]
    height, width = picture.shape[1:]
    wide = pad(picture[None], [width // 4] * 4, mode="replicate")[0]
    time = torch.arange(frames, dtype=torch.float64) / frames * 2 * math.pi
    angle, scale = 0.25 * torch.sin(time), 0.8 + 0.1 * torch.cos(time)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    turned = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    centre = torch.tensor([(side - 1) / 2 for side in (wide.shape[2], wide.shape[1])], dtype=torch.float64)
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    around = torch.stack([0.1 * width * torch.sin(time + seed), 0.07 * height * torch.cos(time + seed)], 1)
    poses = torch.cat([turned, (middle + around - turned @ centre)[:, :, None]], 2)
    return Scene((width, height), (Layer(torch.cat([wide, torch.ones_like(wide[:1])]), poses, endless=True),))


def film(model: LatentDiffusion, source: TensorFrames, prompt: str, way: Way, along: Along) -> Film:
    """The clip, restyled."""
    solver, defaults = find_solver(model.defaults.solver), model.defaults
    schedule = model.schedule(defaults.steps, source.size, solver=defaults.solver)
    texts, count = model.text([prompt, ""]), len(source)
    cond = classifier_free(
        texts[[0] * count], texts[[1] * count], defaults.guidance_scale, start=defaults.guidance_start
    )
    latents = torch.cat([model.codec.encode(source[i : i + 4]) for i in range(0, count, 4)])
    noise = torch.stack([start_noise(0 if way.shared else i, latents.shape[1:]) for i in range(count)])
    start = from_latents(latents, noise, schedule, STRENGTH, [RowId("clip", i) for i in range(count)])
    operators: list[Any] = []
    if way.moments:
        agreeing = Deflickering(model.codec, along, way.moments, "clip")
        operators = [replace(agreeing, projection=way.projection, masked=way.masked, reach=way.reach)]
    began = time.perf_counter()
    states = denoise(model.denoiser, start, schedule, cond, solver=solver.solver, operators=operators)
    frames = TensorFrames.rounded(model.codec.decode(collect(states, schedule)))
    if way.after:
        frames = TensorFrames.rounded(torch.stack([picture for _, picture, _ in along(frames, 0.0)]))
    return Film(frames[:], time.perf_counter() - began)


def measured(made: Film, plain: Tensor, source: Tensor, scene: Scene) -> dict[str, float | None]:
    """The numbers of one film; `plain` is the one without an operator."""
    kept = sharpness(TensorFrames.rounded(made.frames), TensorFrames.rounded(plain)).kept
    assert kept is not None
    return {
        **{f"warp {interval}": apart(made.frames, scene, interval) for interval in INTERVALS},
        "flicker": flicker(made.frames, scene),
        "detail": kept.gradients,
        "edges": edges(made.frames) / edges(plain),
        "moved": levels(made.frames - plain),
        "restyled": levels(made.frames - source),
        "seconds": made.seconds / len(made.frames),
    }


def levels(difference: Tensor) -> float:
    """Root mean square, in levels of 256."""
    return 255 * float(difference.square().mean().sqrt())


def edges(frames: Tensor) -> float:
    """The mean over frames of the slope that one pixel in a hundred exceeds."""
    down, across = frames.diff(dim=2)[..., :, :-1], frames.diff(dim=3)[..., :-1, :]
    return float((down.square() + across.square()).sum(1).sqrt().flatten(1).quantile(0.99, dim=1).mean())


def apart(frames: Tensor, scene: Scene, interval: int) -> float:
    """How far frames are from those so many later, where both show the same."""
    found = [difference(frames, scene, i, i + interval) for i in range(len(frames) - interval)]
    return fmean(levels(one[:, seen]) for one, seen in found)


def flicker(frames: Tensor, scene: Scene) -> float:
    """The deviation of white noise that would explain how frames differ from the mean of those beside them."""
    found: list[float] = []
    for i in range(1, len(frames) - 1):
        (before, seen), (after, too) = (difference(frames, scene, i, j) for j in (i - 1, i + 1))
        found.append(levels((before + after)[:, seen & too]) / 6**0.5)
    return fmean(found)


def difference(frames: Tensor, scene: Scene, here: int, there: int) -> tuple[Tensor, Tensor]:
    """Of a frame from another one that is brought to its place, and where that means anything."""
    brought = warp(frames[there : there + 1], scene.flow(here, there)).clamp(0, 1)
    return (brought - frames[here])[0], scene.visible(here, there, margin=1)[0]


def read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows that are there."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return {(row["case"], row["way"]): row for row in rows}


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Means over cases, with half a 95 % confidence interval of the warp error."""
    by: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by.setdefault(row["way"], []).append(row)
    lines = [f"{'':20}{'cases':>6}" + "".join(f"{name:>10}" for name in (*COLUMNS, "+- warp 1"))]
    for name in [name for name in WAYS if name in by]:
        means = [fmean(math.nan if row[column] is None else row[column] for row in by[name]) for column in COLUMNS]
        means.append(mean_interval([row["warp 1"] for row in by[name]]).half)
        lines.append(f"{name:20}{len(by[name]):6d}" + "".join(f"{value:10.3f}" for value in means))
    return "\n".join(lines)


@dataclass
class Bench:
    """A clip, and the films that were made of it so far."""

    model: LatentDiffusion
    prompts: tuple[str, str]
    count: int
    made: dict[str, Film] = field(default_factory=dict[str, Film])

    def __post_init__(self) -> None:
        self.scene = clip(self.model, self.prompts[0], 1, self.count)
        self.source = TensorFrames.rounded(self.scene.frames[:])
        self.fields: dict[str, list[Fields]] = {}

    def film(self, name: str) -> Film:
        """The film of a way; what is held against it is made once."""
        if name not in self.made:
            way = WAYS[name]
            self.made[name] = film(self.model, self.source, self.prompts[1], way, self.along(way))
        return self.made[name]

    def along(self, way: Way) -> Along:
        """Blends along the clip's own movement, which is looked for once."""
        if way.matcher.name not in self.fields:
            guides = [self.source, *(Smaller(self.source, k) for k in range(1, LEVELS))]
            self.fields[way.matcher.name] = [Fields(way.matcher, guide) for guide in guides]
        return Along(self.fields[way.matcher.name][: way.levels], Blending(window=way.window, grain=way.grain))

    def row(self, name: str) -> dict[str, Any]:
        """The numbers of a way."""
        plain = self.film("shared" if WAYS[name].shared else "independent")
        found = measured(self.film(name), plain.frames, self.source[:], self.scene)
        return {"case": " -> ".join(self.prompts), "way": name, **found}

    def sheet(self, path: Path, names: Iterable[str], shown: int = 6) -> None:
        """Some frames of the clip, and of each film, a row each."""
        rows = [self.source[:], *(self.film(name).frames for name in names)]
        picks = range(0, self.count, max(1, self.count // shown))
        save_sheet(path, torch.stack([row[i] for row in rows for i in picks]), len(picks))


def main() -> None:
    """Write a line of JSON for each case and way, and print the table of all that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--cases", type=int, default=len(CASES))
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no other film after these")
    parser.add_argument("--sheet", action="store_true", help="draw six frames of each film; measure nothing")
    given = parser.parse_args()
    if given.frames <= max(INTERVALS):
        raise SystemExit(f"expected {max(INTERVALS) + 1} frames or more, got {given.frames}")
    given.out.mkdir(parents=True, exist_ok=True)
    model, path = segue.load(given.model), given.out / "rows.jsonl"
    done, began = read(path), time.monotonic()
    for number, case in enumerate(CASES[: given.cases]):
        missing = [name for name in given.ways if given.sheet or (" -> ".join(case), name) not in done]
        if not missing:
            continue
        with torch.no_grad():
            bench = Bench(model, case, given.frames)
            if given.sheet:
                bench.sheet(given.out / f"sheet-{number}.png", missing)
                continue
            for name in missing:
                if time.monotonic() - began > given.seconds:
                    break
                row = bench.row(name)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    if not given.sheet:
        print(table(read(path).values()))


if __name__ == "__main__":
    main()
