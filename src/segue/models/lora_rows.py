"""LoRAs whose scale is another one for each row of a batch: W x + scale (alpha / rank) B A x, beside the weights.

Merged weights are the same for all rows. Here they stay as they are: each layer that a file updates adds its low-rank
part to its own answer, as often as the row is told to (Hu et al. 2021, arXiv:2106.09685, eq. 3). It costs two small
products more per layer.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import conv2d, linear

from segue.errors import TaskError
from segue.models.lora import Update, fitting
from segue.types import Call, Conditioning, Network, TextEncoder, over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion

SCALES = "lora_scales"
"""What `Conditioning.extra` calls the scales of a row, one for each LoRA of `LatentDiffusion.lora_curves`."""

_scales: ContextVar[Tensor | None] = ContextVar("lora_scales", default=None)


@contextmanager
def scaled(scales: Float[Tensor, "b n"]) -> Generator[None]:
    """Let the LoRAs of all networks act with these scales, row by row."""
    token = _scales.set(scales)
    try:
        yield
    finally:
        _scales.reset(token)


def are_told() -> bool:
    """Whether LoRAs act now, at scales that rows were told."""
    return _scales.get() is not None


@dataclass(frozen=True)
class RowScaled:
    """A Network around another, whose rows say how strongly LoRAs act on them."""

    network: Network

    def __call__(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning, call: Call
    ) -> Float[Tensor, "b c h w"]:
        """What the network predicts.

        Raises:
            TaskError: the rows do not say it.
        """
        extra = dict(cond.extra)
        scales = extra.pop(SCALES, None)
        if scales is None:
            raise TaskError("the scale of a LoRA changes over a film, and this is none: give it one number")
        with scaled(scales):
            return self.network(x, time, replace(cond, extra=extra), call)


@dataclass(frozen=True)
class RowScaledText:
    """A TextEncoder around another, in which LoRAs act that are told their scales."""

    encoder: TextEncoder

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt, without the LoRAs."""
        return self.encoder(prompts)

    def at(self, prompts: Sequence[str], scales: Sequence[float]) -> Conditioning:
        """One row per prompt, with the LoRAs at these scales."""
        with scaled(torch.tensor([list(scales)])):
            return self.encoder(prompts)


def attached(model: LatentDiffusion, loras: Mapping[Path, str]) -> LatentDiffusion:
    """The model with LoRAs that wait to be told their scales; its own networks are changed.

    Args:
        model: any.
        loras: files, each with the curve that its scale follows, as its text.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or made for another architecture.
    """
    found = {path: fitting(model, path) for path in loras}
    first = len(model.lora_curves)
    for number, updates in enumerate(found.values(), start=first):
        for layer, update in updates:
            layer.register_forward_hook(_Added(update, number))
    added = tuple(loras.items())
    network, text = model.denoiser.network, model.text
    encoders = [encoder for part, encoder in model.parts.items() if part.startswith("text_encoder")]
    texts = {id(module) for encoder in encoders for module in encoder.modules()}
    if any(id(layer) in texts for updates in found.values() for layer, _ in updates):
        text = text if isinstance(text, RowScaledText) else RowScaledText(text)
    return replace(
        model,
        denoiser=replace(model.denoiser, network=network if isinstance(network, RowScaled) else RowScaled(network)),
        text=text,
        weights=(*model.weights, *added),
        loras=(*model.loras, *added),
    )


@dataclass(frozen=True)
class _Added:
    """A forward hook that adds a LoRA's part to the answer of its layer.

    Args:
        update: of the layer.
        number: which of a row's scales is this LoRA's.
    """

    update: Update
    number: int

    def __call__(self, layer: nn.Linear | nn.Conv2d, inputs: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        told = _scales.get()
        if told is None or not bool(told[:, self.number].any()):
            return answer
        (x,) = inputs
        if len(told) not in (1, len(x)):
            raise ValueError(f"{len(told)} rows were told the scales of LoRAs, and a layer sees {len(x)}")
        part = self._part(layer, x)
        return answer + over_rows(told[:, self.number], part) * part

    def _part(self, layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
        """(alpha / rank) B A x."""
        rank = self.update.down.shape[0]
        down, up = (factor.to(x) for factor in (self.update.down, self.update.up))
        scale = 1.0 if self.update.alpha is None else self.update.alpha / rank
        if isinstance(layer, nn.Linear):
            return scale * linear(linear(x, down.flatten(1)), up.flatten(1))
        how: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        return scale * conv2d(conv2d(x, down.reshape(rank, *layer.weight.shape[1:]), **how), up.reshape(-1, rank, 1, 1))
