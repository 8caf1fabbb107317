"""Low-rank updates: each layer of a frozen network computes with W + B A (Hu et al. 2021, arXiv:2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """The update of one weight, as a parametrization of it: it begins as none, since B is 0.

    The sum is made before the layer runs, not beside it: one product of small matrices costs a CPU less than two more
    layers, and the trained network then computes what the merged one will.
    """

    def __init__(self, weight: Float[Tensor, "o i ..."], rank: int) -> None:
        super().__init__()
        outputs, inputs = weight.shape[0], weight[0].numel()
        rank = min(rank, outputs, inputs)
        self.down = nn.Parameter(torch.empty(rank, inputs, device=weight.device))
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=weight.device))
        nn.init.kaiming_uniform_(self.down, math.sqrt(5))

    def forward(self, weight: Float[Tensor, "o i ..."]) -> Float[Tensor, "o i ..."]:
        """W + B A, float32 inside an autocast region too."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.up @ self.down).reshape(weight.shape)


def add_low_rank(network: nn.Module, rank: int, own: Mapping[str, int] | None = None) -> nn.ModuleDict:
    """Freeze a network, and give each of its linear layers and convolutions an update of this rank, or of its own.

    Args:
        network: is changed.
        rank: of the updates; a layer that has less itself has that.
        own: ranks of single layers, by their names.

    Returns the updates by the names of their layers, with "/" for ".", which names of modules may not have: all that
    is trained, and all that a checkpoint must hold.
    """
    network.requires_grad_(False)
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    updates: dict[str, nn.Module] = {}
    for name, layer in layers.items():
        update = LowRank(layer.weight, (own or {}).get(name, rank))
        parametrize.register_parametrization(layer, "weight", update)
        updates[name.replace(".", "/")] = update
    return nn.ModuleDict(updates)


def save_lora(path: Path, network: nn.Module, part: str, weights: Mapping[str, Tensor]) -> None:
    """Write updates as a LoRA file of the PEFT layout, fp16.

    Args:
        path: of the file; it is replaced when the new one is whole.
        network: the one that the updates were added to; it knows the shapes.
        part: its name in a model: unet or text_encoder.
        weights: the updates' parameters, by the names that `add_low_rank`'s module gives them.
    """
    tensors: dict[str, Tensor] = {}
    for key, value in weights.items():
        name, _, side = key.rpartition(".")
        layer: Any = network.get_submodule(name.replace("/", "."))
        kernel = tuple(layer.weight.shape[2:])
        if side == "down":
            value = value.reshape(len(value), -1, *kernel)
        elif kernel:
            value = value[:, :, None, None]
        letter = {"down": "A", "up": "B"}[side]
        tensors[f"{part}.{name.replace('/', '.')}.lora_{letter}.weight"] = value.half().contiguous()
    whole = path.with_name(path.name + ".part")
    save_file(tensors, whole, {"format": "pt"})
    whole.replace(path)
