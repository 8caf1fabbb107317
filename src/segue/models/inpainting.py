"""What inpainting models are told: where to paint, and the picture with that place blank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate

from segue.types import Codec

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

CHANGES = 0.5
"""From this value on, a mask's pixel is blank in the picture that the model is shown."""
BLANK = 0.5
"""Middle grey, which is 0 where an autoencoder takes pictures from -1 to 1."""


def concat_channels(latent_channels: int) -> int:
    """How many channels an inpainting model takes besides the noisy latents: the mask, and the masked picture's."""
    return 1 + latent_channels


def inpainting(codec: Codec, picture: Float[Tensor, "3 h w"], mask: Float[Tensor, "h w"]) -> Float[Tensor, "1 k h w"]:
    """What an inpainting model has appended to its latents, for `Conditioning.concat`.

    The mask becomes black and white at one half, and each latent takes the mask's value at its upper left pixel, as
    in the training of these checkpoints (Rombach et al. 2021, arXiv:2112.10752, section 4.5, and their code).

    Args:
        codec: of the same model.
        picture: in [0, 1], of the size of the film.
        mask: of the same size; 1 is painted, 0 is kept.

    Raises:
        ValueError: the two differ in size.
        TaskError: the size is no multiple of the codec's scale.
    """
    if picture.shape[-2:] != mask.shape:
        raise ValueError(f"the picture is {tuple(picture.shape[-2:])}, its mask {tuple(mask.shape)} (height, width)")
    painted = mask >= CHANGES
    blanked = torch.where(painted, BLANK, picture)
    kept = codec.encode(blanked[None]).float()
    where = interpolate(painted[None, None].to(kept), size=kept.shape[-2:])
    return torch.cat([where, kept], dim=1)
