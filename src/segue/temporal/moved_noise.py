"""Noise for the frames of a clip: one for all, one for each, or one that moves with what the frames show.

Noise that is the same in all frames sticks to the screen, and texture made of it stays behind what moves (the "shower
door" look). Moved along the clip it goes with the content. It must stay white all the while, or the model sees what it
was never trained on, so that it is never resampled: each number is placed, no number of a frame is used twice, and what
has none takes a fresh one. What takes which does not depend on the numbers, so that every frame's noise is exactly
standard normal, and independent from latent to latent.

A latent is as wide as eight pixels or more, and most motion is slower: noise that could only stay or jump would jump.
So each latent's number is the sum of many smaller ones, and these are moved (after Chang et al. 2024, "How I Warped
Your Noise", arXiv:2504.03072, who integrate them over the area that a latent comes from; here each has one place).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import avg_pool2d, grid_sample

from segue.diffusion.noise import noise, start_noise
from segue.types import Point, Progress, RowId, over_rows, silent

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from segue.motion.fields import Fields
    from segue.motion.match import Match

_BELIEVED = 0.5
"""Confidence of a way from which on noise goes along it."""
PARTS = 4
"""Parts of a latent along a side, unless it is said otherwise: two pixels, where latents have eight."""
_BIDS = 4
"""How many cells, the nearest first, noise is offered to that another one has got before it."""


Draw = Callable[[int, int], "Float[Tensor, 'c h w']"]
"""Standard noise of a drawing, by its number, in so many parts of a latent along a side."""


@dataclass(frozen=True)
class Placed:
    """Whose noise each part of each latent of each frame takes: cell `cell` of drawing number `birth`.

    Args:
        birth: a drawing's number is the frame in which it was first needed; 0 is the clip's own.
        cell: the place in it, counted row by row.
        parts: cells of a latent, along a side.
    """

    birth: Int[Tensor, "t h*p w*p"]
    cell: Int[Tensor, "t h*p w*p"]
    parts: int = 1

    def __post_init__(self) -> None:
        if self.birth.shape != self.cell.shape or self.birth.ndim != 3:
            raise ValueError(f"expected one birth for each cell; got {self.birth.shape} and {self.cell.shape}")

    def __len__(self) -> int:
        return len(self.birth)

    def __getitem__(self, window: slice, /) -> Placed:
        return Placed(self.birth[window], self.cell[window], self.parts)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in latents."""
        return self.cell.shape[2] // self.parts, self.cell.shape[1] // self.parts

    def drawn(self, draw: Draw) -> Float[Tensor, "t c h w"]:
        """The noise of all frames, of drawings that are made once each."""
        drawings: dict[int, tuple[Tensor, Tensor]] = {}
        return torch.stack([self._frame(number, draw, drawings) for number in range(len(self))])

    def start(self, seed: int, channels: int, trajectory: str = "clip") -> Float[Tensor, "t c h w"]:
        """Starting noise; drawing 0 is what every program of the field draws from this seed."""

        def draw(birth: int, parts: int) -> Tensor:
            shape = (channels, self.size[1] * parts, self.size[0] * parts)
            if birth or parts > 1:
                return noise(seed, _name("start", parts), 0, RowId(trajectory, birth), shape)
            return start_noise(seed, shape)

        return self.drawn(draw)

    def _frame(self, number: int, draw: Draw, drawings: dict[int, tuple[Tensor, Tensor]]) -> Float[Tensor, "c h w"]:
        births, cells = self.birth[number].flatten(), self.cell[number].flatten().long()
        order = births.argsort(stable=True)
        found, counts = births[order].unique_consecutive(return_counts=True)
        own: list[Tensor] = []
        wholes: list[Tensor] = []
        for birth, places in zip(found.tolist(), order.split(counts.tolist()), strict=True):
            if birth not in drawings:
                drawings[birth] = self._drawing(draw, birth)
            small, large = drawings[birth]
            own.append(small[:, cells[places]])
            wholes.append(large[:, self._latent(cells[places])])
        back = order.argsort()
        shape = (-1, *self.cell.shape[1:])
        parts, whole = (torch.cat(kind, 1)[:, back].view(shape) for kind in (own, wholes))
        if self.parts == 1:
            return whole
        mean = avg_pool2d(parts.double(), self.parts) * self.parts
        # All parts of one latent together are that latent's number, bit for bit.
        latents = births.long() * self._latents() + self._latent(cells)
        corners = latents.view(self.cell.shape[1:])[:: self.parts, :: self.parts]
        alike = latents.view(self.cell.shape[1:]) == _enlarged(corners, self.parts)
        together = avg_pool2d(alike[None].double(), self.parts) == 1
        return torch.where(together, whole[:, :: self.parts, :: self.parts], mean.to(whole.dtype))

    def _drawing(self, draw: Draw, birth: int) -> tuple[Tensor, Tensor]:
        """The numbers of all parts, which are standard noise and add up to those of latents; and these."""
        whole = draw(birth, 1)
        if whole.shape[2:0:-1] != self.size:
            raise ValueError(f"noise of {tuple(whole.shape[1:])} for latents of {self.size[::-1]}")
        if self.parts == 1:
            return whole.flatten(1), whole.flatten(1)
        fine = draw(birth, self.parts)
        fine = fine - _enlarged(avg_pool2d(fine, self.parts) - whole / self.parts, self.parts)
        return fine.flatten(1), whole.flatten(1)

    def _latents(self) -> int:
        return self.size[0] * self.size[1]

    def _latent(self, cells: Tensor) -> Tensor:
        """The latents that cells are parts of."""
        width = self.cell.shape[2]
        return cells // width // self.parts * self.size[0] + cells % width // self.parts


def _enlarged(latents: Tensor, parts: int) -> Tensor:
    return latents.repeat_interleave(parts, -1).repeat_interleave(parts, -2)


def _name(name: str, parts: int) -> str:
    return name if parts == 1 else f"{name} in parts of {parts}"


@dataclass(frozen=True)
class PlacedKick:
    """The kicks of a stochastic solver, placed as the starting noise is: rows are RowId(trajectory, frame).

    Independent kicks undo what a start has in common: of a consistency model's four steps three are fresh noise.

    Args:
        placed: of all frames of the clip, by whose numbers rows ask.
        seed: together with the step it names the drawings.
        trajectory: that of the rows.
        name: what else names them.
    """

    placed: Placed
    seed: int = 0
    trajectory: str = "clip"
    name: str = "kick"

    def __call__(
        self, like: Float[Tensor, "b c h w"], now: Point, then: Point, std: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """std times standard noise, row by row.

        Raises:
            ValueError: a row is no frame of the clip.
        """
        rows: list[Tensor] = [torch.empty(0)] * len(now.rows)
        steps = now.index.tolist()
        for step in sorted(set(steps)):
            places = [place for place, own in enumerate(steps) if own == step]
            frames = [self._frame(now.rows[place]) for place in places]
            chosen = Placed(self.placed.birth[frames], self.placed.cell[frames], self.placed.parts)
            for place, drawn in zip(places, chosen.drawn(self._drawing(step, like.shape[1])), strict=True):
                rows[place] = drawn
        return over_rows(std, like) * torch.stack(rows).to(like.device, like.dtype)

    def _frame(self, row: RowId) -> int:
        if row.trajectory != self.trajectory or not 0 <= row.frame < len(self.placed):
            raise ValueError(f"expected frames 0 to {len(self.placed) - 1} of {self.trajectory!r}, got {row}")
        return row.frame

    def _drawing(self, step: int, channels: int) -> Draw:
        width, height = self.placed.size

        def draw(birth: int, parts: int) -> Tensor:
            shape = (channels, height * parts, width * parts)
            return noise(self.seed, _name(self.name, parts), step, RowId(self.trajectory, birth), shape)

        return draw


def shared(count: int, size: tuple[int, int]) -> Placed:
    """One noise for all frames, as in DiffSynth (Duan et al. 2023, arXiv:2308.03463); `size` is (w, h) in latents."""
    births, cells = _still(size)
    return Placed(births.expand(count, -1, -1), cells.expand(count, -1, -1))


def independent(count: int, size: tuple[int, int]) -> Placed:
    """A noise of its own for each frame; `size` is (width, height) in latents."""
    cells = shared(count, size).cell
    return Placed(torch.arange(count, dtype=torch.int32)[:, None, None].expand_as(cells), cells)


def moved(fields: Fields, size: tuple[int, int], *, parts: int = PARTS, progress: Progress = silent) -> Placed:
    """Noise that goes where the content goes; where nothing moves, it is `shared`.

    The first frame of every shot has drawing 0 as it is. Each part of its latents is followed through the shot as a
    point, in parts of a pixel: by the way from that first frame, or from frame to frame where that one is not believed.
    Only a point's place in a frame is rounded to a cell, each time anew, so that no motion is lost however slow it is.
    Of several points in a cell the oldest has it, then the nearest to its middle; others take an empty cell beside it.
    Cells that stay empty get fresh noise, which is followed from there on.

    Args:
        fields: over all frames of the clip, at any size: at that of the pixels motion is finest.
        size: (width, height) in latents.
        parts: of a latent along a side, which move on their own; 1 moves whole latents.
        progress: told of each frame.

    Raises:
        ValueError: fewer parts than 1.
    """
    if parts < 1:
        raise ValueError(f"a latent has 1 or more parts along a side, got {parts}")
    cells = (size[0] * parts, size[1] * parts)
    found = _frames(fields, cells, progress)
    if not found:
        return shared(0, size)
    return Placed(torch.stack([births for births, _ in found]), torch.stack([own for _, own in found]), parts)


def _still(size: tuple[int, int]) -> tuple[Int[Tensor, "h w"], Int[Tensor, "h w"]]:
    width, height = size
    cells = torch.arange(width * height, dtype=torch.int32).view(height, width)
    return torch.zeros_like(cells), cells


@dataclass(frozen=True)
class _Points:
    """What is followed: which number of which drawing, where it is in pixels, and whether it is seen."""

    birth: Int[Tensor, " n"]
    cell: Int[Tensor, " n"]
    place: Float[Tensor, "n 2"]
    seen: Tensor

    def __getitem__(self, pick: Tensor) -> _Points:
        return _Points(self.birth[pick], self.cell[pick], self.place[pick], self.seen[pick])

    def and_born(self, birth: int, cells: Tensor, grid: _Grid) -> _Points:
        """With new ones in the middle of cells."""
        born = torch.full_like(cells, birth), cells, grid.middles()[cells], torch.ones_like(cells, dtype=torch.bool)
        own = self.birth, self.cell, self.place, self.seen
        return _Points(*(torch.cat(both) for both in zip(own, born, strict=True)))


@dataclass(frozen=True)
class _Grid:
    """Cells over a picture; all sizes are (width, height)."""

    cells: tuple[int, int]
    pixels: tuple[int, int]

    def middles(self) -> Float[Tensor, "n 2"]:
        """Where cells have their middle, in pixels, x then y."""
        (width, height), scale = self.cells, self._scale()
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        return (torch.stack([x, y], -1).view(-1, 2).double() + 0.5) * scale - 0.5

    def placed(self, points: _Points) -> tuple[Int[Tensor, " n"], Tensor]:
        """The point that each cell has, -1 for none; and which points have a cell."""
        width, height = self.cells
        at = (points.place + 0.5) / self._scale() - 0.5
        nearest = (at + 0.5).floor()
        # Halves go to one side: rounded to even, every other cell would have two points and its neighbour none.
        side = torch.where(at < nearest, -1.0, 1.0)
        first = (at - nearest).abs()
        across = first[:, :1] >= first[:, 1:]
        steps = torch.stack([torch.cat([across, ~across], 1), torch.cat([~across, across], 1)]).double()
        ranked = self._ranked(points, first.square().sum(1))
        owner = torch.full((width * height,), len(points.birth), dtype=torch.int64)
        free = points.seen.clone()
        for bid in range(_BIDS):
            shift = (torch.zeros_like(side), steps[0] * side, steps[1] * side, side)[bid]
            x, y = (nearest + shift).long().unbind(1)
            within = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            if bid == 0:
                free &= within  # what leaves the picture is gone
            cell = (y * width + x).clamp(0, width * height - 1)
            bidding = free & within & (owner[cell] == len(points.birth))
            best = torch.full_like(owner, len(points.birth))
            best.scatter_reduce_(0, cell[bidding], ranked[bidding], "amin")
            won = bidding & (best[cell] == ranked)
            owner[cell[won]] = ranked[won]
            free &= ~won
        by_rank = torch.cat([ranked.argsort(), torch.tensor([-1])])
        return by_rank[owner], points.seen & ~free & self._inside(nearest)

    def _ranked(self, points: _Points, apart: Tensor) -> Tensor:
        """The rank of each point: the oldest first, then the nearest to the middle of its cell."""
        order = apart.argsort(stable=True)
        order = order[points.birth[order].argsort(stable=True)]
        return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))

    def _inside(self, cells: Tensor) -> Tensor:
        return ((cells >= 0) & (cells < torch.tensor(self.cells))).all(1)

    def _scale(self) -> Float[Tensor, " 2"]:
        return torch.tensor(self.pixels, dtype=torch.float64) / torch.tensor(self.cells, dtype=torch.float64)


def _frames(fields: Fields, size: tuple[int, int], progress: Progress) -> list[tuple[Tensor, Tensor]]:
    """Births and cells, frame by frame."""
    grid, found = _Grid(size, fields.size), list[tuple["Tensor", "Tensor"]]()
    points = _first(grid)
    for number in range(len(fields)):
        anchor = fields.shot(number)[0]
        points = _first(grid) if number == anchor else _followed(points, fields, anchor, number, grid)
        owner, kept = grid.placed(points)
        empty = (owner < 0).nonzero()[:, 0]
        owner[empty] = torch.arange(len(points.birth), len(points.birth) + len(empty))
        points = points.and_born(number, empty, grid)
        shape = (size[1], size[0])
        found.append((points.birth[owner].int().view(shape), points.cell[owner].int().view(shape)))
        # Those of the first frame may come back into sight; there is room for no others without a cell.
        whole = torch.cat([kept, torch.ones_like(empty, dtype=torch.bool)])
        points = points[whole | (points.birth == 0)]
        progress("moving noise", number + 1, len(fields))
    return found


def _first(grid: _Grid) -> _Points:
    nobody = torch.empty(0, dtype=torch.int64)
    none = _Points(nobody, nobody, torch.empty(0, 2, dtype=torch.float64), nobody.bool())
    return none.and_born(0, torch.arange(grid.cells[0] * grid.cells[1]), grid)


def _followed(points: _Points, fields: Fields, anchor: int, number: int, grid: _Grid) -> _Points:
    """Where points are one frame later."""
    by, confidence = _along(fields.way(number - 1, number), points.place)
    place, seen = points.place + by, points.seen & (confidence >= _BELIEVED)
    own = (points.birth == 0).nonzero()[:, 0]
    starts = grid.middles()[points.cell[own]]
    by, confidence = _along(fields.way(anchor, number), starts)
    direct = confidence >= _BELIEVED
    place[own[direct]], seen[own[direct]] = (starts + by)[direct], True
    return _Points(points.birth, points.cell, place, seen)


def _along(way: Match, places: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """How far ways lead from places between pixels, and how far that is believed."""
    size = torch.tensor(way.size, dtype=torch.float64)
    # grid_sample counts from edge to edge in [-1, 1], pixels standing for the middle of their area.
    grid = ((2 * places + 1) / size - 1)[None, None]
    values = torch.cat([way.way, way.confidence[:, None]], 1).cpu().double()
    found = grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)[0, :, 0].T
    return found[:, :2], found[:, 2]
