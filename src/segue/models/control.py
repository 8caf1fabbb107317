"""Control: networks beside a UNet that look at a picture, such as its edges, and add to what the UNet computes.

Several act at once, each with its own picture, scale and part of the run (Zhang et al. 2023, arXiv:2302.05543; Mou et
al. 2023, arXiv:2302.08453). A network that nobody would hear is not run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from segue.errors import ModelError, TaskError
from segue.models.families import FAMILIES
from segue.models.families.sd import UNetNetwork
from segue.models.families.sdxl import XlNetwork
from segue.types import Call, Conditioning, Network, over_rows

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor, nn

    from segue.models.bundle import LatentDiffusion

PART = "control."
"""What a control network's part of a model is called, before the control's name."""
CONTROL_SCALE = "control_scale."
"""What `Conditioning.extra` calls, before a control's name, how strongly it acts on each row beside its scale; 1, if
left out."""
QUIETEST = 0.1
"""How strongly the first residual acts in a guess, as a share of the last."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Residuals:
    """What control networks add to a UNet. One number may stand for a whole channel.

    Args:
        down: to each skip connection, in the order in which the UNet makes them; none, or all.
        mid: to the middle block's answer; None if `down` is empty.
        within: to the answer of each resolution on the way down, for a T2I-Adapter.
    """

    down: tuple[Float[Tensor, "b c h w"], ...] = ()
    mid: Float[Tensor, "b c h w"] | None = None
    within: tuple[Float[Tensor, "b c h w"], ...] = ()

    def scaled(self, weights: Float[Tensor, " b"], *, guess: bool = False) -> Residuals:
        """Times one number per row; in a guess, the early ones count less: 0.1 for the first, up to 1 for the last."""
        steps = len(self.down)
        rise = [QUIETEST ** (1 - i / steps) if guess else 1.0 for i in range(steps)]
        return Residuals(
            tuple(over_rows(weights * factor, part) * part for part, factor in zip(self.down, rise, strict=True)),
            None if self.mid is None else over_rows(weights, self.mid) * self.mid,
            tuple(over_rows(weights, part) * part for part in self.within),
        )

    def __add__(self, other: Residuals) -> Residuals:
        mids = [part for part in (self.mid, other.mid) if part is not None]
        mid = mids[0] + mids[1] if len(mids) == 2 else next(iter(mids), None)
        return Residuals(_summed(self.down, other.down), mid, _summed(self.within, other.within))

    def told(self, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """As UNet2DConditionModel takes them."""
        told: dict[str, Any] = {}
        if self.mid is not None:
            told["down_block_additional_residuals"] = tuple(part.to(device, dtype) for part in self.down)
            told["mid_block_additional_residual"] = self.mid.to(device, dtype)
        if self.within:
            # The UNet takes them off this list, and adds in place what it gets.
            told["down_intrablock_additional_residuals"] = [part.to(device, dtype) for part in self.within]
        return told


def _summed(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if not one or not other:
        return one or other
    return tuple(a + b for a, b in zip(one, other, strict=True))


class ControlNetwork(Protocol):
    """A network that looks at a picture and says what to add to a UNet."""

    @property
    def module(self) -> nn.Module:
        """The network, whose attention can be stepped into as the UNet's can."""
        ...

    @property
    def pooled(self) -> bool:
        """Whether it tells what is in a picture and not where, and is silent but on the last guidance term."""
        ...

    @property
    def weights(self) -> tuple[Path, ...]:
        """The files that its numbers came from."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its configuration."""
        ...

    def __call__(
        self,
        x: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"],
        cond: Conditioning,
        picture: Float[Tensor, "b 3 H W"],
        call: Call,
    ) -> Residuals:
        """What it adds, unscaled.

        Args:
            x: noisy latents, with nothing appended.
            time: what the UNet is told about their noise.
            cond: what the UNet is told, without control pictures.
            picture: in [0, 1], one per row, at the size in pixels that the latents stand for.
            call: who the rows are.
        """
        ...


@dataclass(frozen=True)
class Control:
    """A control network at work.

    Args:
        name: what `Conditioning.residual_inputs` calls its pictures.
        network: several controls may share one.
        scale: of what it adds; at 0 it is not run.
        start: share of the run, in [0, 1), from which on it acts.
        stop: share of the run until which it acts; a step counts that lies between both as a whole.
        guess: let it act as if no text were known: silent but on the last guidance term, and the early residuals
            less (0.1) than the last (1). Networks that are `pooled` are silent there anyway.

    Raises:
        TaskError: a number is out of range.
    """

    name: str
    network: ControlNetwork
    scale: float = 1.0
    start: float = 0.0
    stop: float = 1.0
    guess: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise TaskError(f"the scale of control {self.name} must be a number, got {self.scale}")
        if not 0 <= self.start < self.stop <= 1:
            raise TaskError(
                f"control {self.name} must act from a share of the run to a later one, 0 <= start < stop <= 1; "
                f"got {self.start:g} to {self.stop:g}"
            )

    def weights(self, call: Call) -> Float[Tensor, " b"]:
        """How strongly it acts on each row of a call: its scale, or 0."""
        acts = self._acts(call)
        return torch.where(acts, self.scale, 0.0).double()

    def _acts(self, call: Call) -> Bool[Tensor, " b"]:
        index, count = call.at.index.double(), call.at.count
        acts = (index / count >= self.start - _ROUNDING) & ((index + 1) / count <= self.stop + _ROUNDING)
        if self.guess or self.network.pooled:
            acts = acts & (torch.tensor(call.term) == call.terms - 1)
        return acts


@dataclass(frozen=True)
class ControlledNetwork:
    """A Network around a UNet's, to which control networks add.

    Args:
        network: the UNet's own.
        controls: all that act.
        scale: pixels per latent, along one side.
    """

    network: UNetNetwork | XlNetwork
    controls: tuple[Control, ...]
    scale: int

    def __call__(
        self,
        x: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"],
        cond: Conditioning,
        call: Call,
        residuals: Residuals | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """What the UNet predicts, to which something else may add, too.

        Raises:
            TaskError: a control's picture is missing, or not as large as the picture that is made.
            ValueError: the conditioning has a picture that no control reads.
        """
        names = {control.name for control in self.controls}
        if over := sorted(cond.residual_inputs.keys() - names):
            raise ValueError(
                f"the conditioning has a picture for control {over[0]}, and this model has no such control"
            )
        extra = {name: value for name, value in cond.extra.items() if not name.startswith(CONTROL_SCALE)}
        alone, total = replace(cond, residual_inputs={}, extra=extra), residuals
        for control in self.controls:
            weights = control.weights(call)
            if (own := cond.extra.get(CONTROL_SCALE + control.name)) is not None:
                weights = weights * own.to(weights)
            if not bool(weights.any()):
                continue
            found = control.network(x, time, alone, self._picture(control.name, x, cond), call)
            part = self._fitting(control, found).scaled(weights, guess=control.guess and not control.network.pooled)
            total = part if total is None else total + part
        return self.network(x, time, alone, call, total)

    def _picture(self, name: str, x: Tensor, cond: Conditioning) -> Float[Tensor, "b 3 H W"]:
        height, width = (self.scale * side for side in x.shape[-2:])
        picture = cond.residual_inputs.get(name)
        if picture is None:
            raise TaskError(f"control {name} was given no picture: give one of {width}x{height}, or its scale 0")
        if picture.shape[1:] != (3, height, width):
            got = "x".join(map(str, (*picture.shape[:-3:-1], *picture.shape[1:-2])))
            raise TaskError(
                f"the picture of control {name} must be {width}x{height} with 3 channels, as what is made; "
                f"got {got} (width, height, channels): fit it first"
            )
        # Clips of control pictures are kept as bytes, a quarter of the memory.
        return picture.float() / 255 if picture.dtype == torch.uint8 else picture

    def _fitting(self, control: Control, found: Residuals) -> Residuals:
        config = self.network.unet.config
        skips, levels = skips_of(config), len(config["block_out_channels"])
        # The middle counts as one level more.
        if len(found.down) not in (0, skips) or len(found.within) > levels + 1:
            raise ModelError(
                f"control {control.name} adds to {len(found.down)} skip connections and {len(found.within)} levels, "
                f"and the UNet has {skips} and {levels}: it was made for another model"
            )
        return found


def skips_of(config: Mapping[str, Any]) -> int:
    """How many skip connections a UNet of this configuration has."""
    blocks, layers = len(config["block_out_channels"]), config["layers_per_block"]
    return blocks + (blocks * layers if isinstance(layers, int) else sum(layers))


def controlled(model: LatentDiffusion, controls: Sequence[Control]) -> LatentDiffusion:
    """The model with controls, besides those that it has. Pictures stand in `Conditioning.residual_inputs`, by name.

    Their networks are parts of it, called "control." and their name, and count in its fingerprint.

    Raises:
        TaskError: two controls have the same name.
        ModelError: its family is none of Stable Diffusion 1.x, 2.x and XL.
    """
    names = [control.name for control in controls] + [
        part.removeprefix(PART) for part in model.parts if part.startswith(PART)
    ]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TaskError(f"two controls are called {twice[0]}; give each a name of its own")
    unet_of(model)
    there = {id(module) for module in model.parts.values()}
    parts, weights, settings = dict(model.parts), list(model.weights), list(model.settings)
    for control in controls:
        network = control.network
        if id(network.module) not in there:
            there.add(id(network.module))
            parts[PART + control.name] = network.module
            weights += [(file, 1.0) for file in network.weights]
        # Two controls may share a module, and tell it different things.
        settings.append(network.settings)
    within = _around(model.denoiser.network, tuple(controls), model.codec.scale)
    return replace(
        model,
        denoiser=replace(model.denoiser, network=within),
        parts=parts,
        weights=tuple(weights),
        settings=tuple(settings),
    )


def unet_of(model: LatentDiffusion) -> UNetNetwork | XlNetwork:
    """The network that a control adds to, inside of all that is around it.

    Raises:
        ModelError: the model has none such; it is named.
    """
    network: Any = model.denoiser.network
    while not isinstance(network, UNetNetwork | XlNetwork) and hasattr(network, "network"):
        network = network.network
    if not isinstance(network, UNetNetwork | XlNetwork) or model.upscaling is not None:
        family = next((one.name for one in FAMILIES if one.module == model.family), "of an unknown family")
        what = "an upscaler" if model.upscaling is not None else family
        raise ModelError(
            f"{model.name} is {what}: controls and reference pictures work with the UNets of Stable Diffusion 1.x, "
            "2.x and XL. Take such a model, or leave them out"
        )
    return network


def _around(network: Network, controls: tuple[Control, ...], scale: int) -> Network:
    """The same network with controls next to its UNet, below whatever else is around that."""
    if isinstance(network, ControlledNetwork):
        return replace(network, controls=(*network.controls, *controls))
    if isinstance(network, UNetNetwork | XlNetwork):
        return ControlledNetwork(network, controls, scale)
    outer: Any = network
    return replace(outer, network=_around(outer.network, controls, scale))
