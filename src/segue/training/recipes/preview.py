"""Train a small decoder for the latents of a model: it imitates the model's own, in a fraction of its time.

The layout is that of AutoencoderTiny, as TAESD's (https://github.com/madebyollin/taesd), and so is the idea: what the
codec of a model has learned to draw is drawn by fewer and narrower layers. The aim is not the picture that was encoded
but the one that the model's own decoder makes of its latents, since that is the frame that the small one stands for.
So latents may be moved and mixed as a sampler leaves them, and the aim is still known.

A step (16 pictures of 128 pixels, bfloat16, one core with AVX512_BF16) takes a third of a second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from jaxtyping import Float
from pydantic import ConfigDict, Field
from torch import Tensor

from segue.errors import TrainingError
from segue.models.codec import AutoencoderCodec
from segue.models.preview import decoder_alone
from segue.training.bounds import Amount, Count, Memory, Natural, Rate, Share
from segue.training.checkpoint import Run
from segue.training.data import Corpus, step_generator, step_rng
from segue.training.ema import Ema
from segue.training.export import load_codec, save_decoder
from segue.training.journal import save_sheet
from segue.training.losses import psnr, reconstruction
from segue.training.origins import folder_of
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.sitting import Sitting, settled


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; preview.toml holds those of the shipped decoder."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    corpus: Path = Path("runs/corpus")
    codec: Path = Path("emoji")  # whose decoder is imitated: an embedded model, or the folder of a codec of any kind
    out: Path = Path("runs/preview")
    width: Count = 16
    blocks: Annotated[tuple[Natural, ...], Field(min_length=1)] = (3, 3, 2, 0)  # from small size up, the cheapest
    steps: Count = 2000
    batch: Count = 16
    lr: Rate = 2e-3
    warmup: Natural = 100
    decay: Natural = 600
    ema: Memory = 0.995
    latent_noise: Amount = 0.1  # latents have unit variance
    blended: Share = 0.25  # share of latents that lie between those of two pictures, as a transition's do
    validation_every: Annotated[int, Field(ge=2)] = 40  # every how many pictures of the corpus one is kept back
    seed: Natural = 1
    device: str = "cpu"
    bf16: bool | None = None  # None: where it is fast
    log_every: Count = 50
    save_every: Count = 100
    sheet_every: Count = 500


def build(config: Config, codec: AutoencoderCodec) -> AutoencoderTiny:
    """The untrained decoder; its latents are those of the denoiser, of unit variance.

    Raises:
        TrainingError: it would make pictures of another size than the codec's.
    """
    if (scale := 2 ** (len(config.blocks) - 1)) != codec.scale:
        raise TrainingError(
            f"each entry of blocks is a size, of which the codec in {config.codec} has {codec.scale.bit_length()}; "
            f"got {len(config.blocks)}, which make {scale}x{scale} pixels of a latent"
        )
    sizes = len(config.blocks)
    layout: dict[str, Any] = {
        # Nothing is ever encoded: this is the smallest encoder that others, who build one, can be told of.
        "encoder_block_out_channels": (config.width,) * sizes,
        "num_encoder_blocks": (0,) * sizes,
        "decoder_block_out_channels": (config.width,) * sizes,
        "num_decoder_blocks": config.blocks,
        "latent_channels": codec.channels,
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
    }
    vae: Any = decoder_alone(layout)
    return vae.to(config.device, memory_format=torch.channels_last)


def main(config: Config) -> Path:
    """Train, or go on training, and return the folder of the exported decoder (fp16, the averaged weights)."""
    ranks = Ranks.start(config.device)
    config = settled(replace(config, codec=folder_of(config.codec, "vae")))
    share = ranks.share(config.batch)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    corpus = Corpus.load(config.corpus)
    if config.validation_every > len(corpus):
        raise TrainingError(f"validation_every must be at most {len(corpus)}, the size of the corpus; got more")
    training, validation = corpus.split(config.validation_every)
    codec = AutoencoderCodec(load_codec(config.codec, config.device), slice=config.batch)
    codec.vae.requires_grad_(False)
    small: Any = build(config, codec)
    optimizer = torch.optim.AdamW(small.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    run = Run(small, optimizer, Ema(small, config.ema))
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))

    with Sitting(config, run, ranks) as sitting:
        for step in sitting.steps:
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            with precision:
                latents, wanted = draw(training, codec, config, step, share)
                made = drawn(small, latents)
            loss = reconstruction(made, wanted)
            loss.backward()
            sitting.learn(step, loss=loss)
            if sitting.due(step, config.sheet_every):
                sitting.log.note(step + 1, **validate(run, codec, validation, config))
            sitting.close(step)
    return export(run, codec, config) if ranks.main else config.out / "preview"


@torch.no_grad()
def draw(
    training: Corpus, codec: AutoencoderCodec, config: Config, step: int, share: slice
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 3 H W"]]:
    """Latents that this process sees in a step, and what the codec's own decoder makes of them."""
    rng, generator = step_rng(config.seed, step), step_generator(config.seed, step)
    rows = rng.choice(len(training), config.batch, p=training.weights)
    latents = codec.encode(training.floats(rows).to(config.device))
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    latents = between(latents, rng, config.blended) + config.latent_noise * noise
    latents = latents[share]
    return latents, codec.decode(latents)


def between(latents: Float[Tensor, "b c h w"], rng: np.random.Generator, share: float) -> Float[Tensor, "b c h w"]:
    """Some rows moved towards the next, as far as any; variance is kept, as of a mix of independent ones."""
    moved = torch.from_numpy(rng.random(len(latents)) * (rng.random(len(latents)) < share)).to(latents)
    t = moved[:, None, None, None] * (torch.pi / 2)
    return t.cos() * latents + t.sin() * latents.roll(-1, 0)


def drawn(small: Any, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
    """Pictures in [0, 1] and a little beyond: not clipped, as what is outside has to come back."""
    return small.decoder(latents).float() / 2 + 0.5


def averaged(run: Run, codec: AutoencoderCodec, config: Config) -> AutoencoderTiny:
    """The decoder with the averaged weights."""
    small = build(config, codec).eval()
    run.ema.copy_to(small)
    return small


@torch.no_grad()
def validate(run: Run, codec: AutoencoderCodec, validation: Corpus, config: Config) -> dict[str, float]:
    """How near the averaged weights come to the codec's own decoder, and both to the picture, on pictures that were
    kept back; and a sheet of these three.
    """
    rows = np.linspace(0, len(validation) - 1, min(48, len(validation))).astype(np.int64)
    pictures = validation.floats(rows).to(config.device)
    latents = codec.encode(pictures)
    own, quick = codec.decode(latents), drawn(averaged(run, codec, config), latents).clamp(0, 1)
    shown = min(16, len(rows))
    sheet = torch.cat([pictures[:shown], own[:shown], quick[:shown]])
    save_sheet(config.out / "sheet.png", sheet, columns=shown)
    return {"to_own": psnr(quick, own), "psnr": psnr(quick, pictures), "own_psnr": psnr(own, pictures)}


def export(run: Run, codec: AutoencoderCodec, config: Config) -> Path:
    """Write the averaged decoder as `preview` in the run's folder."""
    return save_decoder(averaged(run, codec, config), config.out / "preview")
