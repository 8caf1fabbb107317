"""Correspondence between any two frames of a clip: matched at strides 1, 2, 4, ..., and composed for the rest."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import avg_pool2d, interpolate, pad

from segue.errors import DiskError
from segue.motion.kept import Packed, Shelf, digest, store, stored
from segue.motion.match import Match, Matcher
from segue.motion.warp import stepped

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float
    from torch import Tensor

    from segue.types import Frames

LAYOUT = "segue fields 1"
MEMORY = 1 << 30
"""Bytes of matches that are held unless it is said otherwise."""
PICTURES = 5
"""Of the guide that are held as they are: two keys, two frames between that are gone through, and one ahead."""


class Fields:
    """Where the pixels of each frame of a clip are found in other frames of it; found out when it is asked for.

    Only pairs that are 1, 2, 4, ... frames apart are searched, and the start of a search is what two searches of half
    the stride say: long motion is followed, not guessed. All other pairs are composed of these, the longest first.
    A pair is searched once, in both directions; the answer does not depend on what was asked before. A pair with a cut
    between has confidence 0 and is not searched.

        fields = Fields(FlowMatcher(), guide, cuts=cuts(guide), folder=folder)
        fields.way(3, 14).remap(picture_14)   # looks like frame 3

    Args:
        matcher: the engine.
        guide: the pictures that are compared; see `segue.motion.guide` for what to do where there is no source.
        cuts: numbers of frames that begin a shot.
        folder: where answers are kept, for other passes and runs; made if it is missing. They are found again by the
            name of the matcher, the level, and the bits of all pictures from one end of the pair to the other.
            A damaged file is made anew.
        level: pictures are reduced 2^level times before they are compared, and ways enlarged again.
        memory: bytes of answers that are held; what is forgotten is read from the folder again, or searched again. A
            quarter as much is for pictures.
        device: where pictures are compared; answers come there, too.

    Raises:
        ValueError: a negative level, or cuts that are none.
        DiskError: the folder cannot be made.
    """

    def __init__(
        self,
        matcher: Matcher,
        guide: Frames,
        *,
        cuts: Iterable[int] = (),
        folder: Path | None = None,
        level: int = 0,
        memory: int = MEMORY,
        device: torch.device | str = "cpu",
    ) -> None:
        if level < 0:
            raise ValueError(f"a level says how often sides are halved: expected 0 or more, got {level}")
        self.matcher, self.guide, self.level, self.folder = matcher, guide, level, folder
        self.memory = memory
        self.device = torch.device(device)
        self.cuts = tuple(sorted(set(cuts)))
        if self.cuts and not 0 <= self.cuts[0] <= self.cuts[-1] < max(1, len(guide)):
            raise ValueError(f"a cut is the first frame of a shot, 0 to {len(guide) - 1}; got {self.cuts}")
        if folder is not None:
            _make(folder)
        self._pairs: Shelf[tuple[Packed, Packed]] = Shelf(memory)
        self._pictures: Shelf[Tensor] = Shelf(memory // 4)
        self._shown: Shelf[Tensor] = Shelf(0, least=PICTURES)
        self._digests: dict[int, bytes] = {}

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of the ways, which is that of the guide."""
        return self.guide.size

    def __len__(self) -> int:
        return len(self.guide)

    @property
    def held(self) -> int:
        """Pairs whose answers are in memory."""
        return len(self._pairs)

    def hold(self, pairs: int) -> None:
        """See to it that so many pairs are held, whatever memory was meant for them, if there is no folder."""
        if self.folder is None:
            self._pairs.least = max(self._pairs.least, pairs)

    def joined(self, here: int, there: int) -> bool:
        """Whether both frames exist and belong to one shot."""
        frames = range(len(self))
        return here in frames and there in frames and self.shot(here) == self.shot(there)

    def shot(self, number: int) -> tuple[int, int]:
        """The first and the last frame of the shot that a frame belongs to."""
        place = bisect_right(self.cuts, number)
        first = self.cuts[place - 1] if place else 0
        return first, (self.cuts[place] if place < len(self.cuts) else len(self)) - 1

    def way(self, here: int, there: int) -> Match:
        """From frame `here` to frame `there`: one row.

        Raises:
            IndexError: no such frame.
        """
        return self._way(here, there, self._composed)

    def picture(self, number: int) -> Float[Tensor, "1 3 h w"]:
        """The guide at a frame."""
        # A key is compared with one frame after the other, and making a guide of a film takes time.
        picture = self._shown.get(number)
        if picture is None:
            picture = self.guide[number : number + 1].to(self.device, torch.float32)
            self._shown.put(number, picture, 1)
        return picture

    def direct(self, here: int, there: int) -> Match:
        """As `way`, but searched at any distance, starting from the composed way.

        Raises:
            IndexError: no such frame.
        """
        return self._way(here, there, self._searched)

    def _way(self, here: int, there: int, find: Callable[[int, int], Match]) -> Match:
        if not (0 <= here < len(self) and 0 <= there < len(self)):
            raise IndexError(f"frames are 0 to {len(self) - 1}, got {here} and {there}")
        if here == there or not self.joined(here, there):
            width, height = self.size
            way = torch.zeros(1, 2, height, width, device=self.device)
            return Match(way, way[:, 0].clone(), torch.full_like(way[:, 0], float(here == there)), whole=True)
        return _enlarged(find(here, there), 1 << self.level, self.size)

    def _composed(self, here: int, there: int) -> Match:
        stride = 1 << (abs(there - here).bit_length() - 1)
        on = here + (stride if there > here else -stride)
        first = self._searched(here, on)
        return first if on == there else first.then(self._composed(on, there))

    def _searched(self, here: int, there: int) -> Match:
        pair = self._pair(min(here, there), max(here, there))
        return (pair[0] if here < there else pair[1]).match(self.device)

    def _pair(self, first: int, last: int) -> tuple[Packed, Packed]:
        pair = self._pairs.get((first, last))
        if pair is not None:
            return pair
        path = None if self.folder is None else self.folder / f"{self._name(first, last)}.safetensors"
        pair = None if path is None else stored(path, reduced_size(self.size, 1 << self.level))
        if pair is None:
            there, back = self._found(first, last)
            pair = Packed.of(there), Packed.of(back)
            if path is not None:
                store(path, pair)
        self._pairs.put((first, last), pair, pair[0].bytes + pair[1].bytes)
        return pair

    def _found(self, first: int, last: int) -> tuple[Match, Match]:
        """What is found out about a pair: from the first to the last, and back."""
        start = None if getattr(self.matcher, "begins_anew", False) else self._start(first, last)
        return self.matcher(self._small(first), self._small(last), start)

    def _start(self, first: int, last: int) -> tuple[Match, Match] | None:
        """By way of what lies between; the same from both ends, so that a clip may as well run backwards."""
        stride = last - first
        if stride == 1:
            return None
        if stride & (stride - 1):
            return self._composed(first, last), self._composed(last, first)
        middle = first + stride // 2
        there = self._searched(first, middle).then(self._searched(middle, last))
        return there, self._searched(last, middle).then(self._searched(middle, first))

    def _name(self, first: int, last: int) -> str:
        # What lies between decides, too: starts are composed of it.
        name = blake2b(f"{LAYOUT}\n{self.matcher.name}\n{self.level}\n".encode(), digest_size=20)
        for number in range(first, last + 1):
            if number not in self._digests:
                self._digests[number] = digest(self._small(number))
            name.update(self._digests[number])
        return name.hexdigest()

    def _small(self, number: int) -> Float[Tensor, "1 3 h w"]:
        """As it is compared."""
        picture = self._pictures.get(number)
        if picture is None:
            picture = reduced(self.picture(number), 1 << self.level)
            self._pictures.put(number, picture, 4 * picture.numel())
        return picture


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DiskError(f"cannot keep fields in {folder}: {reason}; choose another folder") from error


def reduced_size(size: tuple[int, int], scale: int) -> tuple[int, int]:
    """(width, height) in pixels of pictures that are reduced `scale` times; what is left over is a pixel."""
    return -(-size[0] // scale), -(-size[1] // scale)


def reduced(pictures: Float[Tensor, "b 3 h w"], scale: int) -> Float[Tensor, "b 3 h/s w/s"]:
    """Each pixel the mean of scale x scale; the border is repeated to a multiple."""
    if scale == 1:
        return pictures
    width, height = reduced_size((pictures.shape[3], pictures.shape[2]), scale)
    over = (0, width * scale - pictures.shape[3], 0, height * scale - pictures.shape[2])
    return avg_pool2d(pad(pictures, over, mode="replicate"), scale)


def _enlarged(match: Match, scale: int, size: tuple[int, int]) -> Match:
    """As many times longer ways for pictures as many times larger; whole ones stay whole, others stay stepped."""
    if scale == 1:
        return match
    fields = torch.cat([match.way * scale, match.error[:, None], match.confidence[:, None]], 1)
    if match.whole:
        fields = fields.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    else:
        fields = interpolate(fields, scale_factor=scale, mode="bilinear", align_corners=False)
    fields = fields[..., : size[1], : size[0]]
    way = fields[:, :2].contiguous() if match.whole else stepped(fields[:, :2])
    return Match(way, fields[:, 2], fields[:, 3], match.whole)
