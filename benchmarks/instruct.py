"""What an instruction model is worth: how near what it makes comes to what was asked for.

    python benchmarks/instruct.py runs/pairs --adapter runs/instruct/instruct.safetensors
    python benchmarks/instruct.py runs/pairs --adapter runs/instruct/instruct.safetensors --scales 3 5 -o x.png

Pairs that were kept back from training are changed by what was said, from noise. Columns, with 95 % intervals over
pictures:

made     the PSNR in dB of what was made to what was asked for
left     that of the picture as it was: what doing nothing is worth
done     the share of pictures that came nearer to what was asked for than to what they were
kept     the PSNR in dB of what was made to the picture as it was: what is left of it
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segue.errors import SegueError
from segue.evaluation.intervals import mean_interval
from segue.models.bundle import LatentDiffusion
from segue.training.instruct_data import EditPairs
from segue.training.journal import save_sheet
from segue.training.recipes.instruct import Config
from segue.training.sampling import changed
from segue.zoo import load

COLUMNS = 12
TITLES = ("made", "left", "done", "kept")


def apart(one: Tensor, other: Tensor) -> Tensor:
    """The mean square difference, of each pair."""
    return (one - other).square().mean((1, 2, 3))


def psnr(one: Tensor, other: Tensor) -> list[float]:
    """In dB, of each pair."""
    return (-10 * apart(one, other).clamp_min(1e-10).log10()).tolist()


def chosen(kept: EditPairs, kind: str, count: int, seed: int) -> tuple[EditPairs, list[str]]:
    """So many pairs of a kind, and what is said for each."""
    rng = np.random.default_rng((seed, sorted(set(kept.kinds)).index(kind)))
    there = [row for row, name in enumerate(kept.kinds) if name == kind]
    pairs = kept.take(rng.choice(there, min(count, len(there)), replace=False))
    return pairs, [str(rng.choice(words)) for words in pairs.instructions]


def measured(
    model: LatentDiffusion, pairs: EditPairs, said: Sequence[str], steps: int | None, scales: tuple[float, float] | None
) -> tuple[Tensor, list[list[float]]]:
    """What is made, and the columns."""
    before, after = pairs.floats(pairs.before), pairs.floats(pairs.after)
    scale, picture_scale = scales or (None, None)
    made = changed(model, before, said, list(range(len(said))), steps=steps, scale=scale, picture_scale=picture_scale)
    done = (apart(made, after) < apart(made, before)).double().tolist()
    return made, [psnr(made, after), psnr(before, after), done, psnr(made, before)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--adapter", type=Path, help="what `segue train instruct` wrote")
    parser.add_argument("--kinds", nargs="+", help="of changes; else all")
    parser.add_argument("--count", type=int, default=24, help="pairs of each kind")
    parser.add_argument("--steps", type=int, help="of the model; else its own number")
    parser.add_argument("--scales", nargs="+", type=float, help="of the text, each with each of the picture's")
    parser.add_argument("--picture-scales", nargs="+", type=float, default=[1.0, 1.5])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("-o", "--out", type=Path, help="file for a sheet: before, made, wanted, of each kind")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        model = load(asked.model, "cpu", instruct=asked.adapter)
        kept = EditPairs.load(asked.pairs).split(Config().validation_every)[1]
        grid = [(text, picture) for text in asked.scales or () for picture in asked.picture_scales] or [None]
        print(f"{'kind':8}{'scales':>12}" + "".join(f"{title:>16}" for title in TITLES))
        lines: list[Tensor] = []
        for kind in asked.kinds or sorted(set(kept.kinds)):
            pairs, said = chosen(kept, kind, asked.count, asked.seed)
            for scales in grid:
                made, found = measured(model, pairs, said, asked.steps, scales)
                cells = "".join(f"{one.value:>9.2f} ± {one.half:.2f}" for one in map(mean_interval, found))
                print(f"{kind:8}{' x '.join(map(str, scales or ('own',))):>12}{cells}", flush=True)
                lines += [part[:COLUMNS] for part in (pairs.floats(pairs.before), made, pairs.floats(pairs.after))]
            print("   " + "; ".join(said[:COLUMNS]), flush=True)
    except SegueError as error:
        parser.error(str(error))
    if asked.out is not None:
        width = max(map(len, lines))
        blank = [torch.ones(width - len(line), *line.shape[1:]) for line in lines]
        save_sheet(asked.out, torch.cat([part for pair in zip(lines, blank, strict=True) for part in pair]), width)


if __name__ == "__main__":
    main()
