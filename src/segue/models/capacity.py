"""What a machine can hold, and how fast it computes: asked of it, not looked up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segue.models.rehearsal import Kind, Work, rehearsed

if TYPE_CHECKING:
    from torch import Tensor

SPARED = 0.1
_CONTEXT = 512 * 2**20
"""Bytes that CUDA and its libraries take on a card before any tensor is there; an estimate."""


@dataclass(frozen=True)
class Memory:
    """The memory that networks work in.

    Args:
        total: bytes of the device.
        free: bytes of it that nobody uses.
        taken: bytes that a run takes besides its tensors: what this process has by now, or the context of a card.
    """

    total: int
    free: int
    taken: int

    @property
    def room(self) -> int:
        """Bytes for weights and tensors: a tenth is spared, for the gaps of allocators and libraries' own work."""
        return max(0, int((1 - SPARED) * (self.free - self.taken)))


def memory_of(device: torch.device) -> Memory:
    """The memory of a device as it is now; 0 bytes where the system does not tell."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Memory(total, free, 0 if torch.cuda.is_initialized() else _CONTEXT)
    total, free = _main_memory()
    # What this process holds already is not taken twice.
    return Memory(total, free, 0)


def _main_memory() -> tuple[int, int]:
    """(total, free) bytes of main memory; free counts what the system holds as caches and gives back."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        said = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) > 1}
        return said["MemTotal"], said["MemAvailable"]
    except (OSError, KeyError, ValueError):
        pass
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0, 0
    return total, total


@dataclass(frozen=True)
class Speed:
    """How fast a device computes in one dtype.

    Args:
        flops: floating-point operations a second, by kind.
        moved: bytes a second that are read and written, from memory and not from a cache.
        overhead: seconds that it takes to start an operation.
        drag: how much longer a block of several operations takes than these on their own.
    """

    flops: dict[Kind, float]
    moved: float
    overhead: float
    drag: float = 1.0

    def seconds(self, work: Work) -> float:
        """How long work takes, one operation after the other."""
        computing = sum(count / self.flops[kind] for kind, count in work.flops.items())
        return self.drag * (computing + work.moved / self.moved + work.operations * self.overhead)


def measured_speed(device: torch.device, dtype: torch.dtype, patience: float = 0.25) -> Speed:
    """Time a convolution, a product, attention, an addition, an operation on next to nothing, and a block of a UNet.

    Args:
        device: to compute on.
        dtype: to compute in.
        patience: seconds for each of the six.
    """

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape).to(device, dtype)

    format_ = torch.channels_last if dtype.itemsize == 2 else torch.contiguous_format
    # A few milliseconds each: long enough to be fast, and short enough to run between what else the machine does.
    rows = 1 if device.type == "cpu" else 16
    picture = noise(rows, 320, 16, 16).contiguous(memory_format=format_)
    kernel = noise(320, 320, 3, 3).contiguous(memory_format=format_)
    tokens, matrix, heads, small = noise(256 * rows, 640), noise(640, 640), noise(rows, 8, 256, 64), noise(8)
    wide = noise(16 * rows, 1024, 256)
    functional: Any = torch.nn.functional
    runs: dict[Kind, Callable[[], Any]] = {
        "convolution": lambda: functional.conv2d(picture, kernel, padding=1),
        "product": lambda: functional.linear(tokens, matrix),
        "attention": lambda: functional.scaled_dot_product_attention(heads, heads, heads),
    }
    flops: dict[Kind, float] = {}
    with torch.no_grad():
        for kind, run in runs.items():
            flops[kind] = rehearsed(run).flops[kind] / _quickest(run, device, patience)
        add = rehearsed(lambda: wide + wide).moved / _quickest(lambda: wide + wide, device, patience)
        overhead = _quickest(lambda: small + small, device, patience)
        alone = Speed(flops, add, overhead)
        block = _block(noise, format_, rows)
        return replace(alone, drag=_quickest(block, device, patience) / alone.seconds(rehearsed(block)))


def _block(noise: Callable[..., Tensor], format_: torch.memory_format, rows: int) -> Callable[[], Any]:
    """What UNets are made of: norm, convolution, attention and a wide layer, with 320 channels on 32 x 32 places."""
    width, functional = 320, torch.nn.functional
    picture = noise(rows, width, 32, 32).contiguous(memory_format=format_)
    kernel = (noise(width, width, 3, 3) / 50).contiguous(memory_format=format_)
    single, wide, back = noise(width, width) / 20, noise(4 * width, width) / 20, noise(width, 4 * width) / 40

    def heads(tokens: Tensor) -> Tensor:
        return functional.linear(tokens, single).unflatten(-1, (8, -1)).transpose(1, 2)

    def run() -> Tensor:
        x = functional.conv2d(functional.silu(functional.group_norm(picture, 32)), kernel, padding=1) + picture
        tokens = x.flatten(2).transpose(1, 2)
        seen = functional.layer_norm(tokens, (width,))
        attended = functional.scaled_dot_product_attention(heads(seen), heads(seen), heads(seen))
        tokens = tokens + functional.linear(attended.transpose(1, 2).flatten(2), single)
        return tokens + functional.linear(functional.gelu(functional.linear(tokens, wide)), back)

    return run


def _quickest(run: Callable[[], Any], device: torch.device, patience: float) -> float:
    """Seconds of the quickest of as many runs as there is patience for, and three at least."""
    run()
    best, began, count = float("inf"), time.perf_counter(), 0
    while count < 3 or time.perf_counter() - began < patience:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best, count = min(best, time.perf_counter() - start), count + 1
    return best
