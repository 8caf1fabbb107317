"""Decoders that look along time, made of those of single pictures, which stay as they are.

A codec that learned from pictures decodes each frame by itself, and what it makes up of fine detail differs from frame
to frame. Layers along time stand behind the residual blocks of its decoder (Video LDM: Blattmann et al. 2023,
arXiv:2304.08818, section 3.1.1); its encoder, and so all latents, stay. They are merged as those of a UNet: alpha
counts for the decoder of pictures, the other way round than in the files of Stable Video Diffusion.

Deviations: convolutions over three frames also reach to the pixels around, since what moves is elsewhere in the next
frame; and a frame is normed by itself, so that a clip may be longer than those that were learned from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from segue.errors import ModelError
from segue.models.codec import AutoencoderCodec
from segue.models.temporal_codec import TemporalCodec
from segue.models.temporal_layers import TemporalConvolution, TemporalLayer, Told
from segue.models.time_behind import key_of, stand_behind, telling, twin_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float
    from torch import Tensor

PART = "time_layers"


@dataclass(frozen=True)
class DecoderSettings:
    """The shape of the layers along time of a decoder.

    Args:
        inner: channels between a layer's two convolutions.
        kernel: sides in space of the first of these, an odd number.
    """

    inner: int = 8
    kernel: int = 3


class DecoderLayers(nn.Module):
    """All that learns when time is put into a decoder.

    Args:
        settings: its shape.
        places: channels of the layers' neighbours in the decoder, by the neighbours' names.
    """

    def __init__(self, settings: DecoderSettings, places: Mapping[str, int]) -> None:
        super().__init__()
        self.settings = settings
        self.layers = nn.ModuleDict(
            {
                # All channels are normed together: how they compare with each other is what a colour is.
                key_of(name): TemporalConvolution(channels, settings.inner, 0, kernel=settings.kernel, groups=1)
                for name, channels in places.items()
            }
        )

    def behind(self, name: str) -> TemporalLayer:
        """The layer that stands behind a module."""
        layer = self.layers[key_of(name)]
        assert isinstance(layer, TemporalLayer)
        return layer


@dataclass(frozen=True)
class TimeCodec(TemporalCodec):
    """A Codec whose decoder has layers along time, which answer where a clip is decoded: in `pieces`.

    `decode` is for pictures that have nothing to do with each other; it gives what the decoder of pictures gives, to
    the bit, and so do clips of one frame.

    Args:
        dial: how much of what the layers learned is added; 0 is the decoder of pictures, frame by frame, to the bit.
            One number, or one for each frame of the clip that is decoded.
    """

    dial: float | tuple[float, ...] = 1.0

    @property
    def layers(self) -> DecoderLayers:
        """What was put into the decoder."""
        found = self.vae.get_submodule(PART)
        assert isinstance(found, DecoderLayers)
        return found

    def decode(self, latents: Float[Tensor, "t c h/s w/s"]) -> Float[Tensor, "t 3 h w"]:
        """Latents of single pictures to pictures in [0, 1], float32."""
        return AutoencoderCodec.decode(self, latents)

    def pieces(self, latents: Float[Tensor, "t c h/s w/s"]) -> Iterator[Float[Tensor, "n 3 h w"]]:
        """The frames of one clip in [0, 1], float32, a few at a time."""
        dials = self.dial if isinstance(self.dial, tuple) else (self.dial,)
        if isinstance(self.dial, tuple) and len(dials) != len(latents):
            raise ValueError(f"{len(dials)} frames have a dial of their own, and {len(latents)} are decoded")
        if any(dials) and len(latents) > 1:
            yield from super().pieces(latents)
            return
        for part in latents.split(self.slice):
            yield self.decode(part)

    def learning(self, latents: Float[Tensor, "b c h/s w/s"], frames: int) -> Float[Tensor, "b 3 h w"]:
        """The frames of clips of so many rows each, in [0, 1] and a little beyond, for a loss."""
        with self._along(latents, frames, 1.0):
            return self._decode(latents)

    def _chunk(self, latents: Tensor, first: int) -> Tensor:
        dial = self.dial
        told = torch.tensor(dial[first : first + len(latents)]) if isinstance(dial, tuple) else dial
        with self._along(latents, len(latents), told):
            return super()._chunk(latents, first)

    def _along(self, latents: Tensor, frames: int, dial: float | Float[Tensor, " b"]) -> AbstractContextManager[None]:
        told = Told(frames, latents.new_zeros(len(latents), 0, dtype=torch.float32), {}, dial)
        return telling(lambda: told)

    def _decode(self, latents: Tensor) -> Tensor:
        return AutoencoderCodec._decode(self, latents)


def with_time_decoder(codec: AutoencoderCodec, settings: DecoderSettings | None = None) -> TimeCodec:
    """A codec of single pictures with new layers along time, which change nothing yet; the given one stays as it is.

    All weights of the given codec are shared, and not copied.

    Raises:
        ModelError: it decodes frames together already, or its decoder has none of the blocks that are known.
    """
    settings = settings or DecoderSettings()
    if not isinstance(codec.vae, AutoencoderKL | AutoencoderTiny) or isinstance(codec, TemporalCodec):
        raise ModelError(
            f"time cannot be put into a decoder that has it already ({type(codec.vae).__name__}): expected a codec of "
            "single pictures"
        )
    vae = twin_of(codec.vae)
    found = places(vae)
    if not found:
        raise ModelError(f"time cannot be put into a decoder of {type(vae).__name__} that has no residual blocks")
    layers = DecoderLayers(settings, found).to(vae.device, vae.dtype).train(vae.training)
    stand_behind(vae, {name: layers.behind(name) for name in found})
    setattr(vae, PART, layers)
    return TimeCodec(vae, slice=TimeCodec.slice, tile=codec.tile)


def places(vae: nn.Module) -> dict[str, int]:
    """Behind which modules of a decoder layers along time stand, and the channels of each."""
    found: dict[str, int] = {}
    for name, module in vae.get_submodule("decoder").named_modules(prefix="decoder"):
        if isinstance(module, ResnetBlock2D):
            found[name] = int(module.out_channels)
        elif isinstance(module, AutoencoderTinyBlock):
            last = [part for part in module.conv.modules() if isinstance(part, nn.Conv2d)][-1]
            found[name] = last.out_channels
    return found


def at_dial(codec: Any, dial: float | Sequence[float]) -> Any:
    """A codec with its layers along time at a dial in [0, 1], above which it stays at 1; any other stays as it is.

    Args:
        codec: any.
        dial: one number, or one for each frame of a clip.
    """
    if not isinstance(codec, TimeCodec):
        return codec
    told = min(1.0, float(dial)) if isinstance(dial, int | float) else tuple(min(1.0, one) for one in dial)
    return replace(codec, dial=told)
