"""Pictures that a recipe shows or learns from, and a benchmark measures: those that `segue image` draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from segue.diffusion.betas import training_levels
from segue.diffusion.guidance import classifier_free, instructed
from segue.diffusion.levels import Levels
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import Ancestry, InheritedNoise
from segue.diffusion.schedule import Schedule, is_flow
from segue.diffusion.solvers import find_solver
from segue.diffusion.starts import from_clip_seed, from_seeds
from segue.models.bundle import LatentDiffusion
from segue.models.instruction import refuse_others, shown
from segue.temporal.keys import ANY_KEY
from segue.types import Point, Progress, RowId, silent


@torch.no_grad()
def sample(
    model: LatentDiffusion,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_start: float | None = None,
    solver: str | None = None,
    residual_inputs: Mapping[str, Tensor] | None = None,
    batch: int = 16,
    progress: Progress = silent,
) -> Float[Tensor, "n c h w"]:
    """Latents of one picture for each prompt and its seed, of the model's own size, `batch` at a time.

    What is left out is the model's default. Noise that a solver adds on the way is that of each row's own seed, as for
    a picture that is drawn alone. Control networks are shown `residual_inputs`, a row for each picture.
    """
    settings = model.defaults
    steps = settings.steps if steps is None else steps
    scale = settings.guidance_scale if guidance_scale is None else guidance_scale
    began = settings.guidance_start if guidance_start is None else guidance_start
    solver = solver or settings.solver
    schedule = model.schedule(steps, settings.size, solver=solver)
    made: list[Tensor] = []
    for first in range(0, len(prompts), batch):
        words, chosen = prompts[first : first + batch], seeds[first : first + batch]
        text, told = model.text([*words, ""]), range(len(words))  # in one call: a long prompt lengthens all of it
        shown = {name: rows[first : first + batch] for name, rows in (residual_inputs or {}).items()}
        wanted, blank = (replace(text[list(rows)], residual_inputs=shown) for rows in (told, [len(words)] * len(words)))
        cond = classifier_free(wanted, blank, scale, start=began)
        ids = [RowId(str(row)) for row in told]
        own = {row: Ancestry((seed,), (ANY_KEY,), (1.0,)) for row, seed in zip(ids, chosen, strict=True)}
        state = from_seeds(chosen, ids, schedule, shape_of(model), model.device)
        states = denoise(
            model.denoiser, state, schedule, cond, solver=find_solver(solver).solver, kick=InheritedNoise(own)
        )
        made.append(collect(states, schedule))
        progress("drawing", min(first + batch, len(prompts)), len(prompts))
    return torch.cat(made)


@torch.no_grad()
def sample_clips(
    model: LatentDiffusion,
    prompts: Sequence[str],
    seeds: Sequence[int],
    shared: float,
    *,
    steps: int | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "n t 3 h w"]:
    """The frames of one clip for each prompt and its seed, of the model's own size; clip by clip.

    Args:
        model: that denoises the frames of a clip together, as many as `model.over` said.
        prompts: of each clip.
        seeds: likewise.
        shared: share of the noise's variance that all frames of a clip have in common.
        steps: None is the model's own number.
        extra: what else all clips are told, a row for each frame.
    """
    settings, frames, made = model.defaults, model.denoiser.group, list[Tensor]()
    schedule = model.schedule(settings.steps if steps is None else steps, settings.size, solver=settings.solver)
    solver = find_solver(settings.solver).solver
    for prompt, seed in zip(prompts, seeds, strict=True):
        text = model.text([prompt, ""])
        rows = (text[[row] * frames] for row in (0, 1))
        said, blank = (replace(row, extra={**row.extra, **(extra or {})}) for row in rows)
        cond = classifier_free(said, blank, settings.guidance_scale, start=settings.guidance_start)
        ids = [RowId(str(seed), frame) for frame in range(frames)]
        state = from_clip_seed(seed, ids, schedule, shape_of(model), model.device, shared)
        states = denoise(model.denoiser, state, schedule, cond, solver=solver)
        made.append(decoded(model, collect(states, schedule)).cpu())
    return torch.stack(made)


@torch.no_grad()
def changed(
    model: LatentDiffusion,
    pictures: Float[Tensor, "n 3 h w"],
    said: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int | None = None,
    scale: float | None = None,
    picture_scale: float | None = None,
    batch: int = 16,
) -> Float[Tensor, "n 3 h w"]:
    """What an instruction model makes of pictures of its own size, in [0, 1], `batch` at a time.

    What is left out is the model's default; guidance acts from the start.

    Raises:
        TaskError: the model follows no instructions.
    """
    refuse_others(model)
    settings = model.defaults
    scales = (
        settings.guidance_scale if scale is None else scale,
        settings.picture_scale if picture_scale is None else picture_scale,
    )
    schedule = model.schedule(settings.steps if steps is None else steps, settings.size, solver=settings.solver)
    made: list[Tensor] = []
    for first in range(0, len(said), batch):
        words, chosen = list(said[first : first + batch]), seeds[first : first + batch]
        text, count = model.text([*words, ""]), len(words)
        seen = shown(model.codec, pictures[first : first + batch].to(model.device))
        told = instructed(text[list(range(count))], text[[count] * count], seen, *scales)
        ids = [RowId(str(row)) for row in range(count)]
        own = {row: Ancestry((seed,), (ANY_KEY,), (1.0,)) for row, seed in zip(ids, chosen, strict=True)}
        state = from_seeds(chosen, ids, schedule, shape_of(model), model.device)
        solver = find_solver(settings.solver).solver
        states = denoise(model.denoiser, state, schedule, told, solver=solver, kick=InheritedNoise(own))
        made.append(decoded(model, collect(states, schedule)).cpu())
    return torch.cat(made)


@torch.no_grad()
def decoded(model: LatentDiffusion, latents: Float[Tensor, "n c h w"], batch: int = 8) -> Float[Tensor, "n 3 h w"]:
    """The pictures of latents, `batch` at a time."""
    return torch.cat([model.codec.decode(part) for part in latents.split(batch)])


def noisy_levels(
    model: LatentDiffusion, batch: int, power: float, generator: torch.Generator
) -> tuple[Point, Float[Tensor, "b c h w"]]:
    """The level of each row of a training step, and its noise; see `drawn_levels`."""
    at = drawn_levels(model, batch, power, generator)
    return at, torch.randn((batch, *shape_of(model)), generator=generator)


def drawn_levels(model: LatentDiffusion, batch: int, power: float, generator: torch.Generator) -> Point:
    """The level, of all that the model was trained at, of each row of a training step.

    Levels are spread evenly, in any order, and then moved to the noise by u ** power, as far as that is below 1.
    """
    spread = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    mixed = spread[torch.randperm(batch, generator=generator)]
    known = trained_levels(model)
    return known.at((mixed**power * len(known)).long())


def trained_levels(model: LatentDiffusion) -> Levels:
    """All levels that a model's scheduler says it was trained at, the least noisy first."""
    if is_flow(model.scheduler):
        return Schedule.from_config(model.scheduler, int(model.scheduler["num_train_timesteps"])).now.flip()
    return training_levels(model.scheduler)


def shape_of(model: LatentDiffusion) -> tuple[int, int, int]:
    """(channels, height, width) of the latents of a picture of the model's own size."""
    width, height = model.defaults.size
    return model.codec.channels, height // model.codec.scale, width // model.codec.scale
