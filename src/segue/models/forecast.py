"""What a render will take, before it runs: bytes and seconds, and what to change where it does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import torch

from segue.models.decoding import SMALLEST
from segue.models.placement import SHARED, Placement, is_codec, stored_layers
from segue.models.rehearsal import Work, weights_of
from segue.models.skeleton import CODEC

if TYPE_CHECKING:
    from torch import nn

    from segue.models.capacity import Memory, Speed
    from segue.models.skeleton import Skeleton

T = TypeVar("T")
_SHRINK = 0.75
_LEAST_SIDE = 256


@dataclass(frozen=True)
class Render:
    """What is to be made, and how.

    Args:
        size: (width, height) in pixels.
        steps: of a picture's run.
        pictures: how many are made.
        keys: how many of these run from the first step on.
        shared: share of the steps that the others have in common with these.
        terms: network rows for one step of one picture: 2 with guidance, else 1.
        began: share of the run before guidance sets in; one row is enough until then.
        max_batch: the most network rows in one call.
        together: pictures that are handed to the decoder at once.
        device: where it runs.
        placement: how networks are kept.
    """

    size: tuple[int, int]
    steps: int
    device: torch.device
    pictures: int = 1
    keys: int = 1
    shared: float = 0.0
    terms: int = 2
    began: float = 0.0
    max_batch: int = 16
    together: int = 8
    placement: Placement = field(default_factory=Placement)

    @property
    def rows(self) -> int:
        """Network rows of the largest call."""
        return min(self.max_batch, self.pictures * self.terms)

    @property
    def all_rows(self) -> float:
        """Network rows of all calls."""
        later = max(0, self.pictures - self.keys)
        return self.steps * (min(self.keys, self.pictures) * self._terms(0.0) + later * self._terms(self.shared))

    def _terms(self, since: float) -> float:
        """Network rows of a picture that is run from this share on, to one step of a whole run."""
        return self.terms * (1 - since) - (self.terms - 1) * max(0.0, self.began - since)

    def batched(self, rows: int) -> Render:
        """The same with smaller calls, and as many fewer pictures decoded at once."""
        return replace(self, max_batch=rows, together=min(self.together, max(1, rows // 2)))


@dataclass(frozen=True)
class Part:
    """The weights of one network.

    Args:
        name: of its folder.
        kind: its class.
        parameters: how many numbers.
        bytes: that they take as they are stored.
        largest: bytes of its largest layer when it works.
    """

    name: str
    kind: str
    parameters: int
    bytes: int
    largest: int


@dataclass(frozen=True)
class Phase:
    """A stretch of the work.

    Args:
        name: reading the prompts, denoising or decoding.
        weights: bytes of weights on the device meanwhile.
        tensors: bytes of everything else, at the worst moment.
        work: of one call.
        calls: how many.
    """

    name: str
    weights: int
    tensors: int
    work: Work
    calls: float

    @property
    def peak(self) -> int:
        """Bytes on the device at its worst moment."""
        return self.weights + self.tensors


@dataclass(frozen=True)
class Forecast:
    """What a render takes.

    Args:
        render: what was asked.
        parts: the networks.
        phases: in their order.
        loading: bytes of main memory that hold all weights while the model is loaded.
        home: bytes of main memory that the weights take beside a device with memory of its own, at most.
        seconds: that it takes; None if the speed of the device is not known.
    """

    render: Render
    parts: tuple[Part, ...]
    phases: tuple[Phase, ...]
    loading: int
    home: int = 0
    seconds: float | None = None

    @property
    def worst(self) -> Phase:
        """The phase that takes the most memory."""
        return max(self.phases, key=lambda phase: phase.peak)

    @property
    def peak(self) -> int:
        """Bytes on the device, at most. On the CPU, loading the model counts too."""
        return max(self.worst.peak, self.loading if self.render.device.type == "cpu" else 0)

    @property
    def flops(self) -> float:
        """Floating-point operations of the whole render."""
        return sum(phase.work.all_flops * phase.calls for phase in self.phases)


def forecast(model: Skeleton, render: Render, speed: Speed | None = None) -> Forecast:
    """What a render takes with a model.

    Raises:
        CheckpointError: it denoises with a network that Segue does not know.
    """
    parts = tuple(part_of(name, network, render.placement) for name, network in model.parts.items())
    phases = tuple(_phases(model, render, {part.name: part for part in parts}))
    # Weights are stored in fewer bits once all are there.
    loaded = {name: sum(tensor.nbytes for tensor in weights_of(network)) for name, network in model.parts.items()}
    away = model.parts if render.placement.begins_at_home else model.waiting
    home = 0 if render.device.type in SHARED else sum(loaded[name] for name in away)
    seconds = None if speed is None else sum(speed.seconds(phase.work) * phase.calls for phase in phases)
    return Forecast(render, parts, phases, sum(loaded.values()), home, seconds)


def part_of(name: str, network: nn.Module, placement: Placement) -> Part:
    """The weights of a network as they will be stored."""
    tensors = weights_of(network)
    stored = placement.storage is not None and not is_codec(name)
    smaller = {id(layer) for layer in stored_layers(network)} if stored else set[int]()
    total = sum(tensor.nbytes for tensor in tensors)
    largest = 0
    for layer in network.modules():
        own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
        largest = max(largest, sum(tensor.nbytes for tensor in own))
        if id(layer) not in smaller:
            continue
        if placement.storage == "float8":
            total -= sum(tensor.nbytes - tensor.numel() for tensor in layer.parameters(recurse=False))
        elif isinstance(layer, torch.nn.Linear):
            # One byte a number, and a scale for each output.
            scales = layer.out_features * layer.weight.itemsize
            total -= layer.weight.nbytes - layer.weight.numel() - scales
    return Part(name, type(network).__name__, sum(p.numel() for p in network.parameters()), total, largest)


def _phases(model: Skeleton, render: Render, parts: dict[str, Part]) -> Iterator[Phase]:
    placement = render.placement

    def weights(name: str) -> int:
        part = parts[name]
        working = part.largest if placement.storage and not is_codec(name) else 0
        if placement.offload == "sequential":
            return part.largest + working
        if placement.offload == "model":
            return part.bytes + working
        # What waits in main memory by itself comes on top, and nothing waits where that is the device.
        away = set(model.waiting) - {name} if render.device.type not in SHARED else set[str]()
        return sum(other.bytes for other in parts.values() if other.name not in away) + working

    def phase(name: str, part: str, work: Work, calls: float) -> Phase:
        tensors = work.reordered if render.device.type == "cpu" else work.peak
        return Phase(name, weights(part), tensors, work, calls)

    for encoder in model.encoders:
        yield phase(f"reading the prompts ({encoder})", encoder, model.reading(encoder), render.terms)
    call = model.call(render.rows, render.size)
    yield phase("denoising", model.denoiser, call, render.all_rows / render.rows)
    together = min(render.together, render.pictures)
    decode = model.decoding(together, render.size, placement.tile)
    yield phase("decoding", CODEC, decode, render.pictures / together)


@dataclass(frozen=True)
class Change:
    """Something to change, on top of the changes before it.

    Args:
        options: what to add to the command.
        forecast: of the render with it.
        fits: whether it fits then.
    """

    options: str
    forecast: Forecast
    fits: bool


def changes(model: Skeleton, now: Forecast, memory: Memory) -> list[Change]:
    """What to change until a render fits, each change being forecast anew; the ones that cost the least come first.

    In this order: smaller batches, one network at a time, weights in float8, tiles, one layer at a time, smaller
    pictures. Those that would make no difference are left out. If others than the batch made it fit, the batch may be
    larger again, which is said at the end.

    Args:
        model: to render with.
        now: what the render takes as it is asked for.
        memory: of its device.
    """
    found: list[Change] = []
    for step in (_smaller_batch, _one_network, _in_float8, _in_tiles, _one_layer, _smaller_picture):
        if now.peak <= memory.room:
            break
        options, render = step(model, now, memory)
        if render is None:
            continue
        then = forecast(model, render)
        if then.peak < now.peak:
            now = then
            found.append(Change(options, then, then.peak <= memory.room))
    if len(found) > 1 and found[-1].fits:
        found += _larger_batch(model, found[0], found[-1], memory)
    return found


def _larger_batch(model: Skeleton, first: Change, last: Change, memory: Memory) -> list[Change]:
    """The largest batch that still fits, if the first change made it smaller than that."""
    least, render = first.forecast.render.max_batch, last.forecast.render
    powers = [least << power for power in reversed(range(1, 8)) if least << power <= render.pictures * render.terms]
    if not first.options.startswith("--max-batch") or not powers:
        return []
    rows = _first(powers, lambda rows: forecast(model, render.batched(rows)).peak <= memory.room)
    then = forecast(model, render.batched(rows or least))
    return [Change(f"--max-batch {rows} instead of {least}", then, True)] if then.peak <= memory.room else []


_Step = tuple[str, Render | None]


def _smaller_batch(model: Skeleton, now: Forecast, memory: Memory) -> _Step:
    """The largest power of two that fits, or 1."""
    render = now.render
    powers = [1 << power for power in reversed(range(render.rows.bit_length())) if 1 << power < render.rows]
    rows = _first(powers, lambda rows: forecast(model, render.batched(rows)).peak <= memory.room)
    return (f"--max-batch {rows}", render.batched(rows)) if rows else ("", None)


def _one_network(model: Skeleton, now: Forecast, memory: Memory) -> _Step:
    return _placed(now, "--offload model", offload="model") if _leaves(now) else ("", None)


def _one_layer(model: Skeleton, now: Forecast, memory: Memory) -> _Step:
    return _placed(now, "--offload sequential", offload="sequential") if _leaves(now) else ("", None)


def _in_float8(model: Skeleton, now: Forecast, memory: Memory) -> _Step:
    return ("", None) if now.render.placement.storage else _placed(now, "--storage float8", storage="float8")


def _in_tiles(model: Skeleton, now: Forecast, memory: Memory) -> _Step:
    """The largest tiles that fit, halving the side, or the smallest."""
    if now.worst.name != "decoding":
        return "", None
    scale, longest = model.codec.scale, max(now.render.size)
    sides, least = [min(now.render.placement.tile or longest, longest)], SMALLEST * model.codec.scale
    while sides[-1] > least:
        sides.append(max(least, sides[-1] // 2 // scale * scale))

    def tiled(side: int) -> Render:
        return replace(now.render, placement=replace(now.render.placement, tile=side))

    side = _first(sides[1:], lambda side: forecast(model, tiled(side)).peak <= memory.room)
    return (f"--tile {side}", tiled(side)) if side else ("", None)


def _smaller_picture(model: Skeleton, now: Forecast, memory: Memory) -> _Step:
    """Three quarters of the sides, until it fits or is small."""
    render, grid = now.render, math.lcm(model.grid, model.codec.scale * 8)
    sizes = [render.size]
    while min(sizes[-1]) > _LEAST_SIDE:
        width, height = (max(_LEAST_SIDE, math.floor(side * _SHRINK) // grid * grid) for side in sizes[-1])
        sizes.append((width, height))
    size = _first(sizes[1:], lambda size: forecast(model, replace(render, size=size)).peak <= memory.room)
    return (f"--size {size[0]}x{size[1]}", replace(render, size=size)) if size else ("", None)


def _first(choices: Sequence[T], fits: Callable[[T], bool]) -> T | None:
    """The first that fits, else the last, which takes the least and is tried first; None if there are none."""
    if not choices or not fits(choices[-1]):
        return choices[-1] if choices else None
    return next(choice for choice in choices if fits(choice))


def _leaves(now: Forecast) -> bool:
    """Whether networks can leave the device."""
    return now.render.device.type not in SHARED and now.render.placement.storage != "int8"


def _placed(now: Forecast, options: str, **fields: str) -> _Step:
    placement = replace(now.render.placement, **fields)
    return options, replace(now.render, placement=placement)
