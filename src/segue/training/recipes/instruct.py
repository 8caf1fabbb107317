"""Teach a model that draws from words to change a picture as it is told: a small network that is shown the picture.

InstructPix2Pix (Brooks, Holynski & Efros 2023, arXiv:2211.09800) teaches the whole network. Here the model stays as it
is, and an adapter beside it learns (`segue.models.instruct_adapter`): in its first steps alone, to guess the latents of
what is wanted, by their distance, which needs no UNet; then what to add to the UNet so that it is less wrong about that
picture while it is noisy. A row that is told nothing stands for all that may be said; one that is shown nothing has the
model as it was, and need not be learned.
"""

from __future__ import annotations

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
from segue.models.control import Residuals
from segue.models.families.sd import UNetNetwork
from segue.models.families.sdxl import XlNetwork
from segue.models.instruct_adapter import WORDS, InstructAdapter, InstructLayout, InstructText, rest_of
from segue.models.instruct_files import save_instruct, with_instruct
from segue.training.bounds import Amount, Count, Memory, Natural, Rate, Share
from segue.training.checkpoint import Run
from segue.training.data import step_generator, step_rng
from segue.training.ema import Ema
from segue.training.frozen import read_frozen
from segue.training.instruct_data import EditPairs, Told
from segue.training.journal import save_sheet
from segue.training.latents import latents_of
from segue.training.losses import TrainedPrediction, guess_distance, prediction_error
from segue.training.precision import float_norms
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.sampling import changed, decoded, noisy_levels
from segue.training.sitting import Sitting, settled
from segue.types import Conditioning

FILE = "instruct.safetensors"


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; instruct.toml holds those of the shipped adapter."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str = "emoji"  # an embedded model, a folder, or a hub repository: Stable Diffusion 1.x, 2.x or XL
    pairs: Path = Path("runs/pairs")
    out: Path = Path("runs/instruct")
    width: Count = 64  # channels in which the picture is changed
    widths: tuple[Count, ...] = (64, 96, 128)  # of what is added to the UNet, at full size and after each halving
    blocks: tuple[Count, ...] = (2, 1, 1)
    dropped: Share = 0.05  # rows that are told nothing
    captioned: Share = 0.1  # rows that are told a caption of what is wanted, and not what to do
    first_steps: Natural = 3000  # in which the adapter learns alone, without the UNet
    first_batch: Count = 32
    guess: Amount = 0.25  # how much the guess counts afterwards
    noise_power: Rate = 0.5  # levels are drawn as u ** power; below 1, there are more noisy ones
    steps: Count = 6000
    batch: Count = 8
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
    """Train, or go on training, and return the file of the adapter (8 bits, the averaged weights)."""
    ranks = Ranks.start(config.device)
    config = settled(config)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    model = read_model(config, ranks)
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))
    with ranks.main_first():
        training, validation = lessons(config, model, precision)
    adapter = build(config, model)
    optimizer = torch.optim.AdamW(
        adapter.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    run = Run(adapter, optimizer, Ema(adapter, config.ema))

    with Sitting(config, run, ranks) as sitting:
        for step in sitting.steps:
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            batch = config.first_batch if step < config.first_steps else config.batch
            told = training.pairs.draw(step_rng(config.seed, step), batch, config.dropped, config.captioned)
            with precision:
                measured = step_losses(model, adapter, training, told, config, step, ranks.share(batch))
            alone = step < config.first_steps
            total = measured["loss"] if alone else measured["loss"] + config.guess * measured["guess"]
            total.backward()
            sitting.learn(step, **measured)
            if sitting.due(step, config.sheet_every):
                found = compare(model, averaged(run, model, config), validation, config, step + 1)
                sitting.log.note(step + 1, **found)
            sitting.close(step)
    if ranks.main:
        save_instruct(config.out / FILE, averaged(run, model, config), model)
    return config.out / FILE


def read_model(config: Config, ranks: Ranks) -> LatentDiffusion:
    """The frozen model, ready for the precision of the run.

    Raises:
        TrainingError: it has no UNet of Stable Diffusion, or predicts what there is no loss for.
    """
    model = read_frozen(config.model, ranks.device, bool(config.bf16), (UNetNetwork, XlNetwork))
    return model.batched(4 * config.batch)


def build(config: Config, model: LatentDiffusion) -> InstructAdapter:
    """The untrained adapter.

    Raises:
        ModelError: the widths do not fit the UNet.
    """
    shape = {"width": config.width, "widths": config.widths, "blocks": config.blocks}
    adapter = InstructAdapter(InstructLayout.of(model.parts["unet"], **shape))
    if config.bf16 and config.device == "cpu":
        float_norms(adapter)
    return adapter.to(model.device)


def averaged(run: Run, model: LatentDiffusion, config: Config) -> InstructAdapter:
    """The adapter with the averaged weights."""
    adapter = build(config, model).eval().requires_grad_(False)
    run.ema.copy_to(adapter)
    return adapter


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


def step_losses(
    model: LatentDiffusion, adapter: InstructAdapter, lessons: Lessons, told: Told, config: Config, step: int,
    share: slice,
) -> dict[str, Tensor]:  # fmt: skip
    """How wrong the guess, and after the first steps the model, is about this process's share of a batch."""
    x0 = lessons.latents[told.after[share]].float().to(model.device)
    before = lessons.seen[told.before[share]].to(model.device)
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        text = InstructText(model.text)(told.instructions[share])
    if step < config.first_steps:
        guess = adapter.changed(before, adapter.words(text.extra[WORDS].float())).guess
        return {"loss": guess_distance(guess, x0)}
    at, eps = noisy_levels(model, len(told.before), config.noise_power, step_generator(config.seed, step))
    at, eps = at[range(len(told.before))[share]], eps[share].to(model.device)
    x = at.noised(x0, eps)
    heard: list[Tensor] = []
    network = replace(cast(Any, model.denoiser.network), instruct=Overheard(adapter, heard))
    taught = replace(model.denoiser, network=network)
    estimate = taught(x, at, replace(text, concat=before))
    loss = prediction_error(at, x, estimate, x0, cast(TrainedPrediction, model.denoiser.prediction))
    return {"loss": loss, "guess": guess_distance(torch.cat(heard), x0)}


@dataclass(frozen=True)
class Overheard:
    """An adapter beside a UNet, whose guesses are kept."""

    adapter: InstructAdapter
    guesses: list[Tensor]

    def beside(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning
    ) -> tuple[Residuals, Conditioning]:
        residuals, guess = self.adapter.told(x, time, cond)
        self.guesses.append(guess)
        return residuals, rest_of(cond)


@torch.no_grad()
def compare(
    model: LatentDiffusion, adapter: InstructAdapter, kept: Lessons, config: Config, step: int
) -> dict[str, float]:
    """A sheet of pairs that were kept back: before, the guess, what the model makes of it, and after.

    Each kind's number is the distance of what was made from what was wanted, as a share of that of the picture itself
    (root mean squares of pixels): 1 is as good as leaving it alone. In the first steps only guesses are made.
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
    text = model.text(said).text.float()
    guess = adapter.changed(kept.seen[pairs.before].to(model.device), adapter.words(text)).guess
    shown = {"guess": decoded(model, guess).cpu()}
    if step > config.first_steps:
        shown["made"] = changed(
            with_instruct(model, adapter), before, said, list(range(len(said))),
            steps=config.sheet_steps, scale=config.sheet_scale, picture_scale=config.sheet_picture_scale,
        )  # fmt: skip
    for name, pictures in shown.items():
        for kind in kinds:
            of = [row for row, other in enumerate(pairs.kinds) if other == kind]
            apart = [(one[of] - after[of]).square().mean().sqrt() for one in (pictures, before)]
            found[kind if name == "made" else f"{name} {kind}"] = float(apart[0] / apart[1].clamp_min(1e-6))
    save_sheet(config.out / f"sheet-{step:06d}.png", torch.cat([before, *shown.values(), after]), columns=len(rows))
    (config.out / f"sheet-{step:06d}.txt").write_text("\n".join(said) + "\n", "utf-8")
    return found
