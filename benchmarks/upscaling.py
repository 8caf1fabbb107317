"""How good an upscaler is, picture by picture, on emoji that no recipe was ever shown: against plain enlargement.

    python benchmarks/upscaling.py runs/unseen256 runs/unseen512 -o runs/upscaling
    python benchmarks/upscaling.py runs/unseen256 --model runs/upscaler/model --steps 1 4 --noise-level 0

Its corpora are large pictures of emoji that were kept back; the drawn styles can be had at any size:

    segue train corpus which=unseen size=256 pictures=12 out=runs/unseen256
    segue train corpus which=unseen size=512 pictures=4 out=runs/unseen512 \\
        weight_plain=0 weight_ground=0 weight_colour=0 weight_moved=1e-9 weight_styled=1

Each picture is made small by a bicubic low-pass filter and enlarged again: by bicubic interpolation, by Lanczos, and by
`segue upscale`, every frame for itself; "pixels" is that with `--colours pixels`. "codec" is what the upscaler's codec
makes of the large picture itself: the most that there is to reach, unless its decoder learned from estimates. With
`--through emoji`, the small picture first goes through the codec of that model, as what it draws does.

PSNR is in dB, higher is better; of distances (deep features), lower is better. Emoji are the cases: the mean over the
pictures of each comes first, then the mean over emoji with its 95 % interval, and that of the difference to bicubic.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judge import Shelf, say
from PIL import Image
from torch import Tensor
from torch.nn import functional

from segue.errors import SegueError
from segue.evaluation.features import floats
from segue.evaluation.fidelity import psnr
from segue.evaluation.intervals import mean_interval
from segue.media.enlarge import lanczos, with_low_band
from segue.models.bundle import LatentDiffusion
from segue.models.perceptual import EfficientNetDistance, Lpips, is_here
from segue.tasks.sampling import Sampling
from segue.tasks.upscale import Coherence, Upscale
from segue.training.journal import save_sheet
from segue.training.pairs import shrunk
from segue.types import Perceptual
from segue.zoo import load

BICUBIC = "bicubic"
COLUMNS = 2  # of the sheet, each as many pictures wide as there are ways


@dataclass(frozen=True)
class Cases:
    """Large pictures in [0, 1], and what they were made small to; rows are sorted by emoji."""

    large: Tensor
    small: Tensor
    emoji: list[str]
    styles: list[str]


def cases(folder: Path, factor: int, count: int | None, through: LatentDiffusion | None) -> Cases:
    """The pictures of a corpus, or `count` of them."""
    shelf = Shelf.open(folder)
    rows = shelf.some(range(len(shelf.lines)), count or len(shelf.lines))
    large = floats(shelf.bytes(rows))
    small = shrunk(large, factor, "bicubic")
    if through is not None:
        with torch.no_grad():
            small = torch.cat([through.codec.decode(through.codec.encode(part)) for part in small.split(16)])
    small = (small * 255).round() / 255  # they are read from files
    lines = [shelf.lines[row] for row in rows]
    return Cases(large, small, [line["concept"] for line in lines], [line.get("style", "3d") for line in lines])


def upscaled(model: LatentDiffusion, small: Tensor, steps: int | None, level: int | None) -> Tensor:
    """What `segue upscale` makes of a folder of these pictures, no two of which have anything to do with each other."""
    with tempfile.TemporaryDirectory() as folder:
        for number, picture in enumerate(small):
            pixels = (picture.permute(1, 2, 0) * 255).round().byte().numpy()
            Image.fromarray(pixels).save(Path(folder) / f"{number:05d}.png")
        each = Coherence(every=1)
        task = Upscale(folder, ("",), noise_level=level, coherence=each, sampling=Sampling(steps=steps))
        clip = task.run(model, progress=say)
        return torch.cat([clip.frames[i : i + 1] for i in range(len(clip))])


def ways(model: LatentDiffusion, found: Cases, steps: Sequence[int | None], level: int | None) -> dict[str, Tensor]:
    """Every enlargement of the small pictures, by name."""
    size = found.large.shape[-2:]
    plain = functional.interpolate(found.small, size, mode="bicubic", align_corners=False).clamp(0, 1)
    made = {BICUBIC: plain, "Lanczos": lanczos(found.small, size[0] // found.small.shape[-2])}
    for count in steps:
        began = time.perf_counter()
        made[f"{count or model.defaults.steps} steps"] = upscaled(model, found.small, count, level)
        print(
            f"{count or model.defaults.steps} steps: {(time.perf_counter() - began) / len(found.small):.2f} s a picture"
        )
    last = list(made)[-1]
    made[f"{last}, pixels"] = with_low_band(made[last], found.small, 1)
    with torch.no_grad():
        made["codec"] = torch.cat([model.codec.decode(model.codec.encode(part)) for part in found.large.split(8)])
    return made


def measured(made: Tensor, large: Tensor, distances: Sequence[Perceptual]) -> dict[str, list[float]]:
    """Of each picture, by measure."""
    table = {"PSNR": psnr(made, large).tolist()}
    with torch.no_grad():
        for distance in distances:
            parts = zip(made.split(16), large.split(16), strict=True)
            table[distance.name] = torch.cat([distance(a, b) for a, b in parts]).tolist()
    return table


def by_emoji(values: Sequence[float], emoji: Sequence[str], rows: Sequence[int]) -> list[float]:
    """The mean over the pictures of each emoji."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(emoji[row], []).append(values[row])
    return [float(np.mean(group)) for group in groups.values()]


def summary(found: Cases, table: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Means with intervals by style, way and measure, and of the differences to bicubic."""
    styles = {"all": list(range(len(found.styles)))}
    for style in sorted(set(found.styles)):
        styles[style] = [row for row, one in enumerate(found.styles) if one == style]
    said: dict[str, Any] = {}
    for style, rows in styles.items():
        said[style] = {"pictures": len(rows), "emoji": len({found.emoji[row] for row in rows}), "ways": {}}
        for way, measures in table.items():
            said[style]["ways"][way] = {}
            for measure, values in measures.items():
                apart = [value - plain for value, plain in zip(values, table[BICUBIC][measure], strict=True)]
                mean, gain = (mean_interval(by_emoji(numbers, found.emoji, rows)) for numbers in (values, apart))
                said[style]["ways"][way][measure] = [mean.value, mean.half, gain.value, gain.half]
    return said


def lines(title: str, said: dict[str, Any]) -> list[str]:
    """The table, for a person."""
    out = [title]
    for style, group in said.items():
        out.append(f"  {style}: {group['pictures']} pictures of {group['emoji']} emoji")
        for way, measures in group["ways"].items():
            cells = [
                f"{measure} {mean:.{2 if measure == 'PSNR' else 4}f} ± {half:.2g} ({gain:+.3g} ± {spread:.2g})"
                for measure, (mean, half, gain, spread) in measures.items()
            ]
            out.append(f"    {way:15}  {'   '.join(cells)}")
    return out


def sheet(path: Path, found: Cases, made: dict[str, Tensor], count: int) -> None:
    """Nothing chosen: rows at even distances; the small picture's pixels, every way but Lanczos, and as it was."""
    rows = [i * len(found.large) // count for i in range(count)]
    size = found.large.shape[-2:]
    shown = [functional.interpolate(found.small[rows], size, mode="nearest")]
    shown += [pictures[rows] for way, pictures in made.items() if way != "Lanczos"]
    cells = torch.stack([*shown, found.large[rows]], 1)
    save_sheet(path, cells.flatten(0, 1), columns=COLUMNS * cells.shape[1])


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="+", type=Path, metavar="CORPUS")
    parser.add_argument("--model", default="emoji-x4")
    parser.add_argument("--steps", type=int, nargs="+", help="numbers of steps to try; left out, the model's own")
    parser.add_argument("--noise-level", type=int)
    parser.add_argument("--through", help="a model whose codec the small pictures go through")
    parser.add_argument("--count", type=int, help="so many pictures of each corpus")
    parser.add_argument("--shown", type=int, default=12, help="pictures on each sheet")
    parser.add_argument("-o", "--out", type=Path, help="a folder for sheets and numbers")
    chosen = parser.parse_args()
    try:
        model, through = load(chosen.model), load(chosen.through) if chosen.through else None
        if model.upscaling is None:
            raise SystemExit(f"{chosen.model} is no upscaler")
        distances: list[Perceptual] = [EfficientNetDistance.load()] if is_here("efficientnet-lite0") else []
        distances += [Lpips.load("alex")] if is_here("lpips-alex") else []
        for folder in chosen.corpora:
            found = cases(folder, model.upscaling.factor, chosen.count, through)
            made = ways(model, found, chosen.steps or [None], chosen.noise_level)
            said = summary(found, {way: measured(pictures, found.large, distances) for way, pictures in made.items()})
            title = f"{folder.name}: {found.small.shape[-1]} to {found.large.shape[-1]} pixels"
            print("\n".join(lines(title + (f", through {chosen.through}" if chosen.through else ""), said)))
            if chosen.out is not None:
                chosen.out.mkdir(parents=True, exist_ok=True)
                name = folder.name + ("-through" if chosen.through else "")
                (chosen.out / f"{name}.json").write_text(json.dumps(said, indent=1, ensure_ascii=False), "utf-8")
                sheet(chosen.out / f"{name}.png", found, made, min(chosen.shown, len(found.large)))
    except SegueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
