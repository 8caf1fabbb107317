"""FastBlend, restated: the deflickering by patch matching of DiffSynth, as it is shipped, and with its bugs repaired.

Frame j is brought to frame i by a field of nearest neighbours: for each pixel of i the place in j whose patch differs
least, ten times in the guide and once in the style; pictures are then voted by all patches that cover a pixel. Fields
are found coarse to fine, from the identity, with patches of 13, 11, 9, 7 and 5 pixels at each level, candidates of four
neighbours in random order and three draws within 4 pixels. A frame is the plain mean of what its window brings.

"Balanced" matches each frame with each other of its window. "Fast" builds a tree over time: the mean of the left half
of each block is aligned to the block's last frame, and a window is then a few blocks, aligned once more; past and
future alike, on the film and on its reverse.

Shipped and repaired differ in nothing but these:
* Going up a level, the odd rows and columns get their offset of one only as far as the batch is long.
* The result is truncated to bytes; here it stays as it is, to be rounded once.
* "Balanced" writes the mean before its last source is added.
* Below 26 pixels there is no level at all; here one.
* The random draws differ from pair to pair of a batch, so that results depend on it; here all pairs draw alike.

The two inner loops are in C (`fastblend.c`), compiled on first use; where there is no compiler, in torch, ten times
slower. They are exact: a patch is given up only when it has reached the error that it must beat.
"""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

VERSION = 1
"""Of what comes out: results that were kept by another are made anew."""
Mode = Literal["fast", "balanced"]
Blocks = dict[tuple[int, int], Tensor]
"""Means of the 2^level frames that end at t, aligned to it, by (t, level)."""
REACH, DRAWS = 4, 3
"""Of the random search: pixels along each axis, and how often."""


@dataclass(frozen=True)
class Alignment:
    """One field to search: frame `source`, or the mean of the 2^level frames that end at it, brought to `target`."""

    source: int
    target: int
    level: int = 0


@dataclass
class FastBlend:
    """The method with its settings; pictures are (t, h, w, 3), float32, in 0 to 255.

    Args:
        window: frames on each side.
        mode: see above.
        repaired: without the bugs.
        batch: pairs at once.
        smallest: the side of the last patch.
        iterations: patches of a level, each two pixels smaller than the one before.
        guide_weight: of squared differences of the guide, against those of the style.
        fields: how many were searched so far.
    """

    window: int = 15
    mode: Mode = "fast"
    repaired: bool = False
    batch: int = 8
    smallest: int = 5
    iterations: int = 5
    guide_weight: float = 10.0
    fields: int = field(default=0, init=False)

    def __call__(self, guide: Tensor, style: Tensor) -> Tensor:
        """The style, blended along the movement of the guide."""
        blended = self._fast(guide, style) if self.mode == "fast" else self._balanced(guide, style)
        blended = blended.clamp(0, 255)
        return blended if self.repaired else blended.byte().float()

    def _fast(self, guide: Tensor, style: Tensor) -> Tensor:
        past, before = self._half(guide, style)
        future, after = self._half(guide.flip(0), style.flip(0))
        future, after = future.flip(0), after.flip(0)
        weights = (before + after - 1)[:, None, None, None]
        return (past * before[:, None, None, None] + future * after[:, None, None, None] - style) / weights

    def _half(self, guide: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of each frame's window in the past, itself included, and how many frames it is of."""
        aligned: dict[tuple[int, int], list[Tensor]] = {}
        builds = built(len(style))
        for task, picture in zip(builds, self._aligned(builds, guide, style), strict=True):
            aligned.setdefault((task.target, task.level), []).append(picture)
        blocks = {(t, 0): picture for t, picture in enumerate(style)}
        for t, level in sorted(aligned, key=lambda key: key[1]):
            halves = aligned.pop((t, level))
            blocks[t, level] = (blocks[t, level - 1] + torch.stack(halves).mean(0)) / 2
        means, counts = style.clone(), torch.zeros(len(style))
        asked = [task for t in range(len(style)) for task in queried(t, self.window)]
        onward = [task for task in asked if task.source != task.target]
        brought = self._aligned(onward, guide, style, blocks)
        for task in asked:
            itself = task.source == task.target
            picture = blocks[task.source, task.level] if itself else next(brought)
            count, more = counts[task.target], 1 << task.level
            means[task.target] = (means[task.target] * count + picture * more) / (count + more)
            counts[task.target] += more
        return means, counts

    def _balanced(self, guide: Tensor, style: Tensor) -> Tensor:
        tasks = [
            Alignment(source, t)
            for t in range(len(style))
            for source in range(max(0, t - self.window), min(len(style), t + self.window + 1))
            if source != t
        ]
        means, counts = style.clone(), torch.ones(len(style))
        last = {task.target: task.source for task in tasks}
        for task, picture in zip(tasks, self._aligned(tasks, guide, style), strict=True):
            if self.repaired or task.source != last[task.target]:
                means[task.target] += (picture - means[task.target]) / (counts[task.target] + 1)
                counts[task.target] += 1
        return means

    def _aligned(
        self,
        tasks: Sequence[Alignment],
        guide: Tensor,
        style: Tensor,
        blocks: dict[tuple[int, int], Tensor] | None = None,
    ) -> Iterator[Tensor]:
        for first in range(0, len(tasks), self.batch):
            some = tasks[first : first + self.batch]
            pictures = [style[task.source] if blocks is None else blocks[task.source, task.level] for task in some]
            sources, targets = [task.source for task in some], [task.target for task in some]
            yield from self.match(guide[sources], guide[targets], torch.stack(pictures))[1]

    def match(self, source_guide: Tensor, target_guide: Tensor, source_style: Tensor) -> tuple[Tensor, Tensor]:
        """For each pixel of the target its place (row, column) in the source (n, h, w, 2), and the style brought to it.

        Raises:
            ValueError: pictures are too small for patches of that size.
        """
        height, width = source_guide.shape[1:3]
        levels = int(math.log2(min(height, width) / self.largest))
        if levels < 1 and not self.repaired:
            raise ValueError(f"no level: sides must be {2 * self.largest} or more, got {width}x{height}")
        random = torch.Generator().manual_seed(self.fields if not self.repaired else 0)
        self.fields += len(source_guide)
        there, voted = torch.empty(0), source_style
        for level in reversed(range(max(1, levels))):
            size = height >> level, width >> level
            there = upsampled(there, size, self.repaired) if len(there) else identity(len(source_guide), size)
            pictures = [resized(every, size) for every in (source_guide, target_guide, source_style)]
            there, voted = self._searched(pictures[0], pictures[1], pictures[2], there, random)
        return there, voted

    @property
    def largest(self) -> int:
        """The side of the first patch."""
        return self.smallest + 2 * (self.iterations - 1)

    def _searched(
        self, source_guide: Tensor, target_guide: Tensor, style: Tensor, there: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        weight, padding = self.guide_weight**0.5, self.largest // 2
        source = padded(torch.cat([source_guide * weight, style], -1), padding)
        for patch in range(self.largest, self.smallest - 1, -2):
            target = padded(torch.cat([target_guide * weight, vote(style, there, patch)], -1), padding)
            error = torch.full(there.shape[:3], torch.finfo(torch.float32).max)
            error = patch_errors(source, target, there, error, patch, padding)
            for step in [*torch.randperm(4, generator=random).tolist(), *[4] * DRAWS]:
                tried = neighbour(there, step) if step < 4 else self._drawn(there, random)
                # What a pixel has already need not be tried.
                bound = error.masked_fill((tried == there).all(-1), 0)
                found = patch_errors(source, target, tried, bound, patch, padding)
                better = found < bound
                there, error = torch.where(better[..., None], tried, there), torch.where(better, found, error)
        return there, vote(style, there, self.smallest)

    def _drawn(self, there: Tensor, random: torch.Generator) -> Tensor:
        shape = there.shape if not self.repaired else (1, *there.shape[1:])
        return within(there + torch.randint(-REACH, REACH + 1, shape, generator=random, dtype=torch.int32))


def built(count: int) -> list[Alignment]:
    """Of each block of 2^level frames, the frames of its left half, each brought to the block's last frame."""
    levels = range(1, count.bit_length() + 1)
    ends = [
        Alignment(t, t | (1 << level) - 1, level) for level in levels for t in range(count) if not t >> level - 1 & 1
    ]
    return [task for task in ends if task.target < count]


def queried(target: int, window: int) -> list[Alignment]:
    """The blocks that the `window` frames before a frame, and itself, are made of."""
    first, end, blocks = max(target - window, 0), target, list[Alignment]()
    while end >= first:
        level = 0
        while end >> level & 1 and end - (2 << level) + 1 >= first:
            level += 1
        blocks.append(Alignment(end, target, level))
        end -= 1 << level
    return blocks


def identity(count: int, size: tuple[int, int]) -> Tensor:
    """Each pixel's own place, (count, h, w, 2)."""
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.int32) for side in size), indexing="ij")
    return torch.stack([rows, columns], -1).expand(count, -1, -1, -1)


def within(there: Tensor) -> Tensor:
    """Places, brought into the picture."""
    height, width = there.shape[1:3]
    return torch.stack([there[..., 0].clamp(0, height - 1), there[..., 1].clamp(0, width - 1)], -1)


def neighbour(there: Tensor, step: int) -> Tensor:
    """Where each pixel would be if it moved as the one above, left of, below or right of it."""
    axis, sign = 1 + step % 2, 1 if step < 2 else -1
    moved = there.roll(sign, axis)
    edge = 0 if sign == 1 else there.shape[axis] - 1
    moved.select(axis, edge).copy_(there.select(axis, edge))
    moved[..., step % 2] += sign
    return within(moved)


def upsampled(there: Tensor, size: tuple[int, int], repaired: bool) -> Tensor:
    """The field of the next level: twice as many pixels, each keeping its offset within its parent."""
    fine = there.repeat_interleave(2, 1).repeat_interleave(2, 2) * 2
    # As shipped, the number of rows and of columns is asked of the axis that is the batch.
    height, width = fine.shape[1:3] if repaired else (len(fine), len(fine))
    fine[:, 1:height:2, :, 0] += 1
    fine[:, :, 1:width:2, 1] += 1
    if fine.shape[1:3] != size:
        resampled = [cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR) for one in fine.float().numpy()]
        fine = torch.from_numpy(np.stack(resampled)).int()
    return within(fine)


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures (n, h, w, 3) as means over areas."""
    if pictures.shape[1:3] == size:
        return pictures
    small = [cv2.resize(one, size[::-1], interpolation=cv2.INTER_AREA) for one in pictures.numpy()]
    return torch.from_numpy(np.stack(small))


def padded(pictures: Tensor, padding: int) -> Tensor:
    """Pictures (n, h, w, c) in a frame of zeros."""
    return pad(pictures, (0, 0, padding, padding, padding, padding)).contiguous()


def patch_errors(source: Tensor, target: Tensor, there: Tensor, bound: Tensor, patch: int, padding: int) -> Tensor:
    """Sums of squared differences (n, h, w) of patches around each pixel and around its place in the source.

    Args:
        source: padded pictures of guide and style (n, h + 2 padding, w + 2 padding, 6).
        target: the same.
        there: a place for each pixel, (n, h, w, 2).
        bound: sums that reach it are given up, and only known to be no less.
        patch: side, odd.
        padding: at least half a patch.
    """
    count, height, width = there.shape[:3]
    compiled = loops()
    if compiled is not None:
        places, errors = there.contiguous(), torch.empty(count, height, width)
        tensors = (source, target, places, bound, errors)
        compiled.patch_errors(*(_pointer(each) for each in tensors), count, height, width, patch, padding)
        return errors
    row = width + 2 * padding
    first = torch.arange(count)[:, None, None] * row * (height + 2 * padding)
    errors, pixels = torch.zeros(count, height, width), identity(count, (height, width))
    for dy in range(padding - patch // 2, padding + patch // 2 + 1):
        for dx in range(padding - patch // 2, padding + patch // 2 + 1):
            a, b = (first + (each[..., 0] + dy) * row + each[..., 1] + dx for each in (there, pixels))
            difference = source.flatten(0, 2)[a] - target.flatten(0, 2)[b]
            errors += difference.square().sum(-1)
    return errors


def vote(source: Tensor, there: Tensor, patch: int) -> Tensor:
    """Of each pixel, the mean of what the patches that cover it bring from within the source (n, h, w, 3)."""
    count, height, width = there.shape[:3]
    compiled = loops()
    if compiled is not None:
        pictures, places, voted = source.contiguous(), there.contiguous(), torch.empty(source.shape)
        compiled.vote(*(_pointer(each) for each in (pictures, places, voted)), count, height, width, patch)
        return voted
    first = torch.arange(count)[:, None, None] * height * width
    total, votes = torch.zeros(source.shape), torch.zeros(count, height, width, 1)
    beyond = pad(there, (0, 0, *[patch // 2] * 4), value=-height - width)
    for dy in range(-(patch // 2), patch // 2 + 1):
        for dx in range(-(patch // 2), patch // 2 + 1):
            rows = slice(patch // 2 + dy, patch // 2 + dy + height)
            columns = slice(patch // 2 + dx, patch // 2 + dx + width)
            place = beyond[:, rows, columns] - torch.tensor([dy, dx], dtype=torch.int32)
            inside = ((place >= 0) & (place < torch.tensor([height, width]))).all(-1, keepdim=True)
            place = within(place)
            total += source.flatten(0, 2)[first + place[..., 0] * width + place[..., 1]] * inside
            votes += inside
    return total / votes


@cache
def loops() -> ctypes.CDLL | None:
    """The inner loops, compiled for this machine; None where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "fastblend.so"
        options = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
        done = subprocess.run([compiler, *options, str(Path(__file__).with_suffix(".c")), "-o", str(made)], check=False)
        return ctypes.CDLL(str(made)) if done.returncode == 0 else None


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
