"""Reference pictures: IP-Adapters let a UNet attend to pictures beside the text (Ye et al. 2023, arXiv:2308.06721).

Each place that attends to the text gets a second answer, from a few tokens that stand for a picture, and adds it to the
first. An adapter steps in while the network is called and is gone afterwards: the UNet is never changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from segue.errors import ModelError, TaskError
from segue.models.attention import Plain, Site, attached, sites
from segue.models.control import unet_of
from segue.models.perceptual.clip import Sight
from segue.types import Call, Condition, Conditioning, Network, over_rows

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from jaxtyping import Float
    from torch import Tensor
    from transformers import CLIPVisionModelWithProjection

    from segue.models.bundle import LatentDiffusion

IMAGE_TOKENS = "image_tokens"
"""What `Conditioning.extra` calls the tokens of a row's reference pictures."""
IMAGE_SCALE = "image_scale"
"""What it calls how strongly they act on the row, besides the scale for all rows; 1 if it is left out."""


@dataclass(frozen=True)
class IpAdapter:
    """What turns pictures into tokens, and what a UNet needs in order to attend to them.

    Args:
        projection: from what the encoder says to tokens.
        keys: one layer for each place that attends to the text, in the order of `cross_sites`.
        values: likewise.
        encoder: of pictures; it waits in main memory, and comes to the device while it works.
        sight: how pictures are made ready for it.
        pooled: whether the projection takes one vector for a picture, or all that the encoder says one layer before
            its last ("plus").
        weights: the files that the numbers came from.
    """

    projection: nn.Module
    keys: nn.ModuleList
    values: nn.ModuleList
    encoder: CLIPVisionModelWithProjection
    sight: Sight
    pooled: bool = True
    weights: tuple[Path, ...] = ()

    def tokens(self, pictures: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "1 m d"]:
        """What n pictures in [0, 1] are to one row; a picture's middle square is looked at, whatever its size."""
        return self._projected(self.sight(pictures.float()), blank=False)

    def blank(self, count: int = 1) -> Float[Tensor, "1 m d"]:
        """What a term is told that is not to hear of `count` pictures."""
        return self._projected(torch.zeros(count, 3, self.sight.side, self.sight.side), blank=True)

    def _projected(self, ready: Tensor, *, blank: bool) -> Tensor:
        place = next(self.projection.parameters())
        encoder: Any = self.encoder
        home = encoder.device
        try:
            encoder.to(place.device)
            said = encoder(ready.to(place.device, encoder.dtype), output_hidden_states=not self.pooled)
        finally:
            encoder.to(home)
        told = said.image_embeds if self.pooled else said.hidden_states[-2]
        # Without a picture, the plain adapter is told nothing, and the other what an encoder says to plain grey.
        told = torch.zeros_like(told) if blank and self.pooled else told
        return self.projection(told.to(place.dtype)).flatten(0, 1)[None].float()


def referring(cond: Condition, adapter: IpAdapter, pictures: Float[Tensor, "n 3 h w"]) -> Condition:
    """A conditioning all of whose rows are shown the same reference pictures; of several terms, the last one is."""
    seen, blank = adapter.tokens(pictures), adapter.blank(len(pictures))
    if isinstance(cond, Conditioning):
        return with_tokens(cond, seen)
    return replace(
        cond, terms=(*(with_tokens(term, blank) for term in cond.terms[:-1]), with_tokens(cond.terms[-1], seen))
    )


def with_tokens(cond: Conditioning, tokens: Float[Tensor, "b m d"]) -> Conditioning:
    """Rows that are told tokens of pictures: each its own, or all the same."""
    return replace(cond, extra={**cond.extra, IMAGE_TOKENS: tokens.expand(len(cond), -1, -1)})


def shown(model: LatentDiffusion, adapter: IpAdapter, scale: float = 1.0) -> LatentDiffusion:
    """The model, whose rows attend to reference pictures; the given one stays as it is, to the bit.

    Args:
        model: of Stable Diffusion 1.x, 2.x or XL.
        adapter: read for it.
        scale: how strongly; 0 is as if there were none.

    Raises:
        TaskError: the scale is no number.
        ModelError: it has no such UNet, has an adapter already, or is compiled.
    """
    if not math.isfinite(scale):
        raise TaskError(f"the scale of reference pictures must be a number, got {scale}")
    unet = unet_of(model).unet
    if model.placement.compile is not None:
        raise ModelError(f"{model.name} is compiled, and what attends cannot be stepped into: leave compile out")
    inner: Any = model.denoiser.network
    while hasattr(inner, "network"):
        if isinstance(inner, ShownNetwork):
            raise ModelError(f"{model.name} has an IP-Adapter already: give it all pictures, or take the plain model")
        inner = inner.network
    network = ShownNetwork(model.denoiser.network, adapter, cross_sites(unet), scale)
    return replace(
        model,
        denoiser=replace(model.denoiser, network=network),
        weights=(*model.weights, *((file, scale) for file in adapter.weights)),
    )


def cross_sites(unet: UNet2DConditionModel) -> tuple[Site, ...]:
    """Where a UNet attends to the text, in the order in which IP-Adapters number it."""
    return tuple(site for site in sites(unet) if site.kind == "cross")


@dataclass(frozen=True)
class ShownNetwork:
    """A Network around a UNet's, whose rows attend to reference pictures.

    Args:
        network: which may have others around it already.
        adapter: made for that UNet.
        places: where that attends to the text.
        scale: how strongly pictures act.
    """

    network: Network
    adapter: IpAdapter
    places: tuple[Site, ...]
    scale: float

    def __call__(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning, call: Call
    ) -> Float[Tensor, "b c h w"]:
        """What the UNet predicts.

        Raises:
            TaskError: the rows are not told their tokens.
        """
        extra = dict(cond.extra)
        tokens, scales = extra.pop(IMAGE_TOKENS, None), extra.pop(IMAGE_SCALE, None)
        told = replace(cond, extra=extra)
        if tokens is None:
            raise TaskError("this model looks at reference pictures, and was given none: see ip_adapter.referring")
        scales = self.scale * (torch.ones(len(x)) if scales is None else scales)
        if not bool(scales.any()):
            return self.network(x, time, told, call)
        layers = zip(self.adapter.keys, self.adapter.values, strict=True)
        looking = Looking(tokens, scales, {site.name: pair for site, pair in zip(self.places, layers, strict=True)})
        with attached(self.places, looking):
            return self.network(x, time, told, call)


@dataclass(frozen=True)
class Looking:
    """An attention Adapter that adds to each answer what the same queries find in tokens of pictures.

    Args:
        tokens: of each row.
        scales: how strongly they act on it.
        layers: that make keys and values of them, by site.
    """

    tokens: Float[Tensor, "b m d"]
    scales: Float[Tensor, " b"]
    layers: Mapping[str, tuple[nn.Module, nn.Module]]

    def __call__(
        self,
        plain: Plain,
        hidden: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m e"] | None,
        call: Call,
        site: Site,
    ) -> Float[Tensor, "b n d"]:
        """The site's own answer, and the other on top."""
        del call
        answer, attn = plain(hidden, context), site.module
        if len(self.tokens) != len(hidden):
            raise ValueError(f"{len(self.tokens)} rows were told their pictures, and {site.name} sees {len(hidden)}")
        tokens = self.tokens.to(hidden)
        inputs: list[Any] = [attn.to_q(hidden), *(layer(tokens) for layer in self.layers[site.name])]
        query, key, value = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in inputs)
        found = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2).to(hidden.dtype)
        last: Any = attn.to_out
        found = last[0](found)
        if last[0].bias is not None:  # it is in the plain answer
            found = found - last[0].bias.to(found)
        return answer + over_rows(self.scales, found) * found / attn.rescale_output_factor
