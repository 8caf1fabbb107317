"""Sheets to look at: 64 prompts at one seed, and 8 prompts at 8 seeds, nothing chosen by eye.

    python benchmarks/sheets.py --model emoji -o runs/sheets

The first four rows are things of the frozen list, taken at even distances; the other four are pairs of thing and colour
that no training picture shows, the last of them in a style or on a ground as well.
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the two sheets that a model's card is judged by.")
    parser.add_argument("--model", default=None, help="as segue.load takes it")
    parser.add_argument("--seed", type=int, default=0, help="of the 64 prompts")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/sheets"))
    options = parser.parse_args(arguments)
    model = segue.load(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    prompts = listed(32) + unseen(32)
    print("\n".join(", ".join(prompts[i : i + 8]) for i in range(0, 64, 8)))
    save_sheet(options.out / "prompts.png", drawn(model, prompts, [options.seed] * 64), columns=8)
    seeded = [prompt for prompt in SEEDED for _ in range(8)]
    save_sheet(options.out / "seeds.png", drawn(model, seeded, list(range(8)) * 8), columns=8)
    print(f"wrote {options.out}/prompts.png and seeds.png; the second: {', '.join(SEEDED)}, seeds 0 to 7")


if __name__ == "__main__":
    main()
