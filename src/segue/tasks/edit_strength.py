"""How far a picture may be changed that is to stay as near to itself as is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segue.diffusion.sdedit import find_strength, passes
from segue.diffusion.starts import from_latents
from segue.errors import TaskError
from segue.evaluation.fidelity import psnr, ssim
from segue.tasks.edit_draw import EditDrawing
from segue.tasks.edit_settings import budget_of
from segue.tasks.edit_trial import Found, tried_frames
from segue.tasks.stylize_draw import CLIP
from segue.tasks.stylize_outlook import rows_of
from segue.types import RowId

if TYPE_CHECKING:
    from torch import Tensor

STAGE = "finding a strength"


def found_strength(drawing: EditDrawing, faithful: str, known: Path) -> Found[float]:
    """The greatest strength that keeps a few frames so near, each drawn by itself and without a mask.

    Args:
        drawing: of the edit.
        faithful: such as psnr=25.
        known: a file that keeps it for a run that goes on.

    Raises:
        TaskError: a single step leads further away.
    """
    if (kept := Found[float].kept(known)) is not None:
        return kept
    name, value = budget_of(faithful)
    frames, schedule, runs, taken = tried_frames(len(drawing.source)), drawing.schedule, 0, 0

    def apart(strength: float) -> float:
        nonlocal runs, taken
        runs += 1
        pairs = ((_edited(drawing, frame, strength), drawing.source[frame : frame + 1]) for frame in frames)
        furthest = max(float(_distance(name, made, picture)) for made, picture in pairs)
        drawing.progress(STAGE, runs, MOST_RUNS)
        tried = replace(drawing.task, beginning=replace(drawing.task.beginning, strength=strength))
        taken += rows_of(tried, drawing.model) * drawing.passes * len(frames)
        return furthest

    allowed = 10 ** (-value / 20) if name == "psnr" else 1 - value
    try:
        found = find_strength(apart, allowed, len(schedule), most_runs=MOST_RUNS)
    except TaskError:
        raise TaskError(
            f"the weakest edit, of one step of {len(schedule)}, does not keep the picture as near as {faithful}: allow "
            "more, or take more steps"
        ) from None
    answer = Found(found.strength, taken)
    answer.keep(known)
    drawing.progress(f"strength {found.strength:.3g} keeps {faithful}", 1, 1)
    return answer


MOST_RUNS = 8


def _distance(name: str, made: Tensor, picture: Tensor) -> Tensor:
    """0 for equal pictures: the root mean square difference, whose logarithm psnr is, or what ssim lacks of 1."""
    if name == "psnr":
        return 10 ** (-psnr(made, picture)[0] / 20)
    return 1 - ssim(made, picture)[0]


def _edited(drawing: EditDrawing, frame: int, strength: float) -> Tensor:
    """A frame, edited by itself."""
    part, rows = range(frame, frame + 1), [RowId(CLIP, frame)]
    noise = [drawing.noise(part, number) for number in range(drawing.passes)]
    start = from_latents(drawing.encoded(part), noise[0], drawing.schedule, strength, rows)
    solver, kick = drawing.stepping(part)
    *_, last = passes(
        drawing.model.denoiser, start, drawing.schedule, drawing.told.frames(part),
        noise=noise[1:], solver=solver, kick=kick,
    )  # fmt: skip
    return drawing.model.codec.decode(last.x).float().cpu()
