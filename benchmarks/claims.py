"""What the paper of Video LDM claims, tried small: layers along time of several kinds, on sprites of known motion.

    python benchmarks/claims.py runs/claims                        # all runs that are not there yet, then the table
    python benchmarks/claims.py runs/claims --only attention --seeds 0
    python benchmarks/claims.py runs/claims --table

Blattmann et al. 2023, "Align your Latents", arXiv:2304.08818, sections 3.1 and 4.1.1. Latents of 8x8 (the codec of
`emoji`, pictures of 64 pixels), clips of 8 frames. An image model learns on single frames first, one a seed; then
layers along time learn on clips, as in `segue train videoldm`, for equally many steps of equally many clips. A run is
a way and a seed, and writes one file; a run that is cut goes on where it was. Ways of one seed share the image model,
the order of clips, and the noise.

Measured on clips that nobody learned from: the loss; after drawing clips by their captions, without guidance, how far
from its caption each moves (pixels per frame), and the Fréchet distance to real clips that went through the codec. The
table has means over seeds with Student's 95 % interval, and the same of the differences, seed by seed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from claims_data import Data, Words
from claims_decoder import DECODED, decoder_run
from claims_table import table
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from sprites import FRAMES, SIDE, errors
from torch import Tensor

from segue.diffusion.loop import collect, denoise
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import from_clip_seed
from segue.evaluation.frechet_video import frechet_video_distance
from segue.media.clip import TensorFrames
from segue.models.bundle import Defaults, LatentDiffusion
from segue.models.denoiser import NetworkDenoiser
from segue.models.families.sd import UNetNetwork
from segue.models.perceptual import EfficientNetFeatures
from segue.models.time_inserted import FPS, Kind, TimeSettings, time_layers, with_time
from segue.training.checkpoint import Run, resume, save
from segue.training.clips import Taken
from segue.training.data import step_generator, step_rng
from segue.training.ema import Ema
from segue.training.journal import save_sheet
from segue.training.losses import prediction_error
from segue.training.rates import set_rate, trapezoid
from segue.training.recipes.videoldm import clip_loss
from segue.training.sampling import noisy_levels, shape_of
from segue.types import RowId, State
from segue.zoo import load

NOISIER = 0.6  # levels are drawn as u ** this
DRAWN = 96  # clips that are drawn, and as many real ones
SEEN_AT, FPS_ALL = 64, 8.0  # pixels of the features' pictures; frames per second of all clips
SAVED = 25  # steps after which a run that is cut goes on


@dataclass(frozen=True)
class Sizes:
    """How long runs are: image models learn on single frames, all others on clips."""

    image_steps: int = 1000
    steps: int = 400
    batch: int = 8  # clips, or as many frames as these have
    sampling_steps: int = 16
    drawn: int = DRAWN
    decoder_steps: int = 250
    scale: float = 1.0  # of the numbers of clips


@dataclass(frozen=True)
class Way:
    """How clips are learned.

    Args:
        blocks, transformers: the kinds of layers along time.
        learns: "time": the layers along time alone; "all": the image model, too; "scratch": all, from random weights.
        data: names of `Data`, of which each batch has equal shares.
    """

    blocks: Kind | None = "convolution"
    transformers: Kind | None = "attention"
    learns: str = "time"
    data: tuple[str, ...] = ("plenty",)


WAYS: Mapping[str, Way] = {
    "both": Way(),
    "attention": Way("attention", "attention"),
    "recurrence": Way("recurrence", "recurrence"),
    "all": Way(learns="all"),
    "scratch": Way(learns="scratch"),
    "few": Way(data=("few",)),
    "few and drawn": Way(data=("few", "drawn")),
    "drawn": Way(data=("drawn",)),
    "few, augmented": Way(data=("augmented",)),
}
LEARNING_RATES = {"time": 1e-3, "all": 3e-4, "scratch": 1e-3}


@cache
def emoji() -> LatentDiffusion:
    """Whose codec and schedule all models here have."""
    return load("emoji", "cpu", "float32")


def image_model(seed: int) -> LatentDiffusion:
    """A model of single pictures with random weights: a small UNet, the codec of `emoji`, and words of its own."""
    around = emoji()
    torch.manual_seed(seed)
    unet: Any = UNet2DConditionModel(
        sample_size=SIDE // around.codec.scale,
        in_channels=around.codec.channels,
        out_channels=around.codec.channels,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=Words.WIDTH,
        attention_head_dim=4,
    )
    unet.to(memory_format=torch.channels_last)
    network = NetworkDenoiser(UNetNetwork(unet), around.denoiser.prediction, max_batch=1024)
    defaults = Defaults((SIDE, SIDE), steps=16, guidance_scale=1.0, solver=around.defaults.solver)
    parts: dict[str, torch.nn.Module] = {"unet": unet}
    return LatentDiffusion(
        "sprites", Words(), network, around.codec, parts, around.scheduler, defaults, (), around.device, around.dtype
    )


def learn_image(data: Data, seed: int, sizes: Sizes, kept: Path) -> dict[str, Tensor]:
    """The weights of an image model that learned on single frames; from `kept`, if it did already."""
    model, clips, rows = image_model(seed), data.part("plenty"), sizes.batch * FRAMES

    def loss(step: int) -> Tensor:
        rng, generator = step_rng(seed, step), step_generator(seed, step)
        which, frames = rng.integers(len(clips.captions), size=rows), rng.integers(FRAMES, size=rows)
        x0 = clips.latents[which, frames].float()
        at, eps = noisy_levels(model, rows, NOISIER, generator)
        x = at.noised(x0, eps)
        estimate = model.denoiser(x, at, model.text([clips.captions[row] for row in which]))
        return prediction_error(at, x, estimate, x0, "flow_prediction")

    _learn(model, loss, 1e-3, sizes.image_steps, kept)
    return {name: value.detach().clone() for name, value in model.parts["unet"].state_dict().items()}


def learn_clips(
    data: Data, image: Mapping[str, Tensor], way: Way, seed: int, sizes: Sizes, kept: Path
) -> LatentDiffusion:
    """A model of clips; one that was cut while it learned goes on from `kept`."""
    model = image_model(seed + 1000)
    unet: Any = model.parts["unet"]
    if way.learns != "scratch":
        unet.load_state_dict(image)
    unet.requires_grad_(way.learns != "time")
    settings = TimeSettings(
        blocks=way.blocks, transformers=way.transformers, inner=32, heads=4, head_width=16, vector=64, context=0,
        frames=FRAMES, fps=FPS_ALL,
    )  # fmt: skip
    torch.manual_seed(seed)
    learner = with_time(model, settings).over(FRAMES)

    def loss(step: int) -> Tensor:
        return step_loss(learner, data, way.data, seed, step, sizes.batch)

    _learn(learner, loss, LEARNING_RATES[way.learns], sizes.steps, kept)
    return learner


def _learn(model: LatentDiffusion, loss: Callable[[int], Tensor], rate: float, steps: int, kept: Path) -> None:
    """Let the parameters of a UNet learn that have gradients."""
    unet: Any = model.parts["unet"]
    learning = [value for value in unet.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learning, rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    run = Run(unet, optimizer, Ema(unet, 0.99))
    begun, spent = resume(kept, run)
    started = time.perf_counter()
    for step in range(begun, steps):
        set_rate(optimizer, rate * trapezoid(step, steps, min(50, steps), max(1, steps // 3)))
        loss(step).backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % SAVED == 0 or step + 1 == steps:
            save(kept, run, step + 1, spent + time.perf_counter() - started, {})


def step_loss(
    learner: LatentDiffusion, data: Data, names: tuple[str, ...], seed: int, step: int, batch: int
) -> Float[Tensor, ""]:
    """How wrong the learner is about clips that a step draws, as many of each part of the data."""
    rng, generator = step_rng(seed, step), step_generator(seed, step)
    each = batch // len(names)
    latents, captions = list[Tensor](), list[str]()
    for name in names:
        part = data.part(name)
        rows = rng.integers(len(part.captions), size=each)
        latents.append(part.latents[rows].float().flatten(0, 1))
        captions += [part.captions[row] for row in rows]
    return _loss(learner, torch.cat(latents), captions, generator)


def _loss(learner: LatentDiffusion, x0: Tensor, captions: list[str], generator: torch.Generator) -> Float[Tensor, ""]:
    count = len(captions)
    at, _ = noisy_levels(learner, count, NOISIER, generator)
    eps = torch.randn((count * FRAMES, *shape_of(learner)), generator=generator)
    rows = [row for row in range(count) for _ in range(FRAMES)]
    taken = [Taken(0, torch.arange(FRAMES).numpy(), said, FPS_ALL, False, "") for said in captions]
    return clip_loss(learner, x0, at[rows], eps, taken, torch.zeros(count, FRAMES, dtype=torch.bool))


@torch.no_grad()
def judged(learner: LatentDiffusion, data: Data, sizes: Sizes, sheet: Path) -> dict[str, float]:
    """What is measured of a model of clips."""
    kept = data.part("kept")
    losses = list[float]()
    for first in range(0, len(kept.captions), 32):
        rows = slice(first, first + 32)
        x0 = kept.latents[rows].float().flatten(0, 1)
        losses.append(float(_loss(learner, x0, kept.captions[rows], step_generator(7, first))))
    latents = drawn(learner, kept.captions[: sizes.drawn], sizes.sampling_steps)
    made = torch.stack([learner.codec.decode(clip) for clip in latents])
    save_sheet(sheet, made[:10].flatten(0, 1), columns=FRAMES)
    motion = errors(made, kept.velocities[: sizes.drawn])
    distance = frechet_video_distance(_films(made), data.reference(sizes.drawn), features(), length=FRAMES)
    return {"loss": sum(losses) / len(losses), "motion": float(motion.mean()), "distance": distance.value}


def drawn(model: LatentDiffusion, captions: list[str], steps: int) -> Float[Tensor, "n t c h w"]:
    """The latents of one clip a caption, by its words alone; the same noise for the same number."""
    schedule = model.schedule(steps, (SIDE, SIDE))
    solver, found = find_solver(model.defaults.solver).solver, list[Tensor]()
    for first in range(0, len(captions), 32):
        said = captions[first : first + 32]
        shape, starts = shape_of(model), list[State]()
        for seed in range(first, first + len(said)):
            ids = [RowId(str(seed), frame) for frame in range(FRAMES)]
            starts.append(from_clip_seed(seed, ids, schedule, shape, model.device))
        told = model.text(said)[[row for row in range(len(said)) for _ in range(FRAMES)]]
        told = replace(told, extra={FPS: torch.full((len(told),), FPS_ALL)})
        states = denoise(model.denoiser, State.cat(starts), schedule, told, solver=solver)
        found.append(collect(states, schedule).unflatten(0, (-1, FRAMES)))
    return torch.cat(found)


def _films(clips: Tensor) -> list[TensorFrames]:
    return [TensorFrames.rounded(clip) for clip in clips]


@cache
def features() -> EfficientNetFeatures:
    """In which sets of clips are compared."""
    return EfficientNetFeatures.load(side=SEEN_AT)


def runs(out: Path, only: list[str] | None, seeds: list[int], sizes: Sizes, say: Callable[[str], None]) -> None:
    """Make what is not there yet: for each seed, the image model, and then every way."""
    data = Data(out, emoji().codec, sizes.scale)
    chosen = [name for name in (*WAYS, DECODED) if only is None or name in only]
    for seed in seeds:
        for name in chosen:
            file = out / f"{file_of(name, seed)}.json"
            if file.exists():
                continue
            began = time.perf_counter()
            found = one_run(out, data, name, seed, sizes)
            took = time.perf_counter() - began
            file.with_suffix(".part").write_text(json.dumps({**found, "seconds": round(took, 1)}, indent=1), "utf-8")
            file.with_suffix(".part").replace(file)
            say(f"{name}, seed {seed}: {took:.0f} s, {found}")


def file_of(name: str, seed: int) -> str:
    """What the files of a run are called."""
    return f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"


def one_run(out: Path, data: Data, name: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    """What is measured of a way; the image model of its seed is made if need be, which counts as no part of it."""
    if name == DECODED:
        return decoder_run(data, features(), seed, sizes.decoder_steps)
    way, weights = WAYS[name], {}
    if way.learns != "scratch":
        weights = learn_image(data, seed, sizes, out / f"image-{seed}.safetensors")
    learner = learn_clips(data, weights, way, seed, sizes, out / f"{file_of(name, seed)}.safetensors")
    count = sum(value.numel() for value in time_layers(learner).parameters())
    learner.parts["unet"].requires_grad_(False)
    return {"way": name, "weights": count, **judged(learner, data, sizes, out / f"{file_of(name, seed)}.png")}


def main() -> None:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a folder for what runs leave")
    parser.add_argument("--only", nargs="+", choices=[*WAYS, DECODED], help="ways to run; left out, all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="only print the table of what is there")
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that everything runs")
    chosen = parser.parse_args()
    sizes = Sizes(4, 3, 4, 2, 4, 3, 0.01) if chosen.tiny else Sizes()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if not chosen.table:
        runs(chosen.out, chosen.only, chosen.seeds, sizes, lambda text: print(text, flush=True))
    print(table(chosen.out))


if __name__ == "__main__":
    main()
