"""Pictures with what a control network is shown of them: drawn by the annotators, or known since they were made.

A corpus has one thing on a plain ground, and footage does not; so some pictures are scenes, put together of several
things over any ground. Their depth is known, as is that of the corpus's own pictures: things are puffed up like
cushions, and stand on a floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from segue.errors import TrainingError
from segue.models.annotate import find_annotator
from segue.models.control_adapter import KINDS
from segue.training.data import Corpus
from segue.training.moving import texture
from segue.training.posed import Posed

Image = NDArray[np.float32]
"""(h, w, 3), or (h, w) for one channel, in [0, 1]."""
EDGES = frozenset({"softedge", "lineart", "canny"})
COLOURS = frozenset({"tile", "palette", "shuffle"})
TOLERANCE = 5
"""How much neighbours of one ground differ, in 255ths: it has a soft light in it."""
FIGURE = ("a person", "a figure", "")
"""What is said of figures, of which there is none in the corpus."""
PUFF = 0.35
"""How far the middle of a thing comes towards us, where the floor goes from 0 to 1."""


@dataclass(frozen=True)
class Shown:
    """A picture, how near everything in it is, and what may be said of it."""

    picture: Image
    depth: Image
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Lesson:
    """What a step shows: pictures in [0, 1], their control pictures, of which kind these are, and a caption each."""

    pictures: Float[Tensor, "b 3 h w"]
    hints: Float[Tensor, "b 3 h w"]
    kinds: Int64[Tensor, " b"]
    captions: list[str]


@dataclass(frozen=True)
class Conditions:
    """Draws lessons.

    Args:
        corpus: the pictures.
        kinds: those to draw, with how often.
        scenes: share of scenes of several things.
        drop_captions: share of empty captions, which a scene has twice as often.
        cluttered: share of edges of single things that stand before a busy ground, which the picture does not have: so
            one learns to leave out what does not belong to what was asked for.
        roughened: share of control pictures that are stronger, fainter, thicker, noisier or torn.
        figures: for the kind "pose".
    """

    corpus: Corpus
    kinds: Mapping[str, float]
    scenes: float
    drop_captions: float
    cluttered: float
    roughened: float
    figures: Posed | None = None

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise TrainingError(f'there is no kind "{unknown[0]}" of control pictures; expected {", ".join(KINDS)}')
        if not self.kinds or not all(share > 0 for share in self.kinds.values()):
            raise TrainingError(f"expected kinds with shares above 0, such as {{softedge = 2, tile = 1}}: {self.kinds}")
        if "pose" in self.kinds and not self.figures:
            raise TrainingError("poses are learned from figures, and these are too few; expected figures=100 or so")

    def draw(self, rng: np.random.Generator, batch: int) -> Lesson:
        """As many rows, each of a kind that is drawn by its share."""
        names, shares = list(self.kinds), np.array(list(self.kinds.values()), np.float64)
        kinds = [names[row] for row in rng.choice(len(names), batch, p=shares / shares.sum())]
        return stacked([self.row(kind, rng) for kind in kinds])

    def row(self, kind: str, rng: np.random.Generator) -> tuple[Image, Image, str, str]:
        """(picture, control picture, kind, caption)."""
        import cv2

        sticks: Image | None = None
        composed = rng.random() < self.scenes
        if kind == "pose":
            shown, sticks = self.figure(rng)
        else:
            shown = self.scene(rng) if composed else self.single(rng)
        dropped = rng.random() < self.drop_captions * (2 if composed else 1)
        caption = "" if dropped else str(rng.choice(shown.captions))
        rough, seen = rng.random() < self.roughened, shown.picture
        if rough and kind in COLOURS:
            seen = degraded(seen, rng)
        if kind in EDGES and not composed and rng.random() < self.cluttered:
            alpha = cutout(seen)[..., None]
            seen = image(alpha * seen + (1 - alpha) * grounded(alpha.shape[:2], rng, busy=True))
        if rough and kind in EDGES and rng.random() < 0.5:
            seen = image(cv2.GaussianBlur(seen, (0, 0), float(rng.uniform(0.7, 2))))  # fine things have no edges then
        hint = sticks if sticks is not None else annotated(kind, seen, shown.depth, rng)
        return shown.picture, torn(hint, kind, rng) if rough else hint, kind, caption

    def single(self, rng: np.random.Generator) -> Shown:
        """A picture of the corpus."""
        row = int(rng.choice(len(self.corpus), p=self.corpus.weights))
        picture = self._read(row)
        depth = floor(picture.shape[:2], rng)
        return Shown(picture, ranged(puffed(cutout(picture), depth)), self.corpus.captions[row])

    def scene(self, rng: np.random.Generator) -> Shown:
        """Things of the corpus over a ground that it does not have; what is said is of the nearest."""
        height, width = self.corpus.pictures.shape[1:3]
        picture = grounded((height, width), rng)
        depth, captions = floor(picture.shape[:2], rng), ("",)
        for _ in range(int(rng.integers(1, 5))):
            row = int(rng.choice(len(self.corpus), p=self.corpus.weights))
            thing = self._read(row)
            colour, alpha = placed(thing, cutout(thing), rng)
            picture = (alpha[..., None] * colour + (1 - alpha[..., None]) * picture).astype(np.float32)
            depth, captions = puffed(alpha, depth), (min(self.corpus.captions[row], key=len),)
        return Shown(toned(picture, rng), ranged(depth), captions)

    def figure(self, rng: np.random.Generator) -> tuple[Shown, Image]:
        """Somebody who does something, anywhere, and the same as sticks."""
        posed = self.figures
        if posed is None:
            raise TrainingError("there are no figures to draw")
        row = int(rng.integers(len(posed)))
        parts = [image(part[row].numpy() / 255) for part in (posed.pictures, posed.alphas, posed.sticks)]
        colour, alpha, sticks = moved(parts, rng, shares=(0.75, 1.25), reach=0.12, turn=4)
        height, width = alpha.shape
        plain = np.broadcast_to(rng.uniform(0.7, 1, 3), (height, width, 3))
        ground = grounded((height, width), rng) if rng.random() < 0.4 else image(plain)
        picture = image(alpha[..., None] * colour + (1 - alpha[..., None]) * ground)
        return Shown(picture, ranged(puffed(alpha, floor((height, width), rng))), FIGURE), sticks

    def _read(self, row: int) -> Image:
        return image(self.corpus.pictures[row].numpy() / 255)


def stacked(rows: list[tuple[Image, Image, str, str]]) -> Lesson:
    """Rows as one batch."""
    pictures, hints = (
        torch.from_numpy(np.stack([row[part] for row in rows])).permute(0, 3, 1, 2).contiguous() for part in (0, 1)
    )
    return Lesson(pictures, hints, torch.tensor([KINDS.index(row[2]) for row in rows]), [row[3] for row in rows])


def annotated(kind: str, picture: Image, depth: Image, rng: np.random.Generator) -> Image:
    """The control picture of a picture, as the annotators draw it; its depth is known.

    Raises:
        TrainingError: a picture does not tell it.
    """
    if kind == "depth":
        return np.repeat(depth[..., None], 3, 2)
    if kind == "pose":
        raise TrainingError("a pose is drawn of a figure, and cannot be read off a picture")
    if kind == "shuffle":
        from segue.models.annotate.colours import shuffle

        return shuffle(picture, str(rng.integers(2**32)))
    drawn = find_annotator(kind)(torch.from_numpy(picture).permute(2, 0, 1)[None])
    return drawn[0].permute(1, 2, 0).numpy()


def cutout(picture: Image) -> Image:
    """Where the thing is on its plain ground, which is what a flood from the border does not reach."""
    import cv2

    height, width = picture.shape[:2]
    pixels, reached = (picture * 255).astype(np.uint8), np.zeros((height + 2, width + 2), np.uint8)
    for seed in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
        if not reached[seed[1] + 1, seed[0] + 1]:
            cv2.floodFill(pixels, reached, seed, (0, 0, 0), (TOLERANCE,) * 3, (TOLERANCE,) * 3, cv2.FLOODFILL_MASK_ONLY)
    inside = cv2.erode(1 - reached[1:-1, 1:-1], np.ones((3, 3), np.uint8), borderValue=0)
    return image(cv2.GaussianBlur(inside.astype(np.float32), (3, 3), 0))


def floor(size: tuple[int, int], rng: np.random.Generator) -> Image:
    """How near the ground is: a floor that comes towards us from a horizon down, or a wall."""
    height, width = size
    horizon, near = rng.uniform(-0.2, 0.8), rng.uniform(0.3, 1.0)
    if rng.random() < 0.25:
        return np.zeros((height, width), np.float32)
    down = np.clip((np.linspace(0, 1, height, dtype=np.float32) - horizon) / (1 - horizon), 0, 1) * near
    return np.repeat(down[:, None], width, 1).astype(np.float32)


def puffed(alpha: Image, depth: Image) -> Image:
    """Depth with a thing in it, that stands where it ends and is round: as deep as its pixels are far from its rim."""
    import cv2

    inside = alpha >= 0.5
    if not inside.any():
        return depth
    foot = float(depth[np.flatnonzero(inside.any(1))[-1]].max())
    rim = cv2.distanceTransform(np.pad(inside.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    dome = np.sqrt(rim / rim.max())
    return np.where(inside, foot + 0.05 + PUFF * dome, depth).astype(np.float32)


def ranged(depth: Image) -> Image:
    """From 0, the farthest, to 1, as networks that guess depth are shown."""
    low, high = float(depth.min()), float(depth.max())
    return ((depth - low) / max(high - low, 1e-6)).astype(np.float32)


def grounded(size: tuple[int, int], rng: np.random.Generator, *, busy: bool = False) -> Image:
    """A ground: of one colour, from one to another, or of soft spots, as a busy one is; perhaps with a horizon."""
    height, width = size
    first, second = rng.uniform(0, 1, (2, 3)).astype(np.float32)
    kind = 0.5 if busy else rng.random()
    if kind < 0.35:
        ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
        ground = np.broadcast_to(first * (1 - ramp) + second * ramp, (height, width, 3)).copy()
    elif kind < 0.75:
        spots = texture(rng, (width, height)).permute(1, 2, 0).numpy()
        grey = spots.mean(2, keepdims=True)
        ground = first + rng.uniform(0.4 if busy else 0.1, 0.8) * (
            grey + rng.uniform(0, 1) * (spots - grey) - grey.mean()
        )
    else:
        ground = np.broadcast_to(first, (height, width, 3)).copy()
    if rng.random() < 0.4:
        line = int(rng.uniform(0.3, 0.8) * height)
        ground[line:] = 0.5 * ground[line:] + 0.5 * second
    return np.clip(ground, 0, 1).astype(np.float32)


def toned(picture: Image, rng: np.random.Generator) -> Image:
    """A picture in the light of others: paler, darker or lighter, warmer or colder."""
    grey = picture.mean(2, keepdims=True)
    pale = grey + rng.uniform(0.1, 1) * (picture - grey)
    return image(np.clip(pale * rng.uniform(0.85, 1.1, 3), 0, 1) ** rng.uniform(0.6, 1.7))


def placed(picture: Image, alpha: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """A thing and its alpha, larger or smaller, turned, mirrored or not, anywhere."""
    if rng.random() < 0.5:
        picture, alpha = picture[:, ::-1], alpha[:, ::-1]
    colour, alpha = moved([picture, alpha], rng, shares=(0.3, 1.3), reach=0.4, turn=12)
    return colour, alpha


def moved(
    pictures: Sequence[Image], rng: np.random.Generator, *, shares: tuple[float, float], reach: float, turn: float
) -> list[Image]:
    """Pictures of one thing, all moved alike; what comes in from outside is 0.

    Args:
        shares: the least and the greatest factor of their size.
        reach: how far they go at most, in sides of the picture.
        turn: the standard deviation of the turn in degrees.
    """
    import cv2

    height, width = pictures[0].shape[:2]
    way = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.normal(0, turn)), float(rng.uniform(*shares)))
    way[:, 2] += rng.uniform(-reach, reach, 2) * (width, height)
    return [image(cv2.warpAffine(image(one), way, (width, height), flags=cv2.INTER_LINEAR)) for one in pictures]


def degraded(picture: Image, rng: np.random.Generator) -> Image:
    """A picture as bad footage has it: blurred, noisy, with the blocks of a JPEG."""
    import cv2

    if rng.random() < 0.6:
        picture = image(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 3))))
    if rng.random() < 0.6:
        picture = image(picture + rng.normal(0, rng.uniform(0.01, 0.1), picture.shape))
    picture = np.clip(picture, 0, 1)
    if rng.random() < 0.6:
        pixels = (picture * 255).astype(np.uint8)
        packed = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 90))])[1]
        picture = image(np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)) / 255)
    return picture


def torn(hint: Image, kind: str, rng: np.random.Generator) -> Image:
    """A control picture as others make it, or as bad footage gives it: fainter or stronger, thicker, with holes."""
    import cv2

    if kind in EDGES:
        if rng.random() < 0.4:
            thick = rng.random() < 0.5
            hint = image(cv2.dilate(hint, np.ones((2, 2), np.uint8)) if thick else cv2.blur(hint, (2, 2)))
        hint = image(np.clip(hint * rng.uniform(0.5, 1.3), 0, 1))
    if kind == "depth":
        hint = image(np.clip(hint ** rng.uniform(0.6, 1.6) + rng.normal(0, 0.02), 0, 1))
        hint = image(cv2.GaussianBlur(hint, (0, 0), float(rng.uniform(0.3, 3))))
    if kind not in COLOURS and rng.random() < 0.5:
        height, width = hint.shape[:2]
        y, x = (rng.uniform(0, 1, 2) * (height, width)).astype(int)
        h, w = (rng.uniform(0.1, 0.5, 2) * (height, width)).astype(int)
        hint = hint.copy()
        hint[y : y + h, x : x + w] = 0
    return hint


def image(values: Any) -> Image:
    """What OpenCV and NumPy compute, in the one type of pictures here."""
    return np.ascontiguousarray(values, dtype=np.float32)
