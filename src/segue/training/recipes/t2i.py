"""Train text to picture: a small UNet and its text encoder together, on latents of a trained codec.

A latent diffusion model (Rombach et al. 2022, arXiv:2112.10752) in the layout of Stable Diffusion, that predicts v
(Salimans & Ho 2022, arXiv:2202.00512) unless it is told otherwise. The betas are DDPM's linear ones, whose last level
keeps almost no signal (alpha = .006): with Stable Diffusion's own (alpha = .068), the ground's colour would leak into
what training calls pure noise, and plain grounds would come out mottled.

With `prediction = "flow_prediction"`, as the shipped model has it, it learns the velocity of straight paths instead
(Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2022, arXiv:2209.03003). Segue reads such a model like any other. The
stock StableDiffusionPipeline does not run it: it asks its scheduler for init_noise_sigma and scale_model_input, which
the flow-matching schedulers of diffusers do not have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from pydantic import ConfigDict, Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from segue.diffusion.betas import training_levels
from segue.diffusion.levels import Levels
from segue.diffusion.schedule import Schedule
from segue.errors import ModelError, TrainingError
from segue.models.codec import AutoencoderCodec
from segue.models.denoiser import NetworkDenoiser
from segue.models.families.sd import UNetNetwork, assemble
from segue.models.text import ClipText
from segue.models.weights import MISFITS
from segue.training.bounds import Amount, Count, Memory, Natural, Prompts, Rate, Share
from segue.training.checkpoint import Run
from segue.training.data import Corpus, step_generator, step_rng
from segue.training.ema import Ema
from segue.training.export import load_codec, load_part, save_pipeline
from segue.training.journal import save_sheet, watched
from segue.training.losses import TrainedPrediction, prediction_error
from segue.training.origins import folder_of
from segue.training.precision import float_norms
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.sampling import decoded, sample
from segue.training.sitting import Sitting, settled
from segue.training.tokenizer import train_tokenizer
from segue.types import Conditioning, Denoiser, Point

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
FLOW: dict[str, Any] = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "timestep_spacing": "trailing",  # of few steps, none is spent where nothing is left to do
}
SCHEDULERS: dict[TrainedPrediction, dict[str, Any]] = {"v_prediction": SCHEDULER, "flow_prediction": FLOW}
TEXT_HEADS = 4
Widths = Annotated[tuple[Annotated[int, Field(gt=0, multiple_of=32)], ...], Field(min_length=2)]
"""Channels, of which group normalisation makes 32 groups."""


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; t2i.toml holds those of the shipped model."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    corpus: Path = Path("runs/corpus")
    codec: Path = Path("runs/codec/vae")  # exported by `segue train codec`, or an embedded model's name for its own
    out: Path = Path("runs/t2i")
    start: Path | None = None  # an exported model, or an embedded one, to go on from, in place of random weights
    widths: Widths = (96, 160, 192)  # no attention at the first: it costs most there and helps least
    heads: Count = 4
    text_width: Annotated[int, Field(gt=0, multiple_of=TEXT_HEADS)] = 256
    text_layers: Count = 2
    positions: Annotated[int, Field(ge=3)] = 24
    vocabulary: Annotated[int, Field(ge=514)] = 2000  # every byte, alone and at a word's end, and two marks are in it
    steps: Count = 9000
    batch: Count = 16
    lr: Rate = 5e-4
    warmup: Natural = 200
    decay: Natural = 2000
    weight_decay: Amount = 0.01
    ema: Memory = 0.999
    prediction: TrainedPrediction = "v_prediction"
    min_snr: Amount = 0.0  # gamma of Hang et al. 2023; 5 is usual, 0 weighs all levels alike
    noise_power: Rate = 1.0  # levels are drawn as u ** power at first; below 1, there are more noisy ones
    noise_share: Share = 0.5  # of the run, over which this relaxes to an even draw
    drop_captions: Share = 0.1  # share of empty captions, for classifier-free guidance
    sheet_prompts: Prompts = ("a red apple", "a blue heart", "a cat face", "a castle")
    sheet_guidance: Amount = 4.0
    sheet_steps: Count = 20
    seed: Natural = 2
    device: str = "cpu"
    bf16: bool | None = None  # None: where it is fast
    log_every: Count = 50
    save_every: Count = 300
    sheet_every: Count = 600


def build(config: Config, vocabulary: int, size: int) -> nn.ModuleDict:
    """Untrained parts: `unet` for latents of `size`, and `text` for that many tokens.

    Raises:
        TrainingError: the widths cannot be shared out among the heads.
    """
    if any(width % config.heads for width in config.widths[1:]):
        raise TrainingError(f"widths after the first must be multiples of heads={config.heads}; got {config.widths}")
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
            num_attention_heads=TEXT_HEADS,
            max_position_embeddings=config.positions,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    parts: Any = nn.ModuleDict({"unet": unet, "text": text})
    return parts.to(config.device, memory_format=torch.channels_last)


def begin_from(parts: Any, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Load the weights of an exported model; a token's embedding goes to where the new tokenizer has that token.

    Raises:
        TrainingError: there is no such model, it is damaged, or its network is another.
    """
    try:
        unet = load_part(UNet2DConditionModel, folder / "unet")
        text = load_part(CLIPTextModel, folder / "text_encoder")
        old = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True).get_vocab()
        shared = {number: old[token] for token, number in tokenizer.get_vocab().items() if token in old}
        weights = text.state_dict()
        name = next(key for key in weights if key.endswith("token_embedding.weight"))
        embedding = parts["text"].state_dict()[name].clone()
        embedding[list(shared)] = weights[name][list(shared.values())]
        parts["unet"].load_state_dict(unet.state_dict())
        parts["text"].load_state_dict(weights | {name: embedding})
    except (ModelError, *MISFITS) as error:
        reason = str(error).strip().partition("\n")[0]
        raise TrainingError(f"start={folder} is no model that this run can begin with: {reason}") from error


def main(config: Config) -> Path:
    """Train, or go on training, and return the folder of the exported model (fp16, the averaged weights)."""
    ranks = Ranks.start(config.device)
    config = settled(with_folders(config))
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
    denoiser = NetworkDenoiser(UNetNetwork(parts["unet"]), config.prediction, max_batch=config.batch)
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))

    with Sitting(config, run, ranks) as sitting:
        for step in sitting.steps:
            rows, captions = draw(corpus, config, step)
            at, eps = noise(config, step, latents.shape[1:])
            x0, eps = latents[rows[share]].to(ranks.device), eps[share].to(ranks.device)
            tokens = tokenizer(captions[share], padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            with precision:
                cond = Conditioning(parts["text"](tokens.to(ranks.device)).last_hidden_state)
                loss = step_loss(denoiser, x0, cond, at[range(config.batch)[share]], eps, config)
            loss.backward()
            sitting.learn(step, loss=loss)
            sitting.close(step)
            if sitting.due(step, config.sheet_every):
                export(run, tokenizer, config)
                save_sheet(config.out / f"sheet-{step + 1:06d}.png", sheet(run, tokenizer, config), columns=8)
    return export(run, tokenizer, config) if ranks.main else config.out / "model"


def with_folders(config: Config) -> Config:
    """The configuration with the folders of embedded models in place of their names."""
    start = None if config.start is None else folder_of(config.start)
    return replace(config, codec=folder_of(config.codec, "vae"), start=start)


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
    codec = AutoencoderCodec(load_codec(config.codec, config.device), slice=32)
    key = key_of(config.codec / "diffusion_pytorch_model.safetensors", config.corpus / "sources.json")
    path = config.out / "latents.safetensors"
    if path.exists():
        with safe_open(path, "pt") as file:
            if file.metadata()["made_of"] == key:
                return file.get_tensor("latents")
    made: list[Tensor] = []
    with torch.no_grad(), watched("encoding", len(corpus)) as tell:
        for rows in np.array_split(np.arange(len(corpus)), -(-len(corpus) // 32)):
            made.append(codec.encode(corpus.floats(rows)))
            tell(int(rows[-1]) + 1)
    latents = torch.cat(made).contiguous()
    part = path.with_name(path.name + ".part")
    save_file({"latents": latents}, part, {"made_of": key})
    part.replace(path)
    return latents


def read_tokenizer(corpus: Corpus, config: Config) -> CLIPTokenizer:
    """The run's tokenizer; learned from all captions when the run begins, and again if they or its size change."""
    folder, note = config.out / "tokenizer", config.out / "tokenizer.made_of"
    key = f"{key_of(config.corpus / 'sources.json')} {config.vocabulary} {config.positions}"
    if note.exists() and note.read_text("utf-8") == key:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    everything = sorted({caption for captions in corpus.captions for caption in captions})
    tokenizer = train_tokenizer(everything, folder, vocabulary=config.vocabulary, positions=config.positions)
    note.write_text(key, "utf-8")
    return tokenizer


def key_of(*sources: Path) -> str:
    """A hash of files; what was made of them is made anew when it changes."""
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


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
    made: Any = {"steps": config.sheet_steps, "guidance_scale": config.sheet_guidance}
    return decoded(model, sample(model, config.sheet_prompts, [0] * len(config.sheet_prompts), **made))
