"""Train text to picture: a small UNet and its text encoder together, on latents of a trained codec.

A latent diffusion model (Rombach et al. 2022, arXiv:2112.10752) in the layout of Stable Diffusion, that predicts v
(Salimans & Ho 2022, arXiv:2202.00512). The betas are DDPM's linear ones, whose last level keeps almost no signal
(alpha = .006): with Stable Diffusion's own (alpha = .068), the ground's colour would leak into what training calls
pure noise, and plain grounds would come out mottled.

With `prediction = "flow_prediction"` it learns the velocity of straight paths instead (Lipman et al. 2023,
arXiv:2210.02747; Liu et al. 2022, arXiv:2209.03003). Segue reads such a model like any other. The stock
StableDiffusionPipeline does not run it: it asks its scheduler for init_noise_sigma and scale_model_input, which the
flow-matching schedulers of diffusers do not have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from pydantic import ConfigDict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from segue.diffusion.betas import training_levels
from segue.diffusion.guidance import classifier_free
from segue.diffusion.levels import Levels
from segue.diffusion.loop import collect, denoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.starts import from_seeds
from segue.models.codec import AutoencoderCodec
from segue.models.denoiser import NetworkDenoiser
from segue.models.families.sd import UNetNetwork, assemble
from segue.models.text import ClipText
from segue.training.checkpoint import Run, resume, save
from segue.training.data import Corpus, step_generator, step_rng
from segue.training.ema import Ema
from segue.training.export import load_codec, save_pipeline
from segue.training.interrupt import Interrupt, stopped
from segue.training.journal import Journal, save_sheet
from segue.training.losses import TrainedPrediction, prediction_error
from segue.training.precision import float_norms
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.tokenizer import train_tokenizer
from segue.types import Conditioning, Denoiser, Point, RowId

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
FLOW: dict[str, Any] = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}
SCHEDULERS: dict[TrainedPrediction, dict[str, Any]] = {"v_prediction": SCHEDULER, "flow_prediction": FLOW}


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
    prediction: TrainedPrediction = "v_prediction"
    min_snr: float = 0.0  # gamma of Hang et al. 2023; 5 is usual, 0 weighs all levels alike
    noise_power: float = 1.0  # levels are drawn as u ** power at first; below 1, there are more noisy ones
    noise_share: float = 0.5  # of the run, over which this relaxes to an even draw
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
    ranks = Ranks.start(config.device)
    share = ranks.share(config.batch)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    corpus = Corpus.load(config.corpus)
    with ranks.main_first():
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
    denoiser = NetworkDenoiser(UNetNetwork(parts["unet"]), config.prediction, max_batch=config.batch)
    path, silent = config.out / "log.jsonl", not ranks.main
    log = Journal(
        path, config.steps, start, spent, config.log_every, batch=config.batch, tally=run.tally, silent=silent
    )

    with log, Interrupt(ranks) as interrupt:
        for step in range(start, config.steps):
            rows, captions = draw(corpus, config, step)
            at, eps = noise(config, step, latents.shape[1:])
            x0, eps = latents[rows[share]].to(ranks.device), eps[share].to(ranks.device)
            tokens = tokenizer(captions[share], padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            with torch.autocast(ranks.device.type, torch.bfloat16, enabled=config.bf16):
                cond = Conditioning(parts["text"](tokens.to(ranks.device)).last_hidden_state)
                loss = step_loss(denoiser, x0, cond, at[range(config.batch)[share]], eps, config)
            loss.backward()
            ranks.average_gradients(parts.parameters())
            nn.utils.clip_grad_norm_(parts.parameters(), 1.0, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            run.ema.update(parts, step + 1)
            log.step(step + 1, **ranks.means({"loss": loss}))
            last, stop = step + 1 == config.steps, interrupt.asked()
            if (stop or last or (step + 1) % config.save_every == 0) and ranks.main:
                save(checkpoint, run, step + 1, log.seconds, asdict(config))
            if stop and not last:
                raise stopped(step + 1, config.steps, checkpoint)
            if (last or (step + 1) % config.sheet_every == 0) and ranks.main:
                export(run, tokenizer, config)
                save_sheet(config.out / f"sheet-{step + 1:06d}.png", sheet(run, tokenizer, config), columns=8)
    return export(run, tokenizer, config) if ranks.main else config.out / "model"


def draw(corpus: Corpus, config: Config, step: int) -> tuple[Tensor, list[str]]:
    """Which pictures a step sees, and the caption of each, some of them empty."""
    rng = step_rng(config.seed, step)
    rows = rng.choice(len(corpus), config.batch, p=corpus.weights)
    captions = [str(rng.choice(corpus.captions[row])) for row in rows]
    dropped = rng.random(config.batch) < config.drop_captions
    return torch.from_numpy(rows), ["" if drop else text for text, drop in zip(captions, dropped, strict=True)]


def noise(config: Config, step: int, shape: Sequence[int]) -> tuple[Point, Float[Tensor, "b c h w"]]:
    """The level and the noise of each row of a step.

    Levels are spread evenly over the schedule, one row each, which lowers the variance; then u ** power moves them
    towards the noise, where what a picture shows is decided. The power relaxes to 1 over a share of the run.
    """
    generator = step_generator(config.seed, step)
    spread = (torch.arange(config.batch) + torch.rand(config.batch, generator=generator)) / config.batch
    bias = max(0.0, 1 - step / (config.noise_share * config.steps)) if config.noise_share else 0.0
    levels = trained_levels(config.prediction)
    at = levels.at((spread ** (1 + (config.noise_power - 1) * bias) * len(levels)).long())
    return at, torch.randn((config.batch, *shape), generator=generator)


def step_loss(
    denoiser: Denoiser,
    x0: Float[Tensor, "b c h w"],
    cond: Conditioning,
    at: Point,
    eps: Float[Tensor, "b c h w"],
    config: Config,
) -> Float[Tensor, ""]:
    """How wrong the denoiser is about `x0` behind noise, in what the network predicts."""
    x = at.noised(x0, eps)
    return prediction_error(at, x, denoiser(x, at, cond), x0, config.prediction, config.min_snr)


@cache
def trained_levels(prediction: TrainedPrediction) -> Levels:
    """All levels that training asks for, the least noisy first; sampling visits some of them."""
    if prediction == "flow_prediction":
        return Schedule.from_config(FLOW, FLOW["num_train_timesteps"]).now.flip()
    return training_levels(SCHEDULER)


def encode_corpus(corpus: Corpus, config: Config) -> Float[Tensor, "n c h w"]:
    """Latents of unit variance of every picture; kept in the run's folder while codec and corpus are the same."""
    sources = config.codec / "diffusion_pytorch_model.safetensors", config.corpus / "sources.json"
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    path = config.out / "latents.safetensors"
    if path.exists():
        with safe_open(path, "pt") as file:
            if file.metadata()["made_of"] == key:
                return file.get_tensor("latents")
    codec = AutoencoderCodec(load_codec(config.codec, config.device), slice=32)
    with torch.no_grad():
        chunks = np.array_split(np.arange(len(corpus)), -(-len(corpus) // 32))
        latents = torch.cat([codec.encode(corpus.floats(rows)) for rows in chunks]).contiguous()
    part = path.with_name(path.name + ".part")
    save_file({"latents": latents}, part, {"made_of": key})
    part.replace(path)
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
    tokens, scheduler = config.out / "tokenizer", SCHEDULERS[config.prediction]
    return save_pipeline(config.out / "model", parts["unet"], parts["text"], tokens, config.codec, scheduler)


@torch.no_grad()
def sheet(run: Run, tokenizer: CLIPTokenizer, config: Config) -> Float[Tensor, "n 3 h w"]:
    """One picture of each of the recipe's prompts, seed 0, made as `segue image` makes them."""
    parts: Any = averaged(run, tokenizer, config)
    codec = load_codec(config.codec, config.device)
    text = ClipText(parts["text"], tokenizer)
    model = assemble(parts["unet"], text, codec, SCHEDULERS[config.prediction], name="training", weights=())
    return torch.cat([_pictures(model, config, chunk) for chunk in _chunks(config.sheet_prompts, 8)])


def _pictures(model: Any, config: Config, prompts: Sequence[str]) -> Tensor:
    schedule = model.schedule(config.sheet_steps, model.defaults.size)
    ids = [RowId(prompt) for prompt in prompts]
    side = model.defaults.size[0] // model.codec.scale
    shape = (model.codec.channels, side, side)
    state = from_seeds([0] * len(prompts), ids, schedule, shape, torch.device(config.device))
    text, told = model.text([*prompts, ""]), range(len(prompts))  # in one call: a long prompt lengthens all of it
    cond = classifier_free(text[told], text[[len(prompts)] * len(prompts)], config.guidance)
    return model.codec.decode(collect(denoise(model.denoiser, state, schedule, cond), schedule))


def _chunks(prompts: Sequence[str], size: int) -> list[Sequence[str]]:
    return [prompts[i : i + size] for i in range(0, len(prompts), size)]
