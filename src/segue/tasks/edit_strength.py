"""How far a picture may be changed that is to stay as near to itself as is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from segue.diffusion.sdedit import find_strength, passes
from segue.diffusion.starts import from_latents
from segue.errors import TaskError
from segue.evaluation.fidelity import psnr, ssim
from segue.media.disk import written_whole
from segue.tasks.edit_draw import EditDrawing
from segue.tasks.edit_settings import budget_of
from segue.tasks.stylize_draw import CLIP
from segue.types import RowId

if TYPE_CHECKING:
    from torch import Tensor

STAGE = "finding a strength"


def found_strength(drawing: EditDrawing, faithful: str, known: Path) -> float:
    """The greatest strength that keeps the middle frame so near, drawn by itself and without a mask.

    Args:
        drawing: of the edit.
        faithful: such as psnr=25.
        known: a file that keeps it for a run that goes on.

    Raises:
        TaskError: a single step leads further away.
    """
    if known.exists():
        return float(json.loads(known.read_text("utf-8")))
    name, value = budget_of(faithful)
    frame = len(drawing.source) // 2
    picture, schedule, runs = drawing.source[frame : frame + 1], drawing.schedule, 0

    def apart(strength: float) -> float:
        nonlocal runs
        runs += 1
        made = _edited(drawing, frame, strength)
        drawing.progress(STAGE, runs, MOST_RUNS)
        return float(_distance(name, made, picture))

    allowed = 10 ** (-value / 20) if name == "psnr" else 1 - value
    try:
        found = find_strength(apart, allowed, len(schedule), most_runs=MOST_RUNS)
    except TaskError:
        raise TaskError(
            f"the weakest edit, of one step of {len(schedule)}, does not keep the picture as near as {faithful}: allow "
            "more, or take more steps"
        ) from None
    with written_whole(known) as part:
        part.write_text(json.dumps(found.strength), encoding="utf-8")
    drawing.progress(f"strength {found.strength:.3g} keeps {faithful}", 1, 1)
    return found.strength


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
