"""Time put into a model of single pictures: its frames are denoised together, its own weights stay as they are.

Layers that look along time stand behind the blocks of its UNet (Video LDM: Blattmann et al. 2023, arXiv:2304.08818,
section 3.1). Modules of the UNet keep their names, places and weights; those of the new layers are below `time_layers`.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from segue.errors import ModelError, TaskError
from segue.models.attention import sites
from segue.models.bundle import LatentDiffusion, Moving
from segue.models.clip_rows import DIAL, motion_of, nearest_known
from segue.models.control import Residuals
from segue.models.families.sd import UNetNetwork
from segue.models.families.sdxl import XlNetwork
from segue.models.instruct_adapter import InstructAdapter, InstructLayout
from segue.models.temporal_layers import (
    Carry,
    ClipAttention,
    KnownFrames,
    MotionVector,
    TemporalAttention,
    TemporalConvolution,
    TemporalLayer,
    TemporalRecurrence,
    Told,
)
from segue.models.time_behind import held, key_of, look_around, stand_behind, telling, twin_of
from segue.models.time_decoder import at_dial
from segue.models.time_words import WORDS, Heard, TimeText
from segue.types import Call, Conditioning, Network

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Kind = Literal["convolution", "attention", "recurrence"]
FPS = "fps"
"""What `Conditioning.extra` calls the frames per second of each row."""
CONTEXT = "context"
"""What `Conditioning.extra` calls the latents of known frames and where they are known: (m z, m), C + 1 channels."""
PART = "time_layers"
ENGINE = "Video LDM"
_carry: ContextVar[Carry | None] = ContextVar("carry", default=None)


@dataclass(frozen=True)
class TimeSettings:
    """The shape of the layers that look along time, and what they are made for.

    Args:
        blocks: what stands behind each residual block; None is nothing.
        transformers: what stands behind each transformer; None is nothing.
        inner: channels inside of a convolution, and of what a recurrence carries.
        heads: of attention.
        head_width: channels of each.
        window: how many frames apart attention still looks.
        vector: width of the motion vector.
        queries: how many look at the text.
        context: channels of the features of known frames; 0 for layers that are never told of any.
        frames: that a clip usually has.
        fps: frames per second that it usually has.
        shared_noise: share of the noise's variance that all frames of a clip have in common (Ge et al. 2023, "Preserve
            Your Own Correlation", arXiv:2305.10474, section 3.2, mixed noise); in [0, 1].
        attention: what the image model's attention within frames looks at: a frame's own places, or the clip's too.
        moves: widths of an adapter that sets known frames in motion (`segue.models.instruct_adapter`), at full size and
            after each halving; none for layers along time alone.
        heard: words that the image model is not told, and what it hears in their place; see `segue.models.time_words`.
        tokens: whether the layers are told the tokens themselves, beside what the text encoder makes of them.
        strength: see `Moving.strength`.
    """

    blocks: Kind | None = "convolution"
    transformers: Kind | None = "attention"
    inner: int = 64
    heads: int = 4
    head_width: int = 32
    window: int = 8
    vector: int = 128
    queries: int = 8
    context: int = 32
    frames: int = 16
    fps: float = 8.0
    shared_noise: float = 0.0
    attention: Literal["own", "clip"] = "own"
    moves: tuple[int, ...] = ()
    heard: Heard = ()
    tokens: bool = False
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.attention == "clip" and "recurrence" in (self.blocks, self.transformers):
            raise ModelError(
                "recurrences see frames one after the other, and attention over the clip all at once: expected "
                'attention "own", or layers of another kind'
            )

    def layer(self, kind: Kind, channels: int) -> TemporalLayer:
        """A new layer behind one that answers so many channels."""
        if kind == "attention":
            inner = self.heads * self.head_width
            return TemporalAttention(channels, inner, self.vector, self.context, heads=self.heads, window=self.window)
        made = TemporalConvolution if kind == "convolution" else TemporalRecurrence
        return made(channels, self.inner, self.vector, self.context)


class TimeLayers(nn.Module):
    """All that learns when time is put into a UNet.

    Args:
        settings: its shape.
        places: channels of the layers' neighbours in the UNet and the kinds, by the neighbours' names.
        text: width of the text's tokens.
        channels: of the latents.
        halvings: how often the UNet halves its size.
        looks: names of the attention within frames that looks at all frames of a clip.
        moves: what sets known frames in motion.
    """

    def __init__(
        self,
        settings: TimeSettings,
        places: Mapping[str, tuple[Kind, int]],
        text: int,
        channels: int,
        halvings: int,
        looks: Sequence[str] = (),
        moves: InstructAdapter | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.vector = MotionVector(text, settings.vector, settings.queries)
        self.known = KnownFrames(channels, settings.context, halvings) if settings.context else None
        self.layers = nn.ModuleDict({key_of(name): settings.layer(*place) for name, place in places.items()})
        self.looks = nn.ModuleDict({key_of(name): ClipAttention() for name in looks})
        self.moves = moves

    def told(self, time: Tensor, cond: Conditioning, frames: int, motion: float | Float[Tensor, " b"]) -> Told:
        """What the layers are told about a call."""
        weight = self.vector.queries
        text, time = cond.extra.get(WORDS, cond.text).to(weight), time.float().to(weight.device)
        fps = cond.extra.get(FPS)
        speed = torch.full_like(time, self.settings.fps) if fps is None else fps.to(time)
        vector, context = self.vector(time, text, speed), cond.extra.get(CONTEXT)
        if context is not None and self.known is None:
            raise TaskError("these layers along time never learned to be told of known frames: leave them out")
        known = self.known(context.to(weight)) if context is not None and self.known is not None else {}
        return Told(frames, vector, known, motion)

    def moved(
        self,
        x: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"],
        cond: Conditioning,
        frames: int,
        motion: float | Float[Tensor, " b"],
    ) -> Residuals | None:
        """What is added to the UNet where frames are known: of each frame, what became of the nearest that is.

        None if nothing sets frames in motion, or none is known.
        """
        context = cond.extra.get(CONTEXT)
        if self.moves is None or context is None or not bool(context[:, -1].any()):
            return None
        nearest, apart = nearest_known(context[:, -1].flatten(1).any(1).unflatten(0, (-1, frames)))
        weight = self.moves.picture.weight
        fps = cond.extra.get(FPS)
        speed = torch.full((len(x),), self.settings.fps) if fps is None else fps.float().cpu()
        pictures = context[nearest.to(context.device), :-1]
        text = cond.extra.get(WORDS, cond.text)
        noisy, said, pictures = (part.to(weight) for part in (x, text, pictures))
        seconds = (apart / speed).to(weight.device)
        found = self.moves(noisy, time.float().to(weight.device), said, pictures, seconds)[0]
        if not isinstance(motion, torch.Tensor) and motion == 1:
            return found
        return found.scaled(motion if isinstance(motion, torch.Tensor) else torch.full((len(x),), motion))


@dataclass(frozen=True)
class TimeNetwork:
    """A Network around one whose UNet has layers along time.

    They answer only where the call's rows are frames of a clip: single pictures are those of the image model, to the
    bit, and so are the frames of a clip at `motion` 0.

    Args:
        network: of the image model.
        layers: along time.
        motion: the dial: how much of what they learned is added; 1 is as they were trained. Times that of each row.
    """

    network: Network
    layers: TimeLayers
    motion: float = 1.0

    def __call__(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning, call: Call
    ) -> Float[Tensor, "b c h w"]:
        """What the network predicts; `extra` of the conditioning may hold FPS, CONTEXT and DIAL."""
        rest = {name: part for name, part in cond.extra.items() if name not in (FPS, CONTEXT, WORDS, DIAL)}
        plain = replace(cond, extra=rest)
        carry, motion = _carry.get(), motion_of(cond, self.motion)
        still = not isinstance(motion, torch.Tensor) and motion == 0
        if (call.group == 1 and carry is None) or still:
            return self.network(x, time, plain, call)

        # When the first layer asks: by then the weights are on the device, wherever they waited.
        @cache
        def told() -> Told:
            heard = self.layers.told(time, cond, call.group, motion)
            return heard if carry is None else replace(heard, carry=carry, clips=_clips(call, time))

        moved = self.layers.moved(x, time, cond, call.group, motion)
        more = () if moved is None else (moved,)
        with telling(told):
            return cast(Any, self.network)(x, time, plain, call, *more)


def _clips(call: Call, time: Float[Tensor, " b"]) -> tuple[Hashable, ...]:
    """Who the clips of a call are: at every noise, each guidance term of each trajectory has a memory of its own."""
    if not call.rows:
        raise ValueError("clips that come in parts must have rows that say who they are")
    firsts = range(0, len(call.term), call.group)
    return tuple((call.rows[row].trajectory, call.term[row], float(time[row])) for row in firsts)


@contextmanager
def continuing(model: LatentDiffusion, carry: Carry) -> Generator[None]:
    """Within, clips may come in parts, down to single frames: what comes later goes on from what came before.

    Every part is denoised to its end before the next begins, on the same schedule.

    Raises:
        ModelError: the model's layers along time look ahead, or there are none.
    """
    layers = time_layers(model)
    if not all(isinstance(layer, TemporalRecurrence) for layer in layers.layers.values()):
        raise ModelError(
            f"the layers along time of {model.name} look ahead, and need whole clips: expected recurrences alone"
        )
    with held(_carry, carry):
        yield


def with_time(model: LatentDiffusion, settings: TimeSettings | None = None) -> LatentDiffusion:
    """The model with new layers along time, which change nothing yet; the given model stays as it is.

    All weights of the given model are shared, and not copied. `model.over(frames)` then says how many rows are a clip.

    Args:
        model: with the UNet of Stable Diffusion 1.x, 2.x or XL, or an upscaler; nothing stands around its network yet.
        settings: the layers' shape; None is the usual one.

    Raises:
        ModelError: it has another network, moves already, or its networks are stored, placed or compiled already.
    """
    settings, network = settings or TimeSettings(), model.denoiser.network
    if model.moving is not None:
        raise ModelError(f"{model.name} denoises the frames of a clip together already")
    if not isinstance(network, UNetNetwork | XlNetwork):
        raise ModelError(
            f"time cannot be put into {model.name}, whose network is {type(network).__name__}: expected the UNet of "
            "Stable Diffusion 1.x, 2.x or XL, or of an upscaler, before controls and pictures are added"
        )
    if settings.tokens and not hasattr(model.text, "tokens"):
        raise ModelError(f"the text encoder of {model.name} has no tokens to tell: expected those of CLIP")
    if model.placement.begins_at_home or model.placement.compile is not None:
        raise ModelError(f"{model.name} is stored, placed or compiled already: put time into it before")
    unet, layers = time_into(network.unet, settings, model.codec.channels)
    inserted = TimeNetwork(replace(network, unet=unet), layers)
    return replace(
        model,
        text=TimeText(model.text, settings.heard, settings.tokens) if settings.heard or settings.tokens else model.text,
        denoiser=replace(model.denoiser, network=inserted),
        parts={**model.parts, "unet": unet},
        moving=moving_of(settings),
    )


def time_into(unet: nn.Module, settings: TimeSettings, channels: int) -> tuple[Any, TimeLayers]:
    """A UNet with new layers along time, which shares its weights, and these layers.

    Args:
        unet: of the image model; stays as it is.
        settings: the layers' shape.
        channels: of the latents.
    """
    twin: Any = twin_of(unet)
    found = places(twin, settings)
    halvings = len(twin.config["block_out_channels"]) - 1
    looks = [site.name for site in sites(twin) if site.kind == "self" and settings.attention == "clip"]
    text = twin.config["cross_attention_dim"] * (2 if settings.tokens else 1)
    layers = TimeLayers(settings, found, text, channels, halvings, looks, moves_of(settings, twin))
    layers.to(twin.device, twin.dtype).train(twin.training)
    stand_behind(twin, {name: cast(TemporalLayer, layers.layers[key_of(name)]) for name in found})
    look_around(twin, {name: cast(ClipAttention, layers.looks[key_of(name)]) for name in looks})
    setattr(twin, PART, layers)
    return twin, layers


def moves_of(settings: TimeSettings, unet: Any) -> InstructAdapter | None:
    """What sets known frames in motion, untrained.

    Raises:
        ModelError: its widths do not fit the UNet, or no frame is ever known.
    """
    if not settings.moves:
        return None
    if not settings.context:
        raise ModelError("what sets known frames in motion needs known frames: expected context above 0")
    blocks = (2, *(1 for _ in settings.moves[1:]))
    layout = InstructLayout.of(unet, widths=settings.moves, blocks=blocks, elapsed=True)
    return InstructAdapter(replace(layout, words=2 * layout.words) if settings.tokens else layout)


def moving_of(settings: TimeSettings) -> Moving:
    """What a model with such layers can do."""
    given = ("first", "last") if settings.context else ()
    return Moving(
        settings.frames,
        settings.fps,
        given=given,
        engine=ENGINE,
        shared_noise=settings.shared_noise,
        from_still=bool(settings.moves),
        strength=settings.strength,
        dial=True,
    )


def places(unet: nn.Module, settings: TimeSettings) -> dict[str, tuple[Kind, int]]:
    """Behind which modules of a UNet layers along time stand: the kind of each, and its channels."""
    found: dict[str, tuple[Kind, int]] = {}
    for name, module in unet.named_modules():
        if isinstance(module, ResnetBlock2D) and settings.blocks is not None:
            found[name] = settings.blocks, int(module.out_channels)
        elif isinstance(module, Transformer2DModel) and settings.transformers is not None:
            found[name] = settings.transformers, int(module.out_channels or module.in_channels or 0)
    return found


def time_layers(model: LatentDiffusion) -> TimeLayers:
    """All that learns in a model that time was put into.

    Raises:
        ModelError: it has no such layers.
    """
    return _time_network(model.denoiser.network, model.name).layers


def with_motion(model: LatentDiffusion, motion: float) -> LatentDiffusion:
    """The model with its dial at `motion`: 0 is the image model, frame by frame, to the bit; 1 is as it was trained.

    Raises:
        ModelError: it has no layers along time that `with_time` inserted.
        TaskError: `motion` is below 0.
    """
    if not motion >= 0:
        raise TaskError(f"motion must be a number from 0, got {motion}")
    _time_network(model.denoiser.network, model.name)

    def dialled(network: Any) -> Any:
        if isinstance(network, TimeNetwork):
            return replace(network, motion=motion)
        return replace(network, network=dialled(network.network))

    codec = at_dial(model.codec, motion)
    return replace(model, denoiser=replace(model.denoiser, network=dialled(model.denoiser.network)), codec=codec)


def _time_network(network: Any, name: str) -> TimeNetwork:
    while not isinstance(network, TimeNetwork):
        if not hasattr(network, "network"):
            raise ModelError(f"{name} has no layers along time; with_time puts them into a model of single pictures")
        network = network.network
    return network
