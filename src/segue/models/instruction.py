"""Models that change a picture as they are told: they are shown it beside the noisy latents (InstructPix2Pix)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segue.errors import TaskError
from segue.models.codec import AutoencoderCodec
from segue.types import Codec

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion


def picture_channels(latent_channels: int) -> int:
    """How many channels an instruction model takes besides the noisy latents: those of the picture's own."""
    return latent_channels


def shown(codec: Codec, pictures: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t c h/s w/s"]:
    """What an instruction model has appended to its latents, for `Conditioning.concat`: a row for each picture.

    That is the mode of what the encoder makes of it, and unlike the latents, it is not scaled to unit variance
    (Brooks, Holynski & Efros 2023, arXiv:2211.09800, section 3.2, and their code). No picture is shown as zeros.

    Args:
        codec: of the same model.
        pictures: in [0, 1], of the size that is drawn.

    Raises:
        TaskError: the size is no multiple of the codec's scale.
    """
    latents = codec.encode(pictures).float()
    return codec.unscaled(latents) if isinstance(codec, AutoencoderCodec) else latents


def refuse_others(model: LatentDiffusion) -> None:
    """Raise TaskError if a model does not follow instructions."""
    if model.instructs:
        return
    channels = getattr(model.backbone, "config", {}).get("in_channels", "other")
    if model.inpaints:
        what = f"it takes {channels} channels and is an inpainting model, which is shown a picture and a mask"
    elif model.upscaling is not None:
        what = "it enlarges pictures"
    else:
        what = f"it takes {channels} channels and draws from words alone"
    raise TaskError(
        f"{model.name} does not follow instructions: {what}. Expected a model of the layout of InstructPix2Pix, which "
        f"takes {model.codec.channels + picture_channels(model.codec.channels)}, such as timbrooks/instruct-pix2pix; "
        "or an adapter that segue train instruct made for this model (--instruct-adapter FILE); or another method"
    )
