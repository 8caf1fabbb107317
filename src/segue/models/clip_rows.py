"""Rows of a batch that are the frames of clips: what networks are told once for each clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


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
