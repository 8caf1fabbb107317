"""Parts of a film drawn by another method, for comparison: same model, words, controls, steps and noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segue.diffusion.solvers import find_solver
from segue.media.clip import Excerpt, to_uint8
from segue.models.attended import model_sites
from segue.models.attention_maps import MapReader, kept_words
from segue.models.paused import pause, resumed
from segue.tasks.stylize_draw import CLIP, STAGE, Drawing
from segue.temporal.moved_noise import PlacedKick
from segue.temporal.rivals.catalogue import find_rival
from segue.temporal.rivals.inputs import Outcome, RivalInputs, Source
from segue.types import RowId, State

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

PICTURES = "pictures"


def drawn_by(
    method: str, drawing: Drawing, number: int
) -> tuple[Float[Tensor, "t c h w"], UInt8[Tensor, "t 3 h w"] | None]:
    """The latents of a part, and its pictures where the method makes pictures; as they were kept, if they were.

    A part is kept when it is whole: these methods have no state that could be gone on with.

    Args:
        method: its name.
        drawing: the film, and all that it is drawn with.
        number: of the part.

    Raises:
        TaskError: the method needs something that the model has not.
    """
    part = range(*drawing.plan.parts[number])
    path, rows = drawing.path(number), [RowId(CLIP, frame) for frame in part]
    kept = resumed(path, rows, drawing.shape, drawing.model.device)
    if kept is not None:
        drawing.tell(number, drawing.steps)
        return kept[0].x, kept[1].get(PICTURES)

    def tell(what: str, done: float, total: float) -> None:
        drawing.progress(f"{STAGE}: {what}", done, total)

    made = find_rival(method).run(_inputs(drawing, part), tell)
    pictures = None if made.pictures is None else _whole(made)
    finished = torch.full((len(part),), len(drawing.schedule))
    more = {} if pictures is None else {PICTURES: pictures}
    pause(path, State(made.latents, finished, tuple(rows)), more)
    drawing.tell(number, drawing.steps)
    return made.latents, pictures


def _inputs(drawing: Drawing, part: range) -> RivalInputs:
    task, model = drawing.task, drawing.model
    placed = drawing.placed[part.start : part.stop]
    source_prompt = task.beginning.source_prompt or ""
    words = kept_words(model.text, source_prompt, task.prompt or "") if task.method == "fatezero" else ()
    source = Source(
        drawing.encoded(part), drawing.telling.source(part), drawing.fields(Excerpt(drawing.source, part)), words
    )
    return RivalInputs(
        model.denoiser,
        drawing.schedule,
        drawing.telling.frames(part),
        placed.start(task.seed, drawing.shape[0], CLIP).to(model.device),
        source,
        task.beginning.strength or 1.0,
        model.codec,
        model_sites(model),
        MapReader(),
        find_solver(task.sampling.solver or "ddim").solver,
        PlacedKick(placed, task.seed, CLIP),
        task.seed,
        model.denoiser.max_batch,
    )


def _whole(made: Outcome) -> UInt8[Tensor, "t 3 h w"]:
    assert made.pictures is not None
    return to_uint8(made.pictures[0 : len(made.pictures)]).cpu()
