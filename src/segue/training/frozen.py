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
    source: str, device: torch.device, bf16: bool, networks: tuple[type[UNetNetwork] | type[XlNetwork], ...]
) -> LatentDiffusion:
    """A model whose UNet takes no gradients, ready for the precision of a run.

    Args:
        source: an embedded model, a folder, or a hub repository.
        device: where it works.
        bf16: whether the run computes in bfloat16.
        networks: the kinds of networks that the recipe knows.

    Raises:
        TrainingError: it is of another kind, an upscaler, or one that is shown pictures; or it predicts what there is
            no loss for.
        ModelError: it cannot be loaded.
    """
    model = load(source, device, "float32")
    if not isinstance(model.denoiser.network, networks) or model.upscaling or model.inpaints or model.instructs:
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
