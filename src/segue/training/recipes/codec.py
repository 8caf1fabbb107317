"""Train the picture codec, 8 times smaller on each side, 4 channels, in diffusers' layout: a tiny one, or a KL one.

Each entry of the blocks of a tiny one, or of the widths of a KL one, is a size: 4 of them halve pictures three times;
3 of them make the codec of an upscaler, 4 times smaller.

"tiny" is the architecture of TAESD (https://github.com/madebyollin/taesd), trained from scratch on its own
reconstructions, with a little noise on the latents so that decoding forgives a sampler's errors. "kl" is that of Stable
Diffusion (Rombach et al. 2022, arXiv:2112.10752), which CPUs are too slow for.

Both may learn from a perceptual distance and, late, from a discriminator (Esser et al. 2021, arXiv:2012.09841), which
bring back the detail that squared errors blur. Deviations from Esser et al.: the discriminator's say grows over
`warmup` steps from the moment when it begins to learn, since at first it only knows noise, and both losses reach the
decoder through one backward pass, with the same result.

A step of the tiny codec (8 pictures of 128 pixels, bfloat16, one core with AMX) takes 370 ms, 200 with `decoder_only`.
On top of that, "lpips-alex" costs 80 ms, "lpips-vgg" 1000, and a discriminator 80 of width 32, 240 of width 64. A step
of the KL codec takes 1230 ms there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from segue.errors import TrainingError
from segue.training.adversary import PatchDiscriminator, balance, hinge
from segue.training.bounds import Amount, Count, Memory, Natural, Rate, Share
from segue.training.checkpoint import Learner, Run
from segue.training.data import Corpus, step_generator, step_rng, windows
from segue.training.ema import Ema
from segue.training.export import Autoencoder, load_codec, save_codec
from segue.training.journal import save_sheet
from segue.training.losses import psnr, read_perceptual, reconstruction
from segue.training.origins import folder_of
from segue.training.precision import float_norms
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.sitting import Sitting, settled
from segue.types import Perceptual

Blocks = Annotated[tuple[Natural, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; codec.toml holds those of the shipped model."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    corpus: Path = Path("runs/corpus")
    out: Path = Path("runs/codec")
    kind: Literal["tiny", "kl"] = "tiny"
    width: Count = 32
    encoder_blocks: Blocks = (0, 2, 3, 3)  # of a tiny one; none at full size: they cost most and see least
    decoder_blocks: Blocks = (3, 3, 2, 1)
    widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4, 4)  # of a KL one, in units of `width`
    crop: Natural = 0  # side of the square that is cut out of each picture, anywhere; 0 takes all of it
    steps: Count = 8000
    batch: Count = 8
    lr: Rate = 1.2e-3
    warmup: Natural = 100
    decay: Natural = 2000
    ema: Memory = 0.997
    latent_noise: Amount = 0.06  # of a tiny one; a KL one samples its posterior
    latent_weight: Amount = 0.002  # of |z|^2, or of the KL divergence, per number; keeps latents from growing
    perceptual: str = ""  # "lpips-vgg" or "lpips-alex"
    perceptual_weight: Amount = 1.0
    adversarial: Amount = 0.0  # how strong, compared with the reconstruction; 0 is off, 0.5 is usual
    adversarial_start: Share = 0.5  # the share of the run that is over when the discriminator begins
    discriminator_width: Count = 32
    discriminator_lr: Rate = 1e-3  # keep it above the codec's of that time: 2e-4 beside 6e-4 saw nothing for long
    start: Path | None = None  # an exported codec, or an embedded model's, to go on from, in place of random weights
    decoder_only: bool = False  # keep the encoder of `start`, and so all latents, as they are
    validation_every: Annotated[int, Field(ge=2)] = 40  # every how many pictures of the corpus one is kept back
    seed: Natural = 1
    device: str = "cpu"
    bf16: bool | None = None  # None: where it is fast
    log_every: Count = 50
    save_every: Count = 250


def build(config: Config) -> Autoencoder:
    """The codec to begin with; a tiny encoder lists its blocks from full size down, the decoder from small size up.

    Raises:
        TrainingError: the sizes do not go together, or `start` is a codec of the other kind.
    """
    if config.kind == "tiny" and len(config.encoder_blocks) != len(config.decoder_blocks):
        blocks = f"{config.encoder_blocks} and {config.decoder_blocks}"
        raise TrainingError(f"encoder_blocks and decoder_blocks must be equally many; got {blocks}")
    if config.kind == "kl" and config.width % 4:
        raise TrainingError(f"width of a KL codec must be a multiple of 4; got {config.width}")
    kind: Any = {"tiny": AutoencoderTiny, "kl": AutoencoderKL}[config.kind]
    if config.start is not None:
        codec: Any = load_codec(config.start)
        if not isinstance(codec, kind):
            raise TrainingError(f"{config.start} holds an {type(codec).__name__}, which is not of kind {config.kind!r}")
        codec.train()
    elif config.kind == "tiny":
        widths = (config.width,) * len(config.encoder_blocks)
        codec = kind(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=config.encoder_blocks,
            num_decoder_blocks=config.decoder_blocks,
            latent_channels=4,
        )
    else:
        codec = kind(
            block_out_channels=tuple(config.width * times for times in config.widths),
            down_block_types=("DownEncoderBlock2D",) * len(config.widths),
            up_block_types=("UpDecoderBlock2D",) * len(config.widths),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=config.width // 4,  # 4 channels or more in each: fewer would forget how bright a ground is
        )
    return codec.to(config.device, memory_format=torch.channels_last)


def main(config: Config) -> Path:
    """Train, or go on training, and return the folder of the exported codec (fp16, the averaged weights)."""
    if config.decoder_only and config.start is None:
        raise TrainingError("decoder_only keeps the encoder of an earlier run: name its exported folder, start=...")
    ranks = Ranks.start(config.device)
    config = settled(replace(config, start=None if config.start is None else folder_of(config.start, "vae")))
    share = ranks.share(config.batch)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    corpus = Corpus.load(config.corpus)
    if config.validation_every > len(corpus):
        raise TrainingError(f"validation_every must be at most {len(corpus)}, the size of the corpus; got more")
    side = min(corpus.pictures.shape[1:3])
    if config.crop > side or config.crop % 2 ** halvings(config):
        raise TrainingError(f"crop must be a multiple of {2 ** halvings(config)}, at most {side}; got {config.crop}")
    training, validation = corpus.split(config.validation_every)
    codec = build(config)
    optimizer = torch.optim.AdamW(learning(codec, config), config.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    run = Run(codec, optimizer, Ema(codec, config.ema), discriminator(config))
    if config.bf16 and config.device == "cpu":
        float_norms(codec)
    perceptual = read_perceptual(config.perceptual, ranks.device)

    with Sitting(config, run, ranks) as sitting:
        for step in sitting.steps:
            pictures = draw(training, config, step, share).to(ranks.device)
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            measured = learn(run, pictures, step, perceptual, config, ranks)
            sitting.learn(step, **measured)
            if sitting.due(step, config.save_every):
                sitting.log.note(step + 1, **validate(run, validation, perceptual, config))
            sitting.close(step)
    return export(run, training, config) if ranks.main else config.out / "vae"


def halvings(config: Config) -> int:
    """How often a picture is halved on its way to the latents."""
    return len(config.encoder_blocks if config.kind == "tiny" else config.widths) - 1


def draw(training: Corpus, config: Config, step: int, share: slice) -> Tensor:
    """What this process sees in a step: pictures of the corpus, or a window of each."""
    rng = step_rng(config.seed, step)
    rows = rng.choice(len(training), config.batch, p=training.weights)
    if not config.crop:
        return training.floats(rows[share])
    corners = rng.random((config.batch, 2))
    return windows(training.floats(rows[share]), corners[share], config.crop)


def learning(codec: Autoencoder, config: Config) -> list[nn.Parameter]:
    """The parameters that are trained."""
    if not config.decoder_only:
        return list(codec.parameters())
    return [value for name, value in codec.named_parameters() if name.startswith(("decoder.", "post_quant_conv."))]


def discriminator(config: Config) -> Learner | None:
    """What tells made pictures from real ones, if the recipe asks for it. Its beta1 is that of GANs."""
    if not config.adversarial:
        return None
    rival: Any = PatchDiscriminator(config.discriminator_width)
    rival = rival.to(config.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        rival.parameters(), config.discriminator_lr, betas=(0.5, 0.9), weight_decay=0.0, fused=True
    )
    return Learner(rival, optimizer)


def learn(
    run: Run, pictures: Tensor, step: int, perceptual: Perceptual | None, config: Config, ranks: Ranks
) -> dict[str, Tensor]:
    """Leave the gradients of a step in the codec, let the discriminator learn, and return what was measured.

    Each loss says what it wants of the picture that was made, as a gradient in it; what they want together goes through
    the decoder once.
    """
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))
    with precision:
        made, penalty = roundtrip(run.model, pictures, step, config, ranks)
    loss = reconstruction(made, pictures)
    measured: dict[str, Tensor] = {}
    if perceptual is not None:
        with precision:
            measured["perceptual"] = perceptual(made, pictures).mean()
        loss = loss + config.perceptual_weight * measured["perceptual"]
    (pull,) = torch.autograd.grad(loss, made)
    if run.rival is not None:
        ramp = loudness(step, config)
        measured |= dict.fromkeys(("adversarial", "discriminator"), torch.zeros((), device=pictures.device))
        if ramp > 0:
            with precision:
                measured["adversarial"] = -run.rival.model(made).mean()
            (push,) = torch.autograd.grad(measured["adversarial"], made)
            pull = pull + ramp * balance(made, last_layer(run.model), pull, push, ranks) * push
            measured["discriminator"] = oppose(run.rival, pictures, made.detach(), precision, ranks)
    penalty = config.latent_weight * penalty
    ((made * pull).sum() + penalty).backward()
    return {"loss": loss + penalty, **measured}


def roundtrip(codec: Any, pictures: Tensor, step: int, config: Config, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Encode pictures in [0, 1] and decode them with noise on the latents; what was made, and how large latents are.

    The codec's own range is [-1, 1] on both sides.
    """
    with torch.set_grad_enabled(not config.decoder_only):
        mean, variance = posterior(codec, pictures)
    shape = (config.batch, *mean.shape[1:])
    noise = torch.randn(shape, generator=step_generator(config.seed, step))[ranks.share(config.batch)].to(mean.device)
    if variance is None:
        return decode(codec, mean + noise * config.latent_noise), mean.square().mean()
    divergence = (mean.square() + variance - 1 - variance.log()).mean() / 2
    return decode(codec, mean + noise * variance.sqrt()), divergence


def posterior(codec: Any, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean and variance of the latents of pictures in [0, 1]; those of a tiny codec have none."""
    if isinstance(codec, AutoencoderTiny):
        return codec.encoder(pictures * 2 - 1).float(), None
    mean, logarithm = codec.quant_conv(codec.encoder(pictures * 2 - 1)).float().chunk(2, dim=1)
    return mean, logarithm.clamp(-30, 20).exp()


def decode(codec: Any, z: Tensor) -> Tensor:
    """Pictures in [0, 1], and a little beyond."""
    made = codec.decoder(z if isinstance(codec, AutoencoderTiny) else codec.post_quant_conv(z))
    return made.float() / 2 + 0.5


def last_layer(codec: Any) -> Tensor:
    """The weights that make pictures of features."""
    last: Any = codec.decoder.layers[-1] if isinstance(codec, AutoencoderTiny) else codec.decoder.conv_out
    return last.weight


def loudness(step: int, config: Config) -> float:
    """The weight of the adversarial loss at a step: 0 up to its start, then rising over `warmup` steps."""
    begin = round(config.adversarial_start * config.steps)
    return config.adversarial * min(1.0, max(0.0, (step + 1 - begin) / max(config.warmup, 1)))


def oppose(rival: Learner, real: Tensor, made: Tensor, precision: torch.autocast, ranks: Ranks) -> Tensor:
    """One step of the discriminator; returns its loss."""
    with precision:
        loss = hinge(rival.model(real), rival.model(made))
    loss.backward()
    ranks.average_gradients(rival.model.parameters())
    rival.optimizer.step()
    rival.optimizer.zero_grad(set_to_none=True)
    return loss


@torch.no_grad()
def validate(run: Run, validation: Corpus, perceptual: Perceptual | None, config: Config) -> dict[str, float]:
    """How the averaged weights do on pictures that were kept back, and a sheet of them beside their originals."""
    codec = build(config).eval()
    run.ema.copy_to(codec)
    rows = np.linspace(0, len(validation) - 1, min(64, len(validation))).astype(np.int64)
    pictures = validation.floats(rows)
    if config.crop:
        pictures = windows(pictures, np.full((len(rows), 2), 0.5), config.crop)
    pictures = pictures.to(config.device)
    made = decode(codec, posterior(codec, pictures)[0])
    half = len(rows) // 2
    pairs = torch.stack([pictures[:half], made[:half]], 1).flatten(0, 1)
    save_sheet(config.out / "sheet.png", pairs, columns=min(16, len(pairs)))
    found = {"psnr": psnr(made, pictures)}
    if perceptual is not None:
        found["kept_back"] = float(perceptual(made.clamp(0, 1), pictures).mean())
    return found


@torch.no_grad()
def export(run: Run, training: Corpus, config: Config) -> Path:
    """Write the averaged codec as `vae` in the run's folder, with scaling_factor = 1 / (rms of latents)."""
    codec: Any = build(config).eval()
    run.ema.copy_to(codec)
    rows = step_rng(config.seed, 0).choice(len(training), min(256, len(training)), replace=False)
    z, _ = posterior(codec, training.floats(rows).to(config.device))
    scale = codec.config["scaling_factor"] if config.decoder_only else 1 / float(z.square().mean().sqrt())
    return save_codec(codec, scale, config.out / "vae")
