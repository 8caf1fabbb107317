"""How whole pictures move in a clip that a plain image model makes: one affine map a frame, after a word.

Text2Video-Zero moves all latents along a line (Khachatryan et al. 2023, arXiv:2303.13439, section 3.3.1). A line is one
of several ways here: what bounces, swings or spins is an affine map that changes with the time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch.nn.functional import affine_grid, grid_sample

from segue.errors import TaskError
from segue.temporal.moved_noise import Placed

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Way = Literal[
    "right", "left", "up", "down", "bounce", "spin", "spin-left", "grow", "shrink", "swing", "wobble", "still"
]
WAYS: tuple[Way, ...] = get_args(Way)
SLIDE = 8 * 12 / 512
"""Widths, or heights, in a second: 12 of 512 pixels from frame to frame, as in the paper, at eight frames a second."""
BOUNCE, BOUNCES = 0.22, 1.0
"""Heights that something bounces, and how often in a second."""
TURN = 0.5
"""Turns in a second."""
GROWTH = 1.35
"""By how much something grows in a second."""
SWING, SWINGS = math.radians(22), 0.5
"""To each side, about a place above the picture's middle; and how often in a second."""
WOBBLE, WOBBLES = math.radians(9), 2.0
SWAYING: tuple[Way, ...] = ("bounce", "swing", "wobble")
"""Ways that lead back again and again."""

_SLIDES = r"(?:slid\w*|mov\w*|fl(?:y|ies|ying)|driv\w*|run\w*|go\w*|drift\w*|roll\w*|walk\w*|glid\w*)"
_TOWARDS = r"(?:\s+\w+){0,2}?\s+(?:to\s+)?(?:the\s+)?"
_WORDS: tuple[tuple[str, Way], ...] = (
    (r"bounc\w*|jump\w*|hop(?:s|ping)?\b", "bounce"),
    (r"(?:spin\w*|rotat\w*|turn\w*|whirl\w*)\s+(?:to\s+the\s+left|counter-?clockwise|anti-?clockwise)", "spin-left"),
    (r"spin(?:s|ning)?\b|rotat(?:es?|ing)\b|whirl\w*|twirl\w*", "spin"),
    (r"grow(?:s|ing)?\b|swell\w*|getting (?:larger|bigger)|com(?:es|ing) closer|zoom\w*\s+in\b", "grow"),
    (r"shrink\w*|getting smaller|mov(?:es|ing) away|zoom\w*\s+out\b", "shrink"),
    (r"swing\w*|sway\w*|rocking", "swing"),
    (r"wobbl\w*|shak(?:es|ing)\b|wiggl\w*|trembl\w*", "wobble"),
    (r"ris(?:es|ing)(?:\s+up)?\b|float(?:s|ing)?\s+up\w*", "up"),
    (r"fall(?:s|ing)?(?:\s+down)?\b|dropping|sink(?:s|ing)\b", "down"),
    *((rf"{_SLIDES}{_TOWARDS}{way}(?:wards?)?\b", way) for way in ("left", "right", "up", "down")),
    (r"stay(?:s|ing)?\s+still|stand(?:s|ing)?\s+still|motionless|still\s*$", "still"),
)  # fmt: skip


def without_way(caption: str) -> str:
    """The caption without the words that say how something moves, which a model of single pictures never learned."""
    text = caption
    for pattern, _ in _WORDS:
        text = re.sub(rf"(?:\b(?:that|which|who)\s+(?:is\s+)?|\bis\s+)?\b(?:{pattern})", " ", text, flags=re.IGNORECASE)
    text = re.sub(r"\s+([,.])", r"\1", re.sub(r"\s+", " ", text)).strip(" ,.")
    return text or caption


def way_of(caption: str) -> Way | None:
    """The way that a caption's words say something moves; None if they say none that is known here."""
    found: list[tuple[int, Way]] = []
    for pattern, way in _WORDS:
        if match := re.search(rf"\b(?:{pattern})", caption.lower()):
            found.append((match.start(), way))
    return min(found, key=lambda one: one[0])[1] if found else None


@dataclass(frozen=True)
class Course:
    """How a clip moves as a whole.

    Args:
        way: in one of `WAYS`.
        strength: 1 as usual, 0 not at all; negative turns it round. Or one for each frame, between which it changes in
            a line: of what goes somewhere, spins or grows it is the speed, of what bounces, swings or wobbles how far
            it does so. Not in a loop.
        loop: whether the last frame leads back to the first: what goes somewhere comes back, and what swings or spins
            does so a whole number of times.

    Raises:
        TaskError: there is no such way, or a loop has a strength for each frame.
    """

    way: Way = "right"
    strength: float | tuple[float, ...] = 1.0
    loop: bool = False

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise TaskError(f"a clip moves {', '.join(WAYS[:-1])} or {WAYS[-1]}; got {self.way!r}")
        if self.loop and isinstance(self.strength, tuple):
            raise TaskError("a loop comes back by itself, at one strength: give one number")

    def maps(self, count: int, fps: float) -> Float[Tensor, "t 3 3"]:
        """Of each frame, where what is in the first frame goes: x to the right and y down, in heights of the picture
        from its middle. Widths of slides are those of a square.

        Args:
            count: of frames.
            fps: how many there are in a second.
        """
        length, strengths = count / fps, self._strengths(count)
        found = [_MAKERS[self.way](frame / fps, length, strengths[frame], self.loop) for frame in range(count)]
        return torch.tensor(found, dtype=torch.float64)

    def _strengths(self, count: int) -> Sequence[float]:
        """Of each frame; of what goes on, the mean over the time up to it, which times the time is how far it came."""
        if not isinstance(self.strength, tuple):
            return [self.strength] * count
        if len(self.strength) != count:
            raise ValueError(f"expected a strength for each of {count} frames, got {len(self.strength)}")
        if self.way in SWAYING:
            return self.strength
        gone = accumulate((before + after) / 2 for before, after in pairwise(self.strength))
        return [self.strength[0], *(way / frame for frame, way in enumerate(gone, start=1))]


def _slide(x: float, y: float) -> Callable[[float, float, float, bool], list[list[float]]]:
    def made(time: float, length: float, strength: float, loop: bool) -> list[list[float]]:
        far = SLIDE * strength * (_there_and_back(time, length) if loop else time)
        return [[1, 0, x * far], [0, 1, y * far], [0, 0, 1]]

    return made


def _bounce(time: float, length: float, strength: float, loop: bool) -> list[list[float]]:
    phase = _phase(time, length, BOUNCES, loop)
    return [[1, 0, 0], [0, 1, -BOUNCE * strength * abs(math.sin(math.pi * phase))], [0, 0, 1]]


def _spin(sign: int) -> Callable[[float, float, float, bool], list[list[float]]]:
    def made(time: float, length: float, strength: float, loop: bool) -> list[list[float]]:
        turns = _phase(time, length, TURN * abs(strength), loop)
        return _turned(math.copysign(sign, sign * strength) * 2 * math.pi * turns if strength else 0.0)

    return made


def _grow(sign: int) -> Callable[[float, float, float, bool], list[list[float]]]:
    def made(time: float, length: float, strength: float, loop: bool) -> list[list[float]]:
        scale = GROWTH ** (sign * strength * (_there_and_back(time, length) if loop else time))
        return [[scale, 0, 0], [0, scale, 0], [0, 0, 1]]

    return made


def _swing(time: float, length: float, strength: float, loop: bool) -> list[list[float]]:
    phase = _phase(time, length, SWINGS, loop)
    return _turned(SWING * strength * math.sin(2 * math.pi * phase), about=(0.0, -0.5))


def _wobble(time: float, length: float, strength: float, loop: bool) -> list[list[float]]:
    phase = _phase(time, length, WOBBLES, loop)
    return _turned(WOBBLE * strength * math.sin(2 * math.pi * phase))


def _turned(angle: float, about: tuple[float, float] = (0.0, 0.0)) -> list[list[float]]:
    """Clockwise, as y points down, about a place."""
    c, s, (x, y) = math.cos(angle), math.sin(angle), about
    return [[c, -s, x - c * x + s * y], [s, c, y - s * x - c * y], [0, 0, 1]]


def _phase(time: float, length: float, rate: float, loop: bool) -> float:
    """How many rounds were made; in a loop, a whole number of them when the clip ends."""
    return time * (max(1, round(rate * length)) / length if loop else rate) if rate else 0.0


def _there_and_back(time: float, length: float) -> float:
    """Time that runs to half of the clip's length, and back."""
    return (1 - math.cos(2 * math.pi * time / length)) / 2 * length / 2


_MAKERS: dict[Way, Callable[[float, float, float, bool], list[list[float]]]] = {
    "right": _slide(1, 0),
    "left": _slide(-1, 0),
    "up": _slide(0, -1),
    "down": _slide(0, 1),
    "bounce": _bounce,
    "spin": _spin(1),
    "spin-left": _spin(-1),
    "grow": _grow(1),
    "shrink": _grow(-1),
    "swing": _swing,
    "wobble": _wobble,
    "still": lambda time, length, strength, loop: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
}


def carried(
    pictures: Float[Tensor, "#t c h w"],
    maps: Float[Tensor, "t 3 3"],
    border: Literal["reflection", "border"] = "border",
) -> Float[Tensor, "t c h w"]:
    """Pictures, or clean latents, moved by maps, bilinear; those that stay where they are come back as they are.

    Args:
        pictures: one for all, or one for each map.
        maps: of `Course.maps`.
        border: what comes into sight is mirrored there, or goes on as it ends.
    """
    height, width = pictures.shape[2:]
    # grid_sample counts from -1 to 1 along each side, maps count heights from the middle.
    sides = torch.tensor([width / height, 1.0], dtype=torch.float64) / 2
    back = torch.linalg.inv(maps)
    turn = back[:, :2, :2] * sides / sides[:, None]
    theta = torch.cat([turn, back[:, :2, 2:] / sides[:, None]], 2)
    grid = affine_grid(theta, [len(maps), 1, height, width], align_corners=False)
    whole = pictures.expand(len(maps), -1, -1, -1)
    moved = grid_sample(whole, grid.to(whole), "bilinear", padding_mode=border, align_corners=False)
    still = (maps == torch.eye(3, dtype=maps.dtype)).flatten(1).all(1)
    return torch.where(still[:, None, None, None].to(whole.device), whole, moved)


def placed_along(maps: Float[Tensor, "t 3 3"], size: tuple[int, int]) -> Placed:
    """Noise that goes where maps lead, and stays white: numbers are placed and never mixed, none is twice in a frame.

    Args:
        maps: of `Course.maps`.
        size: (width, height) in latents.
    """
    width, height = size
    cells = torch.arange(width * height)
    y, x = (cells // width - (height - 1) / 2) / height, (cells % width - (width - 1) / 2) / height
    places = torch.stack([x, y, torch.ones(len(cells))]).double()
    births, owned = list["Tensor"](), list["Tensor"]()
    for frame, back in enumerate(torch.linalg.inv(maps)):
        column, row = (back @ places)[:2] * height + torch.tensor([[(width - 1) / 2], [(height - 1) / 2]])
        nearest = column.round(), row.round()
        apart = (column - nearest[0]) ** 2 + (row - nearest[1]) ** 2
        inside = (nearest[0] >= 0) & (nearest[0] < width) & (nearest[1] >= 0) & (nearest[1] < height)
        source = (nearest[1] * width + nearest[0]).long().clamp(0, len(cells) - 1)
        # Of several places that would take one number, the nearest has it.
        order = torch.empty_like(cells).scatter_(0, apart.argsort(stable=True), cells)
        first = torch.full_like(cells, len(cells)).scatter_reduce(0, source[inside], order[inside], "amin")
        kept = inside & (first[source] == order)
        births.append(torch.where(kept, 0, frame).int().view(height, width))
        owned.append(torch.where(kept, source, cells).int().view(height, width))
    return Placed(torch.stack(births), torch.stack(owned))


def placed_at(maps: Float[Tensor, "t 3 3"], numbers: Sequence[int], size: tuple[int, int]) -> Placed:
    """The noise of some frames of a clip, as `placed_along` has it for all of them.

    Args:
        maps: of all frames.
        numbers: of those that are wanted; those beyond the last begin at the first again.
        size: (width, height) in latents.
    """
    wanted = [number % len(maps) for number in numbers]
    placed = placed_along(torch.cat([maps[:1], maps[wanted]]), size)
    names = torch.tensor([0, *wanted], dtype=placed.birth.dtype)
    return Placed(names[placed.birth[1:].long()], placed.cell[1:])
