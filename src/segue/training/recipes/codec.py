"""Train the picture codec: a tiny autoencoder, 8 times smaller on each side, 4 channels, in diffusers' layout.

AutoencoderTiny is the architecture of TAESD (https://github.com/madebyollin/taesd). Deviations: it is trained from
scratch on its own reconstructions, with a little noise on the latents so that decoding forgives a sampler's errors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from pydantic import ConfigDict
from torch import Tensor, nn

from segue.errors import TrainingError
from segue.training.checkpoint import Run, resume, save
from segue.training.data import Corpus, step_generator, step_rng
from segue.training.ema import Ema
from segue.training.export import save_codec
from segue.training.journal import Journal, save_sheet
from segue.training.losses import psnr, reconstruction
from segue.training.rates import trapezoid


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; codec.toml holds those of the shipped model."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    corpus: Path = Path("runs/corpus")
    out: Path = Path("runs/codec")
    width: int = 32
    encoder_blocks: tuple[int, ...] = (0, 2, 3, 3)  # none at full size: they cost most and see least
    decoder_blocks: tuple[int, ...] = (3, 3, 2, 1)
    steps: int = 8000
    batch: int = 8
    lr: float = 1.2e-3
    warmup: int = 100
    decay: int = 2000
    ema: float = 0.997
    latent_noise: float = 0.06
    latent_weight: float = 0.002  # of |z|^2, which keeps latents from growing
    start: Path | None = None  # an exported codec to go on from, in place of random weights
    decoder_only: bool = False  # keep the encoder of `start`, and so all latents, as they are
    validation_every: int = 40  # every how many pictures of the corpus are kept for validation
    seed: int = 1
    device: str = "cpu"
    bf16: bool = True
    log_every: int = 50
    save_every: int = 250


def build(config: Config) -> AutoencoderTiny:
    """The codec to begin with; the encoder lists its blocks from full size down, the decoder from small size up."""
    codec: Any
    if config.start is not None:
        codec = AutoencoderTiny.from_pretrained(config.start, torch_dtype=torch.float32)
    else:
        widths = (config.width,) * len(config.encoder_blocks)
        codec = AutoencoderTiny(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=config.encoder_blocks,
            num_decoder_blocks=config.decoder_blocks,
            latent_channels=4,
        )
    return codec.to(config.device, memory_format=torch.channels_last)


def main(config: Config) -> Path:
    """Train, or go on training, and return the folder of the exported codec (fp16, the averaged weights)."""
    if config.decoder_only and config.start is None:
        raise TrainingError("decoder_only keeps the encoder of an earlier run: name its exported folder, start=...")
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    training, validation = Corpus.load(config.corpus).split(config.validation_every)
    codec = build(config)
    trained = codec.decoder if config.decoder_only else codec
    optimizer = torch.optim.AdamW(trained.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    run = Run(codec, optimizer, Ema(codec, config.ema))
    checkpoint = config.out / "checkpoint.safetensors"
    start, spent = resume(checkpoint, run)

    with Journal(config.out / "log.jsonl", config.steps, start, spent, config.log_every) as journal:
        for step in range(start, config.steps):
            rows = step_rng(config.seed, step).choice(len(training), config.batch, p=training.weights)
            pictures = training.floats(rows).to(config.device)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * trapezoid(step, config.steps, config.warmup, config.decay)
            loss = step_loss(codec, pictures, config, step_generator(config.seed, step))
            loss.backward()
            nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            run.ema.update(codec, step + 1)
            journal.step(step + 1, loss=float(loss.detach()))
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                save(checkpoint, run, step + 1, journal.seconds, asdict(config))
                quality = validate(run, validation, config)
                journal.note(step + 1, psnr=quality)
    return export(run, training, config)


def step_loss(codec: AutoencoderTiny, pictures: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    """Loss of decoding what was encoded. Pictures in [0, 1]; the codec's own range is [-1, 1] on both sides."""
    with torch.autocast(config.device, torch.bfloat16, enabled=config.bf16):
        with torch.set_grad_enabled(not config.decoder_only):
            z = codec.encoder(pictures * 2 - 1).float()
        noise = torch.randn(z.shape, generator=generator).to(z.device) * config.latent_noise
        made = codec.decoder(z + noise)
    made = made.float() / 2 + 0.5
    return reconstruction(made, pictures) + config.latent_weight * z.square().mean()


@torch.no_grad()
def validate(run: Run, validation: Corpus, config: Config) -> float:
    """PSNR of the averaged weights on pictures that were kept back, and a sheet of them beside their originals."""
    codec = build(config).eval()
    run.ema.copy_to(codec)
    rows = np.linspace(0, len(validation) - 1, min(64, len(validation))).astype(np.int64)
    pictures = validation.floats(rows).to(config.device)
    made = reconstruct(codec, pictures)
    half = len(rows) // 2
    pairs = torch.stack([pictures[:half], made[:half]], 1).flatten(0, 1)
    save_sheet(config.out / "sheet.png", pairs, columns=min(16, len(pairs)))
    return psnr(made, pictures)


def reconstruct(codec: AutoencoderTiny, pictures: Tensor) -> Tensor:
    """Encode and decode pictures in [0, 1]."""
    return codec.decoder(codec.encoder(pictures * 2 - 1)) / 2 + 0.5


@torch.no_grad()
def export(run: Run, training: Corpus, config: Config) -> Path:
    """Write the averaged codec as `vae` in the run's folder, with scaling_factor = 1 / (rms of latents)."""
    codec = build(config).eval()
    run.ema.copy_to(codec)
    rows = step_rng(config.seed, 0).choice(len(training), min(256, len(training)), replace=False)
    z = codec.encoder(training.floats(rows).to(config.device) * 2 - 1)
    scale = codec.config["scaling_factor"] if config.decoder_only else 1 / float(z.square().mean().sqrt())
    return save_codec(codec, scale, config.out / "vae")
