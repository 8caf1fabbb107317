"""Models that change a picture as they are told: they are shown it beside the noisy latents (InstructPix2Pix)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

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
        f"takes {model.codec.channels + picture_channels(model.codec.channels)}, such as timbrooks/instruct-pix2pix, "
        "or a LoRA that segue train instruct made for this model; or take another method"
    )


def widened(model: LatentDiffusion) -> LatentDiffusion:
    """The model with room for a picture beside the latents, which it does not look at yet.

    The weights of the new channels are 0 (Brooks et al., section 3.2.1). The first layer is a new one; all others are
    the model's own, and not copied.
    """
    network: Any = model.denoiser.network
    unet = with_channels(network.unet, model.codec.channels + picture_channels(model.codec.channels))
    denoiser = replace(model.denoiser, network=replace(network, unet=unet))
    return replace(model, denoiser=denoiser, parts={**model.parts, "unet": unet}, instructs=True)


def with_channels(unet: Any, channels: int) -> Any:
    """A UNet2DConditionModel that takes so many channels, and shares all layers but the first with `unet`."""
    first = unet.conv_in
    wide = nn.Conv2d(channels, first.out_channels, first.kernel_size, padding=first.padding)
    wide = wide.to(first.weight).requires_grad_(first.weight.requires_grad)
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[:, : first.in_channels].copy_(first.weight)
        if wide.bias is not None and first.bias is not None:
            wide.bias.copy_(first.bias)
    made = copy.copy(unet)
    made._modules = {**unet._modules, "conv_in": wide}
    made.register_to_config(in_channels=channels)
    return made
