"""What the measures of films say of a clip that is spoiled in a known way: each must see its own fault, and no other.

    python benchmarks/measures.py wolf.mp4 portrait.mp4@40 moving:1

Of each clip `--frames` frames, from the one after the @ on, are made `--area` pixels large; "moving:SEED" is drawn.
They are left as they are, blurred (3x3 and 7x7 pixels), given noise, flicker and strokes as in `degrade.py`, a tint
that grows to 0.06, or a light right half. All measures are held against the clean clip, along its flow.

* flicker, light: noise from frame to frame, and that of the mean brightness (`movement`), of 255 levels.
* warp, at 8, first: warp error between neighbours, 8 frames apart, and to the first frame, of 255 levels.
* Pixel-MSE: of a full range of 1, times 1000.
* sharp, finest, shared: energy of gradients and of the Laplacian kept, and the share of the clip's own gradients.
* colour, structure: drift, of 255 levels.
* seam: across the middle column.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from degrade import flickering, noisy, restyled
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from segue.errors import SegueError
from segue.evaluation.drift import drift
from segue.evaluation.movement import movement
from segue.evaluation.pixel_mse import PixelMse
from segue.evaluation.seam import seams
from segue.evaluation.sharpness import sharpness
from segue.evaluation.warp_error import warp_error
from segue.media.clip import TensorFrames
from segue.media.reader import read
from segue.media.resize import fit, on_grid
from segue.training.moving import moving_clip

DRAWN = "moving:"


def blurred(side: int) -> Callable[[Tensor], Tensor]:
    """The mean of as many pixels along each side."""
    return lambda frames: avg_pool2d(pad(frames, [side // 2] * 4, mode="replicate"), side, 1)


def tinted(frames: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 h w"]:
    """Redder and less blue from frame to frame."""
    return frames + torch.linspace(0, 0.06, len(frames)).view(-1, 1, 1, 1) * torch.tensor([1, 0, -1]).view(3, 1, 1)


def halved(frames: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 h w"]:
    """The right half lighter by 0.03, as tiles are that know nothing of one another."""
    lighter = frames.clone()
    lighter[..., frames.shape[3] // 2 :] += 0.03
    return lighter


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda frames: frames,
    "blur": blurred(3),
    "more blur": blurred(7),
    "noise": noisy,
    "noise, blurred": lambda frames: blurred(3)(noisy(frames)),
    "flicker": flickering,
    "strokes": restyled,
    "tint": tinted,
    "half": halved,
}


def clip(named: str, frames: int, area: int) -> Float[Tensor, "t 3 h w"]:
    """VIDEO, VIDEO@FIRST or moving:SEED."""
    if named.startswith(DRAWN):
        size = on_grid((16, 9), 8, area=area)
        return moving_clip(int(named.removeprefix(DRAWN)), size, frames).frames[:frames]
    path, _, first = named.partition("@")
    found = read(path).frames
    start = int(first or 0)
    return fit(found, on_grid(found.size, 8, area=area), "stretch")[start : start + frames]


def measured(frames: Float[Tensor, "t 3 h w"], clean: TensorFrames) -> dict[str, float]:
    """All measures of a film."""
    film = TensorFrames.rounded(frames.clamp(0, 1))
    moves, warped, left = movement(film), warp_error(film, clean), drift(film, clean)
    pixels = PixelMse.of(warped, sharpness(film, clean))
    kept = pixels.sharpness.kept
    (seam,) = seams(film, clean, columns=(film.size[0] // 2,))
    parts: dict[str, float | None] = {
        "flicker": 255 * float(moves.noise.nanmean()),
        "light": 255 * float(moves.brightness.square().nanmean().sqrt()),
        "warp": 255 * _number(warped.at(1).absolute),
        "at 8": 255 * _number(warped.at(8).absolute),
        "first": 255 * _number(warped.at(None).absolute),
        "Pixel-MSE": 1000 * _number(pixels.value),
        "sharp": kept and kept.gradients,
        "finest": kept and kept.fine,
        "shared": kept and kept.shared,
        "colour": 255 * left.colour,
        "structure": 255 * left.structure,
        "seam": seam.ratio,
    }
    return {name: _number(value) for name, value in parts.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def table(rows: dict[str, dict[str, float]]) -> list[str]:
    """As markdown."""
    columns = list(next(iter(rows.values())))
    lines = [f"| fault | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        numbers = ["none" if math.isnan(value) else f"{value:.2f}" for value in row.values()]
        lines.append(f"| {name} | {' | '.join(numbers)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table for each clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", metavar="VIDEO[@FIRST]")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--area", type=int, default=65_536, help="pixels of a picture")
    parser.add_argument("--json", action="store_true", help="all numbers, instead of tables")
    chosen = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    for named in chosen.clips:
        try:
            clean = TensorFrames.rounded(clip(named, chosen.frames, chosen.area).clamp(0, 1))
        except SegueError as error:
            raise SystemExit(str(error)) from None
        found[named] = {name: measured(fault(clean[:]), clean) for name, fault in FAULTS.items()}
        if not chosen.json:
            print("\n".join([f"\n### {named}\n", *table(found[named])]), flush=True)
    if chosen.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
