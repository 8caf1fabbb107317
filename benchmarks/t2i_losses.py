"""Which loss learns text to picture best: small models from scratch, alike in all but the loss, by one yardstick.

    python benchmarks/t2i_losses.py runs/corpus runs/codec/vae --steps 1500 --seeds 2 3

Each model learns twelve things in their colours: one picture for each caption. It then draws every caption, and what it
drew is compared with the picture of that caption: the mean squared difference of latents (of unit variance; 2 is the
distance between unrelated ones), and LPIPS of the decoded pictures where its weights are at hand. A loss is not a
yardstick: each of them weighs the levels in its own way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segue.models.loading import load_model
from segue.models.perceptual import Lpips, is_here
from segue.training.data import Corpus
from segue.training.recipes import t2i
from segue.training.sampling import sample

NOUNS = ("apple", "cat face", "rocket", "castle", "car", "fish", "heart", "tulip", "owl", "teapot", "guitar", "house")
VARIANTS: dict[str, dict[str, Any]] = {
    "v": {},
    "v, min-SNR 5": {"min_snr": 5.0},
    "v, noise 0.6": {"noise_power": 0.6},
    "flow": {"prediction": "flow_prediction"},
    "flow, min-SNR 5": {"prediction": "flow_prediction", "min_snr": 5.0},
}


def small_corpus(source: Path, out: Path) -> Path:
    """Pictures of NOUNS in the middle of a white ground, each with the captions that are its own."""
    lines = [json.loads(line) for line in (source / "manifest.jsonl").read_text("utf-8").splitlines()]
    chosen = [i for i, line in enumerate(lines) if line["noun"] in NOUNS and _plain(line)]
    uses = Counter(caption for i in chosen for caption in set(lines[i]["captions"]))
    kept: list[int] = []
    text = ""
    for i in chosen:
        own = [caption for caption in lines[i]["captions"] if uses[caption] == 1 and "background" not in caption]
        if own:
            kept.append(i)
            text += json.dumps(lines[i] | {"captions": own, "weight": 1.0}, ensure_ascii=False) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / "sources.json").unlink(missing_ok=True)
    np.save(out / "pictures.npy", np.load(source / "pictures.npy", mmap_mode="r")[kept])
    (out / "manifest.jsonl").write_text(text, "utf-8")
    sources = json.loads((source / "sources.json").read_text("utf-8"))
    digest = hashlib.sha256((out / "pictures.npy").read_bytes()).hexdigest()
    (out / "sources.json").write_text(json.dumps(sources | {"pictures_sha256": digest}, indent=1), "utf-8")
    return out


def _plain(line: dict[str, Any]) -> bool:
    moved = any(value for name, value in line["placement"].items() if name != "scale")
    return line["background"] == "white" and line.get("style", "3d") == "3d" and not moved


@torch.no_grad()
def measure(folder: Path, corpus: Corpus, steps: int, guidance: float, seeds: int) -> dict[str, float]:
    """How far what a model draws is from what the captions stand for, over all captions and `seeds` noises."""
    model = load_model(folder, device="cpu", dtype="float32")
    perceptual = Lpips.load("alex") if is_here("lpips-alex") else None
    found: dict[str, list[float]] = {"latents": [], "lpips": []}
    for rows in np.array_split(np.arange(len(corpus)), -(-len(corpus) // 8)):
        pictures = corpus.floats(rows)
        wanted = model.codec.encode(pictures)
        prompts = [corpus.captions[row][0] for row in rows]
        for seed in range(seeds):
            made = sample(model, prompts, [seed] * len(prompts), steps=steps, guidance_scale=guidance, solver="ddim")
            found["latents"] += (made - wanted).square().mean((1, 2, 3)).tolist()
            if perceptual is not None:
                found["lpips"] += perceptual(model.codec.decode(made), pictures).tolist()
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def main() -> None:
    """Train and measure each variant with each seed, and print a line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("codec", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/t2i_losses"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    given = parser.parse_args()
    folder = small_corpus(given.corpus, given.out / "corpus")
    for seed in given.seeds:
        for name in given.only:
            config = t2i.Config(
                corpus=folder,
                codec=given.codec,
                out=given.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}",
                widths=(32, 64, 96),
                text_width=128,
                vocabulary=600,
                steps=given.steps,
                batch=8,
                lr=8e-4,
                bf16=False,
                warmup=100,
                decay=given.steps // 3,
                ema=0.995,
                seed=seed,
                sheet_every=given.steps,
                **VARIANTS[name],
            )
            model, corpus = t2i.main(config), Corpus.load(folder)
            scores = {f"guidance {g:g}": measure(model, corpus, 20, g, seeds=1) for g in (1.0, 3.0)}
            print(json.dumps({"loss": name, "seed": seed, "steps": given.steps, **scores}), flush=True)


if __name__ == "__main__":
    main()
