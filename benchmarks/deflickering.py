"""Films that flicker, made calm: FastBlend, a flow warp, a blind filter and ours, in one table.

    python benchmarks/deflickering.py wolf.mp4 scene_cuts.mp4@14 -o runs/deflicker     # goes on where it was
    python benchmarks/deflickering.py wolf.mp4 --methods nothing "flow warp" --degradations noise -o runs/deflicker

Of each clip `--frames` frames, from the one after the @ on, are made `--area` pixels large and spoiled in each way of
`degrade.py`; each method of `calmers.py` then makes them calm, once with the clean source as guide and once blind, when
all it has is what flickers. All have the same window, and the same to look at. What they make is rounded to 256 levels
and kept; a cell is made anew when its settings or the version of its method differ.

* warp error: mean absolute difference, in levels of 255, of frames that lie 1 and 8 apart, along the flow of the clean
  clip (`segue.evaluation.warp_error`); of a clip "moving:SEED", which is drawn, along its true motion. Resampling alone
  makes some of it: see the clean clip's own.
* noise: of `segue.evaluation.movement`, along the flow of the film itself, in levels.
* light: second differences in time of how far the mean brightness of tiles is from the clean clip's, in levels.
* sharpness: root mean square gradient, in percent of the reference's, which is the clean clip; of restyling, the
  restyled frames. Noise has gradients, too, so that a noisy film has more than 100.
* shared: how much of the reference's own gradients is there, by regression, in percent: noise does not count.
* at 95: the first warp error, after a film of less than 95 percent of sharpness was sharpened (`segue.motion.finish`)
  until it has these, so that blur gains nothing; nan if it never has, sharpened ten times.
* PSNR to the clean clip, in dB, but not of restyling, which is meant to differ.
* left: how far what differs from the clean clip changes from frame to frame, along the same flow, in levels: flicker
  that is left, and what was frozen or smeared that moves in the clean clip, which a low warp error hides.
* seconds of the processor for a frame, and those over the seconds of "FastBlend, repaired" of the same cell.

Under each cell stands who has the lowest warp error of those that keep 95 percent of sharpness by themselves, and who
if all are brought to it, and who leaves least. A film that drags its first frame along has a low warp error, too, even
below that of the clean clip: see PSNR, light and left.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calmers import METHODS, Film
from calmness import LEAST_KEPT, MEASURED, MEASURES, Footage, Known, measured
from degrade import DEGRADATIONS
from degrade import VERSION as DEGRADED
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from segue.errors import SegueError
from segue.media.clip import TensorFrames, to_uint8
from segue.media.reader import read
from segue.media.resize import fit, on_grid
from segue.training.moving import moving_clip

DRAWN = "moving:"
GUIDES = ("source", "blind")
CLEAN = "clean clip"
OURS = "ours"
BASE = "FastBlend, repaired"


@dataclass(frozen=True)
class Setting:
    """What all cells of a run share."""

    area: int
    frames: int
    window: int
    seed: int
    out: Path
    until: float = math.inf

    def clip(self, named: str) -> Footage:
        """The frames of VIDEO or VIDEO@FIRST, or of a scene that is drawn, moving:SEED."""
        scene = None
        if named.startswith(DRAWN):
            size = on_grid((16, 9), 8, area=self.area)
            scene = moving_clip(int(named.removeprefix(DRAWN)), size, self.frames)
            pictures = scene.frames[: self.frames]
        else:
            path, _, first = named.partition("@")
            frames = read(path).frames
            fitted = fit(frames, on_grid(frames.size, 8, area=self.area), "stretch")
            pictures = fitted[int(first or 0) : int(first or 0) + self.frames]
        clean = TensorFrames.rounded(pictures)[:]
        return Footage(clean, Known(clean, scene))

    def cell(self, clip: str, degradation: str, guide: str, method: str) -> Cell:
        """One of the table."""
        version = METHODS[method][1] if method in METHODS else ""
        if method in ("nothing", CLEAN):
            guide = ""
        asked = [clip, degradation, guide, method, version, DEGRADED, self.area, self.frames, self.window, self.seed]
        name = blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest()
        return Cell(clip, degradation, guide, method, self.out / "cells" / name)


@dataclass(frozen=True)
class Cell:
    """One film: where it is kept, and what was measured."""

    clip: str
    degradation: str
    guide: str
    method: str
    path: Path

    @property
    def frames(self) -> Tensor | None:
        """What was made, if it was."""
        kept = self.path.with_suffix(".npy")
        return torch.from_numpy(np.load(kept)).float() / 255 if kept.exists() and self._record.exists() else None

    @property
    def record(self) -> dict[str, Any]:
        """What it took, and what was measured."""
        return json.loads(self._record.read_text("utf-8")) if self._record.exists() else {}

    @property
    def _record(self) -> Path:
        return self.path.with_suffix(".json")

    def keep(self, frames: Tensor, record: dict[str, Any]) -> None:
        """The frames first, so that a record has its frames."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(f".{os.getpid()}.npy")
        np.save(part, to_uint8(frames).numpy())
        part.replace(self.path.with_suffix(".npy"))
        self.note(record)

    def note(self, record: dict[str, Any]) -> None:
        """The record, whole or not at all."""
        part = self.path.with_suffix(f".{os.getpid()}")
        named = {"clip": self.clip, "degradation": self.degradation, "guide": self.guide, "method": self.method}
        part.write_text(json.dumps(named | record), "utf-8")
        part.replace(self._record)


def filled(setting: Setting, clip: str, degradation: str, guides: Sequence[str], methods: Sequence[str]) -> list[Cell]:
    """The cells of a clip that is spoiled in a way; what is missing is made."""
    footage = setting.clip(clip)
    clean = footage.clean
    spoiled = DEGRADATIONS[degradation](clean, setting.seed)
    cells: list[Cell] = []
    for guide in guides:
        for method in (CLEAN, *methods):
            cell = setting.cell(clip, degradation, guide, method)
            if cell.frames is None:
                if time.monotonic() > setting.until:
                    continue
                film = Film(spoiled, clean if guide == "source" else spoiled, guide == "blind", setting.window)
                began = time.process_time()
                made = METHODS[method][0](film) if method != CLEAN else None
                seconds = (time.process_time() - began) / len(clean)
                counts = (
                    {} if made is None else {"fields": made.fields / len(clean), "remaps": made.remaps / len(clean)}
                )
                cell.keep(clean if made is None else made.frames.clamp(0, 1), {"seconds": seconds, **counts})
                print(f"{clip}, {degradation}, {guide}, {method}: {seconds:.3f} s a frame", flush=True)
            record, frames = cell.record, cell.frames
            if record.get("measured") != MEASURED and frames is not None:
                values = measured(frames, spoiled, footage, degradation == "restyling")
                cell.note(record | values | {"measured": MEASURED})
            cells.append(cell)
    return cells


Rows = list[dict[str, Any]]
Groups = dict[tuple[str, str, str], Rows]


def table(cells: Sequence[Cell]) -> list[str]:
    """As markdown, under a heading for each clip, way of spoiling, and guide: every method; then who is best."""
    groups: Groups = {}
    for cell in cells:
        for guide in [cell.guide] if cell.guide else GUIDES:
            groups.setdefault((cell.clip, cell.degradation, guide), []).append(cell.record)
    groups = {key: rows for key, rows in groups.items() if any(row["guide"] for row in rows)}
    lines: list[str] = []
    for (clip, degradation, guide), rows in (means(groups) | groups).items():
        lines += [f"\n### {Path(clip).stem}, {degradation}, {guide}\n", *markdown(rows), "", verdict(rows)[0]]
    found = [verdict(rows) for rows in groups.values()]
    kept, brought = sum(each[1] for each in found), sum(each[2] for each in found)
    return [*lines, f"\nLowest is {OURS}: {kept} of {len(found)} that keep 95 %, {brought} brought to 95 %."]


def means(groups: Groups) -> Groups:
    """Over all clips, of the methods that were run on each of them."""
    found: Groups = {}
    clips = {clip for clip, _, _ in groups}
    for degradation, guide in {key[1:]: None for key in groups} if len(clips) > 1 else ():
        each = [rows for key, rows in groups.items() if key[1:] == (degradation, guide)]
        for method in dict.fromkeys(row["method"] for row in each[0]):
            rows = [row for group in each for row in group if row["method"] == method]
            if len(rows) == len(clips):
                numbers = {
                    name: math.fsum(row[name] for row in rows) / len(rows)
                    for name, value in rows[0].items()
                    if isinstance(value, float)
                }
                found.setdefault((f"mean of {len(clips)}", degradation, guide), []).append(rows[0] | numbers)
    return found


def markdown(rows: Rows) -> list[str]:
    """All numbers of the methods."""
    columns = [*MEASURES, "fields", "remaps", "s/frame", "x FastBlend"]
    base = next((row["seconds"] for row in rows if row["method"] == BASE), math.nan)
    lines = [f"| method | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in {row["method"]: row for row in rows}.values():
        numbers = [f"{row[name]:.{1 if name in ('sharpness', 'shared', 'PSNR') else 2}f}" for name in MEASURES]
        work = [f"{row.get(name, 0):.1f}" for name in ("fields", "remaps")]
        seconds = [f"{row['seconds']:.2f}", f"{row['seconds'] / base:.2f}"] if "fields" in row else ["", ""]
        lines.append(f"| {row['method']} | {' | '.join([*numbers, *work, *seconds])} |")
    return lines


def verdict(rows: Rows) -> tuple[str, bool, bool]:
    """Who has the lowest warp error of those that keep enough sharpness, and who if all are brought to it; if ours."""
    run = [row for row in rows if row["method"] not in (CLEAN, "nothing")]
    sharp = [row for row in run if row["sharpness"] >= 100 * LEAST_KEPT]
    first, second, third = _least(sharp, "warp error"), _least(run, "at 95"), _least(run, "left")
    return (
        f"Keeps 95 %: {first}. Brought to 95 %: {second}. Left: {third}.",
        first.startswith(OURS),
        second.startswith(OURS),
    )


def _least(rows: Rows, measure: str) -> str:
    """The method of the lowest number, and the best of the other side; who has no number is not ranked."""
    ranked = sorted((row[measure], row["method"]) for row in rows if not math.isnan(row[measure]))
    if not ranked:
        return "none"
    ours = ranked[0][1].startswith(OURS)
    other = next((pair for pair in ranked if pair[1].startswith(OURS) != ours), None)
    said = f"{ranked[0][1]} {ranked[0][0]:.2f}"
    return said if other is None else f"{said}, then {other[1]} {other[0]:.2f}"


def sheet(path: Path, cells: Sequence[Cell]) -> None:
    """A row for each film: five frames, and the middle row of pixels over time, downwards."""
    rows: list[Tensor] = []
    for cell in cells:
        frames = cell.frames
        if frames is None:
            continue
        count, height = len(frames), frames.shape[2]
        middle = count // 2
        shown = [0, middle - 1, middle, middle + 1, count - 1]
        over_time = frames[:, :, height // 2].permute(1, 0, 2)[None]
        slices = interpolate(over_time, (height, frames.shape[3]), mode="nearest")
        rows.append(torch.cat([*(frames[max(0, t)] for t in shown), slices[0]], 2))
    if not rows:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (torch.cat(rows, 1).permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill the table, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", metavar="VIDEO[@FIRST]")
    parser.add_argument("--degradations", nargs="+", default=list(DEGRADATIONS), choices=list(DEGRADATIONS))
    parser.add_argument("--guides", nargs="+", default=list(GUIDES), choices=GUIDES)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--area", type=int, default=37_000, help="pixels of a picture")
    parser.add_argument("--window", type=int, default=15, help="frames on each side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no cell after so many; go on later")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/deflicker"), help="a folder for all that is made")
    chosen = parser.parse_args(arguments)
    setting = Setting(
        chosen.area, chosen.frames, chosen.window, chosen.seed, chosen.out, time.monotonic() + chosen.seconds
    )
    every: list[Cell] = []
    try:
        for clip in chosen.clips:
            for degradation in chosen.degradations:
                cells = filled(setting, clip, degradation, chosen.guides, chosen.methods)
                for guide in chosen.guides:
                    name = f"{Path(clip.partition('@')[0]).stem} {degradation} {guide}.png".replace(" ", "_")
                    sheet(setting.out / "sheets" / name, [cell for cell in cells if cell.guide in ("", guide)])
                every += cells
    except SegueError as error:
        raise SystemExit(str(error)) from None
    print("\n".join(table(every)))


if __name__ == "__main__":
    main()
