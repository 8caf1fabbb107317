"""Teach a model that moves a way of moving, by a few clips of it: a LoRA on its attention along time.

Blattmann et al. 2023 (arXiv:2311.15127, section 4.4) teach movements of the camera so. Only layers of attention along
time have low-rank updates (Hu et al. 2021, arXiv:2106.09685): what things look like stays as it is, and the file is
small. It is read by `--lora`, where the model has its layers along time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field
from torch import nn

from segue.errors import TrainingError
from segue.models.bundle import LatentDiffusion
from segue.models.families.sd import UNetNetwork
from segue.models.families.sdxl import XlNetwork
from segue.models.lora import applied
from segue.models.temporal_layers import TemporalAttention
from segue.models.time_files import with_time_file
from segue.models.time_inserted import PART, TimeNetwork, time_layers
from segue.training.bounds import Amount, Count, Memory, Natural, Prompts, Rate, Share
from segue.training.checkpoint import Run
from segue.training.clip_footage import FootageConfig, build_footage
from segue.training.clip_lessons import Lessons, lessons
from segue.training.ema import Ema
from segue.training.frozen import read_frozen
from segue.training.journal import save_sheet
from segue.training.lowrank import add_low_rank, save_lora
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.recipes import videoldm
from segue.training.sampling import sample_clips
from segue.training.sitting import Sitting, settled
from segue.zoo import load

FILE = "motion.safetensors"


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; motion.toml holds those that suit the embedded model."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str = "emoji"  # an embedded model, a folder, or a hub repository: Stable Diffusion 1.x, 2.x or XL
    layers: Path | None = None  # a file of layers along time; None: the model comes with them
    clips: Path = Path("runs/clips")  # what segue train clips made; or a folder of captioned footage, 5 to 50 clips
    out: Path = Path("runs/motion")
    rank: Count = 8
    frames: Annotated[int, Field(ge=2)] = 8
    strides: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2)  # every how many frames of a clip are taken
    backwards: Share = 0.0  # of clips that may be, are played backwards
    given: videoldm.Shares = field(default_factory=lambda: dict(videoldm.GIVEN_SHARES))  # how often frames are known
    dropped: Share = 0.1  # of clips that are told no caption
    noise_power: Rate = 0.6  # levels are drawn as u ** power; below 1, there are more noisy ones
    steps: Count = 300
    batch: Count = 2  # clips
    lr: Rate = 1e-3
    warmup: Natural = 20
    decay: Natural = 100
    weight_decay: Amount = 0.0
    ema: Memory = 0.98
    validation_every: Annotated[int, Field(ge=2)] = 5  # every how many clips one is kept back
    sheet_prompts: Prompts = ("a red ball", "a blue car", "a yellow star")
    sheet_steps: Count = 12
    seed: Natural = 67
    device: str = "cpu"
    bf16: bool | None = None  # None: where it is fast
    log_every: Count = 20
    save_every: Count = 100
    sheet_every: Count = 150

    @property
    def corpus(self) -> Path:
        """Where what is learned lies."""
        return self.clips


def main(config: Config) -> Path:
    """Train, or go on training, and return the LoRA file (fp16, the averaged weights)."""
    ranks = Ranks.start(config.device)
    config = settled(config)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    plain, learner = pair(config, ranks)
    updates = taught(learner, config.rank)
    told = teaching(config, plain)
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))
    with ranks.main_first():
        training, validation = lessons(told.clips, told.validation_every, plain, told.out, precision)
    optimizer = torch.optim.AdamW(
        updates.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    run = Run(updates, optimizer, Ema(updates, config.ema))
    learner = learner.over(config.frames).batched(config.frames * config.batch)
    unet: Any = learner.parts["unet"]

    with Sitting(config, run, ranks) as sitting:
        for step in sitting.steps:
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            with precision:
                loss = videoldm.step_loss(learner, training, told, step, ranks.share(config.batch))
            loss.backward()
            sitting.learn(step, loss=loss)
            if sitting.due(step, config.sheet_every):
                file = export(unet, run, config)
                sitting.log.note(step + 1, **validate(plain, file, validation, config, told, step + 1))
            sitting.close(step)
    return export(unet, run, config) if ranks.main else config.out / FILE


def pair(config: Config, ranks: Ranks) -> tuple[LatentDiffusion, LatentDiffusion]:
    """The model as it is, and the same with layers along time of its own, which may be changed.

    Raises:
        TrainingError: it has no layers along time that Segue trained.
    """
    if config.layers is not None:
        image = read_frozen(config.model, ranks.device, bool(config.bf16), (UNetNetwork, XlNetwork))
        return with_time_file(image, config.layers), with_time_file(image, config.layers)
    found = [load(config.model, ranks.device, "float32") for _ in range(2)]
    if not isinstance(found[0].denoiser.network, TimeNetwork):
        raise TrainingError(
            f"model={config.model} has no layers along time to teach: give their file, layers=FILE, as segue train "
            "videoldm writes it"
        )
    for model in found:
        unet: Any = model.parts["unet"]
        unet.requires_grad_(False)
    return found[0], found[1]


def taught(learner: LatentDiffusion, rank: int) -> nn.ModuleDict:
    """The updates of the learner's attention along time, all that learns.

    Raises:
        TrainingError: it has none.
    """
    layers = time_layers(learner).requires_grad_(False)
    found = {key: layer for key, layer in layers.layers.items() if isinstance(layer, TemporalAttention)}
    if not found:
        raise TrainingError(f"{learner.name} has layers along time, but none of attention, which this recipe teaches")
    return add_low_rank(nn.ModuleDict(found), rank)


def teaching(config: Config, model: LatentDiffusion) -> videoldm.Config:
    """How clips are shown: as they were when the layers were trained.

    Footage is cut into clips first, in the run's folder.
    """
    settings, clips = time_layers(model).settings, config.clips
    if not (clips / "sources.json").exists() and clips.exists():
        width, height = model.defaults.size
        if width != height:
            raise TrainingError(
                f"{config.model} draws {width}x{height}: make square clips first, with segue train clips"
            )
        length = (config.frames - 1) * max(config.strides) + 1
        clips = config.out / "clips"
        if not (clips / "sources.json").exists():
            build_footage(clips, config.clips, FootageConfig(size=width, frames=length, fps=settings.fps))
    shared = {one.name for one in fields(videoldm.Config)} & {one.name for one in fields(Config)} - {"clips"}
    same: dict[str, Any] = {name: getattr(config, name) for name in shared}
    return videoldm.Config(**same, clips=clips, context=settings.context, shared_noise=settings.shared_noise)


def validate(
    plain: LatentDiffusion, file: Path, kept: Lessons, config: Config, told: videoldm.Config, step: int
) -> dict[str, float]:
    """The loss on clips that were kept back, with and without the update; and a sheet of clips drawn both ways."""
    model = plain.over(config.frames).batched(config.frames * config.batch)
    precision = torch.autocast(model.device.type, torch.bfloat16, enabled=bool(config.bf16))
    seeds, found, drawn = list(range(len(config.sheet_prompts))), dict[str, float](), list[torch.Tensor]()
    with torch.no_grad(), precision:
        for name, scale in (("untaught", 0.0), ("validation", 1.0)):
            with applied(model, {file: scale}) as one:
                losses = [
                    videoldm.step_loss(one, kept, told, number, slice(None), seed=1)
                    for number in range(videoldm.VALIDATED)
                ]
                found[name] = float(torch.stack(losses).mean())
                drawn.append(
                    sample_clips(one, config.sheet_prompts, seeds, told.shared_noise, steps=config.sheet_steps)
                )
    save_sheet(config.out / f"sheet-{step:06d}.png", torch.stack(drawn, 1).flatten(0, 2), columns=config.frames)
    return found


def export(unet: nn.Module, run: Run, config: Config) -> Path:
    """Write the averaged update, and return its file."""
    weights = {f"{PART}/layers/{name}": value for name, value in run.ema.state().items()}
    save_lora(config.out / FILE, unet, "unet", weights)
    return config.out / FILE
