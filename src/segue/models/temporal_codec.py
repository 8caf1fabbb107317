"""Latents to the frames of a clip with decoders that look along time: in overlapping chunks that are cross-faded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder

from segue.models.codec import AutoencoderCodec, tiled_call
from segue.models.exhaustion import FURTHER, told_if_exhausted

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class TemporalCodec(AutoencoderCodec):
    """A Codec around AutoencoderKLTemporalDecoder, whose decoder sees the frames before and after each.

    A clip is decoded in chunks of at most `slice` frames. Two neighbours have `overlap` frames in common, over which
    one fades into the other: frames at the end of a chunk do not see what comes next, and a cut between chunks
    would show. Pictures are encoded one by one, as by any autoencoder.

    Args:
        vae: the autoencoder; its config says scaling and shift.
        slice: the most frames that are decoded at once.
        tile: side, in latents, above which pictures are cut into overlapping tiles.
        overlap: frames that two chunks have in common; about a third of a chunk at most.
    """

    slice: int = 8
    overlap: int = 3

    def __post_init__(self) -> None:
        if not 0 <= 3 * self.overlap <= self.slice + 1:
            raise ValueError(f"expected an overlap of a third of {self.slice} frames at most, got {self.overlap}")

    @property
    def together(self) -> int:
        """Pictures that are decoded at once however large they are."""
        return self.slice

    def decode(self, latents: Float[Tensor, "t c h/s w/s"]) -> Float[Tensor, "t 3 h w"]:
        """The latents of one clip to its frames in [0, 1], float32."""
        return torch.cat(list(self.pieces(latents)))

    def pieces(self, latents: Float[Tensor, "t c h/s w/s"]) -> Iterator[Float[Tensor, "n 3 h w"]]:
        """The frames of one clip in [0, 1], float32, a few at a time; joined, they are what `decode` gives."""
        places = chunks(len(latents), self.slice, self.overlap)
        fading: Tensor | None = None
        for number, place in enumerate(places):
            made = self._chunk(latents[place.start : place.stop], place.start)
            if fading is not None:
                made = torch.cat([fading + _rising(len(fading), made) * made[: len(fading)], made[len(fading) :]])
            shared = place.stop - places[number + 1].start if number + 1 < len(places) else 0
            done = len(made) - shared
            yield made[:done].clamp(0, 1)
            fading = (1 - _rising(shared, made)) * made[done:]

    def _chunk(self, latents: Tensor, first: int) -> Tensor:
        """Frames of a clip that are decoded at once, from this one on."""
        del first
        height, width = (self.scale * min(side, self.tile) for side in latents.shape[-2:])
        doing = f"decoding {len(latents)} x {width}x{height} pixels at once"
        with told_if_exhausted(doing, f"take a smaller --tile, {FURTHER}"):
            return tiled_call(self._decode, latents, self.tile, self.scale).to(latents.device)

    def _decode(self, latents: Tensor) -> Tensor:
        vae: Any = self.vae
        z = self.unscaled(latents.float()).to(vae.device, vae.dtype)
        return vae.decode(z, num_frames=len(z), return_dict=False)[0].float() / 2 + 0.5


def chunks(frames: int, most: int, overlap: int) -> list[range]:
    """Frames of a clip in as few chunks as there can be of at most `most` frames, whose neighbours share `overlap`.

    They are evenly long, but for one frame. No frame is in three of them, if an overlap is a third of a chunk at most.
    """
    count = max(1, -(-(frames - overlap) // (most - overlap)))
    starts = [(frames - overlap) * number // count for number in range(count)]
    ends = [*(start + overlap for start in starts[1:]), frames]
    return [range(start, end) for start, end in zip(starts, ends, strict=True)]


def _rising(frames: int, like: Tensor) -> Tensor:
    """Weights of the later of two chunks over the frames that they share; those of the other add up to 1 with them."""
    weights = torch.arange(1, frames + 1, dtype=like.dtype, device=like.device) / (frames + 1)
    return weights.reshape(-1, 1, 1, 1)


def codec_of(vae: Any) -> AutoencoderCodec:
    """The codec around an autoencoder of any of the kinds that Segue reads."""
    return TemporalCodec(vae) if isinstance(vae, AutoencoderKLTemporalDecoder) else AutoencoderCodec(vae)
