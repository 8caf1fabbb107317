"""Teach layers along time where things go: the few weights that find a way learn alone, of clips that know theirs.

What they are told of words, seconds and pictures stays as it was learned beside the UNet, and is gathered once; then a
step takes a millisecond. The looks of the thing are often exchanged for those of another: what is learned of words and
seconds is then true of any thing, not of those of the clips alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from segue.errors import TrainingError
from segue.models.bundle import LatentDiffusion
from segue.models.families.sd import UNetNetwork
from segue.models.families.sdxl import XlNetwork
from segue.models.instruct_adapter import InstructAdapter
from segue.models.paused import lay_down, taken_up
from segue.models.time_files import save_time, with_time_file
from segue.models.time_inserted import time_layers
from segue.models.time_words import WORDS
from segue.models.travel import Travel
from segue.training.bounds import Count, Memory, Natural, Portion, Rate, Share
from segue.training.checkpoint import Run
from segue.training.clip_lessons import Lessons, lessons
from segue.training.data import step_generator, step_rng
from segue.training.ema import Ema
from segue.training.frozen import read_frozen
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.recipes.videoldm import FILE, STRAYED
from segue.training.sitting import Sitting, settled

GATHERED = 64
"""Pairs that are told together."""
VALIDATED = 8
"""So many of these are validated on."""
KEPT = 50
"""So many of these are written at once, for the next sitting."""


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; ways.toml holds those of the shipped layers."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    motion: Path  # layers along time of the model, which set pictures in motion
    model: str = "emoji"  # an embedded model, a folder, or a hub repository: Stable Diffusion 1.x, 2.x or XL
    clips: Path = Path("runs/clips")
    out: Path = Path("runs/ways")
    pairs: Count = 80_000  # of frames of a clip, of which ways are learned
    early: Portion = 0.8  # share of them whose first frame is the first of its clip
    dropped: Share = 0.08  # share of them of which nothing is said
    exchanged: Share = 0.8  # share of a batch whose things look like others
    steps: Count = 8000
    batch: Count = 512
    lr: Rate = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Natural = 100
    decay: Natural = 7900
    ema: Memory = 0.99
    validation_every: Annotated[int, Field(ge=2)] = 40  # every how many clips one is kept back
    seed: Natural = 91
    device: str = "cpu"
    bf16: bool | None = None  # None: where it is fast
    log_every: Count = 500
    save_every: Count = 2000

    @property
    def corpus(self) -> Path:
        """Where what is learned lies."""
        return self.clips


def main(config: Config) -> Path:
    """Train, or go on training, and return the file of all layers along time, with other ways."""
    ranks = Ranks.start(config.device)
    config = settled(config)
    config.out.mkdir(parents=True, exist_ok=True)
    image = read_frozen(config.model, ranks.device, False, (UNetNetwork, XlNetwork))
    moving = with_time_file(image, config.motion)
    moves, travel = learning(moving, config)
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))
    with ranks.main_first():
        training, validation = lessons(config.clips, config.validation_every, image, config.out, precision)
        heard, ways = gathered(moving, moves, training, config)
    kept = several(moving, moves, validation, config, range(VALIDATED), seed=1)
    way = travel.way.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(way.parameters(), config.lr, weight_decay=config.weight_decay, fused=True)
    run = Run(way, optimizer, Ema(way, config.ema))

    with Sitting(config, run, ranks) as sitting:
        for step in sitting.steps:
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            drawn = batch(heard, config, step)[ranks.share(config.batch)]
            told = exchanged(heard, drawn, moves, config, step)
            loss = functional.smooth_l1_loss(travel.way_of(told).numbers, ways[drawn], beta=STRAYED)
            loss.backward()
            sitting.learn(step, loss=loss)
            if sitting.due(step, config.save_every):
                sitting.log.note(step + 1, validation=strayed(travel, run, *kept))
            sitting.close(step)
    return export(moving, run, config) if ranks.main else config.out / FILE


def learning(moving: LatentDiffusion, config: Config) -> tuple[InstructAdapter, Travel]:
    """What sets frames in motion, and the part of it that finds ways, in float32; nothing of it learns yet.

    Raises:
        TrainingError: the layers set nothing in motion.
    """
    moves = time_layers(moving).moves
    if moves is None or moves.travel is None:
        raise TrainingError(f"motion={config.motion} sets no pictures in motion, so that there are no ways to learn")
    moves.float().requires_grad_(False)
    return moves, moves.travel


def gathered(
    moving: LatentDiffusion, moves: InstructAdapter, training: Lessons, config: Config
) -> tuple[Float[Tensor, "n f"], Float[Tensor, "n 4"]]:
    """What is heard of all pairs, and their ways; kept on disk as it grows.

    Raises:
        TrainingError: the clips do not know how their things go.
    """
    heard, ways = list[Tensor](), list[Tensor]()
    count = -(-config.pairs // GATHERED)
    for first in range(0, count, KEPT):
        path = config.out / f"pairs-{first:06d}.safetensors"
        found = taken_up(path)
        if found is None:
            of = range(first, min(first + KEPT, count))
            told, went = several(moving, moves, training, config, of)
            found = {"heard": told, "ways": went}
            lay_down(path, found)
        heard.append(found["heard"])
        ways.append(found["ways"])
    return torch.cat(heard).to(moving.device), torch.cat(ways).to(moving.device)


def several(
    moving: LatentDiffusion, moves: InstructAdapter, part: Lessons, config: Config, numbers: range, seed: int = 0
) -> tuple[Float[Tensor, "n f"], Float[Tensor, "n 4"]]:
    """All that `pairs_of` gives for these numbers."""
    found = [pairs_of(moving, moves, part, config, number, seed) for number in numbers]
    return torch.cat([heard for heard, _ in found]), torch.cat([ways for _, ways in found])


@torch.no_grad()
def pairs_of(
    moving: LatentDiffusion, moves: InstructAdapter, part: Lessons, config: Config, number: int, seed: int = 0
) -> tuple[Float[Tensor, "n f"], Float[Tensor, "n 4"]]:
    """What is heard of some pairs of frames, and the ways between them, as the clips know them.

    Raises:
        TrainingError: they do not.
    """
    rng, clips = step_rng(config.seed + seed, number), part.clips
    taken = clips.choose(
        rng, GATHERED, clips.length, strides=(1,), reversed=0.0, flipped=0.0, said=1 - config.dropped
    )  # fmt: skip
    first, other = rng.integers(0, clips.length, (2, GATHERED))
    first = np.where(rng.random(GATHERED) < config.early, 0, first)
    pairs = [(one.row, int(one.frames[a]), int(one.frames[b])) for one, a, b in zip(taken, first, other, strict=True)]
    ways = [clips.way(*pair) for pair in pairs]
    if None in ways:
        raise TrainingError(f"{config.clips} has clips that do not know how their things go: make them by train clips")
    before = torch.stack([part.latents[row, frame] for row, frame, _ in pairs]).float().to(moving.device)
    seconds = torch.tensor([(b - a) / one.fps for one, a, b in zip(taken, first, other, strict=True)])
    text = moving.text([one.caption for one in taken])
    words = text.extra.get(WORDS, text.text).float()
    told = functional.silu(moves.meaning(words, seconds.float().to(moving.device)))
    assert moves.travel is not None
    _, _, heard = moves.travel.heard(moves.seen(before, told), told)
    return heard.cpu(), torch.tensor(cast("list[tuple[float, ...]]", ways))


def batch(heard: Float[Tensor, "n f"], config: Config, step: int) -> Tensor:
    """Numbers of the pairs of a step."""
    return torch.randint(len(heard), (config.batch,), generator=step_generator(config.seed, step)).to(heard.device)


def exchanged(
    heard: Float[Tensor, "n f"], drawn: Tensor, moves: InstructAdapter, config: Config, step: int
) -> Float[Tensor, "b f"]:
    """Pairs of which some look like others: what they are told stays theirs."""
    rng = step_rng(config.seed + 1, step)
    others = torch.from_numpy(rng.integers(0, len(heard), len(drawn))).to(heard.device)
    swapped = torch.from_numpy(rng.random(len(drawn)) < config.exchanged).to(heard.device)
    told = moves.layout.embedding
    looks = torch.where(swapped[:, None], heard[others, told:], heard[drawn, told:])
    return torch.cat([heard[drawn, :told], looks], 1)


@torch.no_grad()
def strayed(travel: Travel, run: Run, heard: Float[Tensor, "n f"], ways: Float[Tensor, "n 4"]) -> float:
    """How far averaged weights are from the ways of clips that were kept back: the mean error of a number."""
    learned = {name: value.detach().clone() for name, value in travel.way.state_dict().items()}
    run.ema.copy_to(cast(nn.Module, travel.way))
    device = next(travel.way.parameters()).device
    found = float((travel.way_of(heard.to(device)).numbers - ways.to(device)).abs().mean())
    travel.way.load_state_dict(learned)
    return found


def export(moving: LatentDiffusion, run: Run, config: Config) -> Path:
    """Write all layers along time, the averaged weights of ways among them, and return their file."""
    layers = time_layers(moving)
    prefix = "moves.travel.way."
    weights = layers.state_dict() | {prefix + name: value for name, value in run.ema.state().items()}
    save_time(config.out / FILE, moving, weights=weights)
    return config.out / FILE
