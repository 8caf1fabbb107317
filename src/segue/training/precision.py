"""Half precision, where it is faster."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def fast_bf16(device: str) -> bool:
    """Whether a device multiplies bfloat16 faster than float32: a GPU since Ampere, a CPU with AVX512_BF16 or AMX.

    Other CPUs convert each number, and take longer than in float32.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    cpu: Any = torch.cpu  # says it in names that are not public yet, and may be other ones
    asked = (getattr(cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return kind == "cpu" and any(ask() for ask in asked if ask is not None)


class FloatGroupNorm(nn.GroupNorm):
    """Group normalization that computes in float32 inside an autocast region.

    The bfloat16 kernel of channels-last group norm is several times slower on CPUs than the float32 one: with it, a
    training step of the t2i recipe took twice as long.
    """

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return functional.group_norm(input.float(), self.num_groups, self.weight, self.bias, self.eps)


def float_norms(module: nn.Module) -> None:
    """Replace every GroupNorm below `module` by one that computes in float32; parameters and their names stay."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.GroupNorm:
                norm = FloatGroupNorm(child.num_groups, child.num_channels, child.eps)
                norm.weight, norm.bias = child.weight, child.bias
                setattr(parent, name, norm)
