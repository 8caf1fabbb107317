"""Is it worth evaluating a frame K times? Attention of DiffSynth against ours, on clips whose motion is known exactly.

    python benchmarks/joint_attention.py -o runs/joint
    python benchmarks/joint_attention.py -o runs/joint --seconds 200    # again and again: what is there is kept

DiffSynth (Duan et al. 2023, arXiv:2308.03463) hands the network K frames for each that it denoises: the first, the one
before, itself and the one behind. Their tokens attend jointly, so that queries are the others', too, and all answers
but one are thrown away. Ours has keys and values of the same frames, and evaluates each frame once.

Every film begins with one noise for all frames, and has nothing else done to it. Warp error is the root mean square
difference of colours, in levels of 256, between a frame and one that is 1 or 4 later, brought there along the exact
flow; detail the energy of gradients that is left of that of the film without attention; joint the distance from the
film of DiffSynth's attention, in levels. Rows are those of the network, terms of guidance counted, for one frame;
seconds are those of the processor for one frame, decoding included.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from inloop import CASES, STRENGTH, apart, clip, flicker, levels
from safetensors.torch import load_file, save_file
from torch import Tensor

import segue
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import start_noise
from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import from_latents
from segue.evaluation.sharpness import sharpness
from segue.media.clip import TensorFrames
from segue.models.attended import model_sites
from segue.models.attention import Plain, Site, attached
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import NetworkDenoiser, Tally
from segue.temporal.frame_attention import frame_attention
from segue.training.journal import save_sheet
from segue.types import Call, Condition, Denoiser, Operator, Point, RowId, State

JOINT = "joint"
WAYS = {
    "none": "self",
    "first, self": "first, self",
    "previous, self": "previous, self",
    "first, previous, self": "first, previous, self",
    "ours": "first, previous, self, next",
    JOINT: "",
}
COLUMNS = ("warp 1", "warp 4", "flicker", "detail", "joint", "rows", "seconds")
OFFSETS = (None, -1, 0, 1)
"""The frames of a call: the first, the one before, itself, the one behind."""


def jointly(plain: Plain, hidden: Tensor, context: Tensor | None, call: Call, site: Site) -> Tensor:
    """The tokens of K frames as if they were those of one."""
    if site.kind != "self":
        return plain(hidden, context)
    groups = len(hidden) // len(OFFSETS)
    return plain(hidden.reshape(groups, -1, hidden.shape[2]), None).reshape(hidden.shape)


@dataclass(frozen=True)
class JointDenoiser:
    """A Denoiser that evaluates K frames for each, in whose network `jointly` is attached."""

    denoiser: NetworkDenoiser
    group: int = 1

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        """x0 of each frame, from the call that it is the third of."""
        last = len(x) - 1
        around = [0 if by is None else min(max(i + by, 0), last) for i in range(len(x)) for by in OFFSETS]
        together = replace(self.denoiser, group=len(OFFSETS))
        return together(x[around], at[around], cond[around])[OFFSETS.index(0) :: len(OFFSETS)]


@contextmanager
def attending(model: LatentDiffusion, way: str, rows: list[RowId]) -> Generator[Denoiser]:
    """The denoiser of a way."""
    if way == JOINT:
        with attached(model_sites(model), jointly):
            yield JointDenoiser(model.denoiser)
    else:
        # All terms of a frame in one call, so that "next" is there for all of them.
        with frame_attention(model.denoiser, model_sites(model), WAYS[way], rows, chunk=8) as denoiser:
            yield denoiser


@dataclass(frozen=True)
class Begun:
    """A clip in its starting noise, one for all frames, and what the run is told."""

    start: State
    schedule: Schedule
    cond: Condition

    @staticmethod
    def of(model: LatentDiffusion, source: TensorFrames, prompt: str, *, seed: int = 0, strength: float) -> Begun:
        """The clip, to be restyled."""
        defaults, count = model.defaults, len(source)
        schedule, texts = model.schedule(defaults.steps, source.size, solver=defaults.solver), model.text([prompt, ""])
        one, empty = (texts[[term] * count] for term in (0, 1))
        latents = torch.cat([model.codec.encode(source[i : i + 4]) for i in range(0, count, 4)])
        rows = [RowId("clip", i) for i in range(count)]
        noise = start_noise(seed, latents.shape[1:]).expand_as(latents)
        return Begun(
            from_latents(latents, noise, schedule, strength, rows),
            schedule,
            classifier_free(one, empty, defaults.guidance_scale, start=defaults.guidance_start),
        )

    def done(self, model: LatentDiffusion, denoiser: Denoiser, operators: Sequence[Operator] = ()) -> Tensor:
        """The pictures at the end of the run."""
        solver = find_solver(model.defaults.solver).solver
        states = denoise(denoiser, self.start, self.schedule, self.cond, solver=solver, operators=operators)
        return model.codec.decode(collect(states, self.schedule))


def film(model: LatentDiffusion, source: TensorFrames, prompt: str, way: str) -> tuple[Tensor, dict[str, float]]:
    """The clip, restyled, and what that took."""
    tally, begun = Tally(timed=False), Begun.of(model, source, prompt, strength=STRENGTH)
    counted = replace(model, denoiser=tally.watching(model.denoiser))
    began = time.process_time()
    with attending(counted, way, list(begun.start.ids)) as denoiser:
        frames = begun.done(model, denoiser)
    took = time.process_time() - began
    return frames, {"rows": tally.rows / len(source), "seconds": took / len(source)}


def keep(path: Path, frames: Tensor, took: dict[str, float]) -> None:
    """Write a film, which is whole or not there, with what it took."""
    part = path.with_suffix(".part")
    save_file({"frames": (frames * 255).round().byte().contiguous()}, part, {"took": json.dumps(took)})
    part.replace(path)


def kept_at(path: Path) -> Tensor | None:
    """A film that was made."""
    return load_file(path)["frames"].float() / 255 if path.is_file() else None


@dataclass(frozen=True)
class Case:
    """A clip, and the films of it that are there."""

    model: LatentDiffusion
    out: Path
    number: int
    count: int

    def frames(self, way: str) -> Tensor | None:
        """A film that was made."""
        return kept_at(self._path(way))

    def make(self, way: str) -> None:
        """Make a film, and keep it with what it took."""
        said, wanted = CASES[self.number]
        source = TensorFrames.rounded(clip(self.model, said, 1, self.count).frames[:])
        frames, took = film(self.model, source, wanted, way)
        keep(self._path(way), frames, took)

    def row(self, way: str) -> dict[str, float]:
        """The numbers of a film."""
        made, plain, joint = self.frames(way), self.frames("none"), self.frames(JOINT)
        assert made is not None
        assert plain is not None
        scene = clip(self.model, CASES[self.number][0], 1, self.count)
        kept = sharpness(TensorFrames.rounded(made), TensorFrames.rounded(plain)).kept
        assert kept is not None
        return {
            **{f"warp {interval}": apart(made, scene, interval) for interval in (1, 4)},
            "flicker": flicker(made, scene),
            "detail": math.nan if kept.gradients is None else kept.gradients,
            "joint": math.nan if joint is None else levels(made - joint),
            **self._took(way),
        }

    def _took(self, way: str) -> dict[str, Any]:
        from safetensors import safe_open

        with safe_open(self._path(way), "pt") as file:
            return json.loads(file.metadata()["took"])

    def _path(self, way: str) -> Path:
        return self.out / f"{self.number}-{way.replace(', ', '-')}-{self.count}.safetensors"


def table(cases: list[Case], ways: list[str], row: Callable[[Case, str], dict[str, float]] = Case.row) -> str:
    """Means over the clips of which all films are there."""
    whole = [case for case in cases if all(case.frames(way) is not None for way in ways)]
    lines = [f"{f'{len(whole)} clips':24}" + "".join(f"{name:>10}" for name in COLUMNS)]
    for way in ways if whole else []:
        found = [row(case, way) for case in whole]
        lines.append(f"{way:24}" + "".join(f"{fmean(one[name] for one in found):10.3f}" for name in COLUMNS))
    return "\n".join(lines)


def main() -> None:
    """Make the films that are missing, and print the table and draw a sheet of those that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no other film after these")
    given = parser.parse_args()
    if given.frames < 5:
        raise SystemExit(f"expected 5 frames or more, got {given.frames}")
    given.out.mkdir(parents=True, exist_ok=True)
    model, began = segue.load(given.model), time.monotonic()
    cases = [Case(model, given.out, number, given.frames) for number in range(min(given.cases, len(CASES)))]
    with torch.no_grad():
        for case in cases:
            for way in given.ways:
                if case.frames(way) is None and time.monotonic() - began <= given.seconds:
                    case.make(way)
        print(table(cases, given.ways))
    for case in cases:
        films = [frames for way in given.ways if (frames := case.frames(way)) is not None]
        picks = range(0, given.frames, 2)
        if films:
            save_sheet(
                case.out / f"{case.number}.png", torch.stack([one[i] for one in films for i in picks]), len(picks)
            )


if __name__ == "__main__":
    main()
