"""Teach a model that draws from words to change a picture as it is told: a LoRA that also looks at the picture.

InstructPix2Pix (Brooks, Holynski & Efros 2023, arXiv:2211.09800, section 3.2): the latents of the picture are appended
to the noisy ones, the weights of these new channels are 0 at first, and a share of the rows is told nothing, shown
nothing, or neither, so that both can be guided. There the whole network learns; here the model stays as it is, and
low-rank updates (Hu et al. 2021, arXiv:2106.09685) learn, of full rank in the first layer. What comes out is a file of
the PEFT layout, which makes an instruction model of the one that it was trained on wherever `--lora` is read.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from torch import Tensor

from segue.errors import TrainingError
from segue.models.bundle import LatentDiffusion
from segue.models.families.sd import UNetNetwork
from segue.models.families.sdxl import XlNetwork
from segue.models.instruction import widened
from segue.models.lora import applied
from segue.training.bounds import Amount, Count, Memory, Natural, Rate, Share
from segue.training.checkpoint import Run
from segue.training.data import step_generator, step_rng
from segue.training.ema import Ema
from segue.training.frozen import read_frozen
from segue.training.instruct_data import EditPairs, Told
from segue.training.journal import save_sheet
from segue.training.latents import latents_of
from segue.training.losses import TrainedPrediction, prediction_error
from segue.training.lowrank import add_low_rank, save_lora
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.sampling import changed, noisy_levels
from segue.training.sitting import Sitting, settled
from segue.types import Point

FILE = "instruct.safetensors"
FIRST = "conv_in"


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; instruct.toml holds those of the shipped adapter."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str = "emoji"  # an embedded model, a folder, or a hub repository: Stable Diffusion 1.x, 2.x or XL
    pairs: Path = Path("runs/pairs")
    out: Path = Path("runs/instruct")
    rank: Count = 16
    first_rank: Count = 72  # of the first layer, which the picture comes in by
    dropped: Annotated[float, Field(ge=0, le=0.3)] = 0.05  # told nothing; shown nothing; neither: so many rows of each
    captioned: Share = (
        0.25  # rows that are told a caption of what is wanted, which the model understands from the start
    )
    noise_power: Rate = 0.5  # levels are drawn as u ** power; below 1, there are more noisy ones
    steps: Count = 6000
    batch: Count = 16
    lr: Rate = 1.5e-3
    warmup: Natural = 50
    decay: Natural = 2000
    weight_decay: Amount = 0.0
    ema: Memory = 0.997
    validation_every: Annotated[int, Field(ge=2)] = 40  # every how many pictures that are changed one is kept back
    sheet_pictures: Count = 16
    sheet_steps: Count = 12
    sheet_scale: Amount = 3.0
    sheet_picture_scale: Amount = 1.2
    seed: Natural = 51
    device: str = "cpu"
    bf16: bool | None = None  # None: where it is fast
    log_every: Count = 50
    save_every: Count = 250
    sheet_every: Count = 750

    @property
    def corpus(self) -> Path:
        """Where what is learned lies."""
        return self.pairs


@dataclass(frozen=True)
class Lessons:
    """Pairs with the latents of their pictures, and these as the model is shown them."""

    pairs: EditPairs
    latents: Float[Tensor, "n c h w"]
    seen: Float[Tensor, "n c h w"]


def main(config: Config) -> Path:
    """Train, or go on training, and return the LoRA file (fp16, the averaged weights)."""
    ranks = Ranks.start(config.device)
    config = settled(config)
    share = ranks.share(config.batch)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    model = read_model(config, ranks)
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))
    with ranks.main_first():
        training, validation = lessons(config, model, precision)
    learner, updates = learning(config, model)
    optimizer = torch.optim.AdamW(
        updates.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    run = Run(updates, optimizer, Ema(updates, config.ema))
    network = learner.parts["unet"]
    file = config.out / FILE

    with Sitting(config, run, ranks) as sitting:
        for step in sitting.steps:
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            told = training.pairs.draw(step_rng(config.seed, step), config.batch, config.dropped, config.captioned)
            at, eps = noisy_levels(learner, config.batch, config.noise_power, step_generator(config.seed, step))
            with precision:
                loss = step_loss(learner, training, told, at, eps, share)
            loss.backward()
            sitting.learn(step, loss=loss)
            if sitting.due(step, config.sheet_every):
                save_lora(file, network, "unet", run.ema.state())
                sitting.log.note(step + 1, **compare(model, file, validation, config, step + 1))
            sitting.close(step)
    if ranks.main:
        save_lora(file, network, "unet", run.ema.state())
    return file


def read_model(config: Config, ranks: Ranks) -> LatentDiffusion:
    """The frozen model, ready for the precision of the run.

    Raises:
        TrainingError: it has no UNet of Stable Diffusion, or predicts what there is no loss for.
    """
    model = read_frozen(config.model, ranks.device, bool(config.bf16), (UNetNetwork, XlNetwork))
    return model.batched(4 * config.batch)


def learning(config: Config, model: LatentDiffusion) -> tuple[LatentDiffusion, torch.nn.ModuleDict]:
    """The model with room for a picture and updates that learn, and these alone; `model` itself stays as it is."""
    own: Any = copy.deepcopy(model.parts["unet"])
    network = replace(cast(Any, model.denoiser.network), unet=own)
    learner = widened(
        replace(model, denoiser=replace(model.denoiser, network=network), parts={**model.parts, "unet": own})
    )
    return learner, add_low_rank(learner.parts["unet"], config.rank, {FIRST: config.first_rank})


def lessons(config: Config, model: LatentDiffusion, precision: torch.autocast) -> tuple[Lessons, Lessons]:
    """What is learned from, and what was kept back.

    Raises:
        TrainingError: the pairs have pictures of another size than the model's, or fewer than are kept back.
    """
    pairs = EditPairs.load(config.pairs)
    height, width = pairs.pictures.shape[1:3]
    if (width, height) != model.defaults.size:
        own = "x".join(map(str, model.defaults.size))
        raise TrainingError(f"{config.pairs} has pictures of {width}x{height}, and {config.model} draws {own}")
    learned, kept = pairs.split(config.validation_every)
    if not len(kept) or not len(learned):
        raise TrainingError(
            f"{config.pairs} has too few pictures that are changed to keep back every {config.validation_every}th; "
            "make more, or set validation_every"
        )
    made_of = (config.pairs / "sources.json").read_bytes() + model.fingerprint.encode()
    key = hashlib.sha256(made_of).hexdigest()
    latents = latents_of(pairs.pictures.numpy(), model.codec, config.out / "latents.safetensors", key, precision)
    seen = cast(Any, model.codec).unscaled(latents.float())
    return Lessons(learned, latents, seen), Lessons(kept, latents, seen)


def step_loss(
    learner: LatentDiffusion, lessons: Lessons, told: Told, at: Point, eps: Float[Tensor, "b c h w"], share: slice
) -> Float[Tensor, ""]:
    """How wrong the learner is about this process's share of a batch."""
    rows = range(len(eps))[share]
    x0 = lessons.latents[told.after[share]].float().to(learner.device)
    before = lessons.seen[told.before[share]] * told.seen[share][:, None, None, None]
    with torch.no_grad(), torch.autocast(learner.device.type, enabled=False):
        text = learner.text([told.instructions[row] for row in rows])
    at = at[rows]
    x = at.noised(x0, eps[share].to(learner.device))
    estimate = learner.denoiser(x, at, replace(text, concat=before.to(learner.device)))
    return prediction_error(at, x, estimate, x0, cast(TrainedPrediction, learner.denoiser.prediction))


def compare(model: LatentDiffusion, lora: Path, kept: Lessons, config: Config, step: int) -> dict[str, float]:
    """A sheet of pairs that were kept back: before, what the model makes of it, and after; and how near that came.

    Each kind's number is the distance of what was made from what was wanted, as a share of that of the picture itself
    (root mean squares of pixels): 1 is as good as leaving it alone.
    """
    rng, found, rows = np.random.default_rng(config.seed), dict[str, float](), list[int]()
    kinds = sorted(set(kept.pairs.kinds))
    each = -(-config.sheet_pictures // len(kinds))
    for kind in kinds:
        there = [row for row, name in enumerate(kept.pairs.kinds) if name == kind]
        rows += rng.choice(there, min(each, len(there)), replace=False).tolist()
    pairs = kept.pairs.take(rows)
    said = [str(rng.choice(words)) for words in pairs.instructions]
    before, after = (pairs.floats(which) for which in (pairs.before, pairs.after))
    with applied(model, {lora: 1.0}) as taught:
        made = changed(
            taught, before, said, list(range(len(said))),
            steps=config.sheet_steps, scale=config.sheet_scale, picture_scale=config.sheet_picture_scale,
        )  # fmt: skip
    for kind in kinds:
        of = [row for row, name in enumerate(pairs.kinds) if name == kind]
        apart = [(one[of] - after[of]).square().mean().sqrt() for one in (made, before)]
        found[kind] = float(apart[0] / apart[1].clamp_min(1e-6))
    save_sheet(config.out / f"sheet-{step:06d}.png", torch.cat([before, made, after]), columns=len(rows))
    (config.out / f"sheet-{step:06d}.txt").write_text("\n".join(said) + "\n", "utf-8")
    return found
