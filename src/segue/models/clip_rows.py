"""Rows of a batch that are the frames of clips: what networks are told once for each clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64
    from torch import Tensor

    from segue.types import Conditioning, Guided

DIAL = "dial"
"""What `Conditioning.extra` calls how strongly layers along time act on each row: 1 as the model does it, 0 not at all.
What frames at 0 become is what the image model makes of them, to the bit; the others see them all the same."""


def dialled(cond: Guided, dials: Sequence[float]) -> Guided:
    """Guidance whose rows are told how strongly layers along time act on them.

    Args:
        cond: of a clip.
        dials: one for each row, from 0.
    """
    device = cond.terms[0].text.device
    told = {DIAL: torch.tensor(list(dials), dtype=torch.float32, device=device)}
    return replace(cond, terms=tuple(replace(term, extra={**term.extra, **told}) for term in cond.terms))


def motion_of(cond: Conditioning, motion: float) -> float | Float[Tensor, " b"]:
    """How strongly layers along time act on the rows of a call: one number, or one for each row.

    Args:
        cond: of the call.
        motion: of the model.
    """
    dials = cond.extra.get(DIAL)
    if dials is None:
        return motion
    rows = motion * dials
    return rows if bool(rows.any()) else 0.0


def of_clips(told: Float[Tensor, "b ..."], frames: int, what: str) -> Float[Tensor, "n ..."]:
    """One row for each clip, of what its consecutive frames are told alike.

    Args:
        told: one row per frame.
        frames: of a clip.
        what: these rows say, for the error.

    Raises:
        ValueError: frames of a clip are told different things.
    """
    clips = told.unflatten(0, (-1, frames))
    if frames > 1 and not bool((clips == clips[:, :1]).all()):
        raise ValueError(f"the frames of a clip must be told the same {what}, and these are not")
    return clips[:, 0]


def nearest_known(known: Bool[Tensor, "n t"]) -> tuple[Int64[Tensor, " b"], Float[Tensor, " b"]]:
    """Of each frame the row of the known frame that is nearest, the earlier of two, and how many frames it is later.

    In clips of which no frame is known, each is its own nearest.
    """
    clips, frames = known.shape
    place = torch.arange(frames, device=known.device)
    apart = (place[:, None] - place[None]).abs().float()
    far = apart[None].masked_fill(~known[:, None, :], float("inf"))
    nearest = torch.where(known.any(1)[:, None], far.argmin(2), place[None])
    later = (place[None] - nearest).float()
    rows = nearest + frames * torch.arange(clips, device=known.device)[:, None]
    return rows.flatten().cpu(), later.flatten().cpu()
