"""Rendered figures that move: who, in which clothes, doing what, with exact key points.

    clip = figure_clip(subject=3, motion="dance", size=(256, 256), frames=48)
    clip.frames[0:8]        pictures, drawn when they are asked for
    clip.key_points         exact, of every frame
    clip.alpha(0)           what of the picture the figure covers

Nothing is read and nothing is random but by the seed: the same numbers give the same pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from segue.errors import TrainingError
from segue.training.figure_brush import Canvas, Colour
from segue.training.figure_drawing import Sheet, draw_body
from segue.training.figure_motion import MOTIONS, Body, placed, posture_at
from segue.training.figure_points import world_points
from segue.training.figure_subject import Subject
from segue.types import KeyPoints

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.types import Frames

__all__ = ["MOTIONS", "FigureClip", "Subject", "figure_clip"]

_GROUND = 0.93  # where the soles are, as a share of the picture's height


@dataclass(frozen=True)
class FigureClip:
    """A figure that moves.

    Args:
        subject: who.
        motion: what it does, one of MOTIONS.
        size: (width, height) in pixels.
        length: how many frames.
        ground: what is behind: a colour, or a picture of this size; in [0, 1].
        period: frames after which the motion begins again.
        phase: the share of the motion at which the first frame is.
        yaw: degrees by which the figure is turned besides.
        energy: how far its limbs go, 1 for most.
        height: of the figure, in shares of the picture's height.
        shift: of the figure, to the right, in shares of the picture's width.
    """

    subject: Subject
    motion: str
    size: tuple[int, int]
    length: int
    ground: Colour | Float[Tensor, "3 h w"]
    period: float = 24.0
    phase: float = 0.0
    yaw: float = 0.0
    energy: float = 1.0
    height: float = 0.72
    shift: float = 0.0

    def __post_init__(self) -> None:
        if min(*self.size, self.length) < 1 or not self.period > 0 or not self.height > 0:
            raise TrainingError(
                f"a figure needs sides and frames of 1 or more, a period and a height above 0; got {self.size}, "
                f"{self.length}, {self.period} and {self.height}"
            )
        if isinstance(self.ground, torch.Tensor) and tuple(self.ground.shape) != (3, self.size[1], self.size[0]):
            raise TrainingError(f"the ground is a picture of {self.size}, got {tuple(self.ground.shape)}")
        posture_at(self.motion, 0.0)

    def __len__(self) -> int:
        return self.length

    @property
    def frames(self) -> Frames:
        """Its pictures, in [0, 1], drawn when they are asked for."""
        return _Drawn(self)

    @property
    def key_points(self) -> KeyPoints:
        """Exact; the head hides those of its other side. Hands and limbs are there though something hides them."""
        sheet = self._sheet()
        found = np.stack([world_points(self._body(frame))[:, :2] for frame in range(self.length)])
        places = torch.from_numpy(found * sheet.scale + np.asarray(sheet.feet)).float()[:, None]
        return KeyPoints(places, places[..., 0].isfinite().float(), self.size)

    def draw(self, frame: int) -> Float[Tensor, "3 h w"]:
        """One picture, in [0, 1].

        Raises:
            TrainingError: there is no such frame.
        """
        canvas = self._painted(frame)
        ground = self._behind(frame)
        picture = canvas.colours + ground * (1 - canvas.alpha[..., None])
        return torch.from_numpy(np.clip(picture, 0, 1).astype(np.float32)).permute(2, 0, 1).contiguous()

    def layer(self, frame: int) -> Float[Tensor, "4 h w"]:
        """The figure alone: its colours, multiplied by alpha, and alpha, in [0, 1].

        Raises:
            TrainingError: there is no such frame.
        """
        canvas = self._painted(frame)
        whole = np.concatenate([canvas.colours, canvas.alpha[..., None]], -1)
        return torch.from_numpy(np.clip(whole, 0, 1)).permute(2, 0, 1).contiguous()

    def alpha(self, frame: int) -> Float[Tensor, "h w"]:
        """What of each pixel the figure covers.

        Raises:
            TrainingError: there is no such frame.
        """
        return self.layer(frame)[3]

    def _painted(self, frame: int) -> Canvas:
        if not 0 <= frame < self.length:
            raise TrainingError(f"frames of this figure are 0 to {self.length - 1}, got {frame}")
        canvas = Canvas(self.size)
        draw_body(canvas, self._body(frame), self.subject, self._sheet())
        return canvas

    def _body(self, frame: int) -> Body:
        phase = self.phase + frame / self.period
        return placed(self.subject.build, posture_at(self.motion, phase, yaw=self.yaw, energy=self.energy))

    def _sheet(self) -> Sheet:
        width, height = self.size
        return Sheet(self.size, self.height * height, ((0.5 + self.shift) * width - 0.5, _GROUND * height - 0.5))

    def _behind(self, frame: int) -> np.ndarray:
        """The ground, with a soft shadow under the feet, fainter the higher they are."""
        width, height = self.size
        if isinstance(self.ground, torch.Tensor):
            ground = self.ground.permute(1, 2, 0).float().numpy()
        else:
            ground = np.broadcast_to(np.asarray(self.ground, np.float32), (height, width, 3))
        sheet, body = self._sheet(), self._body(frame)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        wide = (0.17 + 0.1 * body.posture.lift) * sheet.scale
        far = ((x - sheet.feet[0]) / wide) ** 2 + ((y - sheet.feet[1] + 0.01 * sheet.scale) / (0.2 * wide)) ** 2
        return ground * (1 - 0.34 * np.exp(-far) / (1 + 8 * body.posture.lift))[..., None]


def figure_clip(
    subject: int | Subject,
    motion: str,
    *,
    size: tuple[int, int] = (128, 128),
    frames: int = 24,
    seed: int = 0,
    ground: Colour | Float[Tensor, "3 h w"] | None = None,
    period: float = 24.0,
    phase: float = 0.0,
    height: float = 0.72,
) -> FigureClip:
    """A figure that moves; the same for the same numbers.

    Args:
        subject: who; a number draws one.
        motion: what it does, one of MOTIONS.
        size: (width, height) in pixels.
        frames: how many.
        seed: of how it moves: a little more or less, turned a little. 0 is the motion as it is.
        ground: what is behind: a colour or a picture, in [0, 1]; a soft light colour of the seed's if left out.
        period: frames after which the motion begins again.
        phase: the share of the motion at which the first frame is.
        height: of the figure, in shares of the picture's height.

    Raises:
        TrainingError: an unknown motion, or numbers that are out of range.
    """
    rng = np.random.default_rng((seed, 23))
    drawn = Subject.drawn(subject) if isinstance(subject, int) else subject
    tint = 0.86 + 0.12 * rng.random(3)
    red, green, blue = (float(part) for part in tint)
    yaw, energy, shift = (
        (0.0, 1.0, 0.0) if not seed else (rng.uniform(-22, 22), rng.uniform(0.8, 1.1), rng.uniform(-0.04, 0.04))
    )
    return FigureClip(
        subject=drawn,
        motion=motion,
        size=size,
        length=frames,
        ground=(red, green, blue) if ground is None else ground,
        period=period,
        phase=phase,
        yaw=yaw,
        energy=energy,
        height=height,
        shift=shift,
    )


@dataclass(frozen=True)
class _Drawn:
    """The pictures of a figure, each drawn by itself when it is asked for."""

    clip: FigureClip

    @property
    def size(self) -> tuple[int, int]:
        return self.clip.size

    def __len__(self) -> int:
        return len(self.clip)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        width, height = self.size
        pictures = [self.clip.draw(frame) for frame in range(len(self))[window]]
        return torch.stack(pictures) if pictures else torch.empty(0, 3, height, width)
