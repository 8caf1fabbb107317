"""One step of a PatchMatch search as one launch on a card. Imported only where Triton is, which comes with torch there.

It finds what `segue.motion.search` finds with dozens of kernels: the same ways but for ties, and costs within 1e-6 of
theirs, as squares are summed in another order. It is one order for any batch: sizes are not compiled in, and products
are not fused with sums. Each neighbour stays a launch of its own, since what the next one offers depends on what this
one has won elsewhere: in one launch, every pixel would do again the work of those around it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from segue.motion.search import Field, Ground

triton: Any = import_module("triton")
tl: Any = import_module("triton.language")
if TYPE_CHECKING:
    constexpr = pointer = int
    pointers = tuple[int, ...]
else:
    constexpr, pointer, pointers = tl.constexpr, tl.pointer_type, tl.tuple_type

_BLOCK = 128
"""Pixels of one program."""

_NUMBERS = ("pixels", "height", "width", "across", "down")
"""None of these is compiled in: with a number of its own, a batch could get sums of its own."""


def bettered(
    field: Field,
    ground: Ground,
    source: Int[Tensor, "r 2 h w"],
    shift: tuple[int, int] = (0, 0),
    away: Int[Tensor, "2 h w"] | None = None,
) -> tuple[Int[Tensor, "r 2 h w"], Float[Tensor, "r h w"]]:
    """Ways and costs, bettered by `Field.tried`'s candidates; where a cost is infinite, by any candidate.

    All tensors lie on one card, or on the CPU where Triton interprets.
    """
    height, width = field.way.shape[2:]
    way, cost, source = field.way.contiguous(), field.cost.contiguous(), source.contiguous()
    here, there = ground.here.contiguous(), ground.there.contiguous()
    found, costs = torch.empty_like(way), torch.empty_like(cost)
    pixels = cost.numel()
    with torch.cuda.device_of(cost):
        _step[(triton.cdiv(pixels, _BLOCK),)](
            (way, source, source if away is None else away.contiguous(), found),
            (cost, costs),
            (here, there),
            *(pixels, height, width, *shift, float(ground.coherence)),
            TERMS=here.shape[-1],
            AWAY=away is not None,
            BLOCK=_BLOCK,
            num_warps=4,
            enable_fp_fusion=False,
        )
    return found, costs


@triton.jit
def _place(row: int, x: int, y: int, height: int, width: int) -> int:
    """Where the first number of a way lies, from its pixel, held within the picture."""
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    y = tl.minimum(tl.maximum(y, 0), height - 1)
    return (row * 2 * height + y) * width + x


@triton.jit
def _mean_of_neighbours(way: pointer, row: int, x: int, y: int, height: int, width: int, within: int) -> float:
    """Of the ways' first numbers; a whole number over 4, so that no order of the sum can matter."""
    total = tl.load(way + _place(row, x - 1, y, height, width), within, 0)
    total += tl.load(way + _place(row, x + 1, y, height, width), within, 0)
    total += tl.load(way + _place(row, x, y - 1, height, width), within, 0)
    total += tl.load(way + _place(row, x, y + 1, height, width), within, 0)
    return total * 0.25


@triton.jit(do_not_specialize=_NUMBERS)
def _step(
    ways: pointers,
    costs: pointers,
    ground: pointers,
    pixels: int,
    height: int,
    width: int,
    across: int,
    down: int,
    coherence: float,
    TERMS: constexpr,
    AWAY: constexpr,
    BLOCK: constexpr,
) -> None:
    way, source, away, found = ways[0], ways[1], ways[2], ways[3]
    cost, here, there = costs[0], ground[0], ground[1]
    area, half = height * width, pixels // 2
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    within = pixel < pixels
    row, inner = pixel // area, pixel % area
    x, y = inner % width, inner // width

    own = _place(row, x, y, height, width)
    own_x, own_y = tl.load(way + own, within, 0), tl.load(way + own + area, within, 0)
    own_cost = tl.load(cost + pixel, within, 0.0)
    told = _place(row, x - across, y - down, height, width)
    way_x, way_y = tl.load(source + told, within, 0), tl.load(source + told + area, within, 0)
    if AWAY:
        way_x += tl.load(away + inner, within, 0)
        way_y += tl.load(away + inner + area, within, 0)
    way_x = tl.minimum(tl.maximum(x + way_x, 0), width - 1) - x
    way_y = tl.minimum(tl.maximum(y + way_y, 0), height - 1) - y

    # The way that is there already costs what it does, unless nobody has counted yet.
    new = within & ((way_x != own_x) | (way_y != own_y) | (own_cost == float("inf")))
    end = tl.where(pixel < half, pixel + half, pixel - half) + way_y * width + way_x
    new_cost = tl.zeros([BLOCK], tl.float32)
    for first in range(0, TERMS, 16):
        term = first + tl.arange(0, 16)[None, :]
        read = new[:, None] & (term < TERMS)
        apart = tl.load(there + end.to(tl.int64)[:, None] * TERMS + term, read, 0.0)
        apart -= tl.load(here + pixel.to(tl.int64)[:, None] * TERMS + term, read, 0.0)
        new_cost += tl.sum(apart * apart, 1)

    gain = own_cost - new_cost
    usual_x = _mean_of_neighbours(way, row, x, y, height, width, within)
    usual_y = _mean_of_neighbours(way + area, row, x, y, height, width, within)
    own_apart = tl.minimum(tl.abs(own_x - usual_x) + tl.abs(own_y - usual_y), 2.0)
    new_apart = tl.minimum(tl.abs(way_x - usual_x) + tl.abs(way_y - usual_y), 2.0)
    gain += coherence * (own_apart - new_apart)
    better = new & (gain > 0)
    tl.store(found + own, tl.where(better, way_x, own_x), within)
    tl.store(found + own + area, tl.where(better, way_y, own_y), within)
    tl.store(costs[1] + pixel, tl.where(better, new_cost, own_cost), within)
