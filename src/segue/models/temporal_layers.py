"""Layers that look along time, for networks that see the frames of a clip as rows of one batch.

Each adds to what a layer of an image model answered, z, what it makes of it with its neighbours in time, z' - z:
z + m (1 - alpha) (z' - z). Here alpha is learned, one number a layer, and m is the dial that a user turns (Blattmann et
al. 2023, "Align your Latents", arXiv:2304.08818, section 3.1, where m is 1). The last layer of each is 0 at first, so
that the image model answers as before until something was learned.

Frames are normed one by one, not over the clip: what a frame becomes then depends on the frames near it alone, and a
clip may be longer than any that was seen in training.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from segue.types import over_rows

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_PERIOD = 10_000.0
_WAVES = 64
_GROUPS = 32


class Carry:
    """What recurrences carry from frames of a clip to those that come later: the memory of one run, changed by it."""

    def __init__(self) -> None:
        self._states: dict[tuple[int, Hashable], Tensor] = {}

    def taken(self, layer: nn.Module, clips: Sequence[Hashable]) -> Float[Tensor, "n i h w"] | None:
        """What a layer carried to here for each of these clips; None if all of them begin here.

        Raises:
            ValueError: some of them begin here, and others do not.
        """
        found = [self._states.get((id(layer), clip)) for clip in clips]
        there = [state for state in found if state is not None]
        if there and len(there) < len(found):
            raise ValueError("clips that begin, and clips that go on, must come in calls of their own")
        return torch.stack(there) if there else None

    def keep(self, layer: nn.Module, clips: Sequence[Hashable], states: Float[Tensor, "n i h w"]) -> None:
        """Remember what a layer carries on from here."""
        self._states.update({(id(layer), clip): state for clip, state in zip(clips, states, strict=True)})


@dataclass(frozen=True)
class Told:
    """What temporal layers are told about a call.

    Args:
        frames: of each clip.
        vector: what `MotionVector` makes of noise, text and speed; one per row, a row being a frame.
        context: features of the frames that are known, by their (height, width); empty if none are.
        motion: the dial m, one number or one per row.
        carry: what recurrences carried from earlier frames; None if clips begin with the first frame here.
        clips: who the clips are for it, one per clip.
    """

    frames: int
    vector: Float[Tensor, "b d"]
    context: dict[tuple[int, int], Float[Tensor, "b k h w"]]
    motion: float | Float[Tensor, " b"] = 1.0
    carry: Carry | None = None
    clips: tuple[Hashable, ...] = ()

    def dialled(self, change: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """m times what a layer would change. Rows at 0 stay as they are, to the bit."""
        if isinstance(self.motion, torch.Tensor):
            return over_rows(self.motion, change) * change
        return self.motion * change

    def around(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"] | None:
        """The features of the known frames at the size of `z`."""
        if not self.context:
            return None
        found = self.context.get((z.shape[-2], z.shape[-1]))
        if found is None:
            sizes = ", ".join(f"{w}x{h}" for h, w in self.context)
            raise ValueError(f"known frames have features of {sizes}, and a layer sees {z.shape[-1]}x{z.shape[-2]}")
        return found


class TemporalLayer(nn.Module):
    """What all kinds have in common: how they are merged, and how they are told about known frames.

    Args:
        channels: of what the layer of the image model answers.
        inner: of the layer's own.
        vector: width of the motion vector; 0 if the layer is told nothing.
        context: channels of the features of known frames; 0 if the layer is never told of any.
        groups: of channels that are normed together, at most.
    """

    def __init__(self, channels: int, inner: int, vector: int, context: int, groups: int = _GROUPS) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(()))
        # Without weights: what follows each norm is linear. (Nor could they learn behind frozen layers on a CPU, where
        # torch's kernel ends the process if the weights of a norm have a gradient, and what is normed has none.)
        self.norm = nn.GroupNorm(math.gcd(groups, channels), channels, affine=False)
        self.told = nn.Linear(vector, 2 * inner) if vector else None
        self.known = nn.Conv2d(context, inner, 1, bias=False) if context else None
        if self.known is not None:
            nn.init.zeros_(self.known.weight)

    @property
    def alpha(self) -> Float[Tensor, ""]:
        """The share of the image model in the merge, in [0, 1]."""
        return self.mix.sigmoid()

    def forward(self, z: Float[Tensor, "b c h w"], told: Told) -> Float[Tensor, "b c h w"]:
        """z + m (1 - alpha) (z' - z), with all frames of a clip in consecutive rows."""
        return z + told.dialled((1 - self.alpha) * self.change(z, told))

    def change(self, z: Float[Tensor, "b c h w"], told: Told) -> Float[Tensor, "b c h w"]:
        """z' - z."""
        raise NotImplementedError

    def modulated(self, inner: Float[Tensor, "b i h w"], told: Told) -> Float[Tensor, "b i h w"]:
        """Scaled and shifted by the motion vector, with what is known of the frames added."""
        if self.told is not None:
            scale, shift = self.told(told.vector)[:, :, None, None].chunk(2, 1)
            inner = inner * (1 + scale) + shift
        around = told.around(inner) if self.known is not None else None
        return inner if around is None or self.known is None else inner + self.known(around)


class ClipAttention(nn.Module):
    """Merges what a frame sees in itself with what it sees in all frames of its clip: own + m (1 - alpha) (all - own).

    Keys and values of all frames stand side by side, as in zero-shot video (Khachatryan et al. 2023, arXiv:2303.13439),
    by the image model's own weights: what it draws in one frame it finds in the others. Unlike layers that begin as
    none this helps from the start, so that alpha begins low; at 1 it is the image model's attention, to the bit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.full((), -2.0))

    @property
    def alpha(self) -> Float[Tensor, ""]:
        """The share of the frame's own in the merge, in [0, 1]."""
        return self.mix.sigmoid()

    def forward(self, own: Float[Tensor, "b n d"], clip: Float[Tensor, "b n d"], told: Told) -> Float[Tensor, "b n d"]:
        """The merged answer."""
        return own + told.dialled((1 - self.alpha) * (clip - own))


class TemporalConvolution(TemporalLayer):
    """A residual block of two convolutions over three frames, kernels (3, 1, 1), with zeros beyond a clip's ends.

    Args:
        channels: of what the layer of the image model answers.
        inner: channels between the two convolutions.
        vector: width of the motion vector.
        context: channels of the features of known frames.
        kernel: sides of the first convolution in space, an odd number.
        groups: of channels that are normed together, at most.
    """

    def __init__(
        self, channels: int, inner: int, vector: int, context: int = 0, *, kernel: int = 1, groups: int = _GROUPS
    ) -> None:
        super().__init__(channels, inner, vector, context, groups)
        # A kernel over time as products of single frames: the three taps stand side by side in the channels.
        self.first = nn.Conv2d(channels, 3 * inner, kernel, padding=kernel // 2, bias=False)
        self.last = nn.Conv2d(3 * inner, channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias) if self.last.bias is not None else None

    def change(self, z: Float[Tensor, "b c h w"], told: Told) -> Float[Tensor, "b c h w"]:
        """z' - z."""
        before, here, after = self.first(self.norm(z)).chunk(3, 1)
        inner = here + _moved(before, told.frames, 1) + _moved(after, told.frames, -1)
        inner = functional.silu(self.modulated(inner, told))
        taps = [_moved(inner, told.frames, 1), inner, _moved(inner, told.frames, -1)]
        return self.last(torch.cat(taps, 1))


class TemporalAttention(TemporalLayer):
    """Attention of each pixel along its own time, which knows how far frames are apart, and not where in the clip.

    Frames further away than `window` are not attended to (Video LDM, section 3.1.1 and appendix): in time, the layer is
    a convolution. A bias per head is learned for every distance.

    Args:
        channels: of what the layer of the image model answers.
        inner: channels of all heads together.
        vector: width of the motion vector.
        context: channels of the features of known frames.
        heads: a divisor of `inner`.
        window: the largest distance in frames.
    """

    def __init__(
        self, channels: int, inner: int, vector: int, context: int = 0, *, heads: int = 4, window: int = 8
    ) -> None:
        super().__init__(channels, channels, vector, context)
        if inner % heads:
            raise ValueError(f"{inner} channels cannot be shared among {heads} heads")
        self.heads, self.window = heads, window
        self.query = nn.Linear(channels, inner, bias=False)
        self.key = nn.Linear(channels, inner, bias=False)
        self.value = nn.Linear(channels, inner, bias=False)
        self.distance = nn.Parameter(torch.zeros(heads, 2 * window + 1))
        self.last = nn.Linear(inner, channels)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def change(self, z: Float[Tensor, "b c h w"], told: Told) -> Float[Tensor, "b c h w"]:
        """z' - z."""
        rows, channels, height, width = z.shape
        frames = told.frames
        seen = self.modulated(self.norm(z), told)
        # A pixel is a row, and a frame is a token.
        tokens = seen.reshape(-1, frames, channels, height * width).permute(0, 3, 1, 2).reshape(-1, frames, channels)
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        answer = _attended(query, key, value, self.bias(frames).to(query.dtype))
        changed = self.last(answer.transpose(1, 2).flatten(2)).reshape(-1, height * width, frames, channels)
        return changed.permute(0, 2, 3, 1).reshape(rows, channels, height, width)

    def bias(self, frames: int) -> Float[Tensor, "heads frames frames"]:
        """What is added to each head's similarity of two frames; minus infinity beyond the window."""
        place = torch.arange(frames, device=self.distance.device)
        apart = place[None] - place[:, None]
        learned = self.distance[:, (apart + self.window).clamp(0, 2 * self.window)]
        return learned.masked_fill(apart.abs() > self.window, -torch.inf)


class TemporalRecurrence(TemporalLayer):
    """A gated recurrence from frame to frame, h = (1 - g) h + g c, at each pixel.

    The gate g and the candidate c depend on the frame alone, not on h, so that products are made for all frames at once
    (Feng et al. 2024, "Were RNNs All We Needed?", arXiv:2410.01201, section 3.2). A clip may come in parts, or frame
    by frame: what is carried from one to the next makes it the same.

    Args:
        channels: of what the layer of the image model answers.
        inner: channels that are carried.
        vector: width of the motion vector.
        context: channels of the features of known frames.
    """

    def __init__(self, channels: int, inner: int, vector: int, context: int = 0) -> None:
        super().__init__(channels, channels, vector, context)
        self.first = nn.Conv2d(channels, 3 * inner, 1)
        self.last = nn.Conv2d(inner, channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias) if self.last.bias is not None else None

    def change(self, z: Float[Tensor, "b c h w"], told: Told) -> Float[Tensor, "b c h w"]:
        """z' - z of clips that begin with their first frame here, or go on from what was carried."""
        if told.carry is None:
            return self.carried(z, told, None)[0]
        changed, states = self.carried(z, told, told.carry.taken(self, told.clips))
        told.carry.keep(self, told.clips, states)
        return changed

    def carried(
        self, z: Float[Tensor, "b c h w"], told: Told, before: Float[Tensor, "n i h w"] | None
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "n i h w"]]:
        """z' - z of parts of n clips, and what is carried on, given what was carried to here; None at the beginning."""
        gate, candidate, out = self.first(self.modulated(self.norm(z), told)).chunk(3, 1)
        gates = gate.sigmoid().unflatten(0, (-1, told.frames))
        candidates = candidate.tanh().unflatten(0, (-1, told.frames))
        state = torch.zeros_like(candidates[:, 0]) if before is None else before
        states: list[Tensor] = []
        for frame in range(told.frames):
            state = torch.lerp(state, candidates[:, frame], gates[:, frame])
            states.append(state)
        answered = torch.stack(states, 1).flatten(0, 1) * functional.silu(out)
        return self.last(answered), state


class MotionVector(nn.Module):
    """One vector per frame, of what tells how things move: the noise, the words, and how fast frames follow each other.

    Words are looked at by queries that are learned, not averaged: a text encoder that was trained on pictures says of
    "bouncing" no more than that it is there, and one word among many decides.

    Args:
        text: width of the text's tokens.
        width: of the vector.
        queries: how many look at the text.
    """

    def __init__(self, text: int, width: int, queries: int = 8) -> None:
        super().__init__()
        self.width = width
        self.norm = nn.LayerNorm(text)
        self.queries = nn.Parameter(torch.randn(queries, width) / math.sqrt(width))
        self.key = nn.Linear(text, width, bias=False)
        self.value = nn.Linear(text, width, bias=False)
        self.words = nn.Linear(queries * width, width)
        self.noise = nn.Linear(_WAVES, width)
        self.speed = nn.Linear(_WAVES, width)
        self.last = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(
        self, time: Float[Tensor, " b"], text: Float[Tensor, "b n e"], fps: Float[Tensor, " b"]
    ) -> Float[Tensor, "b d"]:
        """The vector of each row.

        Args:
            time: what the network is told about the noise, in [0, 1000].
            text: token embeddings.
            fps: frames per second.
        """
        tokens = self.norm(text)
        weights = (self.queries @ self.key(tokens).transpose(1, 2) / math.sqrt(self.width)).softmax(-1)
        words = self.words((weights @ self.value(tokens)).flatten(1))
        # An octave of speed is to the waves what a hundred steps of noise are.
        waves = [waves_of(time), waves_of(100 * fps.log2())]
        noise, speed = (wave.to(words.dtype) for wave in waves)
        return self.last(words + self.noise(noise) + self.speed(speed))


class KnownFrames(nn.Module):
    """Features of the frames that are given, at every size that a UNet works at: c_S of Video LDM, section 3.2.

    No layer has a bias, so that no known frame is the same as zeros, and costs nothing.

    Args:
        channels: of the latents.
        width: of the features.
        halvings: how often the UNet halves its size.
    """

    def __init__(self, channels: int, width: int, halvings: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels + 1, width, 3, padding=1, bias=False)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False) for _ in range(halvings))

    def forward(self, context: Float[Tensor, "b c+1 h w"]) -> dict[tuple[int, int], Float[Tensor, "b k h w"]]:
        """The features by their (height, width)."""
        features = functional.silu(self.first(context))
        found = {(features.shape[-2], features.shape[-1]): features}
        for layer in self.down:
            features = functional.silu(layer(features))
            found[features.shape[-2], features.shape[-1]] = features
        return found


def waves_of(values: Float[Tensor, " b"]) -> Float[Tensor, "b w"]:
    """Cosines and sines of numbers up to about a thousand, at rates from 1 down to 1/10000."""
    half = _WAVES // 2
    rates = torch.exp(torch.arange(half, device=values.device) * (-math.log(_PERIOD) / half))
    angles = values.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


def _attended(
    query: Float[Tensor, "p heads t d"],
    key: Float[Tensor, "p heads t d"],
    value: Float[Tensor, "p heads t d"],
    bias: Float[Tensor, "heads t t"],
) -> Float[Tensor, "p heads t d"]:
    """Attention with a bias; where that learns, by plain products, which are as quick for so few frames."""
    if not bias.requires_grad:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
    alike = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (alike + bias).softmax(-1) @ value


def _moved(x: Float[Tensor, "b c h w"], frames: int, by: int) -> Float[Tensor, "b c h w"]:
    """Each frame's neighbour: the one before for `by` 1, the one after for -1; zeros beyond a clip's ends."""
    clips = x.unflatten(0, (-1, frames))
    blank = torch.zeros_like(clips[:, :1])
    parts = [blank, clips[:, :-1]] if by > 0 else [clips[:, 1:], blank]
    return torch.cat(parts, 1).flatten(0, 1)
