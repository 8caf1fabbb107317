"""How well do cheap distances rank the gaps of a transition as LPIPS does?

    python benchmarks/distances.py --pairs 12

Each transition is rendered at places that are evenly spread, not evenly seen, so that its gaps differ. Then all gaps
between frames that are 1, 2, 4 and 8 apart are measured with every distance, and compared with LPIPS on AlexNet:
Spearman's rank correlation within a transition and a lag (what a planner needs: which of these gaps is the largest),
how often the largest gap is the same, how large (by LPIPS) the gap is that a distance calls the largest, as a share of
the truly largest, and milliseconds for one comparison.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

import segue
from segue.evaluation.distances import PixelDistance
from segue.models.bundle import LatentDiffusion
from segue.models.perceptual import EfficientNetDistance, LatentDistance, Lpips
from segue.tasks.branching import Branching
from segue.tasks.frames import DecodedFrames
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from segue.tasks.transition_run import TransitionRun
from segue.types import Perceptual, silent

PAIRS = [
    ("a lion", "a tiger"), ("a red apple", "a green apple"), ("the sun", "a crescent moon"), ("a red car", "a bus"),
    ("a cat face", "a panda"), ("a castle", "a volcano"), ("a blue heart", "a red star"), ("a tulip", "a sunflower"),
    ("an octopus", "a rocket"), ("a guitar", "a trumpet"), ("a robot", "a teddy bear"), ("a crab", "a butterfly"),
    ("a pizza", "a cookie"), ("a whale", "a sailboat"), ("a fox", "an owl"), ("a house", "a tent"),
]  # fmt: skip
LAGS = (1, 2, 4, 8)


def films(model: LatentDiffusion, pairs: int, steps: int) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """The latents and the pictures of 17 frames at even places of each transition."""
    for first, second in PAIRS[:pairs]:
        tree = Branching(branches=(2, 5, 17), at=(0, 0.3, 0.5))
        task = Transition((first, second), seconds=17, fps=1, tree=tree, sampling=Sampling(steps=steps)).resolved(model)
        run = TransitionRun(task, model, Execution(), silent)
        frames = run.clip().frames
        assert isinstance(frames, DecodedFrames)
        names = sorted(frames.latents, key=frames.positions.__getitem__)
        x = torch.stack([frames.latents[name] for name in names])
        with torch.no_grad():
            yield f"{first} -> {second}", x, model.codec.decode(x)


def gaps(distance: Perceptual, latents: torch.Tensor, frames: torch.Tensor, lag: int) -> np.ndarray:
    """The distance between frames that are `lag` apart."""
    shown = latents if distance.domain == "latents" else frames
    with torch.no_grad():
        return distance(shown[:-lag], shown[lag:]).double().numpy()


def ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value in their order."""
    return values.argsort().argsort()


def agreement(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """How a distance's gaps agree with the true ones, over transitions and lags."""
    correlation = [np.corrcoef(ranks(mine), ranks(true))[0, 1] for mine, true in found]
    same = [float(mine.argmax() == true.argmax()) for mine, true in found]
    worth = [float(true[mine.argmax()] / true.max()) for mine, true in found]
    return {
        "rank_correlation": round(float(np.mean(correlation)), 3),
        "worst_correlation": round(float(np.min(correlation)), 3),
        "same_largest": round(float(np.mean(same)), 3),
        "worth_of_largest": round(float(np.mean(worth)), 3),
    }


def milliseconds(distance: Perceptual, latents: torch.Tensor, frames: torch.Tensor) -> float:
    """Of one comparison, the best of three times all."""
    taken: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        gaps(distance, latents, frames, 1)
        taken.append((time.perf_counter() - began) / (len(latents) - 1))
    return round(1000 * min(taken), 2)


def main() -> None:
    """Print one line of JSON for each distance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--pairs", type=int, default=len(PAIRS))
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    model, truth = segue.load(given.model), Lpips.load("alex")
    distances: list[Perceptual] = [LatentDistance(), PixelDistance(), EfficientNetDistance.load(), Lpips.load("vgg")]
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {distance.name: [] for distance in distances}
    taken: dict[str, float] = {}
    for _, latents, frames in films(model, given.pairs, given.steps):
        true = {lag: gaps(truth, latents, frames, lag) for lag in LAGS}
        for distance in distances:
            found[distance.name] += [(gaps(distance, latents, frames, lag), true[lag]) for lag in LAGS]
            taken[distance.name] = milliseconds(distance, latents, frames)
    for name, rows in found.items():
        print(json.dumps({"distance": name, **agreement(rows), "ms": taken[name]}))
    print(json.dumps({"truth": truth.name, "transitions": given.pairs, "model": model.name}))


if __name__ == "__main__":
    main()
