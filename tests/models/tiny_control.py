# pyright: basic
"""Tiny control networks for tiny models, whose answers are never 0: fresh ControlNets add nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.adapter import T2IAdapter
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from ldm_layout import unet_key
from safetensors.torch import load_file, save_file

from segue.models.weights import quiet

HINT = (16, 32, 96, 256)
"""Channels of the layers that bring a picture down to 8 pixels per latent, as all that are published have them."""


def stirred(network: Any, seed: int, alpha: float = 0.1) -> Any:
    """With every number moved, so that no layer is silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=alpha)
    return network.eval()


def write_controlnet(folder: Path, model: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A ControlNet for the UNet of a model's folder."""
    with quiet(), torch.no_grad():
        unet = UNet2DConditionModel.from_pretrained(model / "unet")
        network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT)
        network.register_to_config(**changes)
        stirred(network, seed)
        # Through so many layers hardly anything of the picture would come.
        for layer in network.controlnet_cond_embedding.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, generator=torch.Generator().manual_seed(seed)).mul_(1.4)
        network.save_pretrained(folder)
    return folder


def write_adapter(folder: Path, channels: tuple[int, ...], *, seed: int = 0, **changes: Any) -> Path:
    """A T2I-Adapter for a UNet of these channels."""
    with quiet(), torch.no_grad():
        network = T2IAdapter(channels=list(channels), num_res_blocks=1, **{"downscale_factor": 8, **changes})
        stirred(network, seed, 0.02).save_pretrained(folder)
    return folder


def to_original(folder: Path, path: Path) -> Path:
    """A ControlNet's folder as one file of the layout in which ControlNets were published first."""
    hints = {"conv_in": 0, "conv_out": 2 * len(HINT) + 6}
    file = {}
    for key, value in load_file(folder / "diffusion_pytorch_model.safetensors").items():
        kind, *rest = key.split(".")
        if kind == "controlnet_cond_embedding":
            number = hints[rest[0]] if rest[0] in hints else 2 * (int(rest[1]) + 1)
            name = f"input_hint_block.{number}.{rest[-1]}"
        elif kind == "controlnet_down_blocks":
            name = f"zero_convs.{rest[0]}.0.{rest[1]}"
        elif kind == "controlnet_mid_block":
            name = f"middle_block_out.0.{rest[0]}"
        else:
            name = unet_key(key, 1, [])
        file[f"control_model.{name}"] = value.contiguous()
    save_file(file, path)
    return path
