"""Compiling a denoiser's network: the blocks that repeat in it, or all of it with its kernels recorded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import torch

from segue.errors import ModelError
from segue.types import Call, Conditioning, Network

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn

    from segue.models.bundle import LatentDiffusion

Compile = Literal["blocks", "graphs"]
DENOISERS = ("unet", "transformer")
"""What the part that denoises is called in a diffusers folder."""


def check_compiler(how: Compile, device: torch.device) -> None:
    """Find out before a model is loaded whether this machine can compile for a device.

    Raises:
        ModelError: it cannot; the message says what is missing.
    """
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f'compile "{how}" is for cpu and cuda, and this is {device.type}: leave it out')
    if how == "graphs" and device.type != "cuda":
        raise ModelError(f'compile "graphs" records the kernels of CUDA, and this is {device.type}: take "blocks"')
    if device.type == "cuda" and find_spec("triton") is None:
        raise ModelError(f'compile "{how}" needs triton, which comes with torch for CUDA: pip install triton')
    if device.type == "cpu" and not any(map(shutil.which, _compilers())):
        raise ModelError(
            f'compile "{how}" needs a C++ compiler, and none of {", ".join(_compilers())} is here: install g++, or set '
            "CXX, or leave compile out"
        )


def _compilers() -> Sequence[str]:
    return [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]


def compiled(model: LatentDiffusion, how: Compile) -> LatentDiffusion:
    """The model with its denoiser's network compiled; the network itself is changed. Pictures change in their last
    digits, and the first call of every kind takes long.

    "blocks" compiles each kind of block that repeats in the network once, for any number of rows: minutes less than
    compiling all of it. "graphs" compiles all of it and records its kernels for every number of rows that comes up.

    Raises:
        ModelError: the network does not say which of its blocks repeat, or has LoRAs whose scale changes.
    """
    network = _denoiser(model)
    if model.lora_curves:
        raise ModelError("LoRAs whose scale changes over a film cannot be compiled: give each one number")
    if how == "graphs":
        network.compile(mode="reduce-overhead")
        marked = Stepped(model.denoiser.network)
        return replace(model, denoiser=replace(model.denoiser, network=marked))
    kinds = getattr(network, "_repeated_blocks", None)
    if not kinds:
        raise ModelError(f"{type(network).__name__} does not say which of its blocks repeat: leave compile out")
    for module in network.modules():
        if type(module).__name__ in kinds:
            module.compile(dynamic=True)
    return model


@dataclass(frozen=True)
class Stepped:
    """A Network around one whose kernels are recorded: what it answered before may be overwritten."""

    network: Network

    def __call__(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning, call: Call
    ) -> Float[Tensor, "b c h w"]:
        """What the network predicts, as a tensor of its own."""
        torch.compiler.cudagraph_mark_step_begin()
        return self.network(x, time, cond, call).clone()


def _denoiser(model: LatentDiffusion) -> nn.Module:
    parts: dict[str, Any] = dict(model.parts)
    return next(parts[name] for name in DENOISERS if name in parts)
