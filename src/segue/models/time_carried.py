"""Where a picture's thing is at the time of each frame: what a clip begins with in place of noise alone.

An adapter that learned to foretell frames is right about where things are (`segue.models.travel`), and less about what
they look like. The picture's own pixels, moved as it says, are sharp, and know nothing of what moving uncovers, presses
or lights. So a clip begins with them, a little way into noise (Meng et al. 2021, arXiv:2108.01073), and what drawing
has lost of them where it agrees with them is put back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from segue.errors import ModelError
from segue.models.time_inserted import time_layers
from segue.models.time_words import WORDS
from segue.models.travel import LARGEST, Carrying, Way

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion
    from segue.types import Conditioning

ALIKE = 0.2
"""How far apart drawn and carried places may be, of a full range of 1, and still be the same."""
AROUND = 5
"""Side in pixels of what counts as a place there."""
EVEN = 0.08
"""What goes at one speed is off that, as it is learned, by a smaller share of where it comes to."""
LEAST = 0.05
"""What comes no farther does not go anywhere."""
UP, TURN, GROWTH = 1, 2, 3
"""Their places among a way's numbers."""
INSIDE = 0.5
"""A mask's value from which on a place is part of the thing."""
HALF = 0.5
"""Of a leap that large things make, too."""
SOONEST = 4
"""Frames after which a thing may be back at the earliest."""
RIM = 8
"""One pixel of so many, of the shorter side, is as far as a coarse mask may miss."""
GRAIN = 0.04
"""How far ground is from what is around it, of a full range, without being a part of the thing."""
GROUND, LITTLE = 1e-3, 1e-12
"""Share of ground that a place has at least of which it is known, and of which anything is."""


@dataclass(frozen=True)
class Course:
    """A thing in a picture, and where it is at frames before or after it.

    Args:
        picture: in [0, 1].
        mask: how far each pixel is part of the thing, in [0, 1].
        middle: of the thing; see `Carrying`.
        numbers: of its way at each frame; see `Way.numbers`.
        even: which of the numbers go on at one speed; the others come back.
    """

    picture: Float[Tensor, "3 h w"]
    mask: Float[Tensor, "1 1 h w"]
    middle: Float[Tensor, "1 2"]
    numbers: Float[Tensor, "t 4"]
    even: Bool[Tensor, " 4"]

    @staticmethod
    @torch.no_grad()
    def of(
        model: LatentDiffusion, cond: Conditioning, picture: Float[Tensor, "3 h w"], elapsed: Sequence[float]
    ) -> Course:
        """What layers along time say of a picture.

        Args:
            model: whose layers set known frames in motion.
            cond: what frames are told in words, a row each.
            picture: that is known, in [0, 1].
            elapsed: seconds from it to each frame, increasing; negative ones lie before it.

        Raises:
            ModelError: nothing sets frames in motion.
        """
        moves = time_layers(model).moves
        if moves is None:
            raise ModelError(f"{model.name} carries no known frames along a way")
        weight = moves.picture.weight
        said = cond.extra.get(WORDS, cond.text).to(weight)
        meaning = moves.meaning(said, torch.tensor(list(elapsed)).to(weight.device))
        latents = model.codec.encode(picture[None]).to(weight).expand(len(said), -1, -1, -1)
        seen = moves.changed(latents, meaning).carrying
        assert seen is not None
        numbers, even = evened(seen.way.numbers.float().cpu(), elapsed)
        # The thing is the same in all frames, whatever was seen at the time of each.
        mask, picture = seen.mask.float().mean(0, keepdim=True).cpu(), picture.float().cpu()
        mask = completed(functional.interpolate(mask, picture.shape[1:], mode="bilinear"), picture[None])
        numbers = numbers if bool(even.any()) else held_in(numbers, mask)
        return Course(picture, mask, seen.middle.float().mean(0, keepdim=True).cpu(), numbers, even)

    @cached_property
    def rows(self) -> Float[Tensor, "r 4"]:
        """The numbers, and two more that go on as the last ones do: what comes back then is seen to."""
        step = self.numbers[-1] - self.numbers[-2]
        return torch.cat([self.numbers, self.numbers[-1:] + step, self.numbers[-1:] + 2 * step])

    @cached_property
    def length(self) -> int:
        """Frames after which an even way goes on likewise, and any other begins anew; of a course that begins at 0."""
        if self.goes_on or len(self.numbers) <= SOONEST + 1:
            return len(self.numbers) - 1
        steps = self.rows[1:] - self.rows[:-1]
        ends = range(SOONEST, len(steps))
        return min(ends, key=lambda end: float(self.rows[end].norm() + (steps[end] - steps[0]).norm()))

    @property
    def goes_on(self) -> bool:
        """Whether it does not come back."""
        return bool(self.even.any())

    def paced(self, pace: float) -> Paced:
        """It in the frames of a clip.

        What comes back does so at a whole frame, for which it is a little faster or slower.

        Args:
            pace: how many of its own frames lie between two of the clip's, as time says.
        """
        period = 0 if self.goes_on else round(self.length / pace)
        return Paced(self, self.length / period, period) if period > 1 else Paced(self, pace, None)

    def at(self, places: Sequence[float]) -> Float[Tensor, "n 4"]:
        """The way's numbers at any time, counted in its own frames, also behind the last one that is known.

        What is even adds up. Anything else comes back: how far it is still off then is taken away bit by bit before.
        """
        length, at = self.length, torch.tensor(list(places), dtype=torch.float64)
        times = (at / length + 1e-9).floor()
        rests = (at - times * length).clamp(min=0)
        before = rests.floor().clamp(max=length - 1).long()
        share = (rests - before).to(self.numbers)[:, None]
        rows = torch.lerp(self.rows[before], self.rows[before + 1], share)
        missed = self.rows[length]
        steady, back = (part.to(self.numbers)[:, None] * missed for part in (times, -rests / length))
        return rows + torch.where(self.even, steady, back)

    def looped(self, frames: int, pace: float = 1.0, dial: float = 1.0) -> Float[Tensor, "t 4"]:
        """The way's numbers in a clip of so many frames that leads back to its first one.

        What comes back does so as often as comes nearest to its own pace. What turns makes whole turns, one or more;
        what goes elsewhere returns from the middle of the clip on.

        Args:
            frames: of the clip.
            pace: how many of its own frames lie between two.
            dial: how many times as far it goes.
        """
        turns, others = bool(self.even[TURN]), bool(self.even[[at for at in range(4) if at != TURN]].any())
        if others:
            return dial * self.at([pace * min(frame, frames - frame) for frame in range(frames)])
        if not turns:
            often = max(1, round(frames * pace / self.length))
            return dial * self.at([frame * often * self.length / frames for frame in range(frames)])
        speed = dial * float(self.numbers[self.length, TURN]) / self.length * pace
        whole = max(1, round(abs(speed) * frames / math.tau))
        numbers = torch.zeros(frames, 4)
        numbers[:, TURN] = math.copysign(math.tau * whole, speed) * torch.arange(frames) / frames
        return numbers

    def carried(self, numbers: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 h w"]:
        """The picture with the thing in it moved along each of these ways; no way leaves it as it is.

        What grows on and on ends at about twenty times its size, as in what layers along time learn from.
        """
        count, growth = len(numbers), LARGEST * (numbers[:, GROWTH] / LARGEST).tanh()
        way = Way(numbers[:, :2], numbers[:, TURN], growth)
        spread = Carrying(way, self.mask.expand(count, -1, -1, -1), self.middle.expand(count, -1))
        moved = spread.carried(self.picture.expand(count, -1, -1, -1), self.ground.expand(count, -1, -1, -1))
        still = (way.numbers == 0).all(1)[:, None, None, None]
        return torch.where(still, self.picture[None], moved.clamp(0, 1))

    @cached_property
    def ground(self) -> Float[Tensor, "1 3 h w"]:
        """The picture without the thing."""
        return filled(self.picture[None], 1 - self.mask)


@dataclass(frozen=True)
class Paced:
    """A course in the frames of a clip.

    Args:
        course: of the thing in its first frame.
        pace: frames of the course between two of the clip.
        period: frames after which the thing is back; None if it does not come back, or sooner than one could see.
    """

    course: Course
    pace: float
    period: int | None

    def numbers(self, frames: Sequence[int]) -> Float[Tensor, "n 4"]:
        """Of the way at any of the clip's frames."""
        return self.course.at([self.pace * frame for frame in frames])


def evened(numbers: Float[Tensor, "t 4"], elapsed: Sequence[float]) -> tuple[Float[Tensor, "t 4"], Bool[Tensor, " 4"]]:
    """Ways without what jitters from frame to frame, and which numbers go on at one speed.

    They do if that is the most of what the thing does; else it comes back, and what little grows beside is an error.

    Args:
        numbers: of ways, none where `elapsed` is 0.
        elapsed: in seconds, increasing.
    """
    times = torch.tensor(list(elapsed), dtype=numbers.dtype)
    speed = (times[:, None] * numbers).sum(0) / times.square().sum().clamp(min=1e-9)
    line = times[:, None] * speed
    far = line.abs().amax(0)
    even = (far > LEAST) & ((numbers - line).square().mean(0).sqrt() < EVEN * far)
    even = even & (far[even].sum() > numbers[:, ~even].abs().amax(0).sum())
    # Beyond both ends it goes on as it came, turned about the end, so that neither is moved.
    ends = [2 * numbers[:1] - numbers[1:2], numbers, 2 * numbers[-1:] - numbers[-2:-1]]
    longer = torch.cat(ends)
    smooth = (longer[:-2] + 2 * longer[1:-1] + longer[2:]) / 4
    smooth[times == 0] = 0
    return torch.where(even, line, smooth), even


def held_in(numbers: Float[Tensor, "t 4"], mask: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "t 4"]:
    """Ways that come back, which leap no higher than the picture, but half as high as they would at least.

    Args:
        numbers: of the ways.
        mask: of the thing.
    """
    height, width = mask.shape[-2:]
    inside = (mask[0, 0] > INSIDE).any(1)
    if not bool(inside.any()):
        return numbers
    room = 2 * float(inside.float().argmax()) / min(height, width)
    leap = float(-numbers[:, UP].min())
    share = max(HALF, room / leap) if leap > room else 1.0
    return torch.cat([numbers[:, :UP], share * numbers[:, UP : UP + 1], numbers[:, UP + 1 :]], 1)


def completed(mask: Float[Tensor, "t 1 h w"], pictures: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 1 h w"]:
    """A coarse mask with all that is near it and stands out from the ground, so that no rim of a thing stays behind.

    Args:
        mask: how far places are part of it, in [0, 1].
        pictures: in [0, 1].
    """
    reach = 2 * (min(pictures.shape[-2:]) // RIM // 2) + 1
    near = functional.max_pool2d(mask, reach, 1, reach // 2)
    apart = (pictures - filled(pictures, 1 - near)).abs().mean(1, keepdim=True)
    return mask + (1 - mask) * near * ((apart - GRAIN) / GRAIN).clamp(0, 1)


def filled(pictures: Float[Tensor, "t c h w"], ground: Float[Tensor, "t 1 h w"]) -> Float[Tensor, "t c h w"]:
    """Pictures whose ground is continued to where it is not seen: from ever coarser means of what is near.

    Args:
        pictures: any values.
        ground: how far each place is seen, in [0, 1].
    """
    # The rim of a soft mask has the thing's colour in it.
    seen = ground.clamp(min=0).pow(4)
    sums = pictures * seen
    found = torch.zeros_like(pictures)
    left = torch.ones_like(ground)
    size = pictures.shape[-2:]
    while True:
        share = functional.interpolate(seen, size, mode="bilinear")
        mean = functional.interpolate(sums, size, mode="bilinear") / share.clamp(min=LITTLE)
        trust = (share / (share + GROUND)) * (share > GROUND)
        found, left = found + left * trust * mean, left * (1 - trust)
        if max(seen.shape[-2:]) == 1:
            # Where nothing is ground, it is like the picture.
            return found + left * torch.where(share > LITTLE, mean, pictures.mean((2, 3), keepdim=True))
        seen, sums = (functional.avg_pool2d(part, 2, ceil_mode=True) for part in (seen, sums))


def put_back(drawn: Float[Tensor, "t 3 h w"], carried: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 h w"]:
    """Drawn frames with the pixels of those that they were drawn from, as far as both agree.

    Args:
        drawn: in [0, 1].
        carried: what they began with.
    """
    apart = (drawn - carried).abs().mean(1, keepdim=True)
    apart = functional.avg_pool2d(apart, AROUND, 1, AROUND // 2, count_include_pad=False)
    return drawn + (-(apart / ALIKE).square()).exp() * (carried - drawn)
