"""A small control network of many kinds: edges, colours, depth or a pose become what a UNet's skip connections add.

A ControlNet (Zhang et al. 2023, arXiv:2302.05543) is a copy of half a UNet for one kind of picture. This one is made
for small models: as in the T2I-Adapter (Mou et al. 2023, arXiv:2302.08453), the control picture is folded to the size
of the latents and a few residual blocks follow; as in a ControlNet, it sees the noisy latents and the time, and ends in
convolutions that are 0 at first. All kinds share the weights; scales and shifts in each block say which one it is
(Perez et al. 2018, arXiv:1709.07871). It knows nothing of the text, which the UNet itself does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from segue.errors import CheckpointError, ModelError, TaskError
from segue.models.attention import announced
from segue.models.control import Residuals, unet_of
from segue.models.own_files import said_of, weights_of, write_own
from segue.models.placement import beside
from segue.types import Call, Conditioning

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion

KINDS = ("softedge", "lineart", "canny", "tile", "palette", "shuffle", "depth", "pose")
"""What an adapter may be told that its picture is; new ones go at the end, since files keep their numbers."""
POOLED = frozenset({"shuffle"})
"""Kinds whose picture says what there is and not where, so that all places are told the same."""
GROUPS = 8
WAVES = 64
METADATA = "segue_control_adapter"
"""What a file calls its shape; beside it, under LEARNED, the kinds that it knows: if it says nothing of them, all."""
LEARNED = "kinds"


@dataclass(frozen=True)
class Layout:
    """The shape of an adapter, which follows from the UNet that it is for.

    Args:
        skips: of each of the UNet's skip connections its channels, and how many times its sides were halved.
        middle: the same of the middle of the UNet.
        latents: channels of the latents.
        scale: pixels of the control picture per latent, along a side; a power of 2.
        widths: channels of the adapter, at full size and after each halving.
        blocks: residual blocks at each of these sizes.
        embedding: width of what tells the blocks the time and the kind.
    """

    skips: tuple[tuple[int, int], ...]
    middle: tuple[int, int]
    latents: int = 4
    scale: int = 8
    widths: tuple[int, ...] = (64, 96, 112)
    blocks: tuple[int, ...] = (2, 1, 1)
    embedding: int = 128

    def __post_init__(self) -> None:
        deepest = max(self.middle[1], *(level for _, level in self.skips))
        if not len(self.widths) == len(self.blocks) == deepest + 1:
            raise ModelError(
                f"this UNet halves its sides {deepest} times, so that an adapter needs {deepest + 1} widths and as "
                f"many numbers of blocks; got {self.widths} and {self.blocks}"
            )
        if any(width % GROUPS for width in self.widths):
            raise ModelError(f"widths of an adapter are multiples of {GROUPS}; got {self.widths}")

    @staticmethod
    def of(unet: Any, scale: int, **shape: Any) -> Layout:
        """For a UNet2DConditionModel with `scale` pixels per latent; `shape` are fields that are not read off it."""
        skips, middle = connections(unet)
        # What an inpainting or instructed UNet is shown besides its latents is none of the adapter's.
        return Layout(skips, middle, unet.config["out_channels"], scale, **shape)


def connections(unet: Any) -> tuple[tuple[tuple[int, int], ...], tuple[int, int]]:
    """Channels of each skip connection of a UNet2DConditionModel, and how often it was halved; and of its middle."""
    channels, layers = unet.config["block_out_channels"], unet.config["layers_per_block"]
    per_block = [layers] * len(channels) if isinstance(layers, int) else list(layers)
    skips = [(channels[0], 0)]
    for level, (width, count) in enumerate(zip(channels, per_block, strict=True)):
        skips += [(width, level)] * count
        skips += [(width, level + 1)] * (level + 1 < len(channels))
    middle = (channels[-1], len(channels) - 1)
    return tuple(skips), middle


class Block(nn.Module):
    """Two convolutions, told the time and the kind by a scale and a shift of each channel, added to what came in."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.first, self.second = nn.GroupNorm(GROUPS, width), nn.GroupNorm(GROUPS, width)
        self.mix, self.out = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.told = nn.Linear(embedding, 2 * width)

    def forward(self, x: Float[Tensor, "b c h w"], told: Float[Tensor, "b e"]) -> Float[Tensor, "b c h w"]:
        scale, shift = self.told(told)[:, :, None, None].chunk(2, 1)
        y = functional.silu(self.first(x) * (1 + scale) + shift)
        return x + self.out(functional.silu(self.second(self.mix(y))))


class ControlAdapter(nn.Module):
    """Control pictures to residuals of a UNet; at first these are 0.

    Args:
        layout: its shape.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        first, embedding = layout.widths[0], layout.embedding
        folded = max(1, layout.scale // 2)  # the last halving is learned
        self.fold = nn.PixelUnshuffle(folded)
        self.hint = nn.Sequential(
            nn.Conv2d(3 * folded**2, 48, 3, padding=1), nn.SiLU(), nn.Conv2d(48, first, 3, layout.scale // folded, 1)
        )
        self.latents = nn.Conv2d(layout.latents, first, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(WAVES, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.kind = nn.Embedding(len(KINDS), embedding)
        self.blocks = nn.ModuleList(
            nn.ModuleList(Block(width, embedding) for _ in range(count))
            for width, count in zip(layout.widths, layout.blocks, strict=True)
        )
        steps = zip(layout.widths, layout.widths[1:], strict=False)
        self.halve = nn.ModuleList(nn.Conv2d(before, after, 3, 2, 1) for before, after in steps)
        taps = (*layout.skips, layout.middle)
        self.taps = nn.ModuleList(nn.Conv2d(layout.widths[level], channels, 1) for channels, level in taps)
        for tap in self.taps.parameters():
            nn.init.zeros_(tap)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"],
        kind: Int64[Tensor, " b"],
        picture: Float[Tensor, "b 3 H W"],
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """What is added to each skip connection of the UNet, and to its middle.

        Args:
            x: the noisy latents, of any size.
            time: as the UNet is told it.
            kind: of each picture, its place in KINDS.
            picture: in [0, 1], `scale` times as large as the latents.

        Raises:
            TaskError: the pictures are not that large.
        """
        wanted = tuple(side * self.layout.scale for side in x.shape[-2:])
        if picture.shape[-2:] != wanted:
            said, got = (f"{width}x{height}" for height, width in (wanted, tuple(picture.shape[-2:])))
            raise TaskError(f"a control picture is as large as the picture that is drawn, {said}; got {got}")
        told = functional.silu(self.time(waves(time).to(self.kind.weight.dtype)) + self.kind(kind))
        seen = self.hint(self.fold(2 * picture - 1)) + self.latents(x)
        levels: list[Tensor] = []
        stages: Any = self.blocks
        for level, blocks in enumerate(stages):
            seen = self.halve[level - 1](seen) if level else seen
            for block in blocks:
                seen = block(seen, told)
            levels.append(seen)
        taps = zip(self.taps, (*self.layout.skips, self.layout.middle), strict=True)
        *down, middle = (_pooled(tap(functional.silu(levels[level])), kind) for tap, (_, level) in taps)
        return tuple(down), middle


@dataclass(frozen=True)
class AdapterControl:
    """A ControlNetwork around an adapter that is told of one kind of pictures.

    Args:
        module: the adapter.
        kind: one of KINDS.
        weights: the files that its numbers came from.
        settings: its configuration.
        device: where it works.
        dtype: what it computes in.
    """

    module: ControlAdapter
    kind: str
    weights: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32

    @property
    def pooled(self) -> bool:
        """Whether its picture says what there is, and not where."""
        return self.kind in POOLED

    def __call__(
        self,
        x: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"],
        cond: Conditioning,
        picture: Float[Tensor, "b 3 H W"],
        call: Call,
    ) -> Residuals:
        """What it adds to every skip connection and to the middle, in its own dtype and on its own device."""
        del cond
        kind = torch.full((len(x),), KINDS.index(self.kind), device=self.device)
        seen, shown = (part.to(self.device, self.dtype) for part in (x, picture))
        with announced(call):
            down, middle = self.module(seen, time.to(self.device), kind, shown)
        return Residuals(down, middle)


def waves(time: Float[Tensor, " b"]) -> Float[Tensor, "b w"]:
    """Times from 0 to 1000 as sines and cosines (Vaswani et al. 2017, arXiv:1706.03762, section 3.5)."""
    rates = torch.exp(torch.arange(WAVES // 2, device=time.device) * (-math.log(10000) / (WAVES // 2)))
    angles = time.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def _pooled(residual: Float[Tensor, "b c h w"], kind: Int64[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
    """The mean over all places, for rows of a kind that says nothing of places."""
    rows = torch.tensor([KINDS[number] in POOLED for number in kind.tolist()], device=residual.device)
    if not bool(rows.any()):
        return residual
    return torch.where(rows[:, None, None, None], residual.mean((2, 3), keepdim=True), residual)


def control_from(path: Path, kind: str, model: LatentDiffusion) -> AdapterControl:
    """An adapter from its file, beside a model, told of one kind of pictures.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: damaged, something else, or made for a UNet of another shape.
        ModelError: there is no such kind, it has not learned it, or the model has no UNet that could be controlled.
    """
    if kind not in KINDS:
        raise ModelError(f'there is no kind "{kind}" of control pictures; expected one of {", ".join(KINDS)}')
    adapter = read_adapter(path)
    if kind not in (known := learned(path) or KINDS):
        raise ModelError(f'{path} has not learned "{kind}"; expected one of {", ".join(known)}')
    own = {name: getattr(adapter.layout, name) for name in ("widths", "blocks", "embedding")}
    if adapter.layout != (wanted := Layout.of(unet_of(model).unet, model.codec.scale, **own)):
        raise CheckpointError(
            f"{path} was made for a UNet of another shape than that of {model.name}: its skip connections are "
            f"{adapter.layout.skips}, and those of the model {wanted.skips}"
        )
    beside(adapter.to(model.dtype), model)
    settings = {**asdict(adapter.layout), "kind": kind}
    return AdapterControl(adapter, kind, (path,), settings, model.device, model.dtype)


def save_adapter(path: Path, adapter: ControlAdapter, kinds: Sequence[str] = ()) -> None:
    """Write an adapter: weights in 8 bits, with a scale for each output of a layer, and the rest in half precision.

    The file is replaced when the new one is whole.

    Args:
        path: of the file.
        adapter: of any precision.
        kinds: that it has learned, which the file says; it takes all if there are none.
    """
    said = asdict(adapter.layout) | ({LEARNED: list(kinds)} if kinds else {})
    write_own(path, METADATA, said, adapter.state_dict())


def is_adapter(path: Path) -> bool:
    """Whether a file says that it is an adapter.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: no safetensors file, or damaged.
    """
    return said_of(path, METADATA) is not None


def learned(path: Path) -> tuple[str, ...]:
    """The kinds of control pictures that an adapter's file says it has learned; none if it does not say.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: no safetensors file, or damaged.
    """
    kinds: Any = (said_of(path, METADATA) or {}).get(LEARNED, [])
    if not isinstance(kinds, list) or any(kind not in KINDS for kind in kinds):
        raise CheckpointError(f"{path} is no control adapter of Segue (what it says of its kinds is none)")
    return tuple(kinds)


def read_adapter(path: Path) -> ControlAdapter:
    """An adapter from its file, in float32, frozen.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: damaged, or something else.
    """
    said = said_of(path, METADATA)
    try:
        if said is None:
            raise ValueError("it does not say that it is one")
        shape = {key: _as_tuples(value) for key, value in said.items() if key != LEARNED}
        adapter = ControlAdapter(Layout(**shape))
        adapter.load_state_dict(weights_of(path))
    except (LookupError, AttributeError, ArithmeticError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path} is no control adapter of Segue ({reason})") from error
    return adapter.eval().requires_grad_(False)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
