"""Sheets to look at: 64 prompts at one seed, and 8 prompts at 8 seeds, nothing chosen by eye; or ten transitions.

    python benchmarks/sheets.py --model emoji -o runs/sheets
    python benchmarks/sheets.py --model emoji -o runs/sheets --transitions
    python benchmarks/sheets.py --transitions --first 7 --photograph wolf.jpg "a fox" --photograph a.mp4@2 "a house"

The first four rows are things of the frozen list, taken at even distances; the other four are pairs of thing and colour
that no training picture shows, the last of them in a style or on a ground as well. Of the transitions, one a row, every
frame is drawn by the model, and the key pictures share a seed. A photograph begins a transition of its own as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import segue
from segue.models.bundle import LatentDiffusion
from segue.training.captions import article
from segue.training.corpus import ConceptList
from segue.training.journal import save_sheet

SEEDED = ("a lion", "a red apple", "a castle", "a rocket", "a cat", "a tree", "a car", "line art of a fish")
TRANSITIONS = (
    ("a lion", "a tiger"),
    ("a red apple", "a green apple"),
    ("a sun", "a moon"),
    ("a car", "a bus"),
    ("a house", "a castle"),
    ("a tulip", "a sunflower"),
    ("a cat", "a dog"),
    ("a balloon", "a heart"),
    ("a fish", "a whale"),
    ("a star", "a snowflake"),
)
COLUMNS = 12
DRESSED = (
    "flat icon of {a} {}",
    "{a} {} on a blue background",
    "{a} {}, gradient",
    "{a} {} on a black background",
    "a small {}",
    "a big {}",
)


def listed(count: int) -> list[str]:
    """`count` things of the frozen list, at even distances."""
    nouns = list(dict.fromkeys(line.noun for line in ConceptList.read().concepts.values()))
    chosen = [nouns[i * len(nouns) // count] for i in range(count)]
    return [f"{article(noun)} {noun}" for noun in chosen]


def unseen(count: int) -> list[str]:
    """`count` prompts that name a pair of thing and colour which was held out of training."""
    table = ConceptList.read()
    pairs = [f"{colour} {table.concepts[key].noun}" for key, colours in table.held_out.items() for colour in colours]
    dressed = [DRESSED[i % len(DRESSED)].format(pair, a=article(pair)) for i, pair in enumerate(pairs)]
    return [*(f"{article(pair)} {pair}" for pair in pairs), *dressed][:count]


def drawn(model: LatentDiffusion, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
    """Every prompt at its seed, (n, 3, h, w)."""
    jobs = zip(prompts, seeds, strict=True)
    return torch.cat([segue.Image(prompt, seed=seed).run(model).frames[:] for prompt, seed in jobs])


def morphed(
    model: LatentDiffusion, seed: int, frames: int, pairs: Sequence[tuple[str, str]], photographs: Sequence[str] = ()
) -> torch.Tensor:
    """Of each transition's film, `COLUMNS` frames from its first to its last, (n, 3, h, w).

    The last pairs begin with the photographs, where there are any, in place of their first prompts.
    """
    rows: list[torch.Tensor] = []
    given = [()] * (len(pairs) - len(photographs)) + [(f"first={file}",) for file in photographs]
    for number, (pair, key_image) in enumerate(zip(pairs, given, strict=True), start=1):
        task = segue.Transition(pair, seeds=(seed,), seconds=frames / 24, fps=24, key_image=key_image)
        film = task.run(model).frames
        rows += [film[at : at + 1] for at in (round(i * (frames - 1) / (COLUMNS - 1)) for i in range(COLUMNS))]
        print(f"{number}: {' '.join([pair[0], *key_image]).strip()} to {pair[1]}", flush=True)
    return torch.cat(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="as segue.load takes it")
    parser.add_argument("--seed", type=int, default=0, help="of the 64 prompts, or of the transitions")
    parser.add_argument("--transitions", action="store_true", help="ten transitions, and nothing else")
    parser.add_argument("--frames", type=int, default=COLUMNS, help=f"of each film, of which {COLUMNS} are shown")
    parser.add_argument("--first", type=int, default=len(TRANSITIONS), help="so many of the transitions only")
    parser.add_argument(
        "--photograph",
        nargs=2,
        action="append",
        default=[],
        metavar=("FILE", "PROMPT"),
        help="one more transition, from this picture (or VIDEO@SECONDS) to the prompt",
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/sheets"))
    options = parser.parse_args(arguments)
    if options.frames < COLUMNS:
        parser.error(f"--frames must be {COLUMNS} or more, got {options.frames}")
    model = segue.load(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.transitions:
        pairs = [*TRANSITIONS[: options.first], *(("", prompt) for _, prompt in options.photograph)]
        photographs = [file for file, _ in options.photograph]
        pictures = morphed(model, options.seed, options.frames, pairs, photographs)
        save_sheet(options.out / "transitions.png", pictures, columns=COLUMNS)
        print(f"wrote {options.out}/transitions.png, a row for each")
        return
    prompts = listed(32) + unseen(32)
    print("\n".join(", ".join(prompts[i : i + 8]) for i in range(0, 64, 8)))
    save_sheet(options.out / "prompts.png", drawn(model, prompts, [options.seed] * 64), columns=8)
    seeded = [prompt for prompt in SEEDED for _ in range(8)]
    save_sheet(options.out / "seeds.png", drawn(model, seeded, list(range(8)) * 8), columns=8)
    print(f"wrote {options.out}/prompts.png and seeds.png; the second: {', '.join(SEEDED)}, seeds 0 to 7")


if __name__ == "__main__":
    main()
