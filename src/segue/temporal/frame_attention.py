"""Attention across the frames of a clip: which frames each one looks at, spelled as a pattern.

After DiffSynth (Duan et al. 2023, arXiv:2308.03463, section 3.2), where the frame, its neighbours and the first one
attend jointly, and all but one of the answers are thrown away: K evaluations of the network for a pattern of K frames.
Here only keys and values come from the others, as in Text2Video-Zero (Khachatryan et al. 2023, arXiv:2303.13439), and
every frame is evaluated once a step.

Frames that many look at go ahead of all others: the first, every k-th, and anchors that were chosen. They look back
alone, at such as are ahead, too, so that everyone can look at them, and a frame is what it would be if the clip ended
behind it and its anchors.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from segue.errors import TaskError
from segue.temporal.attention import SharedAttention
from segue.temporal.bank import BANK, Bank, Recording, Watch
from segue.temporal.passengers import Passenger, WithPassengers, ordered
from segue.types import Denoiser, RowId

REFERENCE = "reference"
"""The trajectory that external reference pictures belong to."""
_PLAIN = ("self", "first", "previous", "next", "anchors")
_KNOWN = "self, first, previous, next, every K, anchors, reference, reference K, bank, bank K"


class Site(Protocol):
    """A place in a network that can be stepped into: `segue.models.attention.Site`."""

    def wrap(self, adapter: SharedAttention) -> AbstractContextManager[None]:
        """Let `adapter` answer there until the end of the block."""
        ...


@dataclass(frozen=True)
class Pattern:
    """Whom each frame looks at.

    Args:
        own: itself.
        first: the first frame.
        previous: the frame before.
        following: the frame behind, where it is in the same call.
        every: of the frames 0, K, 2K, ... the two that the frame lies between; 0 for none.
        anchors: frames that were chosen, see `segue.temporal.anchors`.
        references: pictures from elsewhere, by their numbers; None for all of them.
        bank: anchors of another clip, likewise.
        even: whether chosen anchors attend to themselves in the place of those that they do not look at, too, so that
            what is in the bank weighs the same for all frames. Else it would shape anchors more than the others.
    """

    own: bool = False
    first: bool = False
    previous: bool = False
    following: bool = False
    every: int = 0
    anchors: bool = False
    references: tuple[int, ...] | None = ()
    bank: tuple[int, ...] | None = ()
    even: bool = False

    @staticmethod
    def parse(text: str) -> Pattern:
        """From words with commas between them: "first, previous, self, next".

        Raises:
            TaskError: a word is unknown or there twice, or there is none.
        """
        words = [" ".join(word.split()).lower() for word in text.split(",")]
        found: dict[str, bool] = {}
        every = 0
        numbers: dict[str, tuple[int, ...] | None] = {REFERENCE: (), BANK: ()}
        for word in words:
            match = re.fullmatch(r"(every|reference|bank)(?: (\d{1,6}))?", word)
            if words.count(word) > 1:
                raise TaskError(f"attention {text!r} names {word!r} twice")
            if word in _PLAIN:
                found[{"self": "own", "next": "following"}.get(word, word)] = True
            elif match and match[1] == "every" and int(match[2] or 0) > 0 and not every:
                every = int(match[2])
            elif match and match[1] in numbers:
                named = numbers[match[1]]
                if named is None or (named and not match[2]):
                    raise TaskError(f"attention {text!r} names all of {match[1]}, and one of them")
                numbers[match[1]] = (*named, int(match[2])) if match[2] else None
            else:
                raise TaskError(f"attention is made of {_KNOWN}, with commas between them; got {word!r} in {text!r}")
        return Pattern(**found, every=every, references=numbers[REFERENCE], bank=numbers[BANK])

    def __str__(self) -> str:
        """As it is parsed."""
        words = ["first"] * self.first + ["anchors"] * self.anchors + [f"every {self.every}"] * (self.every > 0)
        for name, numbers in ((REFERENCE, self.references), (BANK, self.bank)):
            words += [name] if numbers is None else [f"{name} {number}" for number in numbers]
        words += ["previous"] * self.previous + ["self"] * self.own + ["next"] * self.following
        return ", ".join(words)

    def continued(self, anchors: bool = False) -> Pattern:
        """The same for a later window, or for another clip: what was ahead there is looked at in the bank.

        Args:
            anchors: whether it has chosen anchors of its own besides.
        """
        ahead = self.first or self.anchors or self.every > 0
        bank = None if ahead else self.bank
        return Pattern(
            self.own,
            previous=self.previous,
            following=self.following,
            anchors=anchors,
            references=self.references,
            bank=bank,
            even=anchors,
        )

    def ahead(self, count: int) -> list[int]:
        """Places of the frames, of so many, that go ahead by this pattern alone."""
        found = set(range(0, count, self.every)) if self.every else set[int]()
        return sorted(found | {0} if self.first and count else found)

    def watching(
        self,
        frames: Sequence[RowId],
        anchors: Sequence[int] = (),
        references: Sequence[RowId] = (),
        bank: Sequence[RowId] = (),
    ) -> dict[RowId, Watch]:
        """Whom each frame looks at.

        Args:
            frames: in the order of the film.
            anchors: places of those that were chosen: they go ahead, and are looked at if the pattern says so.
            references: pictures from elsewhere.
            bank: anchors of another clip.

        Raises:
            TaskError: the pattern names what is not there, or what is there is not named.
        """
        always = [
            *_named(REFERENCE, self.references, references, "picture"),
            *_named(BANK, self.bank, bank, "anchor"),
        ]
        if self.anchors and not anchors:
            raise TaskError("attention to anchors needs some: choose frames, or take first in their place")
        ahead = sorted({*self.ahead(len(frames)), *anchors})
        found: dict[RowId, Watch] = {}
        for place, row in enumerate(frames):
            wanted = self._wanted(place, len(frames), anchors)
            if place in ahead:
                wanted = [one for one in wanted if one in ahead and one < place]
            seen = dict.fromkeys([*always, *(frames[one] for one in wanted if one != place)])
            near = [frames[place + 1]] if self.following and place not in ahead and place + 1 < len(frames) else []
            unseen = sum(one >= place for one in anchors) if self.even and place in anchors else 0
            found[row] = Watch(tuple(seen), self.own + unseen, tuple(one for one in near if one not in seen))
        return found

    def _wanted(self, place: int, count: int, anchors: Sequence[int]) -> list[int]:
        """Places that the frame at a place would look at."""
        wanted = [0] if self.first else []
        wanted += sorted(anchors) if self.anchors else []
        if self.every:
            before = place // self.every * self.every
            around = (before - self.every if before == place else before, before + self.every)
            wanted += [one for one in around if 0 <= one < count]
        return wanted + ([place - 1] if self.previous and place else [])


def _named(kind: str, numbers: tuple[int, ...] | None, given: Sequence[RowId], what: str) -> list[RowId]:
    if given and numbers == ():
        raise TaskError(f"there are {len(given)} {what}s of {kind}, and the attention looks at none: add {kind} to it")
    if numbers is None and not given:
        raise TaskError(f"attention to {kind} needs at least one {what}, and there is none")
    if wrong := [number for number in numbers or () if number >= len(given)]:
        raise TaskError(f"attention to {kind} {wrong[0]}: there are {len(given)}, counted from 0")
    return list(given) if numbers is None else [given[number] for number in numbers]


@contextmanager
def frame_attention(
    denoiser: Denoiser,
    sites: Iterable[Site],
    pattern: Pattern | str,
    frames: Sequence[RowId],
    *,
    anchors: Sequence[int] = (),
    references: Sequence[Passenger] = (),
    bank: Bank | None = None,
    chunk: int | None = None,
    recording: Recording | None = None,
) -> Generator[Denoiser]:
    """A denoiser of a clip whose frames look at each other; the network is as it was after the block.

    A batch has any of the frames, all at one step, and with each those that it looks at. It costs an evaluation for
    each frame and passenger. However calls are cut, the answers are the same up to rounding, but for "next".

    Args:
        denoiser: of the model.
        sites: of its networks: `segue.models.attention.model_sites`. Rows look at others where one attends to pictures.
        pattern: whom each frame looks at.
        frames: names of all rows, in the order of the film.
        anchors: numbers of frames that go ahead, and are looked at if the pattern names anchors.
        references: pictures from elsewhere.
        bank: anchors of another clip, or of an earlier window.
        chunk: rows that are handed to `denoiser` at once; None for all.
        recording: keeps the frames that go ahead, and all passengers.

    Raises:
        TaskError: the pattern does not go with what is there, or the model denoises groups of frames together.
    """
    if denoiser.group > 1:
        raise TaskError(
            f"this model denoises {denoiser.group} frames at once, which see each other: leave attention out"
        )
    if chunk is not None and chunk < 1:
        raise TaskError(f"chunk must be 1 or more rows, got {chunk}")
    pattern = Pattern.parse(pattern) if isinstance(pattern, str) else pattern
    if anchors and not pattern.anchors and recording is None:
        raise TaskError(f"there are {len(anchors)} anchors, and the attention looks at none: add anchors to it")
    places = _places(frames, anchors)
    pictures = {RowId(REFERENCE, number): one for number, one in enumerate(references)}
    watching = pattern.watching(frames, places, tuple(pictures), bank.rows if bank else ())
    watching |= {row: Watch() for row in pictures} | (bank.watching() if bank else {})
    passengers = pictures | (bank.passengers() if bank else {})
    if recording is not None:
        ahead = {frames[place] for place in (*pattern.ahead(len(frames)), *places)}
        recording.watching = {row: watch for row, watch in watching.items() if row in ahead or row in passengers}
    sharing = SharedAttention()
    with ExitStack() as stack:
        for site in sites:
            stack.enter_context(site.wrap(sharing))
        yield WithPassengers(denoiser, sharing, watching, passengers, chunk, recording)


def _places(frames: Sequence[RowId], numbers: Sequence[int]) -> list[int]:
    """Where the frames of these numbers are."""
    known = {row.frame: place for place, row in enumerate(frames)}
    if missing := [number for number in numbers if number not in known]:
        raise TaskError(f"anchor {missing[0]} is none of the frames {frames[0].frame} to {frames[-1].frame}")
    return sorted({known[number] for number in numbers})


def most_held(
    watching: Mapping[RowId, Watch],
    frames: Sequence[RowId],
    max_batch: int,
    *,
    terms: int = 1,
    chunk: int | None = None,
) -> int:
    """How many network rows wait in the bank at once, at most, for others to look at them.

    Each takes the bytes that `segue.models.attended.attended_bytes` tells.

    Args:
        watching: whom frames look at, and passengers: `Pattern.watching`, `Bank.watching`.
        frames: of the clip.
        max_batch: network rows in one call.
        terms: of guidance.
        chunk: rows that are handed to the denoiser at once.
    """
    order = [
        row
        for row, _ in ordered(
            [(row, 0) for row in frames], lambda one: [(row, 0) for row in watching.get(one[0], Watch()).sees]
        )
    ]
    own = set(frames)
    riding, rows = [row for row in order if row not in own], [row for row in order if row in own]
    turn = {row: place for place, row in enumerate([*riding, *rows])}
    last = {seen: turn[row] for row in turn for seen in watching.get(row, Watch()).sees}
    size = chunk or max(1, len(rows))
    parts = [riding, *(rows[start : start + size] for start in range(0, len(rows), size))]
    held, most = set[tuple[int, RowId]](), 0
    for part in parts:
        called = [(term, row) for term in range(terms) for row in part]
        for start in range(0, len(called), max_batch):
            call = called[start : start + max_batch]
            reached = {term: turn[row] for term, row in call}
            held = {one for one in held.union(call) if last.get(one[1], -1) > reached.get(one[0], -1)}
            most = max(most, len(held))
    return most
