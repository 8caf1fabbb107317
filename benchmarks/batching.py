"""One tree, run branch by branch and by levels, side by side in one process.

    python benchmarks/batching.py                     # the embedded model
    python benchmarks/batching.py --random-sd15       # Stable Diffusion 1.5's sizes at 512 px, random weights

Calls and rows are exact. Seconds are only good as ratios of the same run: machines differ, and are shared.
"Branch by branch" is what the reference system does: one network call per branch and step. "Every frame alone" is what
a tree saves: all steps of every frame.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from segue.diffusion.solvers import find_solver
from segue.models.bundle import Defaults, LatentDiffusion
from segue.models.denoiser import Tally
from segue.models.perceptual import LatentDistance
from segue.temporal.grow import Grower, grow
from segue.temporal.keys import Keys
from segue.temporal.plan import Adaptive, Planner, Replay
from segue.temporal.ruler import Ruler
from segue.temporal.tree import Tree

PROMPTS = ["a red apple", "a castle"]


@dataclass(frozen=True)
class Result:
    """What one way of running a tree took.

    Args:
        calls: of the network.
        rows: over all calls, guidance terms counted.
        seconds: from noise to final latents.
        outside: share of the seconds that was not spent inside the network.
    """

    calls: int
    rows: int
    seconds: float
    outside: float


def random_sd15() -> LatentDiffusion:
    """A UNet of Stable Diffusion 1.5's size with random weights, and text of its shape."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from segue.models.codec import AutoencoderCodec
    from segue.models.denoiser import NetworkDenoiser
    from segue.models.families.sd import UNetNetwork
    from segue.models.weights import freeze
    from segue.types import Conditioning

    def text(prompts: Sequence[str]) -> Conditioning:
        return Conditioning(torch.randn(len(prompts), 77, 768, generator=torch.Generator().manual_seed(0)))

    unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8).eval()
    freeze(unet, torch.device("cpu"), torch.bfloat16)
    for weight in unet.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    scheduler = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return LatentDiffusion(
        name="random weights of Stable Diffusion 1.5's size",
        text=text,
        denoiser=NetworkDenoiser(UNetNetwork(unet), "epsilon"),
        codec=AutoencoderCodec(AutoencoderTiny()),
        scheduler=scheduler,
        defaults=Defaults(size=(512, 512), steps=6, guidance_scale=1.0),
        parts={"unet": unet},
        weights=(),
        device=torch.device("cpu"),
        dtype=torch.bfloat16,
    )


def run(model: LatentDiffusion, planner: Planner, steps: int, batch: int, size: tuple[int, int]) -> tuple[Result, Tree]:
    """Grow a tree with so many rows at once."""
    tally = Tally()
    scale = model.defaults.guidance_scale
    terms = 1 if scale == 1 else 2
    denoiser = tally.watching(replace(model.denoiser, max_batch=batch * terms))
    texts = model.text([*PROMPTS, "", ""])
    solver = find_solver(model.defaults.solver)
    shape = (model.codec.channels, size[1] // model.codec.scale, size[0] // model.codec.scale)
    grower = Grower(
        denoiser,
        model.schedule(steps, size),
        solver.solver,
        Keys(texts[[0, 1]], texts[[2, 3]], (scale, scale), (1, 2), guidance_start=model.defaults.guidance_start),
        shape,
        model.device,
        batch=batch,
    )
    tree = Tree.of_keys(2)
    start = time.perf_counter()
    for grown in grow(grower, planner, Ruler(LatentDistance()), time.monotonic()):
        tree = grown.tree
    seconds = time.perf_counter() - start
    return Result(tally.calls, tally.rows, seconds, (seconds - tally.seconds) / seconds), tree


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model instead of the embedded one")
    parser.add_argument("--random-sd15", action="store_true", help="random weights at 512 px")
    parser.add_argument("--branches", type=int, default=15)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--depth", type=float, default=0.4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if chosen.random_sd15:
        model = random_sd15()
    else:
        from segue.zoo import load

        model = load(chosen.model)
    steps = chosen.steps or model.defaults.steps
    size = model.defaults.size
    with torch.no_grad():
        run(model, Adaptive(steps, chosen.depth, 0), steps, 1, size)  # warms up
        by_level, tree = run(model, Adaptive(steps, chosen.depth, chosen.branches), steps, chosen.batch, size)
        one_by_one, _ = run(model, Replay(tree), steps, 1, size)
    frames = len(tree.frames())
    table = {
        "model": model.name,
        "size": list(size),
        "steps": steps,
        "frames": frames,
        "threads": torch.get_num_threads(),
        "every_frame_alone_calls": frames * steps,
        "branch_by_branch": vars(one_by_one),
        "by_levels": vars(by_level),
        "times_faster": one_by_one.seconds / by_level.seconds,
    }
    if chosen.json:
        print(json.dumps(table, indent=2))
        return
    print(f"{model.name}, {size[0]}x{size[1]}, {steps} steps, {frames} frames, {torch.get_num_threads()} threads")
    print(f"{'':22}{'calls':>8}{'rows':>8}{'seconds':>10}{'outside the network':>22}")
    print(f"{'every frame alone':22}{frames * steps:8d}{'':>8}{'(not run)':>10}")
    for name, result in (("branch by branch", one_by_one), ("by levels", by_level)):
        print(f"{name:22}{result.calls:8d}{result.rows:8d}{result.seconds:10.2f}{result.outside:22.1%}")
    print(f"by levels is {one_by_one.seconds / by_level.seconds:.2f} times as fast")


if __name__ == "__main__":
    main()
