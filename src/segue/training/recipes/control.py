"""Train a control adapter: one small network that makes a frozen text-to-image model follow control pictures.

As for a ControlNet (Zhang et al. 2023, arXiv:2302.05543), the model stays as it is and the loss is its own: the adapter
learns what to add so that the model is less wrong about a picture of which it sees the control picture. What a picture
shows is decided where there is much noise, so that more such levels are drawn than the model learned from. All kinds
of control pictures share a network, and a step has rows of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from torch import Tensor

from segue.errors import TrainingError
from segue.models.bundle import LatentDiffusion
from segue.models.control_adapter import KINDS, ControlAdapter, Layout, save_adapter
from segue.models.families.sd import UNetNetwork
from segue.training.bounds import Amount, Count, Memory, Natural, Rate, Share
from segue.training.checkpoint import Run
from segue.training.conditions import Conditions, Lesson, stacked
from segue.training.data import Corpus, step_generator, step_rng
from segue.training.ema import Ema
from segue.training.frozen import read_frozen
from segue.training.journal import save_sheet
from segue.training.losses import TrainedPrediction, prediction_error
from segue.training.posed import Posed
from segue.training.precision import float_norms
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.sampling import decoded, noisy_levels, sample
from segue.training.sitting import Sitting, settled
from segue.types import Call, Conditioning, Point

HINT, KIND = "hint", "kind"
VALIDATED = 48
SHARES = {
    "softedge": 3.0,
    "lineart": 1.0,
    "canny": 1.0,
    "tile": 2.0,
    "palette": 1.0,
    "shuffle": 0.5,
    "depth": 1.5,
    "pose": 1.5,
}
Shares = Annotated[dict[str, Rate], Field(min_length=1)]


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; control.toml holds those of the shipped adapter."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str = "emoji"  # an embedded model, or a folder
    corpus: Path = Path("runs/corpus")
    out: Path = Path("runs/control")
    kinds: Shares = field(default_factory=lambda: dict(SHARES))  # how often each is drawn
    widths: tuple[Count, ...] = (64, 88, 96)  # at full size of the latents, and after each halving
    blocks: tuple[Natural, ...] = (3, 1, 1)
    figures: Natural = 800  # people who show poses; a figure takes 0.2 s to draw, once
    scenes: Share = 0.35  # of pictures that are put together of several things
    drop_captions: Share = 0.25
    cluttered: Share = 0.35  # of edges of single things, that there are other edges which the picture does not have
    roughened: Share = 0.4  # of control pictures that are not as clean as they could be
    noise_power: Rate = 0.45  # levels are drawn as u ** power; below 1, there are more noisy ones
    steps: Count = 12000
    batch: Count = 16
    lr: Rate = 1e-3
    warmup: Natural = 100
    decay: Natural = 3000
    weight_decay: Amount = 0.01
    ema: Memory = 0.999
    validation_every: Annotated[int, Field(ge=2)] = 40  # every how many pictures of the corpus one is kept back
    sheet_pictures: Count = 4  # of each kind
    sheet_steps: Count = 10
    seed: Natural = 21
    device: str = "cpu"
    bf16: bool | None = None  # None: where it is fast
    log_every: Count = 50
    save_every: Count = 250
    sheet_every: Count = 750


@dataclass(frozen=True)
class Steered:
    """A Network: a UNet, and an adapter that tells it of `residual_inputs`, one kind for each row."""

    unet: Any
    adapter: ControlAdapter

    def __call__(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning, call: Call
    ) -> Float[Tensor, "b c h w"]:
        time = time.float()
        down, middle = self.adapter(x, time, cond.residual_inputs[KIND], cond.residual_inputs[HINT])
        told: dict[str, Any] = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return self.unet(x, time, encoder_hidden_states=cond.text, return_dict=False, **told)[0]


def main(config: Config) -> Path:
    """Train, or go on training, and return the file of the adapter (the averaged weights, 8 bits)."""
    ranks = Ranks.start(config.device)
    config = settled(config)
    share = ranks.share(config.batch)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    model = read_model(config, ranks)
    adapter = build(config, model)
    with ranks.main_first():
        training, validation = conditions(config, model)
    optimizer = torch.optim.AdamW(
        adapter.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    run = Run(adapter, optimizer, Ema(adapter, config.ema))
    steered = with_adapter(model, adapter)
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))

    with Sitting(config, run, ranks) as sitting:
        for step in sitting.steps:
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            lesson = training.draw(step_rng(config.seed, step), config.batch)
            at, eps = noisy_levels(model, config.batch, config.noise_power, step_generator(config.seed, step))
            with precision:
                loss = step_loss(steered, lesson, at, eps, share)
            loss.backward()
            sitting.learn(step, loss=loss)
            if sitting.due(step, config.sheet_every):
                sitting.log.note(step + 1, **validate(run, model, validation, config, step + 1))
            sitting.close(step)
    return export(run, model, config) if ranks.main else config.out / "adapter.safetensors"


def read_model(config: Config, ranks: Ranks) -> LatentDiffusion:
    """The frozen model, ready for the precision of the run.

    Raises:
        TrainingError: it is of another family, or predicts what this recipe has no loss for.
    """
    model = read_frozen(config.model, ranks.device, bool(config.bf16), (UNetNetwork,))
    if model.denoiser.prediction not in ("v_prediction", "flow_prediction"):
        raise TrainingError(f"model={config.model} predicts {model.denoiser.prediction}; expected v or the flow")
    return model.batched(2 * config.batch)


def conditions(config: Config, model: LatentDiffusion) -> tuple[Conditions, Conditions]:
    """What is learned from, and what was kept back: without scenes, and clean.

    Raises:
        TrainingError: the corpus has pictures of another size than the model's, or fewer than are kept back.
    """
    corpus = Corpus.load(config.corpus)
    height, width = corpus.pictures.shape[1:3]
    if (width, height) != model.defaults.size:
        own = "x".join(map(str, model.defaults.size))
        raise TrainingError(f"{config.corpus} has pictures of {width}x{height}, and {config.model} draws {own}")
    if config.validation_every > len(corpus):
        raise TrainingError(f"validation_every must be at most {len(corpus)}, the size of the corpus; got more")
    learned, kept = corpus.split(config.validation_every)
    figures, unseen = None, None
    if "pose" in config.kinds and config.figures:
        figures = Posed.prepared(config.out / "figures.safetensors", config.figures, (width, height), config.seed)
        figures, unseen = figures.split(config.validation_every)
    return (
        Conditions(
            learned, config.kinds, config.scenes, config.drop_captions, config.cluttered, config.roughened, figures
        ),
        Conditions(kept, config.kinds, 0.0, 0.0, 0.0, 0.0, unseen),
    )


def build(config: Config, model: LatentDiffusion) -> ControlAdapter:
    """The untrained adapter.

    Raises:
        ModelError: the widths do not fit the UNet.
    """
    layout = Layout.of(model.parts["unet"], model.codec.scale, widths=config.widths, blocks=config.blocks)
    adapter = ControlAdapter(layout)
    if config.bf16 and config.device == "cpu":
        float_norms(adapter)
    adapter.to(torch.device(config.device))
    return cast(Any, adapter).to(memory_format=torch.channels_last)


def with_adapter(model: LatentDiffusion, adapter: ControlAdapter) -> LatentDiffusion:
    """The model, which now asks the adapter, too; its conditionings need hints."""
    return replace(model, denoiser=replace(model.denoiser, network=Steered(model.parts["unet"], adapter)))


def step_loss(
    model: LatentDiffusion, lesson: Lesson, at: Point, eps: Float[Tensor, "b c h w"], share: slice
) -> Float[Tensor, ""]:
    """How wrong the model is about this process's share of pictures whose control pictures it is shown."""
    rows = range(len(eps))[share]
    with torch.no_grad():
        x0 = model.codec.encode(lesson.pictures[share].to(model.device)).float()
        # The encoder remembers what it read: in what precision must not depend on who asked first.
        with torch.autocast(model.device.type, enabled=False):
            text = model.text([lesson.captions[row] for row in rows])
    told = {HINT: lesson.hints[share].to(model.device), KIND: lesson.kinds[share].to(model.device)}
    at = at[rows]
    x = at.noised(x0, eps[share].to(model.device))
    estimate = model.denoiser(x, at, replace(text, residual_inputs=told))
    return prediction_error(at, x, estimate, x0, cast(TrainedPrediction, model.denoiser.prediction))


@torch.no_grad()
def validate(run: Run, model: LatentDiffusion, kept: Conditions, config: Config, step: int) -> dict[str, float]:
    """Of each kind, the loss on pictures that were kept back, as a share of that without the adapter; and a sheet."""
    adapter, silent = averaged(run, model, config), build(config, model)
    with_, without = with_adapter(model, adapter), with_adapter(model, silent)
    rng, found = np.random.default_rng(config.seed), dict[str, float]()
    at, eps = noisy_levels(model, VALIDATED, config.noise_power, step_generator(config.seed, 0))
    for kind in config.kinds:
        lesson = stacked([kept.row(kind, rng) for _ in range(VALIDATED)])
        losses = [float(step_loss(one, lesson, at, eps, slice(None))) for one in (with_, without)]
        found[kind] = losses[0] / losses[1]
    lesson = stacked([kept.row(kind, rng) for kind in config.kinds for _ in range(config.sheet_pictures)])
    save_sheet(config.out / f"sheet-{step:06d}.png", sheet((with_, without), lesson, config), len(lesson.captions))
    return found


def sheet(models: Sequence[LatentDiffusion], lesson: Lesson, config: Config) -> Float[Tensor, "n 3 h w"]:
    """A row of pictures, one of their control pictures, and what each model draws of their captions with these."""
    told = {HINT: lesson.hints.to(models[0].device), KIND: lesson.kinds.to(models[0].device)}
    how: Any = {"steps": config.sheet_steps, "residual_inputs": told}
    drawn = [sample(one, lesson.captions, list(range(len(lesson.captions))), **how) for one in models]
    return torch.cat([lesson.pictures, lesson.hints, *(decoded(models[0], latents).cpu() for latents in drawn)])


def averaged(run: Run, model: LatentDiffusion, config: Config) -> ControlAdapter:
    """The adapter with the averaged weights."""
    adapter = build(config, model).eval()
    run.ema.copy_to(adapter)
    return adapter


def export(run: Run, model: LatentDiffusion, config: Config) -> Path:
    """Write the averaged adapter into the run's folder."""
    path = config.out / "adapter.safetensors"
    save_adapter(path, averaged(run, model, config), [kind for kind in KINDS if config.kinds.get(kind)])
    return path
