"""What a recorded live stream was told at each of its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from segue.diffusion.schedule import Schedule
from segue.diffusion.solvers import find_solver
from segue.tasks.live import Live
from segue.temporal.stream import Place, Stream
from segue.types import Condition, Conditioning, Guided, Point

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class Echo:
    """A denoiser that answers with what it is told: when a picture leaves the stream, that is what it shows."""

    group = 1

    def __call__(self, x: Float[Tensor, "b n 1 1"], at: Point, cond: Condition) -> Float[Tensor, "b n 1 1"]:
        """The text, as x0."""
        text = cond.terms[0] if isinstance(cond, Guided) else cond
        return text.text.reshape(x.shape).to(x)


def told(task: Live) -> Iterator[tuple[float, ...]]:
    """The share of each prompt, the first and those that were said, in every picture of a stream that has an end.

    The stream itself is run, on texts that are one number for each prompt, so that this is right wherever it waits,
    turns on its way, or leaves out what was overtaken.

    Args:
        task: with its steps stated, as a record has it.

    Raises:
        TaskError: it has too few steps.
    """
    steps = task.sampling.steps or 1
    prompts = torch.eye(1 + len(task.script))

    def place(number: int, seed: int) -> Place:
        text = Conditioning(prompts[number][None, None])
        return Place(text, text, 1.0, {seed: 1.0})

    latest, drifted, shown = 0, 0, 0

    def drift() -> Place | None:
        nonlocal drifted
        drifted += 1
        return place(latest, drifted) if task.idle == "drift" else None

    stream = Stream(
        Echo(),
        Schedule.from_config({}, steps),
        find_solver("ddim").solver,
        task.fork(steps),
        task.between,
        (len(prompts), 1, 1),
        torch.device("cpu"),
        queue=task.queue,
        idle=drift,
        words="line",
    )
    stream.ask(place(0, 0))
    shares: tuple[float, ...] = ()
    while shown < (task.frames or 0):
        while latest < len(task.script) and task.script[latest].after <= shown:
            latest += 1
            stream.ask(place(latest, 0))
        with torch.no_grad():
            left = stream.tick()
            while left is None and not shares:
                left = stream.tick()
        if left is not None:
            shares = _shares(left[1].flatten().tolist())
        shown += 1
        yield shares


def _shares(values: list[float]) -> tuple[float, ...]:
    """Without what rounding left."""
    kept = [max(0.0, round(value, 4)) for value in values]
    return tuple(value / sum(kept) for value in kept)
