"""Decoding on a card while its main stream is busy drawing. No card was at hand when this was written: it was not run.

Which pictures are decoded so, and when they are asked for, is decided by `segue.tasks.ahead`, whose tests put a thread
or a record of calls in the place of this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from segue.errors import ExhaustedError
from segue.models.codec import AutoencoderCodec
from segue.models.decoding import bytes_per_latent
from segue.models.exhaustion import FURTHER

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion
    from segue.types import Codec


@dataclass
class SideStream:
    """Decodes latents on a stream of its own, after what was asked of the main stream until then.

    The same kernels run on numbers of the same shapes as on the main stream, so that pictures are the same to the bit.

    Args:
        codec: whose weights are on the device, and stay there.
        device: of CUDA.
        per_latent: bytes that decoding takes for each place of the latents.
    """

    codec: Codec
    device: torch.device
    per_latent: float
    stream: torch.cuda.Stream = field(init=False)

    def __post_init__(self) -> None:
        self.stream = torch.cuda.Stream(self.device)

    def has_room(self, latents: Float[Tensor, "b c h w"]) -> bool:
        """Whether the device holds what decoding takes besides the most that everything else has taken so far."""
        free, _ = torch.cuda.mem_get_info(self.device)
        held, used = torch.cuda.memory_reserved(self.device), torch.cuda.memory_allocated(self.device)
        elsewhere = torch.cuda.max_memory_allocated(self.device) - used
        places = len(latents) * latents.shape[-2] * latents.shape[-1]
        return free + held - used >= elsewhere + places * self.per_latent

    def __call__(self, latents: Float[Tensor, "b c h w"]) -> Copy:
        """Begin to decode.

        Raises:
            ExhaustedError: the device, or main memory, has not enough for it.
        """
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        # Their memory is not given to others before the stream is through with it, also where it fails on the way.
        latents.record_stream(self.stream)
        with torch.cuda.stream(self.stream):
            made = self.codec.decode(latents).float()
            pictures = _pinned(made.shape).copy_(made, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self.stream)
        return Copy(done, pictures, made)


@dataclass(frozen=True)
class Copy:
    """Pictures on their way to main memory.

    Args:
        done: when they are there.
        pictures: they, then.
        made: where they come from.
    """

    done: torch.cuda.Event
    pictures: Float[Tensor, "b 3 H W"]
    made: Float[Tensor, "b 3 H W"]

    def is_there(self) -> bool:
        """Whether they have arrived."""
        return self.done.query()

    def wait(self) -> Float[Tensor, "b 3 H W"]:
        """The pictures, once they have arrived."""
        self.done.synchronize()
        return self.pictures


def _pinned(shape: torch.Size) -> Tensor:
    """Memory that the device writes to by itself: a copy to any other would hold up whoever asks for it."""
    try:
        return torch.empty(shape, pin_memory=True)
    except RuntimeError as error:
        # Systems bound it by limits of their own, and drivers have many words for that.
        size = "x".join(map(str, shape))
        raise ExhaustedError(f"no pinned main memory for pictures of {size} floats: {FURTHER}") from error


def side_stream(model: LatentDiffusion) -> SideStream | None:
    """Who decodes beside the drawing; None where that is no gain, or networks must not be used both at once.

    A CPU has no cores to spare for it; networks that leave the device when they do not work take each other's place;
    and while kernels are recorded nothing else may be asked of the device.
    """
    placement, codec = model.placement, model.codec
    if model.device.type != "cuda" or placement.offload is not None or placement.compile == "graphs":
        return None
    if not isinstance(codec, AutoencoderCodec):
        return None
    return SideStream(codec, model.device, bytes_per_latent(codec))
