"""Deflickering inside the loop: what the model believes the frames to be is made to agree, before each step is taken.

At a chosen step, the estimates x0 of all frames become pictures, these are made to agree by whatever is handed in, and
what that changed is carried back into the latents. Noise is never touched: the solver sees another x0, and all that it
derives from it (the noise of DDIM, the memory of DPM-Solver) follows. After DiffSynth (Duan et al. 2023,
arXiv:2308.03463), which replaces x0 by the encoded pictures as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch.nn.functional import max_pool2d

from segue.diffusion.envelope import Envelope
from segue.errors import TaskError
from segue.temporal.operator import Identity
from segue.types import Codec, Frames, Point, Progress, over_rows, silent

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64
    from torch import Tensor

T = TypeVar("T")


class Smoother(Protocol):
    """What makes the pictures of a clip agree."""

    def __call__(
        self, pictures: Frames, noise: float
    ) -> Iterable[tuple[int, Float[Tensor, "3 h w"], Float[Tensor, "h w"]]]:
        """Number, picture and change of every frame that is not left as it is, each once, in any order.

        Args:
            pictures: of all frames, in [0, 1]. They may be on disk, and are best read a window at a time.
            noise: sigma / alpha where the frames stand: how much in them is only guessed; from infinite to 0.

        Returns:
            the change is 0 where the picture is left exactly as it is, else above 0.
        """
        ...


class Growing(Frames, Protocol):
    """Frames that are appended while they are made."""

    def append(self, frames: Float[Tensor, "t 3 h w"]) -> None:
        """Add frames at the end."""
        ...


class Held:
    """Frames in memory, as they came."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._frames: list[Tensor] = []

    def append(self, frames: Float[Tensor, "t 3 h w"]) -> None:
        """Add frames at the end."""
        self._frames.extend(frames)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, window: slice, /) -> Float[Tensor, "t 3 h w"]:
        width, height = self.size
        return torch.stack(self._frames[window]) if self._frames[window] else torch.empty(0, 3, height, width)

    @staticmethod
    @contextmanager
    def temporary(size: tuple[int, int]) -> Generator[Held]:
        """Frames of this size, which are let go of at the end of the block."""
        yield Held(size)


_OF_A_RANGE = ("start", "stop", "decay", "every", "free")


@dataclass(frozen=True)
class Moments:
    """The steps at which frames are made to agree, and how strongly: an envelope, or a list.

    Args:
        power: share of the change that is made, in [0, 1]; 0 never acts.
        start: progress (share of the schedule's steps done) from which it acts, in [0, 1].
        stop: progress from which it no longer acts, in [0, 1]; what remains is left to the model, which draws sharply
            what was made to agree.
        decay: what is left of the power at the end of the range, in [0, 1].
        every: only at every so many steps of the range, counted back from its last, which is always among them.
        free: so many steps at the end are left to the model in any case.
        steps: at these, in place of a range (of which nothing may be said then); -1 is the last of the schedule.

    Raises:
        TaskError: a number is out of its range, or there are both steps and something of a range.
    """

    power: float = 1.0
    start: float = 0.0
    stop: float = 0.9
    decay: float = 1.0
    every: int = 1
    free: int = 1
    steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("power", "start", "stop", "decay"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise TaskError(f"{name} of deflickering must be in [0, 1], got {value}")
        if self.every < 1 or self.free < 0:
            got = f"{self.every} and {self.free}"
            raise TaskError(f"deflickering acts at every 1 or more steps and leaves 0 or more free, got {got}")
        of_a_range = [one for one in fields(self) if one.name in _OF_A_RANGE]
        mixed = [one.name for one in of_a_range if getattr(self, one.name) != one.default]
        if self.steps and mixed:
            raise TaskError(
                f"deflickering acts at listed steps or over a range: got steps {self.steps} and {', '.join(mixed)}; "
                "leave out one or the other"
            )

    def weight(self, index: Tensor, count: int) -> Float64[Tensor, " b"]:
        """The weight of each row that has `index` of `count` steps behind it.

        Raises:
            TaskError: there is no such step in a schedule of this length.
        """
        if self.steps:
            chosen = torch.tensor([self._step(step, count) for step in self.steps])
            return self.power * torch.isin(index, chosen).double()
        weight = Envelope(self.power, self.start, self.stop, self.decay).weight(index, count)
        last = min(round(self.stop * count), count - self.free) - 1
        return weight * ((index <= last) & ((last - index) % self.every == 0))

    def meets(self, count: int) -> bool:
        """Whether there is any step at which it acts, in a schedule of so many."""
        return bool((self.weight(torch.arange(count), count) > 0).any())

    def _step(self, step: int, count: int) -> int:
        if not -count <= step < count:
            raise TaskError(f"deflickering at step {step} of a schedule of {count} steps: it has 0 to {count - 1}")
        return step % count


@dataclass(frozen=True)
class Deflickering(Identity):
    """Makes the x0 of the frames of a trajectory agree, at chosen steps: x0 <- x0 + E(F(D x0)) - E(D x0).

    D and E are the codec's, F is the smoother. A codec loses something each way; the difference of two encodings does
    not carry that loss into x0, and what F leaves as it is comes back bit for bit: a latent is touched only if F has
    changed a pixel within its reach. F = identity changes nothing at all, and encodes nothing.

    On the embedded model, twenty passes whose F changes a corner by a hundredth bring the rest of the picture down to
    17.6 dB by plain encoding, and leave it as it was by this. Of what a pixel does to the latents there, 93 % of the
    energy lies within a reach of 1, and 99 % within 2.

    All rows of the trajectory in a batch are seen together, in the order of their frames, however the denoiser has cut
    them into calls. Rows at other steps, which are not to be changed, still show F what they are.

    Memory: the latents, and `batch` pictures; all other pictures are in the spool.

    Args:
        codec: pictures and back; `batch` neighbouring frames at a time.
        smooth: F.
        moments: when, and how strongly.
        trajectory: the name of the rows that are the frames; all others are left alone.
        projection: False replaces x0 by E(F(D x0)), as DiffSynth does, with all that the codec loses.
        masked: False lets the whole frame be touched.
        least: changes up to this are none; half of one of 256 levels by default, which nobody sees.
        reach: how far from a changed pixel latents are touched, in latents: at 0 those that it lies in.
        batch: pictures that are decoded, and encoded, at once.
        spool: where the decoded frames of (width, height) are kept meanwhile: in memory, unless it says otherwise.
        progress: told how many frames are through.
    """

    codec: Codec
    smooth: Smoother
    moments: Moments
    trajectory: str
    projection: bool = True
    masked: bool = True
    least: float = 0.5 / 255
    reach: int = 1
    batch: int = 4
    spool: Callable[[tuple[int, int]], AbstractContextManager[Growing]] = Held.temporary
    progress: Progress = silent

    def on_denoised(self, x0: Float[Tensor, "b c h w"], at: Point) -> Float[Tensor, "b c h w"]:
        """The x0 that agree; rows of other trajectories and at other steps as they were.

        Raises:
            ValueError: a frame has two rows, or F answers with pictures of another size.
            TaskError: the moments name a step that this schedule does not have, or none that it has though their power
                is above 0; an x0 decodes to values that are not finite.
        """
        own = sorted((row.frame, place) for place, row in enumerate(at.rows) if row.trajectory == self.trajectory)
        if len({frame for frame, _ in own}) < len(own):
            raise ValueError(f"expected one row for each frame of {self.trajectory!r} in a batch; one has several")
        places = [place for _, place in own]
        weights = self.moments.weight(at.index, at.count)
        chosen = [place for place in places if weights[place] > 0]
        if not chosen:
            if places and self.moments.power > 0 and not self.moments.meets(at.count):
                raise TaskError(
                    f"of a schedule of {at.count} steps, deflickering would act at none: {self.moments}; "
                    "take more steps, leave fewer free, or power 0 to do without"
                )
            return x0
        noise = float((at.sigma / at.alpha)[chosen].max())
        out = x0.clone()
        with self.spool((x0.shape[3] * self.codec.scale, x0.shape[2] * self.codec.scale)) as seen:
            for part in _batches(places, self.batch):
                seen.append(self._decoded(x0[part], [at.rows[place].frame for place in part]))
            changed = self._changed(seen, noise, (weights[places] > 0).tolist())
            for part in _batches(changed, self.batch):
                rows = [places[number] for number, _, _ in part]
                out[rows] = self._agreed(x0[rows], part, seen, weights[rows])
        return out

    def _decoded(self, x0: Tensor, frames: Sequence[int]) -> Float[Tensor, "t 3 h w"]:
        pictures = self.codec.decode(x0)
        # A codec may hide what is infinite: it cuts off what is beyond white.
        for frame, row, picture in zip(frames, x0, pictures, strict=True):
            if not (bool(row.isfinite().all()) and bool(picture.isfinite().all())):
                raise TaskError(
                    f"expected pictures in [0, 1] to deflicker; frame {frame} of {self.trajectory!r} has values that "
                    "are not finite, which would spread to its neighbours: compute in float32, or guide less"
                )
        return pictures

    def _changed(self, seen: Frames, noise: float, wanted: Sequence[bool]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """What F makes of the frames that are wanted, where that is anything else."""
        for done, (number, picture, change) in enumerate(self.smooth(seen, noise), 1):
            if picture.shape[1:] != seen.size[::-1] or change.shape != picture.shape[1:]:
                raise ValueError(
                    f"expected pictures and changes of {seen.size[0]}x{seen.size[1]} pixels from what makes frames "
                    f"agree; got shapes {tuple(picture.shape)} and {tuple(change.shape)}"
                )
            self.progress("deflickering", done, len(seen))
            if wanted[number] and bool((change > (self.least if self.masked else 0)).any()):
                yield number, picture, change

    def _agreed(
        self, x0: Tensor, found: Sequence[tuple[int, Tensor, Tensor]], seen: Frames, weights: Tensor
    ) -> Float[Tensor, "t c h w"]:
        after = self.codec.encode(torch.stack([picture for _, picture, _ in found]).to(x0)).to(x0)
        if self.projection:
            # Encoded in a batch of the same shape, so that what is equal in both rounds alike.
            before = self.codec.encode(torch.cat([seen[number : number + 1] for number, _, _ in found]).to(x0)).to(x0)
            moved = x0 + over_rows(weights, x0) * (after - before)
        else:
            moved = torch.lerp(x0, after, over_rows(weights, x0))
        if not self.masked:
            return moved
        changed = torch.stack([change for _, _, change in found]) > self.least
        within = touched(changed, self.codec.scale, self.reach)
        return torch.where(within[:, None].to(x0.device), moved, x0)


def touched(changed: Bool[Tensor, "t h w"], scale: int, reach: int) -> Bool[Tensor, "t h/s w/s"]:
    """The latents that have a changed pixel in them, or no further than `reach` latents away (of a square)."""
    within = max_pool2d(changed.float()[:, None], scale)
    return max_pool2d(within, 2 * reach + 1, stride=1, padding=reach)[:, 0] > 0


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last of what is left; no more is taken than is asked for."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
