"""Teach a decoder of pictures to look along time: layers in it learn from clips, its encoder and all latents stay.

Video LDM (Blattmann et al. 2023, arXiv:2304.08818, section 3.1.1): the frames of a clip are encoded one by one, and
decoded together. What is wanted is the frames as they were, how they change from one to the next, and, late, that a
discriminator of patches of clips finds nothing. A little noise on the latents, each frame's own, is there so that what
a sampler leaves in them does not flicker.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from segue.errors import TrainingError
from segue.models.bundle import LatentDiffusion
from segue.models.codec import AutoencoderCodec
from segue.models.families.sd import UNetNetwork
from segue.models.families.sdxl import XlNetwork
from segue.models.time_decoder import DecoderSettings, TimeCodec, with_time_decoder
from segue.models.time_decoder_files import join_decoder, save_decoder
from segue.training.adversary import balance, hinge
from segue.training.adversary_time import ClipDiscriminator
from segue.training.bounds import Amount, Count, Memory, Natural, Rate, Share
from segue.training.checkpoint import Learner, Run
from segue.training.clips import Clips
from segue.training.data import step_generator, step_rng, windows
from segue.training.ema import Ema
from segue.training.frozen import read_frozen
from segue.training.journal import save_sheet
from segue.training.losses import psnr, reconstruction
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.sitting import Sitting, settled

FILE = "time_decoder.safetensors"
JOINED = "motion.safetensors"
VALIDATED = 16


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; time_decoder.toml holds those of the shipped layers."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str = "emoji"  # an embedded model, a folder, or a hub repository: Stable Diffusion 1.x, 2.x or XL
    clips: Path = Path("runs/clips")
    out: Path = Path("runs/time_decoder")
    motion: Path | None = None  # a file of layers along time of the model, to write another with the decoder in it
    inner: Count = 8  # channels inside of a layer
    kernel: Annotated[int, Field(ge=1, le=7)] = 3  # sides of its first convolution in space, an odd number
    frames: Annotated[int, Field(ge=2)] = 8
    strides: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2)  # every how many frames of a clip are taken
    crop: Natural = 64  # side in pixels of the square that is cut out of all frames of a clip; 0 takes all of them
    latent_noise: Amount = 0.05  # of latents of about unit variance, each frame's own
    changes: Amount = 1.0  # weight of how frames change, beside the frames
    steps: Count = 3000
    batch: Count = 2  # clips
    lr: Rate = 1e-3
    warmup: Natural = 100
    decay: Natural = 1000
    ema: Memory = 0.997
    adversarial: Amount = 0.3  # how strong, compared with the reconstruction; 0 is off
    adversarial_start: Share = 0.5  # the share of the run that is over when the discriminator begins
    discriminator_width: Count = 16
    discriminator_lr: Rate = 1e-3
    validation_every: Annotated[int, Field(ge=2)] = 40  # every how many clips one is kept back
    seed: Natural = 71
    device: str = "cpu"
    bf16: bool | None = None  # None: where it is fast
    log_every: Count = 50
    save_every: Count = 250

    @property
    def corpus(self) -> Path:
        """Where what is learned lies."""
        return self.clips

    @property
    def settings(self) -> DecoderSettings:
        """The shape of the layers."""
        return DecoderSettings(self.inner, self.kernel)


def main(config: Config) -> Path:
    """Train, or go on training, and return the file of the layers (8 bits, the averaged weights)."""
    ranks = Ranks.start(config.device)
    config = settled(config)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    image = read_frozen(config.model, ranks.device, False, (UNetNetwork, XlNetwork))
    clips = Clips.load(config.clips)
    check(config, clips, image)
    training, validation = clips.split(config.validation_every)
    codec = learning(config, image)
    optimizer = torch.optim.AdamW(codec.layers.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    run = Run(codec.layers, optimizer, Ema(codec.layers, config.ema), discriminator(config))
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))

    with Sitting(config, run, ranks) as sitting:
        for step in sitting.steps:
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            pictures, latents = draw(training, image.codec, config, step, ranks.share(config.batch))
            loud = loudness(step, config)
            measured = learn(codec, run.rival, pictures, latents, loud, config.changes, precision, ranks)
            sitting.learn(step, **measured)
            if sitting.due(step, config.save_every):
                sitting.log.note(step + 1, **validate(image, run, validation, config, step + 1))
            sitting.close(step)
    return export(image, run, config) if ranks.main else config.out / FILE


def check(config: Config, clips: Clips, image: LatentDiffusion) -> None:
    """Raise TrainingError if clips and recipe do not go together."""
    scale, side = image.codec.scale, min(clips.size)
    if config.crop > side or config.crop % scale or any(length % scale for length in clips.size):
        raise TrainingError(
            f"crop must be a multiple of {scale}, at most {side}, and clips of such sides; got crop={config.crop} and "
            f"clips of {clips.size[0]}x{clips.size[1]}"
        )
    if len(clips) < config.validation_every:
        raise TrainingError(
            f"{config.clips} has {len(clips)} clips, too few to keep back every {config.validation_every}th; make "
            "more, or set validation_every"
        )
    if config.kernel % 2 == 0:
        raise TrainingError(f"kernel must be odd, got {config.kernel}")


def learning(config: Config, image: LatentDiffusion) -> TimeCodec:
    """The codec with layers along time, and these alone, which learn."""
    image.parts["vae"].requires_grad_(False)
    codec: Any = image.codec
    made = with_time_decoder(codec, config.settings)
    made.layers.float().requires_grad_(True).train()
    return replace(made, slice=max(made.slice, config.frames))


def discriminator(config: Config) -> Learner | None:
    """What tells made clips from real ones, if the recipe asks for it. Its beta1 is that of GANs."""
    if not config.adversarial:
        return None
    rival = ClipDiscriminator(config.discriminator_width).to(config.device)
    rate = config.discriminator_lr
    return Learner(rival, torch.optim.AdamW(rival.parameters(), rate, betas=(0.5, 0.9), weight_decay=0.0, fused=True))


@torch.no_grad()
def draw(
    clips: Clips, codec: Any, config: Config, step: int, share: slice, seed: int = 0
) -> tuple[Float[Tensor, "n t 3 h w"], Float[Tensor, "n t c y x"]]:
    """This process's share of the clips of a step, and their latents, a little noisy."""
    rng, generator = step_rng(config.seed + seed, step), step_generator(config.seed + seed, step)
    taken = clips.choose(rng, config.batch, config.frames, strides=config.strides, reversed=0.5, flipped=0.5)
    corners = rng.random((config.batch, 2))
    shown = clips.pictures(taken[share])
    if config.crop:
        # All frames of a clip at one place: as one picture of many channels.
        cut = windows(shown.flatten(1, 2), corners[share], config.crop)
        shown = cut.unflatten(1, (config.frames, 3))
    latents = codec.encode(shown.flatten(0, 1)).unflatten(0, shown.shape[:2])
    noise = torch.randn((config.batch, *latents.shape[1:]), generator=generator)[share]
    return shown.to(config.device), latents.to(config.device) + config.latent_noise * noise.to(config.device)


def learn(
    codec: TimeCodec,
    rival: Learner | None,
    pictures: Float[Tensor, "n t 3 h w"],
    latents: Float[Tensor, "n t c y x"],
    loud: float,
    changes: float,
    precision: torch.autocast,
    ranks: Ranks,
    frames: int | None = None,
) -> dict[str, Tensor]:
    """Leave the gradients of a step in the codec's layers, let the discriminator learn, and return what was measured.

    Args:
        codec: its layers along time learn.
        rival: the discriminator; None if there is none.
        pictures: of clips, in [0, 1].
        latents: of the same.
        loud: weight of the adversarial loss.
        changes: weight of how frames change.
        precision: what networks compute in.
        ranks: the processes that share a run.
        frames: that are decoded as one clip; None is all of them, and 1 each by itself.
    """
    count = pictures.shape[1]
    with precision:
        made = codec.learning(latents.flatten(0, 1), frames or count)
    made = made.unflatten(0, (-1, count))
    loss = reconstruction(made.flatten(0, 1), pictures.flatten(0, 1))
    loss = loss + changes * functional.l1_loss(made.diff(dim=1), pictures.diff(dim=1))
    measured: dict[str, Tensor] = {}
    (pull,) = torch.autograd.grad(loss, made)
    if rival is not None:
        zero = torch.zeros((), device=pictures.device)
        measured = {"adversarial": zero, "discriminator": zero}
        if loud > 0:
            with precision:
                measured["adversarial"] = -rival.model(made).mean()
            (push,) = torch.autograd.grad(measured["adversarial"], made)
            last = list(codec.layers.layers.children())[-1].get_parameter("last.weight")
            pull = pull + loud * balance(made, last, pull, push, ranks) * push
            measured["discriminator"] = oppose(rival, pictures, made.detach(), precision, ranks)
    made.backward(pull)
    return {"loss": loss.detach(), **{name: value.detach() for name, value in measured.items()}}


def oppose(rival: Learner, real: Tensor, made: Tensor, precision: torch.autocast, ranks: Ranks) -> Tensor:
    """One step of the discriminator; returns its loss."""
    with precision:
        loss = hinge(rival.model(real), rival.model(made))
    loss.backward()
    ranks.average_gradients(rival.model.parameters())
    rival.optimizer.step()
    rival.optimizer.zero_grad(set_to_none=True)
    return loss


def loudness(step: int, config: Config) -> float:
    """The weight of the adversarial loss at a step: 0 up to its start, then rising over `warmup` steps."""
    begin = round(config.adversarial_start * config.steps)
    return config.adversarial * min(1.0, max(0.0, (step + 1 - begin) / max(config.warmup, 1)))


@torch.no_grad()
def validate(image: LatentDiffusion, run: Run, kept: Clips, config: Config, step: int) -> dict[str, float]:
    """PSNR and flicker of clips that were kept back, by the averaged layers and by the decoder of pictures.

    Flicker is the mean of how wrong the change from a frame to the next is, in levels of 255.
    """
    codec = learning(config, image)
    run.ema.copy_to(codec.layers.requires_grad_(False).eval())
    shown, along, alone = list[Tensor](), list[Tensor](), list[Tensor]()
    plain: Any = image.codec
    for number in range(-(-VALIDATED // config.batch)):
        pictures, latents = draw(kept, plain, config, number, slice(None), seed=1)
        shown.append(pictures)
        along.append(torch.stack([torch.cat(list(codec.pieces(clip))) for clip in latents]))
        alone.append(torch.stack([plain.decode(clip) for clip in latents]))
    real, made, before = torch.cat(shown), torch.cat(along), torch.cat(alone)
    rows = torch.stack([real[:4], before[:4], made[:4]], 1).flatten(0, 2)
    save_sheet(config.out / f"sheet-{step:06d}.png", rows, columns=config.frames)
    found = {"psnr": psnr(made.flatten(0, 1), real.flatten(0, 1)), "flicker": flicker(made, real)}
    return found | {
        "psnr_pictures": psnr(before.flatten(0, 1), real.flatten(0, 1)),
        "flicker_pictures": flicker(before, real),
    }


def flicker(made: Float[Tensor, "n t 3 h w"], real: Float[Tensor, "n t 3 h w"]) -> float:
    """The mean of how wrong the change from a frame to the next is, in levels of 255."""
    return 255 * float((made.diff(dim=1) - real.diff(dim=1)).abs().mean())


def export(image: LatentDiffusion, run: Run, config: Config) -> Path:
    """Write the averaged layers, alone and perhaps together with those of a UNet, and return their own file."""
    codec: AutoencoderCodec = learning(config, image)
    assert isinstance(codec, TimeCodec)
    save_decoder(config.out / FILE, codec, image, weights=run.ema.state())
    if config.motion is not None:
        join_decoder(config.motion, config.out / FILE, config.out / JOINED)
    return config.out / FILE
