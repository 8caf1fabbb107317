"""Train text to picture: a small UNet and its text encoder together, on latents of a trained codec.

A latent diffusion model (Rombach et al. 2022, arXiv:2112.10752) in the layout of Stable Diffusion, that predicts v
(Salimans & Ho 2022, arXiv:2202.00512). The betas are DDPM's linear ones, whose last level keeps almost no signal
(alpha = .006): with Stable Diffusion's own (alpha = .068), the ground's colour would leak into what training calls
pure noise, and plain grounds would come out mottled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from jaxtyping import Float
from pydantic import ConfigDict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from segue.diffusion.betas import training_levels
from segue.diffusion.guidance import classifier_free
from segue.diffusion.levels import Levels
from segue.diffusion.loop import collect, denoise
from segue.diffusion.starts import from_seeds
from segue.models.denoiser import NetworkDenoiser
from segue.models.families.sd import UNetNetwork, assemble
from segue.models.text import ClipText
from segue.training.checkpoint import Run, resume, save
from segue.training.data import Corpus, step_generator, step_rng
from segue.training.ema import Ema
from segue.training.export import save_pipeline
from segue.training.journal import Journal, save_sheet
from segue.training.precision import float_norms
from segue.training.rates import trapezoid
from segue.training.tokenizer import train_tokenizer
from segue.types import Conditioning, Denoiser, RowId

SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 1,  # not read with trailing times, but diffusers warns of anything else
}


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; t2i.toml holds those of the shipped model."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    corpus: Path = Path("runs/corpus")
    codec: Path = Path("runs/codec/vae")
    out: Path = Path("runs/t2i")
    start: Path | None = None  # an exported model to go on from, in place of random weights
    widths: tuple[int, ...] = (96, 160, 192)  # no attention at the first: it costs most there and helps least
    heads: int = 4
    text_width: int = 256
    text_layers: int = 2
    positions: int = 24
    vocabulary: int = 2000
    steps: int = 9000
    batch: int = 16
    lr: float = 5e-4
    warmup: int = 200
    decay: int = 2000
    weight_decay: float = 0.01
    ema: float = 0.999
    drop_captions: float = 0.1  # share of empty captions, for classifier-free guidance
    guidance: float = 4.0  # of the sheet
    sheet_prompts: tuple[str, ...] = ("a red apple", "a blue heart", "a cat face", "a castle")
    sheet_steps: int = 20
    seed: int = 2
    device: str = "cpu"
    bf16: bool = True
    log_every: int = 50
    save_every: int = 300
    sheet_every: int = 600


def build(config: Config, vocabulary: int, size: int) -> nn.ModuleDict:
    """Untrained parts: `unet` for latents of `size`, and `text` for that many tokens."""
    rest = len(config.widths) - 1
    unet = UNet2DConditionModel(
        sample_size=size,
        block_out_channels=config.widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * rest),
        up_block_types=(*("CrossAttnUpBlock2D",) * rest, "UpBlock2D"),
        cross_attention_dim=config.text_width,
        attention_head_dim=config.heads,  # diffusers reads the number of heads from this field
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=config.text_width,
            intermediate_size=2 * config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=4,
            max_position_embeddings=config.positions,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    parts: Any = nn.ModuleDict({"unet": unet, "text": text})
    return parts.to(config.device, memory_format=torch.channels_last)


def begin_from(parts: Any, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Load the weights of an exported model; a token's embedding goes to where the new tokenizer has that token."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text: Any = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    old = CLIPTokenizer.from_pretrained(folder / "tokenizer").get_vocab()
    shared = {number: old[token] for token, number in tokenizer.get_vocab().items() if token in old}
    weights = text.state_dict()
    name = next(key for key in weights if key.endswith("token_embedding.weight"))
    embedding = parts["text"].state_dict()[name].clone()
    embedding[list(shared)] = weights[name][list(shared.values())]
    parts["unet"].load_state_dict(unet.state_dict())
    parts["text"].load_state_dict(weights | {name: embedding})


def main(config: Config) -> Path:
    """Train, or go on training, and return the folder of the exported model (fp16, the averaged weights)."""
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(config.device)
    corpus = Corpus.load(config.corpus)
    latents = encode_corpus(corpus, config)
    tokenizer = read_tokenizer(corpus, config)
    parts: Any = build(config, len(tokenizer), latents.shape[-1])
    if config.start is not None:
        begin_from(parts, tokenizer, config.start)
    if config.bf16 and config.device == "cpu":
        float_norms(parts)
    optimizer = torch.optim.AdamW(
        parts.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    run = Run(parts, optimizer, Ema(parts, config.ema))
    checkpoint = config.out / "checkpoint.safetensors"
    start, spent = resume(checkpoint, run)
    levels = training_levels(SCHEDULER)
    denoiser = NetworkDenoiser(UNetNetwork(parts["unet"]), "v_prediction", max_batch=config.batch)

    with Journal(config.out / "log.jsonl", config.steps, start, spent, config.log_every) as journal:
        for step in range(start, config.steps):
            rows, captions = draw(corpus, config, step)
            tokens = tokenizer(captions, padding="max_length", return_tensors="pt")["input_ids"].to(device)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * trapezoid(step, config.steps, config.warmup, config.decay)
            with torch.autocast(config.device, torch.bfloat16, enabled=config.bf16):
                cond = Conditioning(parts["text"](tokens).last_hidden_state)
                x0 = latents[rows].to(device)
                loss = step_loss(denoiser, x0, cond, levels, step_generator(config.seed, step))
            loss.backward()
            nn.utils.clip_grad_norm_(parts.parameters(), 1.0, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            run.ema.update(parts, step + 1)
            journal.step(step + 1, loss=float(loss.detach()))
            last = step + 1 == config.steps
            if (step + 1) % config.save_every == 0 or last:
                save(checkpoint, run, step + 1, journal.seconds, asdict(config))
            if (step + 1) % config.sheet_every == 0 or last:
                export(run, tokenizer, config)
                save_sheet(config.out / f"sheet-{step + 1:06d}.png", sheet(run, tokenizer, config), columns=8)
    return export(run, tokenizer, config)


def draw(corpus: Corpus, config: Config, step: int) -> tuple[Tensor, list[str]]:
    """Which pictures a step sees, and the caption of each, some of them empty."""
    rng = step_rng(config.seed, step)
    rows = rng.choice(len(corpus), config.batch, p=corpus.weights)
    captions = [str(rng.choice(corpus.captions[row])) for row in rows]
    dropped = rng.random(config.batch) < config.drop_captions
    return torch.from_numpy(rows), ["" if drop else text for text, drop in zip(captions, dropped, strict=True)]


def step_loss(
    denoiser: Denoiser, x0: Float[Tensor, "b c h w"], cond: Conditioning, levels: Levels, generator: torch.Generator
) -> Float[Tensor, ""]:
    """Mean squared error of v, at levels spread evenly over the schedule, one row each, which lowers the variance."""
    count = len(x0)
    spread = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    at = levels.at((spread * len(levels)).long())
    x = at.noised(x0, torch.randn(x0.shape, generator=generator).to(x0))
    return functional.mse_loss(at.v(x, denoiser(x, at, cond)), at.v(x, x0))


def encode_corpus(corpus: Corpus, config: Config) -> Float[Tensor, "n c h w"]:
    """Latents of unit variance of every picture; kept in the run's folder while codec and corpus are the same."""
    sources = config.codec / "diffusion_pytorch_model.safetensors", config.corpus / "sources.json"
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    path = config.out / "latents.safetensors"
    if path.exists():
        with safe_open(path, "pt") as file:
            if file.metadata()["made_of"] == key:
                return file.get_tensor("latents")
    codec: Any = AutoencoderTiny.from_pretrained(config.codec)
    codec = codec.to(config.device).eval()
    scale = codec.config["scaling_factor"]
    with torch.no_grad():
        chunks = np.array_split(np.arange(len(corpus)), -(-len(corpus) // 32))
        parts = [codec.encoder(corpus.floats(rows).to(config.device) * 2 - 1).cpu() * scale for rows in chunks]
    latents = torch.cat(parts).contiguous()
    save_file({"latents": latents}, path, {"made_of": key})
    return latents


def read_tokenizer(corpus: Corpus, config: Config) -> CLIPTokenizer:
    """The run's tokenizer; learned from all captions when the run begins."""
    folder = config.out / "tokenizer"
    if (folder / "merges.txt").exists():
        return CLIPTokenizer.from_pretrained(folder)
    everything = sorted({caption for captions in corpus.captions for caption in captions})
    return train_tokenizer(everything, folder, vocabulary=config.vocabulary, positions=config.positions)


def averaged(run: Run, tokenizer: CLIPTokenizer, config: Config) -> nn.ModuleDict:
    """The parts with the averaged weights, in float32."""
    unet: Any = run.model.get_submodule("unet")
    parts = build(config, len(tokenizer), unet.config["sample_size"]).eval()
    run.ema.copy_to(parts)
    return parts


def export(run: Run, tokenizer: CLIPTokenizer, config: Config) -> Path:
    """Write the averaged model as `model` in the run's folder."""
    parts: Any = averaged(run, tokenizer, config)
    return save_pipeline(
        config.out / "model", parts["unet"], parts["text"], config.out / "tokenizer", config.codec, SCHEDULER
    )


@torch.no_grad()
def sheet(run: Run, tokenizer: CLIPTokenizer, config: Config) -> Float[Tensor, "n 3 h w"]:
    """One picture of each of the recipe's prompts, seed 0, made as `segue image` makes them."""
    parts: Any = averaged(run, tokenizer, config)
    codec = AutoencoderTiny.from_pretrained(config.codec).eval()
    text = ClipText(parts["text"], tokenizer)
    model = assemble(parts["unet"], text, codec, SCHEDULER, name="training", weights=())
    return torch.cat([_pictures(model, config, chunk) for chunk in _chunks(config.sheet_prompts, 8)])


def _pictures(model: Any, config: Config, prompts: Sequence[str]) -> Tensor:
    schedule = model.schedule(config.sheet_steps, model.defaults.size)
    ids = [RowId(prompt) for prompt in prompts]
    side = model.defaults.size[0] // model.codec.scale
    shape = (model.codec.channels, side, side)
    state = from_seeds([0] * len(prompts), ids, schedule, shape, torch.device(config.device))
    cond = classifier_free(model.text(prompts), model.text([""] * len(prompts)), config.guidance)
    return model.codec.decode(collect(denoise(model.denoiser, state, schedule, cond), schedule))


def _chunks(prompts: Sequence[str], size: int) -> list[Sequence[str]]:
    return [prompts[i : i + size] for i in range(0, len(prompts), size)]
