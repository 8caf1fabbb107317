"""Teach a model one subject by a few pictures of it: a LoRA that draws it where a phrase names it.

DreamBooth (Ruiz et al. 2023, arXiv:2208.12242) with low-rank updates (Hu et al. 2021, arXiv:2106.09685): the pictures
are learned under a phrase with a word that means nothing yet, and so that the model does not forget what else there is
of that class, it goes on learning pictures of it that it drew itself before ("prior preservation", their section 3.3).
The text encoder stays as it is. What comes out is a file of the PEFT layout, which `--lora` and diffusers read.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, UInt8
from pydantic import ConfigDict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from segue.errors import TrainingError
from segue.media.resize import fit_pictures
from segue.models.bundle import LatentDiffusion
from segue.models.families.sd import UNetNetwork
from segue.models.families.sdxl import XlNetwork
from segue.models.lora import applied
from segue.training.bounds import Amount, Count, Memory, Natural, Prompts, Rate, Share
from segue.training.checkpoint import Run
from segue.training.data import step_generator, step_rng
from segue.training.ema import Ema
from segue.training.frozen import read_frozen
from segue.training.journal import save_sheet
from segue.training.losses import TrainedPrediction, prediction_error
from segue.training.lowrank import add_low_rank, save_lora
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.sampling import decoded, noisy_levels, sample
from segue.training.sitting import Sitting, settled
from segue.types import Conditioning

FILE = "subject.safetensors"


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; subject.toml holds those that suit the embedded model."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str = "emoji"  # an embedded model, a folder, or a hub repository: Stable Diffusion 1.x, 2.x or XL
    pictures: Path = Path("subject")  # of the subject: a folder of pictures, or a video
    out: Path = Path("runs/subject")
    phrase: str = "a zwx figure"  # names it; the word should mean nothing yet
    class_phrase: str = "a robot"  # names what it is one of; empty: nothing of the class is preserved
    frames: Count = 32  # the most pictures of it, evenly spread over a video or folder
    prior_pictures: Count = 48  # of the class, drawn by the model itself, one for each seed from 0 on
    prior_weight: Amount = 1.0
    zoomed: Share = 0.15  # how much of a picture may be cut off at its borders
    rank: Count = 8
    noise_power: Rate = 0.7  # levels are drawn as u ** power; below 1, there are more noisy ones
    steps: Count = 500
    batch: Count = 6  # pictures of the subject, and as many of the class
    lr: Rate = 1e-3
    warmup: Natural = 20
    decay: Natural = 200
    ema: Memory = 0.98
    sheet_prompts: Prompts = ("{}", "{} on a blue background", "{} on a black background", "a red apple")
    sheet_seeds: Count = 2  # of each prompt, in which {} stands for the phrase
    seed: Natural = 31
    device: str = "cpu"
    bf16: bool | None = None  # None: where it is fast
    log_every: Count = 20
    save_every: Count = 100
    sheet_every: Count = 250

    @property
    def corpus(self) -> Path:
        """Where what is learned lies."""
        return self.pictures


def main(config: Config) -> Path:
    """Train, or go on training, and return the LoRA file (fp16, the averaged weights)."""
    ranks = Ranks.start(config.device)
    config = settled(config)
    share = ranks.share(config.batch)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    model = read_model(config, ranks)
    with ranks.main_first():
        pictures, prior = subject_pictures(config, model.defaults.size), prior_latents(config, model)
    network: Any = copy.deepcopy(model.parts["unet"])
    updates = add_low_rank(network, config.rank)
    learner = replace(
        model, denoiser=replace(model.denoiser, network=replace(cast(Any, model.denoiser.network), unet=network))
    )
    optimizer = torch.optim.AdamW(updates.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=0, fused=True)
    run = Run(updates, optimizer, Ema(updates, config.ema))
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))
    told = {phrase: model.text([phrase]) for phrase in (config.phrase, config.class_phrase)}
    file = config.out / FILE

    with Sitting(config, run, ranks) as sitting:
        for step in sitting.steps:
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            with precision:
                shown = model.codec.encode(draw(pictures, config, step)[share].to(model.device)).float()
                losses = {"subject": step_loss(learner, shown, told[config.phrase], config, 2 * step, share)}
                if prior is not None:
                    rows = step_rng(config.seed + 1, step).choice(len(prior), config.batch)[share]
                    known = prior[torch.from_numpy(rows)].to(model.device)
                    losses["prior"] = step_loss(learner, known, told[config.class_phrase], config, 2 * step + 1, share)
            loss = losses["subject"] + config.prior_weight * losses.get("prior", torch.zeros(()))
            loss.backward()
            sitting.learn(step, loss=loss, **losses)
            if sitting.due(step, config.sheet_every):
                save_lora(file, network, "unet", run.ema.state())
                save_sheet(config.out / f"sheet-{step + 1:06d}.png", *sheet(model, file, pictures, config))
            sitting.close(step)
    if ranks.main:
        save_lora(file, network, "unet", run.ema.state())
    return file


def read_model(config: Config, ranks: Ranks) -> LatentDiffusion:
    """The frozen model, ready for the precision of the run.

    Raises:
        TrainingError: it has no UNet of Stable Diffusion, or predicts what there is no loss for.
    """
    return read_frozen(config.model, ranks.device, bool(config.bf16), (UNetNetwork, XlNetwork))


def subject_pictures(config: Config, size: tuple[int, int]) -> UInt8[Tensor, "n 3 h w"]:
    """The subject's pictures, of the model's (width, height), kept in the run's folder; what stands out is cut off.

    Raises:
        MediaError: there are none, or they cannot be read.
        TrainingError: the run began with other ones.
    """
    from segue.media import read

    frames = read(config.pictures).frames
    count = min(config.frames, len(frames))
    rows = [round(place) for place in torch.linspace(0, len(frames) - 1, count).tolist()]
    found = torch.cat([fit_pictures(frames[row : row + 1].float(), size, "crop") for row in rows])
    pictures = (found.clamp(0, 1) * 255 + 0.5).byte()
    kept, key = config.out / "pictures.safetensors", hashlib.sha256(pictures.numpy().tobytes()).hexdigest()
    if kept.exists():
        with safe_open(kept, "pt") as file:
            if file.metadata()["made_of"] != key:
                raise TrainingError(
                    f"{config.out} began with other pictures than those of {config.pictures}; give these, or another "
                    "folder with out=FOLDER"
                )
    _keep(kept, {"pictures": pictures}, key)
    return pictures


def prior_latents(config: Config, model: LatentDiffusion) -> Float[Tensor, "n c h w"] | None:
    """What the untaught model draws of the class, kept in the run's folder; None if nothing is preserved."""
    if not config.class_phrase:
        return None
    kept = config.out / "prior.safetensors"
    key = f"{config.class_phrase} {config.prior_pictures} {model.fingerprint}"
    if kept.exists():
        with safe_open(kept, "pt") as file:
            if file.metadata()["made_of"] == key:
                return file.get_tensor("latents")
    seeds = range(config.prior_pictures)
    latents = sample(model, [config.class_phrase] * len(seeds), list(seeds), batch=config.batch).float().cpu()
    _keep(kept, {"latents": latents.contiguous()}, key)
    return latents


def draw(pictures: UInt8[Tensor, "n 3 h w"], config: Config, step: int) -> Float[Tensor, "b 3 h w"]:
    """Pictures that a step sees, each a window of one, as large as the picture or a little smaller."""
    rng = step_rng(config.seed, step)
    height, width = pictures.shape[-2:]
    shown: list[Tensor] = []
    for row in rng.choice(len(pictures), config.batch):
        part = 1 - config.zoomed * rng.random()
        h, w = max(1, round(part * height)), max(1, round(part * width))
        top, left = (int(rng.integers(room + 1)) for room in (height - h, width - w))
        window = pictures[row, None, :, top : top + h, left : left + w].float() / 255
        shown.append(functional.interpolate(window, (height, width), mode="bicubic", antialias=True))
    return torch.cat(shown).clamp(0, 1)


def step_loss(
    learner: LatentDiffusion, x0: Float[Tensor, "b c h w"], text: Conditioning, config: Config, draw: int, share: slice
) -> Float[Tensor, ""]:
    """How wrong the learner is about this process's share of latents, all of one text."""
    generator = step_generator(config.seed, draw)
    at, eps = noisy_levels(learner, config.batch, config.noise_power, generator)
    at, eps = at[range(config.batch)[share]], eps[share].to(x0)
    x = at.noised(x0, eps)
    estimate = learner.denoiser(x, at, text[[0] * len(x0)])
    return prediction_error(at, x, estimate, x0, cast(TrainedPrediction, learner.denoiser.prediction))


def sheet(
    model: LatentDiffusion, lora: Path, pictures: UInt8[Tensor, "n 3 h w"], config: Config
) -> tuple[Float[Tensor, "n 3 h w"], int]:
    """A row of the subject's pictures, one of what the model draws of the prompts, one of what it does once taught."""
    prompts = [
        prompt.replace("{}", config.phrase) for prompt in config.sheet_prompts for _ in range(config.sheet_seeds)
    ]
    seeds = list(range(config.sheet_seeds)) * len(config.sheet_prompts)
    before = decoded(model, sample(model, prompts, seeds, batch=config.batch))
    with applied(model, {lora: 1.0}) as taught:
        after = decoded(taught, sample(taught, prompts, seeds, batch=config.batch))
    rows = torch.linspace(0, len(pictures) - 1, len(prompts)).round().long()
    return torch.cat([pictures[rows].float() / 255, before.cpu(), after.cpu()]), len(prompts)


def _keep(path: Path, tensors: dict[str, Tensor], key: str) -> None:
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, {"made_of": key})
    part.replace(path)
