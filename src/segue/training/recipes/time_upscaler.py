"""Teach an upscaler to look along time: layers put into its UNet learn from clips, and small copies of their frames.

Video LDM (Blattmann et al. 2023, arXiv:2304.08818, section 3.4): the upscaler of pictures stays as it is, and makes up
the detail of each frame anew; what learns is to make up the same in all of them. Parts of the frames are enough, since
detail is near; a few frames are seen at once, and later a film is gone through in windows of as many.

The small frames of a clip are noised by one level, as far as any that the upscaler knows, and by one field, as they are
when a film is made larger. Some of them went through the codec of the model whose films will be enlarged, frame by
frame: what that lost of each is different, and one frame knows what another lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import shared_noise
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import from_clip_seed
from segue.errors import TrainingError
from segue.models.bundle import LatentDiffusion
from segue.models.codec import AutoencoderCodec
from segue.models.families.sd import UNetNetwork
from segue.models.time_files import fitting_weights, save_time
from segue.models.time_inserted import FPS, Kind, TimeLayers, TimeSettings, time_layers, with_time
from segue.training.bounds import Amount, Count, Memory, Natural, Rate, Share
from segue.training.checkpoint import Run
from segue.training.clips import Clips, Taken
from segue.training.data import step_generator, step_rng, windows
from segue.training.ema import Ema
from segue.training.export import load_codec
from segue.training.frozen import read_frozen
from segue.training.journal import save_sheet
from segue.training.losses import TrainedPrediction, prediction_error, psnr
from segue.training.origins import folder_of
from segue.training.pairs import KERNELS, shrunk
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.recipes.time_decoder import flicker
from segue.training.sampling import decoded, drawn_levels
from segue.training.sitting import Sitting, settled
from segue.types import Codec, Conditioning, RowId

FILE = "motion.safetensors"
VALIDATED = 16
SHOWN = 4
"""Clips of a sheet, and of the measures beside it."""


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; time_upscaler.toml holds those for the embedded upscaler."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str = "emoji-x4"  # an embedded upscaler, a folder, or a hub repository
    start: Path | None = None  # a file of layers of this shape, to go on from
    clips: Path = Path("runs/clips")  # as large as they shall become
    through: Path | None = None  # the model whose films it enlarges, if small clips are of its size: half in its codec
    through_noise: Amount = 0.05  # how far the latents are off there, each frame's by itself; they have unit variance
    out: Path = Path("runs/time_upscaler")
    blocks: Kind | None = "convolution"  # what stands behind residual blocks
    transformers: Kind | None = "attention"  # and behind transformers
    inner: Count = 16  # channels inside of a convolution
    heads: Count = 4
    head_width: Count = 16
    window: Count = 8  # frames that attention looks ahead and back
    vector: Count = 128  # width of what tells the layers of noise, words and speed
    frames: Annotated[int, Field(ge=2)] = 8
    strides: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2)  # every how many frames of a clip are taken
    backwards: Share = 0.3  # of clips that may be, are played backwards
    flipped: Share = 0.5  # and exchange left and right
    crop: Natural = 64  # side in pixels of the square that is cut out of all frames of a clip; 0 takes all of them
    shared_noise: Share = 1.0  # of the noise's variance; an upscaler of pictures agrees with itself by having all of it
    dropped: Share = 0.3  # of clips that are told no caption
    noise_power: Rate = 0.3  # levels are drawn as u ** power; below 1, there are more noisy ones
    steps: Count = 3000
    batch: Count = 2  # clips
    lr: Rate = 1e-3
    warmup: Natural = 100
    decay: Natural = 1000
    weight_decay: Amount = 0.0
    ema: Memory = 0.997
    validation_every: Annotated[int, Field(ge=2)] = 40  # every how many clips one is kept back
    sheet_steps: Count | None = None  # None: as many as the upscaler usually takes
    seed: Natural = 81
    device: str = "cpu"
    bf16: bool | None = None  # None: where it is fast
    log_every: Count = 50
    save_every: Count = 250
    sheet_every: Count = 500

    @property
    def corpus(self) -> Path:
        """Where what is learned lies."""
        return self.clips

    @property
    def settings(self) -> TimeSettings:
        """The shape of the layers; no frame is ever known to them, as all of them are seen small."""
        return TimeSettings(
            blocks=self.blocks,
            transformers=self.transformers,
            inner=self.inner,
            heads=self.heads,
            head_width=self.head_width,
            window=self.window,
            vector=self.vector,
            context=0,
            frames=self.frames,
            shared_noise=self.shared_noise,
        )


@dataclass(frozen=True)
class Batch:
    """What a step sees of clips.

    Args:
        pictures: as large as they shall become, in [0, 1].
        small: as the network is shown them: in [-1, 1], noised.
        label: the level of that noise.
        plain: small copies without noise, in [0, 1].
        taken: the captions and the speed of each clip.
    """

    pictures: Float[Tensor, "n t 3 H W"]
    small: Float[Tensor, "n t 3 h w"]
    label: Int64[Tensor, " n"]
    plain: Float[Tensor, "n t 3 h w"]
    taken: Sequence[Taken]


def main(config: Config) -> Path:
    """Train, or go on training, and return the file of the layers (8 bits, the averaged weights)."""
    ranks = Ranks.start(config.device)
    through = None if config.through is None else folder_of(config.through, "vae")
    config = settled(replace(config, through=through))
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    image = read_frozen(config.model, ranks.device, bool(config.bf16), (UNetNetwork,), upscaler=True)
    codec = None if through is None else AutoencoderCodec(load_codec(through, config.device))
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))
    clips = Clips.load(config.clips)
    check(config, clips, image, codec)
    training, validation = clips.split(config.validation_every)
    learner, layers = learning(config, image)
    if config.start is not None:
        layers.load_state_dict(fitting_weights(config.start, layers, image.name))
    optimizer = torch.optim.AdamW(
        layers.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    run = Run(layers, optimizer, Ema(layers, config.ema))

    with Sitting(config, run, ranks) as sitting:
        for step in sitting.steps:
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            share = ranks.share(config.batch)
            batch = draw(training, image, codec, config, step, share)
            with precision:
                loss = step_loss(learner, batch, config, step, share)
            loss.backward()
            sitting.learn(step, loss=loss)
            if sitting.due(step, config.sheet_every):
                sitting.log.note(step + 1, **validate(image, codec, run, validation, config, step + 1))
            sitting.close(step)
    return export(image, run, config) if ranks.main else config.out / FILE


def check(config: Config, clips: Clips, image: LatentDiffusion, through: Codec | None) -> None:
    """Raise TrainingError if clips and recipe do not go together."""
    assert image.upscaling is not None
    width, height = clips.size
    unit, whole = image.upscaling.factor * image.upscaling.grid, f"clips of {width}x{height}"
    sides = (config.crop,) if config.crop else clips.size
    if any(side % unit for side in sides) or config.crop > min(clips.size):
        raise TrainingError(
            f"what {config.model} makes has sides that are multiples of {unit}: expected a crop of such sides, at "
            f"most {min(clips.size)}, got crop={config.crop} and {whole}"
        )
    multiple = image.upscaling.factor * (1 if through is None else through.scale)
    if any(side % multiple for side in clips.size):
        raise TrainingError(f"clips must have sides that are multiples of {multiple}; {config.clips} has {whole}")
    if len(clips) < config.validation_every:
        raise TrainingError(
            f"{config.clips} has {len(clips)} clips, too few to keep back every {config.validation_every}th; make "
            "more, or set validation_every"
        )


def learning(config: Config, image: LatentDiffusion) -> tuple[LatentDiffusion, TimeLayers]:
    """The upscaler with layers along time, and these alone, which learn."""
    learner = with_time(image, config.settings)
    layers = time_layers(learner)
    layers.float().requires_grad_(True).train()
    return learner.over(config.frames).batched(config.frames * config.batch), layers


@torch.no_grad()
def draw(
    clips: Clips, image: LatentDiffusion, through: Codec | None, config: Config, step: int, share: slice, seed: int = 0
) -> Batch:
    """This process's share of the clips of a step, and their small frames.

    Low levels of noise are drawn more often: a fifth of the clips is above half of them.
    """
    assert image.upscaling is not None
    # Even numbers are for what is shown, odd ones for the noise that is to be found in it.
    rng, generator = step_rng(config.seed + seed, step), step_generator(config.seed + seed, 2 * step)
    taken = clips.choose(
        rng, config.batch, config.frames,
        strides=config.strides, reversed=config.backwards, flipped=config.flipped, said=1 - config.dropped,
    )  # fmt: skip
    corners, factor = rng.random((config.batch, 2)), image.upscaling.factor
    levels = (rng.random(config.batch) ** 3 * (image.upscaling.max_noise_level + 1)).astype(np.int64)
    kernels, went = rng.integers(0, len(KERNELS), config.batch), rng.random(config.batch) < 0.5
    sides = [length // factor for length in clips.size[::-1]]
    fields = torch.randn((config.batch, 3, *sides), generator=generator)
    large, plain, small = list[Tensor](), list[Tensor](), list[Tensor]()
    off = off_noise(through, config, sides, generator)
    for row in range(config.batch)[share]:
        shown = clips.pictures([taken[row]])[0].to(config.device)
        copy = shrunk(shown, factor, KERNELS[kernels[row]])
        if through is not None and off is not None and went[row]:
            copy = through.decode(through.encode(copy) + off[row].to(copy))
        seen = image.upscaling.shown(copy, fields[row].to(copy), int(levels[row]))
        corner, side = corners[row : row + 1], config.crop
        for parts, whole, unit in ((large, shown, factor), (plain, copy, 1), (small, seen, 1)):
            # All frames of a clip at one place: as one picture of many channels.
            cut = windows(whole.flatten(0, 1)[None], corner, side * unit // factor, unit) if side else whole[None]
            parts.append(cut.unflatten(1, (config.frames, 3))[0] if side else whole)
    label = torch.from_numpy(levels[share]).to(config.device)
    return Batch(torch.stack(large), torch.stack(small), label, torch.stack(plain), taken[share])


def off_noise(
    through: Codec | None, config: Config, sides: Sequence[int], generator: torch.Generator
) -> Float[Tensor, "n t c h w"] | None:
    """How far the latents of small frames are off that go through another model's codec, each frame's by itself."""
    if through is None:
        return None
    shape = config.batch, config.frames, through.channels, *(side // through.scale for side in sides)
    return config.through_noise * torch.randn(shape, generator=generator)


def told(learner: LatentDiffusion, batch: Batch, captions: Sequence[str]) -> Conditioning:
    """What the network is told of clips, a row for each frame.

    Args:
        learner: the upscaler.
        batch: what it is shown.
        captions: one for each clip, or several times as many; texts of one call are as long as each other.
    """
    frames, times = batch.small.shape[1], len(captions) // len(batch.taken)
    with torch.no_grad(), torch.autocast(learner.device.type, enabled=False):
        text = learner.text(list(captions))[[row for row in range(len(captions)) for _ in range(frames)]]
    speed = torch.tensor([one.fps for one in batch.taken]).repeat_interleave(frames).repeat(times)
    return replace(
        text,
        concat=batch.small.flatten(0, 1).repeat(times, 1, 1, 1),
        label=batch.label.repeat_interleave(frames).repeat(times),
        extra={**text.extra, FPS: speed.to(learner.device)},
    )


def step_loss(
    learner: LatentDiffusion, batch: Batch, config: Config, step: int, share: slice, seed: int = 0
) -> Float[Tensor, ""]:
    """How wrong the learner is about clips, frame by frame, each of them as noisy as the others of its clip."""
    generator = step_generator(config.seed + seed, 2 * step + 1)
    with torch.no_grad():
        x0 = learner.codec.encode(batch.pictures.flatten(0, 1)).float()
    shape = x0.shape[1:]
    at = drawn_levels(learner, config.batch, config.noise_power, generator)
    own = torch.randn((config.batch, config.frames, *shape), generator=generator)
    common = torch.randn((config.batch, 1, *shape), generator=generator)
    eps = shared_noise(own, common, config.shared_noise)[share].flatten(0, 1).to(x0)
    here = at[[row for row in range(config.batch)[share] for _ in range(config.frames)]]
    x = here.noised(x0, eps)
    estimate = learner.denoiser(x, here, told(learner, batch, [one.caption for one in batch.taken]))
    return prediction_error(here, x, estimate, x0, cast(TrainedPrediction, learner.denoiser.prediction))


@torch.no_grad()
def validate(
    image: LatentDiffusion, through: Codec | None, run: Run, kept: Clips, config: Config, step: int
) -> dict[str, float]:
    """The loss on clips that were kept back, and a sheet of some: small, by the upscaler of pictures, along time, real.

    Of these there are PSNR and flicker, too: the mean of how wrong the change from a frame to the next is, in levels of
    255; and both of what the upscaler of pictures makes.
    """
    taught, layers = learning(config, image)
    run.ema.copy_to(layers.requires_grad_(False).eval())
    losses, real, bicubic, made, before = ([] for _ in range(5))
    for number in range(VALIDATED):
        batch = draw(kept, image, through, config, number, slice(None), seed=1)
        with torch.autocast(taught.device.type, torch.bfloat16, enabled=bool(config.bf16)):
            losses.append(step_loss(taught, batch, config, number, slice(None), seed=1))
        if len(real) * config.batch < SHOWN:
            size = batch.pictures.shape[-2:]
            enlarged = functional.interpolate(batch.plain.flatten(0, 1), size, mode="bicubic", align_corners=False)
            real.append(batch.pictures)
            bicubic.append(enlarged.clamp(0, 1).unflatten(0, batch.pictures.shape[:2]))
            made.append(upscaled(taught, batch, config))
            before.append(upscaled(taught.over(1), batch, config))
    shown, along, alone = (torch.cat(parts) for parts in (real, made, before))
    rows = torch.stack([torch.cat(bicubic), alone, along, shown], 1).flatten(0, 2)
    save_sheet(config.out / f"sheet-{step:06d}.png", rows, columns=config.frames)
    return {
        "validation": float(torch.stack(losses).mean()),
        "psnr": psnr(along.flatten(0, 1), shown.flatten(0, 1)),
        "flicker": flicker(along, shown),
        "psnr_pictures": psnr(alone.flatten(0, 1), shown.flatten(0, 1)),
        "flicker_pictures": flicker(alone, shown),
    }


def upscaled(model: LatentDiffusion, batch: Batch, config: Config) -> Float[Tensor, "n t 3 H W"]:
    """Small clips made larger, as `segue upscale` does."""
    settings, made = model.defaults, list[Tensor]()
    frames, (height, width) = config.frames, batch.pictures.shape[-2:]
    schedule = model.schedule(config.sheet_steps or settings.steps, (width, height), solver=settings.solver)
    shape = model.codec.channels, height // model.codec.scale, width // model.codec.scale
    count = len(batch.taken)
    terms = told(model, batch, [*(one.caption for one in batch.taken), *[""] * count])
    for clip in range(count):
        rows, blank = ([(row + clip) * frames + frame for frame in range(frames)] for row in (0, count))
        cond = classifier_free(terms[rows], terms[blank], settings.guidance_scale, start=settings.guidance_start)
        ids = [RowId("frame", frame) for frame in range(frames)]
        state = from_clip_seed(0, ids, schedule, shape, model.device, config.shared_noise)
        solver = find_solver(settings.solver).solver
        states = denoise(model.denoiser, state, schedule, cond, solver=solver)
        made.append(decoded(model, collect(states, schedule)))
    return torch.stack(made)


def export(image: LatentDiffusion, run: Run, config: Config) -> Path:
    """Write the averaged layers, and return their file."""
    save_time(config.out / FILE, learning(config, image)[0], weights=run.ema.state())
    return config.out / FILE
