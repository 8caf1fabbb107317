"""Teach a model of single pictures to move: layers along time, put into its UNet, learn from clips with captions.

Video LDM (Blattmann et al. 2023, arXiv:2304.08818, sections 3.1 and 3.2): the image model stays as it is, all frames of
a clip are as noisy as each other, and the loss is the image model's own. In a share of the clips some frames are known:
their latents are told to the layers along time, and the loss is still that of all frames.

Frames share a part of their noise (Ge et al. 2023, arXiv:2305.10474, section 3.2): what an image model makes of alike
noise is alike, so that less is left to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from segue.diffusion.noise import shared_noise
from segue.errors import TrainingError
from segue.models.bundle import LatentDiffusion
from segue.models.families.sd import UNetNetwork
from segue.models.families.sdxl import XlNetwork
from segue.models.families.videoldm import context_of
from segue.models.time_files import fitting_weights, save_time
from segue.models.time_inserted import CONTEXT, FPS, Kind, TimeLayers, TimeSettings, time_layers, with_time
from segue.models.time_words import WORDS, heard_of
from segue.training.bounds import Amount, Count, Memory, Natural, Portion, Prompts, Rate, Share
from segue.training.checkpoint import Run
from segue.training.clip_lessons import Lessons, lessons
from segue.training.clips import Taken, given_frames
from segue.training.data import step_generator, step_rng
from segue.training.ema import Ema
from segue.training.frozen import read_frozen
from segue.training.journal import save_sheet
from segue.training.losses import TrainedPrediction, guess_distance, prediction_error
from segue.training.moving_words import motion_phrases
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.sampling import decoded, noisy_levels, sample, sample_clips, shape_of
from segue.training.sitting import Sitting, settled
from segue.types import Point

FILE = "motion.safetensors"
VALIDATED = 16
STRAYED = 0.05
"""Above it, errors of a way count by their size: halves of a side, radians, logarithms of a size."""
EARLY = 0.75
"""Share of pairs whose first frame is the first of a clip, where what swings or leaps is at rest."""
GIVEN_SHARES = {"none": 0.55, "first": 0.25, "ends": 0.1, "two": 0.1}


Shares = Annotated[dict[str, Amount], Field(min_length=1)]


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; videoldm.toml holds those of the shipped layers."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str = "emoji"  # an embedded model, a folder, or a hub repository: Stable Diffusion 1.x, 2.x or XL
    start: Path | None = None  # a file of layers of this shape, to go on from
    clips: Path = Path("runs/clips")
    out: Path = Path("runs/videoldm")
    blocks: Kind | None = "convolution"  # what stands behind residual blocks
    transformers: Kind | None = "attention"  # and behind transformers
    inner: Count = 64  # channels inside of a convolution
    heads: Count = 4
    head_width: Count = 32
    attention: Literal["own", "clip"] = "own"  # what attention within frames looks at
    window: Count = 8  # frames that attention looks ahead and back
    vector: Count = 128  # width of what tells the layers of noise, words and speed
    context: Natural = 32  # channels of what is known of frames; 0: no frame is ever known
    moves: tuple[Count, ...] = ()  # widths of what sets known frames in motion, at full size and after each halving
    first_steps: Natural = 0  # in which that learns alone, without the UNet, by pairs of frames
    first_batch: Count = 32  # pairs
    movements_unsaid: bool = False  # the image layers are not told of movements: for a text encoder that knows none
    tokens: bool = False  # layers along time are told tokens, too, beside what the text encoder makes of them
    strength: Portion = 1.0  # of a run, in which frames that were carried are drawn anew
    heard: dict[str, str] = field(default_factory=dict[str, str])  # what else they hear in another's place
    frames: Annotated[int, Field(ge=2)] = 8
    strides: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2)  # every how many frames of a clip are taken
    backwards: Share = 0.3  # of clips that may be, are played backwards
    shared_noise: Share = 0.5  # of the noise's variance
    given: Shares = field(default_factory=lambda: dict(GIVEN_SHARES))  # how often which frames of a clip are known
    dropped: Share = 0.1  # of clips that are told no caption
    noise_power: Rate = 0.6  # levels are drawn as u ** power; below 1, there are more noisy ones
    steps: Count = 6000
    batch: Count = 2  # clips
    lr: Rate = 1e-3
    warmup: Natural = 100
    decay: Natural = 2000
    weight_decay: Amount = 0.0
    ema: Memory = 0.997
    validation_every: Annotated[int, Field(ge=2)] = 40  # every how many clips one is kept back
    sheet_prompts: Prompts = (
        "a red ball bouncing",
        "a blue car slides to the right",
        "a yellow bus moves to the left",
        "a red balloon rises",
        "a doughnut spins clockwise",
        "a growing red rose",
    )
    sheet_steps: Count = 12
    seed: Natural = 61
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
        """The shape of the layers."""
        unsaid = dict.fromkeys(motion_phrases() if self.movements_unsaid else (), "")
        return TimeSettings(
            blocks=self.blocks,
            transformers=self.transformers,
            inner=self.inner,
            heads=self.heads,
            head_width=self.head_width,
            window=self.window,
            attention=self.attention,
            moves=self.moves,
            vector=self.vector,
            context=self.context,
            frames=self.frames,
            shared_noise=self.shared_noise,
            heard=tuple({**unsaid, **self.heard}.items()),
            tokens=self.tokens,
            strength=self.strength,
        )


def main(config: Config) -> Path:
    """Train, or go on training, and return the file of the layers (8 bits, the averaged weights)."""
    ranks = Ranks.start(config.device)
    config = settled(config)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    image = read_frozen(config.model, ranks.device, bool(config.bf16), (UNetNetwork, XlNetwork))
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))
    with ranks.main_first():
        training, validation = lessons(config.clips, config.validation_every, image, config.out, precision)
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
            with precision:
                if step < config.first_steps:
                    loss = pair_loss(learner, layers, training, config, step, ranks.share(config.first_batch))
                else:
                    loss = step_loss(learner, training, config, step, ranks.share(config.batch))
            loss.backward()
            sitting.learn(step, loss=loss)
            if sitting.due(step, config.sheet_every):
                sitting.log.note(step + 1, **validate(image, run, validation, config, step + 1))
            sitting.close(step)
    return export(image, run, config) if ranks.main else config.out / FILE


def learning(config: Config, image: LatentDiffusion) -> tuple[LatentDiffusion, TimeLayers]:
    """The model with layers along time, and these alone, which learn."""
    learner = with_time(image, config.settings)
    layers = time_layers(learner)
    layers.float().requires_grad_(True).train()
    return learner.over(config.frames).batched(config.frames * config.batch), layers


def pair_loss(
    learner: LatentDiffusion, layers: TimeLayers, lessons: Lessons, config: Config, step: int, share: slice,
    seed: int = 0,
) -> Float[Tensor, ""]:  # fmt: skip
    """How far what sets frames in motion is from guessing a frame of a clip by another, and what is said of the clip.

    Most are guessed by the first frame, as they will be. Where the clips know how things went, that is learned, too.
    """
    if layers.moves is None:
        raise TrainingError("first_steps teach what sets known frames in motion, and there is none: set moves")
    rng, clips = step_rng(config.seed + seed, step), lessons.clips
    taken = clips.choose(
        rng, config.first_batch, clips.length,
        strides=(1,), reversed=config.backwards, flipped=0.0, said=1 - config.dropped,
    )  # fmt: skip
    first, other = rng.integers(0, clips.length, (2, config.first_batch))
    first = np.where(rng.random(config.first_batch) < EARLY, 0, first)
    chosen = zip(taken, first, other, strict=True)
    pairs = [(one.row, int(one.frames[a]), int(one.frames[b])) for one, a, b in chosen][share]
    before, after = (
        torch.stack([lessons.latents[pair[0], pair[which]] for pair in pairs]).float().to(learner.device)
        for which in (1, 2)
    )
    seconds = torch.tensor([(b - a) / one.fps for one, a, b in zip(taken, first, other, strict=True)][share])
    with torch.no_grad(), torch.autocast(learner.device.type, enabled=False):
        text = learner.text([one.caption for one in taken[share]])
    words = text.extra.get(WORDS, text.text).float()
    meaning = layers.moves.meaning(words, seconds.float().to(learner.device))
    changed = layers.moves.changed(before, meaning)
    loss = guess_distance(changed.guess, after)
    true = [clips.way(*pair) for pair in pairs]
    known = [row for row, way in enumerate(true) if way is not None]
    if changed.carrying is None or not known:
        return loss
    ways = torch.tensor([true[row] for row in known]).to(loss)
    return loss + functional.smooth_l1_loss(changed.carrying.way.numbers[known], ways, beta=STRAYED)


def step_loss(
    learner: LatentDiffusion, lessons: Lessons, config: Config, step: int, share: slice, seed: int = 0
) -> Float[Tensor, ""]:
    """How wrong the learner is about this process's share of the clips that a step draws."""
    rng, generator = step_rng(config.seed + seed, step), step_generator(config.seed + seed, step)
    taken = lessons.clips.choose(
        rng, config.batch, config.frames,
        strides=config.strides, reversed=config.backwards, flipped=0.0, said=1 - config.dropped,
    )  # fmt: skip
    given = given_frames(rng, config.batch, config.frames, config.given)
    at, _ = noisy_levels(learner, config.batch, config.noise_power, generator)
    eps = clip_noise(learner, config, generator)
    of = range(config.batch)[share]
    rows = [row * config.frames + frame for row in of for frame in range(config.frames)]
    here = at[[row for row in of for _ in range(config.frames)]]
    taken = [taken[row] for row in of]
    known = given[list(of)] if config.context else given[list(of)] & False
    return clip_loss(learner, lessons.x0(taken), here, eps[rows], taken, known)


def clip_loss(
    learner: LatentDiffusion,
    x0: Float[Tensor, "b c h w"],
    at: Point,
    eps: Float[Tensor, "b c h w"],
    taken: Sequence[Taken],
    known: Bool[Tensor, "n t"],
) -> Float[Tensor, ""]:
    """How wrong the learner is about clips, frame by frame.

    Args:
        learner: denoises as many rows together as a clip has frames.
        x0: the clean latents of all frames.
        at: their levels.
        eps: their noise.
        taken: the captions and the speed of each clip.
        known: which frames of each clip are told.
    """
    frames, x0 = known.shape[1], x0.to(learner.device)
    x = at.noised(x0, eps.to(learner.device))
    with torch.no_grad(), torch.autocast(learner.device.type, enabled=False):
        text = learner.text([one.caption for one in taken])[[row for row in range(len(taken)) for _ in range(frames)]]
    extra = {FPS: torch.tensor([one.fps for one in taken]).repeat_interleave(frames)}
    if bool(known.any()):
        extra[CONTEXT] = told_frames(x0, known)
    estimate = learner.denoiser(x, at, replace(text, extra={**text.extra, **extra}))
    return prediction_error(at, x, estimate, x0, cast(TrainedPrediction, learner.denoiser.prediction))


def told_frames(x0: Float[Tensor, "b c h w"], known: Bool[Tensor, "n t"]) -> Float[Tensor, "b c+1 h w"]:
    """What layers along time are told of known frames: (m z, m)."""
    mask = known.flatten().to(x0)[:, None, None, None].expand(-1, 1, *x0.shape[2:])
    return torch.cat([mask * x0, mask], 1)


def clip_noise(learner: LatentDiffusion, config: Config, generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """The noise of all frames, some of which those of a clip share."""
    shape = shape_of(learner)
    own = torch.randn((config.batch, config.frames, *shape), generator=generator)
    common = torch.randn((config.batch, 1, *shape), generator=generator)
    return shared_noise(own, common, config.shared_noise).flatten(0, 1)


@torch.no_grad()
def validate(image: LatentDiffusion, run: Run, kept: Lessons, config: Config, step: int) -> dict[str, float]:
    """The loss on clips that were kept back, and a sheet of clips that are drawn by the averaged weights.

    In the first steps it is a sheet of guesses, and their distance.
    """
    taught, layers = learning(config, image)
    run.ema.copy_to(layers.requires_grad_(False).eval())
    precision = torch.autocast(taught.device.type, torch.bfloat16, enabled=bool(config.bf16))
    with precision:
        if step <= config.first_steps:
            count = -(-VALIDATED * config.batch // config.first_batch)
            losses = [pair_loss(taught, layers, kept, config, number, slice(None), seed=1) for number in range(count)]
            clips = guessed(taught, layers, stills(image, config), config)
        else:
            losses = [step_loss(taught, kept, config, number, slice(None), seed=1) for number in range(VALIDATED)]
            clips = drawn(taught, stills(image, config) if config.moves else None, config)
    save_sheet(config.out / f"sheet-{step:06d}.png", clips.flatten(0, 1), columns=config.frames)
    return {"validation": float(torch.stack(losses).mean())}


def stills(image: LatentDiffusion, config: Config) -> Float[Tensor, "n c h w"]:
    """What the image model draws of a sheet's prompts, as it hears them: pictures that are set in motion."""
    prompts = [heard_of(prompt, config.settings.heard) for prompt in config.sheet_prompts]
    return sample(image, prompts, list(range(len(prompts))), steps=config.sheet_steps)


def guessed(
    taught: LatentDiffusion, layers: TimeLayers, first: Float[Tensor, "n c h w"], config: Config
) -> Float[Tensor, "n t 3 h w"]:
    """What becomes of pictures, guessed without the UNet."""
    assert layers.moves is not None
    text = taught.text(config.sheet_prompts)
    words, made = text.extra.get(WORDS, text.text).float(), list[Tensor]()
    for frame in range(config.frames):
        seconds = torch.full((len(first),), frame / config.settings.fps, device=taught.device)
        meaning = layers.moves.meaning(words, seconds)
        made.append(decoded(taught, layers.moves.changed(first.to(taught.device), meaning).guess).cpu())
    return torch.stack(made, 1)


def drawn(
    taught: LatentDiffusion, first: Float[Tensor, "n c h w"] | None, config: Config
) -> Float[Tensor, "n t 3 h w"]:
    """The clips of a sheet, which begin with these pictures."""
    made: list[Tensor] = []
    for number, prompt in enumerate(config.sheet_prompts):
        known = {} if first is None else {0: first[number]}
        context = context_of(known, config.frames, shape_of(taught)).to(taught.device)
        extra = {CONTEXT: context} if known else None
        made.append(
            sample_clips(taught, [prompt], [number], config.shared_noise, steps=config.sheet_steps, extra=extra)
        )
    return torch.cat(made)


def export(image: LatentDiffusion, run: Run, config: Config) -> Path:
    """Write the averaged layers, and return their file."""
    save_time(config.out / FILE, learning(config, image)[0], weights=run.ema.state())
    return config.out / FILE
