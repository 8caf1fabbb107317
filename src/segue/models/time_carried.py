"""Where a picture's things are at the time of each frame: what a clip may begin with in place of noise alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segue.errors import ModelError
from segue.models.clip_rows import nearest_known
from segue.models.time_inserted import time_layers
from segue.models.time_words import WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion
    from segue.types import Conditioning


@torch.no_grad()
def carried(
    model: LatentDiffusion,
    cond: Conditioning,
    context: Float[Tensor, "t c+1 h w"],
    fps: float,
    dials: Sequence[float],
) -> Float[Tensor, "t c h w"]:
    """The latents of the frames of a clip: of each the nearest known frame, carried along its way.

    What an adapter learned to foretell alone is right about where things are, and less about what they look like. A
    clip that begins with it, some way into noise (Meng et al. 2021, arXiv:2108.01073), goes where it should, and is
    drawn anew.

    Args:
        model: whose layers along time set known frames in motion.
        cond: what its frames are told in words.
        context: what they are told of known frames; see `segue.models.families.videoldm.context_of`.
        fps: frames per second.
        dials: how far each goes along its way; 1 as it was learned.

    Raises:
        ModelError: nothing sets frames in motion, or none is known.
    """
    moves, known = time_layers(model).moves, context[:, -1].flatten(1).any(1)
    if moves is None or not bool(known.any()):
        raise ModelError(f"{model.name} carries known frames along a way, and none is known, or none can be carried")
    nearest, apart = nearest_known(known[None])
    weight = moves.picture.weight
    said, pictures = (part.to(weight) for part in (cond.extra.get(WORDS, cond.text), context[nearest, :-1]))
    meaning = moves.meaning(said, (apart / fps).to(weight.device))
    guess = moves.changed(pictures, meaning, torch.tensor(dials).to(weight)).guess.to(context)
    return torch.where(known[:, None, None, None], context[:, :-1], guess)
