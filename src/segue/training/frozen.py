"""The model that a recipe adds to, and leaves as it is."""

from __future__ import annotations

from typing import Any

import torch

from segue.errors import TrainingError
from segue.models.bundle import LatentDiffusion
from segue.models.families.sd import UNetNetwork
from segue.models.families.sdxl import XlNetwork
from segue.training.precision import float_norms
from segue.zoo import load

FAMILIES = {UNetNetwork: "Stable Diffusion 1.x or 2.x", XlNetwork: "XL"}


def read_frozen(
    source: str,
    device: torch.device,
    bf16: bool,
    networks: tuple[type[UNetNetwork] | type[XlNetwork], ...],
    *,
    upscaler: bool = False,
) -> LatentDiffusion:
    """A model whose UNet takes no gradients, ready for the precision of a run.

    Args:
        source: an embedded model, a folder, or a hub repository.
        device: where it works.
        bf16: whether the run computes in bfloat16.
        networks: the kinds of networks that the recipe knows.
        upscaler: whether the recipe is for upscalers, and for nothing else.

    Raises:
        TrainingError: it is of another kind, an upscaler where none is wanted or the other way round, or one that is
            shown pictures; or it predicts what there is no loss for.
        ModelError: it cannot be loaded.
    """
    model = load(source, device, "float32")
    known_kind = isinstance(model.denoiser.network, networks) and not model.inpaints and not model.instructs
    if upscaler and not (known_kind and model.upscaling):
        raise TrainingError(f"model={source} is nothing that this recipe can teach: expected an upscaler")
    if not upscaler and (not known_kind or model.upscaling):
        known = ", or ".join(FAMILIES[kind] for kind in networks)
        raise TrainingError(f"model={source} is nothing that this recipe can teach: expected {known}, from text alone")
    if model.denoiser.prediction == "sample":
        raise TrainingError(f"model={source} predicts pictures, for which this recipe has no loss")
    unet: Any = model.parts["unet"]
    unet.requires_grad_(False)
    unet.to(memory_format=torch.channels_last)
    if bf16 and device.type == "cpu":
        float_norms(unet)
    return model
