"""Distil a text-to-image model and its guidance into a LoRA, with which it needs few steps and one network row each.

Each training step the student draws a few pictures in its own few steps. At every state that it comes through, the
teacher goes on with guidance and smaller steps to the level where the student's step lands; the student learns the x0
with which its one step lands there too. Progressive distillation of a guided model (Salimans & Ho 2022,
arXiv:2202.00512, alg. 2; Meng et al. 2023, arXiv:2210.03142) in one round of several teacher steps, on states of the
student's own (backward distillation, Kohler et al. 2024, arXiv:2405.05224). No pictures are needed, only captions.

A step stays the deterministic one of `segue.diffusion.solvers.ddim`: no noise is put back, so a transition's latents
stay continuous, and no other solver is needed. Only the levels of `student_steps` are taught, so it is for that many.
Phased consistency (Wang et al. 2024, arXiv:2405.18407), tried on the embedded model, came as near to the teacher in
equal time; it teaches the levels between as well, on noised pictures, against an average of the student itself.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from pydantic import ConfigDict
from torch import Tensor

from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import denoise
from segue.diffusion.schedule import Schedule
from segue.errors import TrainingError
from segue.models.bundle import LatentDiffusion
from segue.models.families.sd import UNetNetwork
from segue.models.lora import applied
from segue.training.bounds import Amount, Count, Memory, Natural, Prompts, Rate, Share
from segue.training.checkpoint import Run
from segue.training.data import Corpus, step_generator, step_rng
from segue.training.ema import Ema
from segue.training.journal import save_sheet
from segue.training.lowrank import add_low_rank, save_lora
from segue.training.precision import float_norms
from segue.training.ranks import Ranks
from segue.training.rates import set_rate, trapezoid
from segue.training.sampling import decoded, sample, shape_of
from segue.training.sitting import Sitting, settled
from segue.types import Conditioning, Denoiser, Point, RowId, State, over_rows
from segue.zoo import load

SOLVER = "ddim"
HUBER = 0.03
"""Root mean square of v below which the loss is quadratic: far above it, every row pulls alike."""


@dataclass(frozen=True)
class Config:
    """Fields are the recipe; student.toml holds those of the shipped model."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    teacher: str = "emoji"  # an embedded model, or a folder
    corpus: Path = Path("runs/corpus")  # its captions are the prompts
    out: Path = Path("runs/student")
    student_steps: Count = 4
    teacher_steps: Count = 12  # a multiple of the student's
    guidance: Amount = 2.0  # of the teacher; the student will need none
    guidance_start: Share = 0.25  # of the teacher's run, before which it has none either
    rank: Count = 12
    blended: Share = 0.25  # share of prompts that lie between two, as those of a transition do
    steps: Count = 1200
    batch: Count = 4  # pictures a step; each is student_steps rows of the loss
    lr: Rate = 2e-3
    warmup: Natural = 20
    decay: Natural = 500
    ema: Memory = 0.99
    sheet_prompts: Prompts = ("a red apple", "a blue heart", "a cat face", "a castle")
    sheet_steps: Count = 20  # of the teacher; the student takes its own number
    seed: Natural = 11
    device: str = "cpu"
    bf16: bool | None = None  # None: where it is fast
    log_every: Count = 20
    save_every: Count = 100
    sheet_every: Count = 200


class Phases(NamedTuple):
    """The student's schedule, and the teacher's, which comes through all levels of it."""

    student: Schedule
    teacher: Schedule

    @property
    def stride(self) -> int:
        """Teacher's steps for one of the student's."""
        return len(self.teacher) // len(self.student)


class Lesson(NamedTuple):
    """States, and the x0 that the student should see in them."""

    x: Float[Tensor, "b c h w"]
    at: Point
    cond: Conditioning
    wanted: Float[Tensor, "b c h w"]


def main(config: Config) -> Path:
    """Train, or go on training, and return the LoRA file (fp16, the averaged weights)."""
    ranks = Ranks.start(config.device)
    config = settled(config)
    share = ranks.share(config.batch)
    torch.manual_seed(config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    corpus = Corpus.load(config.corpus)
    teacher = read_teacher(config, ranks)
    phases = phases_of(teacher, config)
    network: Any = copy.deepcopy(teacher.parts["unet"])
    updates = add_low_rank(network, config.rank)
    student = replace(teacher.denoiser, network=UNetNetwork(network))
    optimizer = torch.optim.AdamW(updates.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=0, fused=True)
    run = Run(updates, optimizer, Ema(updates, config.ema))
    precision = torch.autocast(ranks.device.type, torch.bfloat16, enabled=bool(config.bf16))
    file = config.out / "student.safetensors"

    with Sitting(config, run, ranks) as sitting:
        aim = drawn(teacher, config, config.sheet_steps, config.guidance) if ranks.main and sitting.steps else None
        for step in sitting.steps:
            set_rate(optimizer, config.lr * trapezoid(step, config.steps, config.warmup, config.decay))
            cond, blank, noise = draw(teacher, corpus, config, step, share)
            with precision:
                lesson = lesson_from(teacher.denoiser, student, phases, noise, cond, blank, config)
                loss = step_loss(student, lesson)
            loss.backward()
            sitting.learn(step, loss=loss)
            if aim is not None and sitting.due(step, config.sheet_every):
                save_lora(file, network, "unet", run.ema.state())
                sitting.log.note(step + 1, gap=compare(teacher, file, aim, config, step + 1))
            sitting.close(step)
    if ranks.main:
        save_lora(file, network, "unet", run.ema.state())
    return file


def compare(teacher: LatentDiffusion, lora: Path, aim: Float[Tensor, "n c h w"], config: Config, step: int) -> float:
    """A sheet of the teacher's pictures above the student's, from its file; how far apart their latents are (rms)."""
    with applied(teacher, {lora: 1.0}) as shipped:
        made = drawn(shipped, config, config.student_steps, 1.0)
    pairs = torch.cat([decoded(teacher, latents) for latents in (aim, made)], dim=2)
    save_sheet(config.out / f"sheet-{step:06d}.png", pairs, columns=8)
    return float((made - aim).square().mean().sqrt())


def read_teacher(config: Config, ranks: Ranks) -> LatentDiffusion:
    """The frozen teacher, ready for the precision of the run."""
    teacher = load(config.teacher, ranks.device, "float32")
    unet: Any = teacher.parts["unet"]
    unet.to(memory_format=torch.channels_last)
    if config.bf16 and ranks.device.type == "cpu":
        float_norms(unet)
    return teacher.batched(4 * config.batch * config.student_steps)


def phases_of(teacher: LatentDiffusion, config: Config) -> Phases:
    """Both schedules.

    Raises:
        TrainingError: the teacher's does not come through all levels of the student's.
    """
    few, many = (
        teacher.schedule(steps, teacher.defaults.size, solver=SOLVER)
        for steps in (config.student_steps, config.teacher_steps)
    )
    phases = Phases(few, many)
    whole = len(many) == phases.stride * len(few)
    if not whole or not (
        few.now.time.equal(many.now.time[:: phases.stride])
        and few.then.time.equal(many.then.time[phases.stride - 1 :: phases.stride])
    ):
        raise TrainingError(
            f"{len(many)} steps of the teacher do not come through the levels of the student's {len(few)}; expected "
            f"trailing times and a multiple, such as teacher_steps={3 * len(few)}"
        )
    return phases


@torch.no_grad()
def draw(
    teacher: LatentDiffusion, corpus: Corpus, config: Config, step: int, share: slice
) -> tuple[Conditioning, Conditioning, Float[Tensor, "b c h w"]]:
    """What a step shall draw pictures of, some of it between two captions, and from which noise: a share of it.

    The second is the empty prompt, one row, encoded with the captions: a long one lengthens all of a call.
    """
    rng = step_rng(config.seed, step)
    rows = rng.choice(len(corpus), 2 * config.batch, p=corpus.weights)
    text = teacher.text([*(str(rng.choice(corpus.captions[row])) for row in rows), ""])
    between = torch.from_numpy(rng.random(config.batch) * (rng.random(config.batch) < config.blended))
    first, second = text[range(config.batch)], text[range(config.batch, 2 * config.batch)]
    noise = torch.randn((config.batch, *shape_of(teacher)), generator=step_generator(config.seed, step))
    mine = range(config.batch)[share]
    return first.lerp(second, between)[mine], text[[2 * config.batch]], noise[share].to(teacher.device)


@torch.no_grad()
def lesson_from(
    teacher: Denoiser,
    student: Denoiser,
    phases: Phases,
    noise: Float[Tensor, "b c h w"],
    cond: Conditioning,
    blank: Conditioning,
    config: Config,
) -> Lesson:
    """All states that the student comes through from `noise`, and where the teacher would have gone from each."""
    ids = tuple(RowId(str(row)) for row in range(len(noise)))
    begin = State(noise * phases.student.start_scale, torch.zeros(len(noise), dtype=torch.int64), ids)
    states = State.cat(list(islice(denoise(student, begin, phases.student, cond), len(phases.student))))
    cond = Conditioning.cat([cond] * len(phases.student))
    guided = classifier_free(cond, blank[[0] * len(cond)], config.guidance, start=config.guidance_start)
    finer = replace(states, step=states.step * phases.stride)
    landed = next(islice(denoise(teacher, finer, phases.teacher, guided), phases.stride, None))
    now, then = phases.student.step(states.step)
    return Lesson(states.x, now, cond, x0_between(states.x, landed.x, now, then))


def x0_between(
    x: Float[Tensor, "b c h w"], landed: Float[Tensor, "b c h w"], now: Point, then: Point
) -> Float[Tensor, "b c h w"]:
    """The x0 with which one step of `ddim` leads from `x` to `landed` (Salimans & Ho 2022, alg. 2)."""
    carried = then.sigma / now.sigma
    return (landed - over_rows(carried, x) * x) / over_rows(then.alpha - carried * now.alpha, x)


def step_loss(student: Denoiser, lesson: Lesson) -> Float[Tensor, ""]:
    """Pseudo-Huber distance (Song & Dhariwal 2023, arXiv:2310.14189, eq. 8) of v, the mean over rows."""
    x, at, cond, wanted = lesson
    missed = at.v(x, student(x, at, cond)) - at.v(x, wanted)
    return (missed.square().flatten(1).mean(1) + HUBER**2).sqrt().mean() - HUBER


def drawn(model: LatentDiffusion, config: Config, steps: int, guidance: float) -> Float[Tensor, "n c h w"]:
    """Latents of the recipe's prompts, seed 0, in float32, as `segue image` draws them."""
    prompts = config.sheet_prompts
    how: Any = {"steps": steps, "guidance_scale": guidance, "guidance_start": config.guidance_start}
    return sample(model, prompts, [0] * len(prompts), solver=SOLVER, **how)
