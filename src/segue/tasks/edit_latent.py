"""The noise of a picture in a file: what ddib hands from a source model to a target model, in another process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from segue.errors import TaskError
from segue.models.inverted import InvertedLatents, InvertedOrigin
from segue.temporal.increments import Increments
from segue.temporal.inversion import Inversion
from segue.types import RowId

if TYPE_CHECKING:
    import torch

    from segue.diffusion.schedule import Schedule
    from segue.models.bundle import LatentDiffusion
    from segue.tasks.edit import Edit
    from segue.tasks.edit_settings import Change
    from segue.tasks.stylize import Stylize


def as_kept(edit: Edit, noise: InvertedLatents, model: LatentDiffusion) -> Edit:
    """An edit with the steps, the size and the strength of noise that was kept, where it says none.

    Raises:
        TaskError: it says a strength by which a run begins elsewhere.
    """
    sampling, run = edit.sampling, noise.steps - noise.first
    strength = edit.change.strength
    if strength is None:
        # k / n times n may be less than k by rounding.
        share = run / noise.steps
        strength = share if int(noise.steps * share) == run else math.nextafter(share, 1)
    elif max(1, int(noise.steps * strength)) != run:
        raise TaskError(
            f"the noise of {edit.change.latent} has {run} of {noise.steps} steps before it, and strength {strength:g} "
            f"runs {max(1, int(noise.steps * strength))}: leave out strength"
        )
    high, wide = (side * model.codec.scale for side in noise.latents.shape[2:])
    sampling = replace(sampling, steps=sampling.steps or noise.steps, size=sampling.size or (wide, high))
    return replace(edit, change=replace(edit.change, strength=strength), sampling=sampling)


def check_noise(noise: InvertedLatents, task: Stylize, model: LatentDiffusion, frames: int) -> None:
    """Find out whether a model comes out of noise that was kept.

    Args:
        noise: of a file.
        task: with nothing left open.
        model: that comes out.
        frames: of the input.

    Raises:
        TaskError: there are more frames or fewer.
        CheckpointError: the model's latents or levels, or the number of steps, are others.
    """
    if len(noise.latents) != frames:
        raise TaskError(
            f"the noise is of {len(noise.latents)} frames, and the input has {frames}: name that of its own"
        )
    sampling = task.sampling
    assert sampling.steps and sampling.size
    schedule = model.schedule(sampling.steps, sampling.size, solver=sampling.solver)
    wide, high = (side // model.codec.scale for side in sampling.size)
    noise.check_fits(schedule.joined() if noise.origin.exact else schedule, (model.codec.channels, high, wide))


def told_of(noise: InvertedLatents) -> str:
    """What to say of noise that was kept."""
    made, how = noise.origin, "exactly" if noise.origin.exact else f"with {noise.origin.rounds} rounds"
    shown = f", told {made.prompt!r}" if made.prompt else ""
    return f"the noise was found by {made.model}{shown}, {how}, in {noise.steps - noise.first} of {noise.steps} steps"


def noise_of(way: Inversion, schedule: Schedule, model: LatentDiffusion, change: Change) -> InvertedLatents:
    """A way into noise, as it is kept: where it ends, and what it was made with."""
    scale = 1.0 if change.source_guidance is None else change.source_guidance
    made = InvertedOrigin(
        model.name, model.fingerprint, change.source_prompt or "", "", scale, change.rounds or 0, change.exact
    )
    increment = way.kick.by_step[way.first].cpu() if isinstance(way.kick, Increments) else None
    return InvertedLatents.of(way.at(way.first).cpu(), way.first, schedule, made, increment)


def part_of(noise: InvertedLatents, rows: Sequence[RowId], device: torch.device) -> Inversion:
    """The way into noise of some frames of a film, as far as it was kept."""
    frames = [row.frame for row in rows]
    increment = None if noise.increment is None else noise.increment[frames].to(device)
    return Inversion.kept(noise.latents[frames].to(device), noise.first, rows, increment)


def in_one(parts: Sequence[tuple[range, InvertedLatents]]) -> InvertedLatents:
    """The noise of a film whose parts went into noise one by one; where two have a frame, that of the first."""
    import torch

    latents, increments, known = list[torch.Tensor](), list[torch.Tensor](), 0
    for part, noise in parts:
        new = slice(known - part.start, None)
        latents.append(noise.latents[new])
        if noise.increment is not None:
            increments.append(noise.increment[new])
        known = part.stop
    return replace(parts[0][1], latents=torch.cat(latents), increment=torch.cat(increments) if increments else None)
