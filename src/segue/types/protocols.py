"""The protocols by which rooms meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from segue.types.values import Call, Condition, Conditioning, History, Point

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class Network(Protocol):
    """A family's own module call, in its own dtype; control networks and attention adapters live at this level."""

    def __call__(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning, call: Call
    ) -> Float[Tensor, "b c h w"]:
        """What the network predicts (noise, v, x0 or velocity) for latents `x` at `time`."""
        ...


class Denoiser(Protocol):
    """Estimates the clean latents x0 behind noisy ones, whatever the network predicts."""

    @property
    def group(self) -> int:
        """How many consecutive rows must share a call: the frames of a video model, else 1."""
        ...

    def __call__(self, x: Float[Tensor, "b c h w"], at: Point, cond: Condition) -> Float[Tensor, "b c h w"]:
        """x0, float32."""
        ...


class Kick(Protocol):
    """The noise that a stochastic solver adds in one step."""

    def __call__(
        self, like: Float[Tensor, "b c h w"], now: Point, then: Point, std: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """A noise increment of standard deviation `std`, one number per row."""
        ...


class Solver(Protocol):
    """One step from `now` to `then`; pure, so that its memory can be forked with the rows."""

    def __call__(
        self,
        x: Float[Tensor, "b c h w"],
        x0: Float[Tensor, "b c h w"],
        now: Point,
        then: Point,
        history: History,
        kick: Kick,
    ) -> tuple[Float[Tensor, "b c h w"], History]:
        """The latents at `then`, and what to remember."""
        ...


class Operator(Protocol):
    """What makes trajectories agree: three places in every step where latents can be changed. Keeps no run state."""

    def on_latents(self, x: Float[Tensor, "b c h w"], at: Point) -> Float[Tensor, "b c h w"]:
        """The noisy latents before the network sees them: crossfeed, shared noise."""
        ...

    def on_denoised(self, x0: Float[Tensor, "b c h w"], at: Point) -> Float[Tensor, "b c h w"]:
        """What the network believes the clean latents to be: deflicker, anchor, mask."""
        ...

    def on_stepped(
        self, x: Float[Tensor, "b c h w"], x0: Float[Tensor, "b c h w"], at: Point
    ) -> Float[Tensor, "b c h w"]:
        """The latents where the step landed."""
        ...


class TextEncoder(Protocol):
    """Turns prompts into conditioning."""

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt. Prompts that are encoded together get the same length, so that rows can be mixed."""
        ...


class Codec(Protocol):
    """Pictures to latents and back."""

    @property
    def scale(self) -> int:
        """Pixels per latent, along one side."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        ...

    def encode(self, frames: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t c h/s w/s"]:
        """Pictures in [0, 1] to latents of about unit variance: the mode of the posterior, never a sample."""
        ...

    def decode(self, latents: Float[Tensor, "t c h/s w/s"]) -> Float[Tensor, "t 3 h w"]:
        """Latents to pictures in [0, 1]."""
        ...


class Perceptual(Protocol):
    """A distance between pictures that follows what a person would say."""

    @property
    def name(self) -> str:
        """What it is, to be written beside every number that it gives."""
        ...

    @property
    def domain(self) -> Literal["latents", "frames"]:
        """What it compares: latents as the codec makes them, or pictures in [0, 1]."""
        ...

    def __call__(self, a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """One distance per pair; 0 for equal pictures."""
        ...


@runtime_checkable
class Frames(Protocol):
    """A sequence of pictures that need not be in memory: a file, a uint8 tensor, a spool on disk."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        """The pictures of a window, values in [0, 1]."""
        ...


class Progress(Protocol):
    """What long work tells its caller; a command draws a bar from it, a page a widget."""

    def __call__(self, what: str, done: float, total: float) -> None:
        """`done` of `total` units of `what` are finished. May raise KeyboardInterrupt to stop the work."""
        ...


def silent(what: str, done: float, total: float) -> None:
    """A Progress that says nothing."""
