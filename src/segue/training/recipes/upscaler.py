"""Train an upscaler in the layout of Stable Diffusion's x4: a UNet that sees a small picture beside noisy latents.

It learns the latents of a codec that makes one latent of `factor` x `factor` pixels, so that the small picture fits
beside them: 4 + 3 channels in. The small picture is noised to a level that the network is told by a class label (Ho et
al. 2021, arXiv:2106.15282, section 4.2), which lets a sampler hide what is wrong with it. It is told a caption, too, in
the words of another model, whose text encoder it shares and leaves as it is.

Few steps are what it is for, and then it is near the mean of what the large picture may be. So besides v (Salimans & Ho
2022, arXiv:2202.00512), it may learn from the picture that its estimate decodes to, where the noise is strongest and
the estimate is that mean (`pixels`), which is what an upscaler is measured by, and from a perceptual distance.

Windows of pictures are enough: every layer sees only its neighbourhood. Attention would not; so the only attention is
that to the text, and the network may be used at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int64
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel

from segue.diffusion.betas import training_levels
from segue.diffusion.loop import collect, denoise
from segue.diffusion.schedule import Schedule
from segue.diffusion.starts import from_seeds
from segue.errors import ModelError, TrainingError
from segue.models.codec import AutoencoderCodec
from segue.models.denoiser import NetworkDenoiser
from segue.models.families.sd import UNetNetwork, read_tokenizer
from segue.models.text import ClipText
from segue.models.weights import MISFITS
from segue.training.bounds import Amount, Count, Memory, Natural, Rate, Share
from segue.training.checkpoint import Run
from segue.training.data import step_generator, step_rng
from segue.training.ema import Ema
from segue.training.export import Autoencoder, load_codec, load_part, save_codec, save_upscaler
from segue.training.journal import save_sheet
from segue.training.losses import DecodedError, prediction_error, psnr, read_perceptual
from segue.training.origins import folder_of
from segue.training.pairs import Codecs, Pairs, prepared
from segue.training.precision import float_norms
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.recipes.t2i import SCHEDULER
from segue.training.sitting import Sitting, settled
from segue.types import Codec, Conditioning, Denoiser, Point, RowId

LOW_RES: dict[str, Any] = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "clip_sample": False,
}
"""How the small picture is noised; only the first `noise_levels` of its levels are learned."""

COLOURS = 3
EVERY = 4
"""Of so many rows, from the least noisy to the noisiest, one also learns from its picture."""


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; upscaler.toml holds those of the shipped model."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    corpus: Path = Path("runs/corpus")  # pictures as large as they shall become
    more: tuple[Path, ...] = ()  # further corpora, of any size; each is drawn as often
    codec: Path = Path("runs/upscaler-codec/vae")  # its factor is that of the upscaler
    text: Path = Path("emoji")  # the model whose text encoder it shares
    through: Path | None = Path("emoji")  # the model whose pictures it enlarges: half went through its codec
    through_noise: Amount = 0.05  # how far the latents are off there; they have unit variance
    out: Path = Path("runs/upscaler")
    start: Path | None = None  # an exported upscaler to go on from, in place of random weights
    widths: Annotated[tuple[Count, ...], Field(min_length=2)] = (48, 64)
    layers: Count = 1
    norm_groups: Count = 4  # few: each forgets how bright its channels are together
    heads: Count = 4  # of the attention to the text, at the last width alone
    noise_levels: Annotated[int, Field(ge=2, le=1000)] = 100  # of the small picture: up to .16 of its range at 100
    window: Count = 32  # side of what a step sees of a picture, in latents
    steps: Count = 6000
    batch: Count = 16
    lr: Rate = 1e-3
    warmup: Natural = 100
    decay: Natural = 2000
    weight_decay: Amount = 0.01
    ema: Memory = 0.998
    noise_power: Rate = 0.5  # levels are drawn as u ** power; below 1, there are more noisy ones
    drop_captions: Share = 0.3  # share of empty captions
    pixels: Amount = 0.0  # weight of the loss of decoded pictures, beside that of v
    pixels_start: Share = 0.1  # the share of the run that is over when it begins
    decoder: bool = False  # let the codec's decoder learn from that loss as well; latents stay as they are
    perceptual: str = ""  # "lpips-alex" or "lpips-vgg": one more loss of decoded pictures
    perceptual_weight: Amount = 0.5
    validation_every: Annotated[int, Field(ge=2)] = 40  # every how many pictures of the first corpus one is kept back
    sheet_pictures: Count = 8
    sheet_steps: tuple[Count, ...] = (1, 4)
    seed: Natural = 3
    device: str = "cpu"
    bf16: bool | None = None  # None: where it is fast
    log_every: Count = 50
    save_every: Count = 250
    sheet_every: Count = 500


@dataclass(frozen=True)
class Batch:
    """What a step sees, a row for each window of a picture.

    Args:
        pictures: in [0, 1].
        latents: theirs.
        small: a small copy, in [-1, 1], noised.
        label: the level of that noise.
        at: the level that the latents are brought to.
        eps: the noise with which they are.
        captions: some of them empty.
    """

    pictures: Float[Tensor, "b 3 H W"]
    latents: Float[Tensor, "b c h w"]
    small: Float[Tensor, "b 3 h w"]
    label: Int64[Tensor, " b"]
    at: Point
    eps: Float[Tensor, "b c h w"]
    captions: list[str]

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        pick = list(rows)
        here = {"at": self.at[pick], "eps": self.eps[pick], "captions": [self.captions[row] for row in pick]}
        return replace(self, **{name: part[pick] for name, part in self._shown().items()}, **here)

    def to(self, device: torch.device) -> Batch:
        return replace(self, **{name: part.to(device) for name, part in self._shown().items()}, eps=self.eps.to(device))

    def _shown(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("pictures", "latents", "small", "label")}


def build(config: Config, channels: int, text_width: int) -> UNet2DConditionModel:
    """The untrained network: no attention but that to the text, at the last width on the way down.

    Raises:
        TrainingError: the widths cannot be shared out among heads and groups.
    """
    if config.widths[-1] % config.heads or any(width % config.norm_groups for width in config.widths):
        told = f"heads={config.heads} and norm_groups={config.norm_groups}"
        raise TrainingError(f"widths must be multiples of norm_groups, the last of heads; got {config.widths}, {told}")
    rest = len(config.widths) - 1
    unet: Any = UNet2DConditionModel(
        sample_size=config.window,
        in_channels=channels + COLOURS,
        out_channels=channels,
        block_out_channels=config.widths,
        layers_per_block=config.layers,
        down_block_types=(*("DownBlock2D",) * rest, "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2D",
        up_block_types=("UpBlock2D",) * (rest + 1),
        only_cross_attention=True,
        cross_attention_dim=text_width,
        attention_head_dim=config.heads,  # diffusers reads the number of heads from this field
        num_class_embeds=config.noise_levels,
        norm_num_groups=config.norm_groups,
    )
    nn.init.zeros_(unet.class_embedding.weight)  # levels begin alike: each is seen too seldom to unlearn a random one
    return unet.to(config.device, memory_format=torch.channels_last)


def main(config: Config) -> Path:
    """Train, or go on training, and return the folder of the exported upscaler (fp16, the averaged weights)."""
    ranks = Ranks.start(config.device)
    config = settled(with_folders(config))
    share = ranks.share(config.batch)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    codec = AutoencoderCodec(load_codec(config.codec, config.device), slice=16)
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))
    with ranks.main_first():
        pairs = read_pairs(config, precision)
    validation, pairs[0] = reversed(pairs[0].split(config.validation_every))
    text = read_text(config)
    parts: Any = gathered(build(config, codec.channels, text.encoder.config.hidden_size), codec, config)
    if config.start is not None:
        begin_from(parts["unet"], config.start)
    if config.bf16 and config.device == "cpu":
        float_norms(parts)
    optimizer = torch.optim.AdamW(
        parts.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    run = Run(parts, optimizer, Ema(parts, config.ema))
    denoiser = NetworkDenoiser(UNetNetwork(parts["unet"]), "v_prediction", max_batch=config.batch)
    perceptual = read_perceptual(config.perceptual, ranks.device)
    in_pictures = DecodedError(codec, perceptual, config.perceptual_weight, precision)

    with Sitting(config, run, ranks) as sitting:
        for step in sitting.steps:
            batch = draw(pairs, config, step)[range(config.batch)[share]].to(ranks.device)
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            with precision:
                cond = replace(text(batch.captions), concat=batch.small, label=batch.label)
                x = batch.at.noised(batch.latents, batch.eps)
                x0 = denoiser(x, batch.at, cond)
            measured = {"v": prediction_error(batch.at, x, x0, batch.latents, "v_prediction")}
            if config.pixels:
                begun, some = step >= config.pixels_start * config.steps, slice(EVERY - 1, None, EVERY)
                blank = torch.zeros((), device=ranks.device)
                measured["pixels"] = in_pictures(x0[some], batch.pictures[some]) if begun else blank
            loss = measured["v"] + config.pixels * measured.get("pixels", 0)
            loss.backward()
            sitting.learn(step, loss=loss, **measured)
            if sitting.due(step, config.sheet_every):
                export(run, text, config)
                sitting.log.note(step + 1, **validate(run, validation, text, config))
            sitting.close(step)
    return export(run, text, config) if ranks.main else config.out / "model"


def with_folders(config: Config) -> Config:
    """The configuration with the folders of embedded models in place of their names."""
    through = None if config.through is None else folder_of(config.through, "vae")
    start = None if config.start is None else folder_of(config.start)
    parts = {"codec": folder_of(config.codec, "vae"), "text": folder_of(config.text)}
    return replace(config, **parts, through=through, start=start)


def read_text(config: Config) -> ClipText:
    """The text encoder that is shared; it does not learn."""
    encoder = load_part(CLIPTextModel, config.text / "text_encoder", config.device).requires_grad_(False)
    return ClipText(encoder, read_tokenizer(config.text / "tokenizer", encoder))


def begin_from(unet: UNet2DConditionModel, folder: Path) -> None:
    """Load the weights of an exported upscaler.

    Raises:
        TrainingError: there is no such model, it is damaged, or its network is another.
    """
    try:
        unet.load_state_dict(load_part(UNet2DConditionModel, folder / "unet").state_dict())
    except (ModelError, *MISFITS) as error:
        reason = str(error).strip().partition("\n")[0]
        raise TrainingError(f"start={folder} is no upscaler that this run can begin with: {reason}") from error


def read_pairs(config: Config, precision: torch.autocast) -> list[Pairs]:
    """What is learned from, by corpus.

    Raises:
        TrainingError: there is no corpus or codec, they do not fit, or a picture is smaller than a window.
    """
    codecs = Codecs(config.codec, config.through, config.through_noise)
    found: list[Pairs] = []
    for index, folder in enumerate((config.corpus, *config.more)):
        kept = config.out / f"pairs-{index}.safetensors"
        found.append(prepared(folder, kept, codecs, config.seed, precision, config.device))
        if config.window > (most := min(found[-1].latents.shape[-2:])):
            raise TrainingError(
                f"window must be at most {most}, the latents of a picture of {folder}; got {config.window}"
            )
    return found


def draw(pairs: Sequence[Pairs], config: Config, step: int) -> Batch:
    """What a step sees.

    Levels are spread evenly over the schedule, one row each, the least noisy first; u ** power moves them towards the
    noise. Of the small pictures' levels, low ones are drawn more often: a fifth of the rows is above half of them.
    """
    rng, generator = step_rng(config.seed, step), step_generator(config.seed, step)
    rows = [pairs[int(rng.integers(len(pairs)))].draw(rng, config.window) for _ in range(config.batch)]
    pictures, latents, small = (torch.cat(parts) for parts in zip(*(row[:3] for row in rows), strict=True))
    captions = ["" if rng.random() < config.drop_captions else row[3] for row in rows]
    label = torch.from_numpy((rng.random(config.batch) ** 3 * config.noise_levels).astype(np.int64))
    spread = (torch.arange(config.batch) + torch.rand(config.batch, generator=generator)) / config.batch
    levels = training_levels(SCHEDULER)
    at = levels.at((spread**config.noise_power * len(levels)).long())
    eps = torch.randn(latents.shape, generator=generator)
    small = noised(small, label, torch.randn(small.shape, generator=generator))
    return Batch(pictures, latents, small, label, at, eps, captions)


def noised(
    small: Float[Tensor, "b 3 h w"], label: Int64[Tensor, " b"], eps: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b 3 h w"]:
    """Small pictures in [0, 1] as the network sees them: in [-1, 1], with noise of that level."""
    return training_levels(LOW_RES).at(label).noised(small * 2 - 1, eps)


def gathered(unet: UNet2DConditionModel, codec: AutoencoderCodec, config: Config) -> nn.ModuleDict:
    """All that learns: the network, and the decoder if the recipe says so."""
    codec.vae.requires_grad_(False)
    if not config.decoder:
        return nn.ModuleDict({"unet": unet})
    return nn.ModuleDict({"unet": unet, "decoder": codec.vae.decoder.requires_grad_(True)})


def averaged(run: Run, text: ClipText, config: Config) -> tuple[UNet2DConditionModel, AutoencoderCodec]:
    """The network and the codec with the averaged weights, in float32."""
    codec = AutoencoderCodec(load_codec(config.codec, config.device), slice=16)
    unet = build(config, codec.channels, text.encoder.config.hidden_size).eval()
    run.ema.copy_to(gathered(unet, codec, config))
    return unet, codec


def export(run: Run, text: ClipText, config: Config) -> Path:
    """Write the averaged upscaler as `model` in the run's folder, with copies of the text parts that it was given."""
    unet, codec = averaged(run, text, config)
    network = cast(Autoencoder, codec.vae)
    vae = save_codec(network, float(network.config["scaling_factor"]), config.out / "vae")
    copied = {"vae": vae, **{part: config.text / part for part in ("text_encoder", "tokenizer")}}
    return save_upscaler(config.out / "model", unet, copied, SCHEDULER, LOW_RES, config.noise_levels - 1)


@torch.no_grad()
def upscaled(
    denoiser: Denoiser, codec: Codec, cond: Conditioning, small: Float[Tensor, "b 3 h w"], steps: int
) -> Float[Tensor, "b 3 H W"]:
    """Small pictures in [0, 1], enlarged in so many steps from the noise of seed 0, shown with the least noise."""
    schedule = Schedule.from_config(SCHEDULER, steps)
    label = torch.zeros(len(small), dtype=torch.int64, device=small.device)
    seen = noised(small, label, torch.randn(small.shape, generator=step_generator(0, 0)).to(small))
    ids = [RowId(str(row)) for row in range(len(small))]
    state = from_seeds([0] * len(small), ids, schedule, (codec.channels, *small.shape[-2:]), small.device)
    states = denoise(denoiser, state, schedule, replace(cond, concat=seen, label=label))
    return codec.decode(collect(states, schedule))


@torch.no_grad()
def validate(run: Run, validation: Pairs, text: ClipText, config: Config) -> dict[str, float]:
    """PSNR of pictures that were kept back, and a sheet: small, enlarged in each number of steps, as they were.

    For comparison, that of the codec alone, which is the most that there is to reach, and of bicubic enlargement, which
    is what it must beat. The small copies are plain ones, made smaller by the first kernel.
    """
    rows = np.linspace(0, len(validation) - 1, min(config.sheet_pictures, len(validation)))
    shown = validation.take(rows.astype(np.int64))
    large = shown.corpus.floats(range(len(shown))).to(config.device)
    small = shown.small[:, 0].to(config.device).float() / 255
    unet, codec = averaged(run, text, config)
    denoiser = NetworkDenoiser(UNetNetwork(unet), "v_prediction", max_batch=8)
    cond = text([said[0] for said in shown.corpus.captions])
    size = large.shape[-2:]
    made = {
        "bicubic": functional.interpolate(small, size, mode="bicubic", align_corners=False).clamp(0, 1),
        **{f"steps_{steps}": upscaled(denoiser, codec, cond, small, steps) for steps in config.sheet_steps},
        "codec": codec.decode(shown.latents.to(config.device).float()),
    }
    cells = torch.stack([*made.values(), large], 1).flatten(0, 1)
    save_sheet(config.out / "sheet.png", cells, columns=len(made) + 1)
    return {f"psnr_{name}": psnr(pictures, large) for name, pictures in made.items()}
