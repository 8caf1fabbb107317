"""A scene of flat layers that move: its pictures, and exactly where everything in one of them is in any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d, pad

from segue.errors import TrainingError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from segue.types import Frames

OPAQUE = 0.98
"""The share of a pixel from which on a layer has it alone; with what is left to one, it is not there."""


@dataclass(frozen=True)
class Layer:
    """A picture on a plane that moves by an affine map.

    Args:
        picture: red, green, blue and alpha in [0, 1], the colours multiplied by alpha.
        poses: of every frame, the map from places in the picture to places on the screen, both x then y in pixels,
            counted from the middle of the first pixel; float64.
        endless: it goes on beyond its borders as in a mirror; else there is nothing.

    Raises:
        TrainingError: the shapes are others, or a pose cannot be undone.
    """

    picture: Float[Tensor, "4 h w"]
    poses: Float[Tensor, "t 2 3"]
    endless: bool = False

    def __post_init__(self) -> None:
        if self.picture.ndim != 3 or len(self.picture) != 4 or self.poses.shape[1:] != (2, 3):
            shapes = f"{tuple(self.picture.shape)} and {tuple(self.poses.shape)}"
            raise TrainingError(f"a layer is a picture (4, h, w) and poses (t, 2, 3), got {shapes}")
        if not bool((torch.linalg.det(self.poses[:, :, :2].double()).abs() > 1e-9).all()):
            raise TrainingError("a layer has a pose that makes a line or a point of it; give it some area")

    def on_screen(self, frame: int, places: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
        """Where places in the picture are on the screen."""
        pose = self.poses[frame].double()
        return places @ pose[:, :2].T + pose[:, 2]

    def in_picture(self, frame: int, places: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
        """Which places of the picture are at places on the screen."""
        pose = self.poses[frame].double()
        return (places - pose[:, 2]) @ torch.linalg.inv(pose[:, :2]).T

    def colours(self, frame: int, places: Float[Tensor, "h w 2"]) -> Float[Tensor, "4 h w"]:
        """What it shows at places on the screen; bicubic."""
        return self._read(self.picture, self.in_picture(frame, places), "bicubic")

    def alpha(self, frame: int, places: Float[Tensor, "h w 2"]) -> Float[Tensor, "h w"]:
        """How much of what is behind it hides at places on the screen."""
        return self._read(self.picture[3:], self.in_picture(frame, places), "bilinear")[0]

    def box(self, frame: int) -> tuple[float, float, float, float]:
        """The least and greatest x, and the least and greatest y, on the screen."""
        height, width = self.picture.shape[1:]
        ends = torch.tensor([[x, y] for x in (-1, width) for y in (-1, height)], dtype=torch.float64)
        (left, top), (right, bottom) = (bound.tolist() for bound in self.on_screen(frame, ends).aminmax(dim=0))
        return left, right, top, bottom

    def _read(self, values: Tensor, places: Tensor, mode: str) -> Tensor:
        height, width = self.picture.shape[1:]
        # grid_sample counts from edge to edge in [-1, 1], pixels standing for the middle of their area.
        grid = (2 * places + 1) / torch.tensor([width, height], dtype=places.dtype) - 1
        beyond = "reflection" if self.endless else "zeros"
        found = grid_sample(values[None], grid[None].float(), mode=mode, padding_mode=beyond, align_corners=False)[0]
        return found.clamp(0, 1)


@dataclass(frozen=True)
class Scene:
    """Layers, the first one at the back, seen through a window.

    Nothing of it is drawn before it is asked for: `frames` are streamed, each by itself, and fields are computed from
    the poses, between any two frames, in float64.

    Args:
        size: (width, height) in pixels.
        layers: of one number of frames; the first is endless and opaque.
        samples: along each side of a pixel, whose mean is its colour.

    Raises:
        TrainingError: a layer is missing, or has another number of frames; the first has ends; the size is none.
    """

    size: tuple[int, int]
    layers: tuple[Layer, ...]
    samples: int = 2

    def __post_init__(self) -> None:
        lengths = {len(layer.poses) for layer in self.layers}
        if len(lengths) != 1 or 0 in lengths:
            raise TrainingError(f"a scene needs layers of one number of frames, 1 or more; got {sorted(lengths)}")
        if not self.layers[0].endless or float(self.layers[0].picture[3].min()) < 1:
            raise TrainingError("the first layer of a scene is behind all others: it must be endless and opaque")
        if min(*self.size, self.samples) < 1:
            raise TrainingError(f"a scene needs sides and samples of 1 or more, got {self.size} and {self.samples}")

    @property
    def frames(self) -> Frames:
        """Its pictures, in [0, 1], drawn when they are asked for."""
        return _Drawn(self)

    def __len__(self) -> int:
        return len(self.layers[0].poses)

    def flow(self, a: int, b: int) -> Float[Tensor, "1 2 h w"]:
        """Where what frame `a` shows at each pixel is in frame `b`, whether it is seen there or not.

        x then y, in pixels: what lies in `a` at (x, y) lies in `b` at (x + u, y + v), as in `segue.motion.flow`, so
        that `warp(scene.frames[b : b + 1], scene.flow(a, b))` looks like frame `a` where it is visible.

        Raises:
            TrainingError: there is no such frame.
        """
        places = self._pixels()
        return (self._moved(a, b, places) - places).permute(2, 0, 1)[None].float()

    def visible(self, a: int, b: int, *, margin: int = 0) -> Bool[Tensor, "1 h w"]:
        """The pixels of frame `a` that frame `b` shows too: not behind something, nor outside of the window.

        Args:
            a: whose pixels are asked for.
            b: where they are looked for.
            margin: pixels around each, in both frames, that must show nothing else: colours of several layers mix in
                pixels at their edges, where no flow can be right, and interpolation reads pixels around it. 3 leaves
                out what bicubic warping would mix.

        Raises:
            TrainingError: there is no such frame.
        """
        ends = self._moved(a, b, self._pixels())
        width, height = self.size
        last = torch.tensor([width - 1, height - 1], dtype=ends.dtype)
        seen = ((ends >= 0) & (ends <= last)).all(-1) & (self._owner(b, ends) == self.owner(a)[0])
        if margin:
            x, y = ends.round().long().clamp(min=0).minimum(last.long()).unbind(-1)
            seen = seen & self.clear(a, margin)[0] & self.clear(b, margin)[0][y, x]
        return seen[None]

    def owner(self, frame: int) -> Int[Tensor, "1 h w"]:
        """The number of the layer that each pixel shows: the first from the front that hides half or more.

        Raises:
            TrainingError: there is no such frame.
        """
        self._check(frame)
        return self._owner(frame, self._pixels())[None]

    def clear(self, frame: int, margin: int = 0) -> Bool[Tensor, "1 h w"]:
        """The pixels that show one layer alone, as do all those within `margin` of them.

        Raises:
            TrainingError: there is no such frame.
        """
        self._check(frame)
        places = self._pixels()
        owner = self._owner(frame, places)
        alone = torch.ones_like(owner, dtype=torch.bool)
        for number, layer in enumerate(self.layers):
            alpha = layer.alpha(frame, places)
            alone &= torch.where(owner == number, alpha >= OPAQUE, (owner > number) | (alpha <= 1 - OPAQUE))
        around = pad(torch.where(alone, owner, -1)[None, None].float(), [margin] * 4, mode="replicate")
        low, high = (sign * max_pool2d(sign * around, 2 * margin + 1, 1) for sign in (-1, 1))
        return ((low == high) & (low >= 0))[0]

    def draw(self, frame: int) -> Float[Tensor, "3 h w"]:
        """One picture, in [0, 1].

        Raises:
            TrainingError: there is no such frame.
        """
        self._check(frame)
        fine = self._pixels(self.samples)
        seen = self.layers[0].colours(frame, fine)[:3]
        for layer in self.layers[1:]:
            rows, columns = self._window(layer.box(frame))
            near = layer.colours(frame, fine[rows, columns])
            seen[:, rows, columns] = near[:3] + seen[:, rows, columns] * (1 - near[3])
        return avg_pool2d(seen[None], self.samples)[0].clamp(0, 1)

    def _check(self, *frames: int) -> None:
        """Poses would take -1 for the last frame."""
        if not all(0 <= frame < len(self) for frame in frames):
            raise TrainingError(f"frames of this scene are 0 to {len(self) - 1}, got {' and '.join(map(str, frames))}")

    def _moved(self, a: int, b: int, places: Tensor) -> Tensor:
        """Where in frame `b` is what frame `a` shows at its pixels."""
        self._check(a, b)
        owner = self._owner(a, places)[..., None]
        moved = places
        for number, layer in enumerate(self.layers):
            moved = torch.where(owner == number, layer.on_screen(b, layer.in_picture(a, places)), moved)
        return moved

    def _owner(self, frame: int, places: Tensor) -> Tensor:
        owner = torch.zeros(places.shape[:2], dtype=torch.long)
        for number, layer in enumerate(self.layers[1:], 1):
            owner[layer.alpha(frame, places) >= 0.5] = number
        return owner

    def _window(self, box: tuple[float, float, float, float]) -> tuple[slice, slice]:
        """The rows and columns of samples in which a box lies."""
        left, right, top, bottom = ((side + 0.5) * self.samples for side in box)
        width, height = (side * self.samples for side in self.size)

        def within(first: float, last: float, length: int) -> slice:
            start = min(max(int(first), 0), length)
            return slice(start, min(max(int(last) + 1, start), length))

        return within(top, bottom, height), within(left, right, width)

    def _pixels(self, samples: int = 1) -> Float[Tensor, "h w 2"]:
        """The places of pixels, or of as many samples along each of their sides."""
        across, down = ((torch.arange(side * samples).double() + 0.5) / samples - 0.5 for side in self.size)
        y, x = torch.meshgrid(down, across, indexing="ij")
        return torch.stack([x, y], -1)


@dataclass(frozen=True)
class _Drawn:
    """The pictures of a scene, each drawn by itself when it is asked for."""

    scene: Scene

    @property
    def size(self) -> tuple[int, int]:
        return self.scene.size

    def __len__(self) -> int:
        return len(self.scene)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        width, height = self.size
        pictures = [self.scene.draw(frame) for frame in range(len(self))[window]]
        return torch.stack(pictures) if pictures else torch.empty(0, 3, height, width)
