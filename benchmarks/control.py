"""What a control adapter is worth: how far what is drawn follows control pictures, with it and without.

    python benchmarks/control.py runs/corpus runs/control --model emoji
    python benchmarks/control.py runs/corpus runs/control --model emoji-fast --adapter runs/control/adapter.safetensors

For each kind of control picture, pictures that were kept back from the adapter's training are drawn anew: from their
captions, their control pictures and noise, once with the adapter and once without it. The run's folder holds the
figures for poses. Columns, each with the adapter and without, and 95 % intervals over pictures:

edges    the correlation of soft edges of what is drawn and of the picture
colours  the PSNR in dB of both as 16 x 16 mean colours
pixels   the PSNR in dB of both as they are
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity

from segue.errors import SegueError
from segue.evaluation.intervals import mean_interval
from segue.models.annotate import find_annotator
from segue.models.bundle import LatentDiffusion
from segue.models.control import Control, controlled
from segue.models.control_adapter import KINDS
from segue.training.conditions import Conditions, stacked
from segue.training.data import Corpus
from segue.training.journal import save_sheet
from segue.training.posed import Posed
from segue.training.recipes.control import Config
from segue.training.sampling import decoded, sample
from segue.zoo import load
from segue.zoo.controls import read_control
from segue.zoo.load import load_control

COLUMNS = 12


def edges(one: Tensor, other: Tensor) -> Tensor:
    """The correlation of soft edges, of each pair."""
    find = find_annotator("softedge")
    a, b = (find(part)[:, 0].flatten(1) for part in (one, other))
    return cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True))


def pixels(one: Tensor, other: Tensor) -> Tensor:
    """The PSNR in dB, of each pair."""
    return -10 * (one - other).square().mean((1, 2, 3)).clamp_min(1e-10).log10()


def colours(one: Tensor, other: Tensor) -> Tensor:
    """The PSNR in dB of mean colours, of each pair."""
    return pixels(*(adaptive_avg_pool2d(part, 16) for part in (one, other)))


MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"edges": edges, "colours": colours, "pixels": pixels}


def measured(
    model: LatentDiffusion, kind: str, kept: Conditions, count: int, adapter: Path | None, steps: int | None
) -> list[Tensor]:
    """Pictures, control pictures, and what is drawn with the adapter and without; the measures are printed."""
    rng = np.random.default_rng((7, KINDS.index(kind)))
    lesson = stacked([kept.row(kind, rng) for _ in range(count)])
    network = load_control(kind, model) if adapter is None else read_control(adapter, kind, model)
    steered, seeds = controlled(model, [Control(kind, network)]), list(range(count))
    hints = {kind: lesson.hints}
    drawn = [
        decoded(model, sample(steered, lesson.captions, seeds, steps=steps, residual_inputs=hints)),
        decoded(model, sample(model, lesson.captions, seeds, steps=steps)),
    ]
    found = [mean_interval(measure(made, lesson.pictures).tolist()) for measure in MEASURES.values() for made in drawn]
    print(f"{kind:10}" + "".join(f"{cell.value:>10.2f} ± {cell.half:.2f}" for cell in found), flush=True)
    return [lesson.pictures, lesson.hints, *drawn]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("run", type=Path, help="the folder of the adapter's run")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--adapter", type=Path, help="its file; else the one that comes with the model")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--count", type=int, default=48, help="pictures of each kind")
    parser.add_argument("--steps", type=int, help="of the model; else its own number")
    parser.add_argument("-o", "--out", type=Path, help="file for a sheet: pictures, control pictures, with, without")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    how = Config()
    try:
        model = load(asked.model, "cpu")
        figures = None
        if "pose" in asked.kinds:
            posed = Posed.prepared(asked.run / "figures.safetensors", how.figures, model.defaults.size, how.seed)
            figures = posed.split(how.validation_every)[1]
        unseen = Corpus.load(asked.corpus).split(how.validation_every)[1]
        kept = Conditions(unseen, dict.fromkeys(asked.kinds, 1.0), 0.0, 0.0, 0.0, 0.0, figures)
        print(f"{'kind':10}" + "".join(f"{name:>17}{'without':>17}" for name in MEASURES))
        with torch.no_grad():
            how_often = asked.count, asked.adapter, asked.steps
            shown = [measured(model, kind, kept, *how_often) for kind in asked.kinds]
    except SegueError as error:
        parser.error(str(error))
    if asked.out is not None:
        lines = [torch.cat([part[:COLUMNS] for part in parts]) for parts in shown]
        save_sheet(asked.out, torch.cat(lines), columns=min(COLUMNS, asked.count))


if __name__ == "__main__":
    main()
