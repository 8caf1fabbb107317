"""A network beside a UNet that is shown a picture and told what shall become of it, and adds to what the UNet computes.

InstructPix2Pix (Brooks et al. 2023, arXiv:2211.09800) appends the picture to the noisy latents, and a whole UNet must
learn to carry it through. A small UNet that stays as it is cannot: here the picture has layers of its own, which change
it as the words say, and what they make of it is added to the skip connections, as a control network does
(`segue.models.control_adapter`). One of the layers moves things: each place looks up where in the picture lies what
belongs there, by an attention whose queries and keys are places only, and the words say which places (mirrored, turned,
larger). The words are summed up by learned queries, and act by a scale and a shift of each channel
(Perez et al. 2018, arXiv:1709.07871).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from segue.errors import ModelError, TaskError
from segue.models.control import Residuals
from segue.models.control_adapter import GROUPS, WAVES, Block, connections, waves
from segue.models.travel import Travel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from torch import Tensor

    from segue.models.travel import Carrying
    from segue.types import Conditioning, TextEncoder

WORDS = "instruct_words"
"""What `Conditioning.extra` calls the embeddings that the adapter is told; without them, the text."""
PER_SECOND, LONGEST = 100.0, 4.0
"""Waves of seconds, from four before the picture on, are those of a hundred steps of noise each."""
HEADS = 4
HEAD_WIDTH = 32


@dataclass(frozen=True)
class InstructLayout:
    """The shape of an adapter, which follows from the UNet that it is for.

    Args:
        skips: of each of the UNet's skip connections its channels, and how many times its sides were halved.
        middle: the same of the middle of the UNet.
        latents: channels of the latents.
        words: width of the text embeddings.
        width: channels in which the picture is changed; a multiple of 8.
        before: residual blocks that look at the picture before its things are moved.
        after: and those that do so afterwards.
        widths: channels of what is added, at full size and after each halving; multiples of 8.
        blocks: residual blocks at each of these sizes.
        embedding: width of what tells the blocks the words and the time.
        waves: sines and cosines that tell a place, along each side.
        moves: maps of places that the words mix.
        elapsed: whether it is told, besides, how long after the picture the wanted one is: a movement is an instruction
            that takes time. Things are then carried along a way (`segue.models.travel`), and not looked up by maps.
    """

    skips: tuple[tuple[int, int], ...]
    middle: tuple[int, int]
    latents: int
    words: int
    width: int = 64
    before: int = 3
    after: int = 2
    widths: tuple[int, ...] = (64, 96, 128)
    blocks: tuple[int, ...] = (2, 1, 1)
    embedding: int = 128
    waves: int = 6
    moves: int = 8
    elapsed: bool = False

    def __post_init__(self) -> None:
        deepest = max(self.middle[1], *(level for _, level in self.skips))
        if not len(self.widths) == len(self.blocks) == deepest + 1:
            raise ModelError(
                f"this UNet halves its sides {deepest} times, so that an adapter needs {deepest + 1} widths and as "
                f"many numbers of blocks; got {self.widths} and {self.blocks}"
            )
        if any(width % GROUPS for width in (self.width, *self.widths)) or self.width % HEADS:
            raise ModelError(f"widths of an adapter are multiples of {GROUPS}; got {(self.width, *self.widths)}")

    @staticmethod
    def of(unet: Any, **shape: Any) -> InstructLayout:
        """For a UNet2DConditionModel; `shape` are fields that are not read off it."""
        skips, middle = connections(unet)
        width = unet.config["cross_attention_dim"]
        if not isinstance(width, int):
            raise ModelError("an instruction adapter is told one width of text embeddings, and this UNet takes several")
        return InstructLayout(skips, middle, unet.config["out_channels"], width, **shape)


@dataclass(frozen=True)
class InstructText:
    """A TextEncoder around a model's, whose UNet is told nothing: what it would make of an instruction is no edit.

    A small model of pictures never heard "turn it upside down", and draws worse for it; the adapter learned the words.

    Args:
        encoder: the model's.
    """

    encoder: TextEncoder

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """The empty prompt, and under WORDS what is said to the adapter."""
        said = self.encoder([*prompts, ""])
        count = len(prompts)
        nothing = said[[count] * count]
        return replace(nothing, extra={**nothing.extra, WORDS: said.text[:count]})


class BesideUnet(Protocol):
    """What is shown the picture that an instruction model changes, in place of the model's UNet."""

    def beside(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning
    ) -> tuple[Residuals, Conditioning]:
        """What it adds to a UNet that denoises x, is told `time` of its noise, and `cond`, and what that is."""
        ...


class Words(nn.Module):
    """Text embeddings summed up in one vector, by learned queries."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.asked = nn.Parameter(torch.randn(HEADS, HEAD_WIDTH) * 0.4)
        self.key, self.value = nn.Linear(width, HEADS * HEAD_WIDTH), nn.Linear(width, HEADS * HEAD_WIDTH)
        self.out = nn.Sequential(nn.Linear(HEADS * HEAD_WIDTH, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

    def forward(self, text: Float[Tensor, "b l d"]) -> Float[Tensor, "b e"]:
        said = self.norm(text)
        keys, values = (part(said).unflatten(-1, (HEADS, HEAD_WIDTH)) for part in (self.key, self.value))
        heard = torch.einsum("hd,blhd->bhl", self.asked, keys).softmax(-1)
        return self.out(torch.einsum("bhl,blhd->bhd", heard, values).flatten(1))


class Told(nn.Module):
    """Text embeddings summed up in one vector, each channel by the token that has most of it.

    However many tokens fill up the rest, one word decides.
    """

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm, self.heard = nn.LayerNorm(width), nn.Linear(width, HEADS * HEAD_WIDTH)
        self.out = nn.Sequential(nn.Linear(HEADS * HEAD_WIDTH, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

    def forward(self, text: Float[Tensor, "b l d"]) -> Float[Tensor, "b e"]:
        return self.out(self.heard(self.norm(text)).amax(1))


class Move(nn.Module):
    """Brings what lies elsewhere in a picture to where the words want it, beside what lies there already."""

    def __init__(self, layout: InstructLayout) -> None:
        super().__init__()
        width, place = layout.width, 4 * layout.waves
        self.waves = layout.waves
        self.norm = nn.GroupNorm(GROUPS, width)
        self.maps = nn.Parameter(torch.randn(layout.moves, place, HEADS * HEAD_WIDTH) / math.sqrt(place))
        self.pick = nn.Linear(layout.embedding, layout.moves)
        self.key = nn.Linear(place, HEADS * HEAD_WIDTH)
        self.value, self.out = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.stay = nn.Linear(layout.embedding, width)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "b c h w"], words: Float[Tensor, "b e"]) -> Float[Tensor, "b c h w"]:
        places = self.places(x.shape[-2], x.shape[-1]).to(x)
        maps = torch.einsum("br,rpd->bpd", self.pick(words), self.maps)
        asked = (places @ maps).unflatten(-1, (HEADS, HEAD_WIDTH)).transpose(1, 2)
        keys = self.key(places).unflatten(-1, (HEADS, HEAD_WIDTH)).transpose(0, 1).expand(len(x), -1, -1, -1)
        values = self.value(self.norm(x)).unflatten(1, (HEADS, -1)).flatten(3).transpose(2, 3)
        brought = functional.scaled_dot_product_attention(asked, keys, values)
        brought = brought.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[-2:])
        return x * (2 * self.stay(words).sigmoid())[:, :, None, None] + self.out(brought)

    def places(self, height: int, width: int) -> Float[Tensor, "n p"]:
        """Waves of where the middle of each place lies, -1 to 1 along both sides whatever their lengths."""
        rates = torch.arange(1, self.waves + 1) * (math.pi / 2)

        def told(side: int) -> Tensor:
            angles = ((torch.arange(side) + 0.5) / side * 2 - 1)[:, None] * rates
            return torch.cat([angles.sin(), angles.cos()], 1)

        down, across = told(height)[:, None], told(width)[None]
        return torch.cat([down.expand(-1, width, -1), across.expand(height, -1, -1)], -1).flatten(0, 1)


@dataclass(frozen=True)
class Changed:
    """A picture as the words want it.

    Args:
        seen: in channels of the adapter's own.
        guess: of its latents, for training.
        words: what is wanted, in one vector, and, of what takes time, where things went.
        carrying: how they went there, and what; None of an adapter that is not told seconds.
    """

    seen: Float[Tensor, "b d h w"]
    guess: Float[Tensor, "b c h w"]
    words: Float[Tensor, "b e"]
    carrying: Carrying | None = None


class InstructAdapter(nn.Module):
    """Pictures and words to residuals of a UNet, which are 0 at first.

    Args:
        layout: its shape.
    """

    def __init__(self, layout: InstructLayout) -> None:
        super().__init__()
        self.layout = layout
        width, embedding = layout.width, layout.embedding
        self.words = Told(layout.words, embedding) if layout.elapsed else Words(layout.words, embedding)
        self.time = nn.Sequential(nn.Linear(WAVES, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.when = None
        if layout.elapsed:
            self.when = nn.Sequential(nn.Linear(WAVES, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.picture = nn.Conv2d(layout.latents, width, 3, padding=1)
        self.before = nn.ModuleList(Block(width, embedding) for _ in range(layout.before))
        self.move = None if layout.elapsed else Move(layout)
        self.travel = Travel(width, embedding) if layout.elapsed else None
        self.after = nn.ModuleList(Block(width, embedding) for _ in range(layout.after))
        self.guess = nn.Conv2d(width, layout.latents, 3, padding=1)
        entered = width + layout.latents if layout.elapsed else width
        self.enter = nn.Conv2d(entered, layout.widths[0], 1)
        self.latents = nn.Conv2d(layout.latents, layout.widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleList(Block(channels, embedding) for _ in range(count))
            for channels, count in zip(layout.widths, layout.blocks, strict=True)
        )
        steps = zip(layout.widths, layout.widths[1:], strict=False)
        self.halve = nn.ModuleList(nn.Conv2d(fine, coarse, 3, 2, 1) for fine, coarse in steps)
        taps = (*layout.skips, layout.middle)
        self.taps = nn.ModuleList(nn.Conv2d(layout.widths[level], channels, 1) for channels, level in taps)
        for zero in (*self.taps.parameters(), *(self.guess.parameters() if layout.elapsed else ())):
            nn.init.zeros_(zero)

    def meaning(self, text: Float[Tensor, "b l d"], elapsed: Float[Tensor, " b"] | None = None) -> Float[Tensor, "b e"]:
        """What is wanted, in one vector.

        Args:
            text: embeddings of what shall become of the picture.
            elapsed: seconds from the picture to the wanted one, negative ones before it; of an adapter that is told.

        Raises:
            ValueError: it was told of seconds and never learned to be, or the other way round.
        """
        if (self.when is None) != (elapsed is None):
            raise ValueError("seconds are told to adapters that learned to be told them, and to no others")
        said = self.words(text)
        if self.when is None or elapsed is None:
            return said
        return said + self.when(waves(PER_SECOND * (elapsed + LONGEST)).to(said))

    def changed(self, picture: Float[Tensor, "b c h w"], words: Float[Tensor, "b e"]) -> Changed:
        """The picture as the words want it.

        Args:
            picture: latents that are not scaled; see `segue.models.instruction.shown`.
            words: what `meaning` made of the text embeddings.
        """
        told = functional.silu(words)
        seen = self.seen(picture, told)
        carrying, carried = None, None
        if self.move is not None:
            seen = self.move(seen, told)
        if self.travel is not None:
            carrying = self.travel(seen, told)
            seen, carried = carrying.carried(seen), carrying.carried(picture)
            words = words + self.travel.meaning(carrying.way)
            told = functional.silu(words)
        for block in self.after:
            seen = block(seen, told)
        seen = functional.silu(seen)
        guess = self.guess(seen)
        if carried is not None:
            guess = carried + guess
            seen = torch.cat([seen, guess], 1)
        return Changed(seen, guess, words, carrying)

    def seen(self, picture: Float[Tensor, "b c h w"], told: Float[Tensor, "b e"]) -> Float[Tensor, "b d h w"]:
        """What is seen of a picture before anything in it has moved."""
        seen = self.picture(picture)
        for block in self.before:
            seen = block(seen, told)
        return seen

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"],
        text: Float[Tensor, "b l d"],
        picture: Float[Tensor, "b c h w"],
        elapsed: Float[Tensor, " b"] | None = None,
    ) -> tuple[Residuals, Float[Tensor, "b c h w"]]:
        """What is added to the UNet, and the guess of `changed`. A row that is shown no picture, only zeros, adds 0.

        Args:
            x: noisy latents.
            time: as the UNet is told it.
            text: embeddings of what shall become of the picture.
            picture: latents that are not scaled, as large as x.
            elapsed: see `meaning`.
        """
        changed = self.changed(picture, self.meaning(text, elapsed))
        told = functional.silu(changed.words + self.time(waves(time).to(x.dtype)))
        seen, levels = self.enter(changed.seen) + self.latents(x), list[Any]()
        stages: Any = self.blocks
        for level, blocks in enumerate(stages):
            seen = self.halve[level - 1](seen) if level else seen
            for block in blocks:
                seen = block(seen, told)
            levels.append(functional.silu(seen))
        there = picture.flatten(1).any(1).to(x.dtype)[:, None, None, None]
        taps = zip(self.taps, (*self.layout.skips, self.layout.middle), strict=True)
        *down, middle = (there * tap(levels[level]) for tap, (_, level) in taps)
        return Residuals(tuple(down), middle), changed.guess

    def beside(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning
    ) -> tuple[Residuals, Conditioning]:
        """What it adds to a UNet that denoises x and is told `cond`; and what of that the UNet itself is told.

        Raises:
            TaskError: no picture is shown, or one of another shape than x.
        """
        return self.told(x, time, cond)[0], rest_of(cond)

    def told(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, " b"], cond: Conditioning
    ) -> tuple[Residuals, Float[Tensor, "b c h w"]]:
        """What it adds, and its guess.

        Raises:
            TaskError: no picture is shown, or one of another shape than x.
        """
        if cond.concat is None or cond.concat.shape != x.shape:
            got = "none" if cond.concat is None else "x".join(map(str, cond.concat.shape[1:]))
            raise TaskError(
                "this is an instruction model: it needs to be shown the picture that it shall change, as latents of "
                f"{'x'.join(map(str, x.shape[1:]))}; got {got}. Give one, or take a model that draws from words"
            )
        device, dtype = self.picture.weight.device, self.picture.weight.dtype
        words = cond.extra.get(WORDS, cond.text)
        noisy, text, picture = (part.to(device, dtype) for part in (x, words, cond.concat))
        return self(noisy, time.float().to(device), text, picture)


def rest_of(cond: Conditioning) -> Conditioning:
    """What a UNet is told: neither the picture nor the words, which an adapter beside it is told."""
    return replace(cond, concat=None, extra={name: part for name, part in cond.extra.items() if name != WORDS})
