"""What frames look at while they are drawn: each other, pictures from elsewhere, and frames of parts before."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from segue.diffusion.schedule import Schedule
from segue.models.attended import model_sites
from segue.temporal.bank import BANK, Bank, Recording
from segue.temporal.frame_attention import REFERENCE, Pattern, frame_attention, most_held
from segue.temporal.passengers import Passenger
from segue.types import Condition, Denoiser, RowId

if TYPE_CHECKING:
    from torch import Tensor

    from segue.models.bundle import LatentDiffusion


def has_anchors(pattern: Pattern) -> bool:
    """Whether there are frames that go ahead of others, for all to look at."""
    return pattern.first or pattern.anchors or pattern.every > 0


@dataclass
class Looking:
    """Attention between frames, over all parts of a film.

    Frames that go ahead in a part are kept, and ride along with all parts behind it: what it looked at does, too.

    Args:
        model: ready to run.
        pattern: whom frames look at.
        anchors: numbers of frames that were chosen.
        references: pictures from elsewhere.
        given: anchors of another film; None if there are none.
        keeps: whether frames that go ahead are kept, for later parts or another film.
        parts: of the film: the first frame of each, and that after the last.
    """

    model: LatentDiffusion
    pattern: Pattern
    anchors: Sequence[int] = ()
    references: Sequence[Passenger] = ()
    given: Bank | None = None
    keeps: bool = False
    parts: Sequence[tuple[int, int]] = ()
    _recordings: dict[int, Recording] = field(default_factory=dict[int, Recording], init=False)

    @property
    def acts(self) -> bool:
        """Whether anybody looks at anybody else."""
        return self.pattern != Pattern(own=True)

    def own(self, number: int) -> tuple[int, ...]:
        """Numbers of the anchors of a part: those that are in no part before it."""
        if not self.parts:
            return tuple(self.anchors)
        before = self.parts[number - 1][1] if number else 0
        return tuple(one for one in self.anchors if before <= one < self.parts[number][1])

    def records(self, number: int) -> bool:
        """Whether frames of a part are kept, which later parts look at."""
        return self.keeps and (number == 0 or bool(self.own(number)))

    def unknown(self, number: int) -> list[int]:
        """Parts before this one that it looks at, and that were neither drawn nor restored yet."""
        return [one for one in range(number) if self.records(one) and one not in self._recordings]

    def riding(self, number: int) -> int:
        """How many rows ride along with a part, once those before it are drawn."""
        pictures = len(self.references) + (len(self.given.rows) if self.given else 0)
        if not number or not self.keeps:
            return pictures
        first = len({*self.pattern.ahead(self.parts[0][1]), *self.own(0)})
        return pictures + first + sum(len(self.own(one)) for one in range(1, number))

    def bank(self, number: int) -> Bank | None:
        """What a part looks at of those before it, and of another film; None if there is nothing.

        Args:
            number: of the part; that after the last for all that was kept.
        """
        before = [one for one in self._recordings if one < number]
        if not before:
            return self.given
        latest = max(before)
        recording, older = self._recordings[latest], self.bank(latest)
        found = recording.bank(sorted(recording.latents, key=_ridden))
        # Rows that rode along are called what they were.
        names = {row: one.name for row, one in zip(older.rows, older.anchors, strict=True)} if older else {}
        return replace(found, anchors=tuple(replace(one, name=names.get(one.name, one.name)) for one in found.anchors))

    @contextmanager
    def during(self, rows: Sequence[RowId], number: int, records: bool = True) -> Generator[Denoiser]:
        """The denoiser, whose rows look at each other while it lasts.

        Args:
            rows: of a part.
            number: of it.
            records: whether what others will look at is kept; not of a run backwards.
        """
        if not self.acts:
            yield self.model.denoiser
            return
        pattern, anchors, references = self.pattern, self.own(number), self.references
        if number and self.keeps:
            # What the parts before looked at is in their bank, too.
            pattern, references = replace(pattern.continued(bool(anchors)), references=()), ()
        recording = Recording() if self.records(number) else None
        if recording is not None and records:
            self._recordings[number] = recording
        with frame_attention(
            self.model.denoiser, model_sites(self.model), pattern, rows,
            anchors=anchors, references=references if pattern.references != () else (), bank=self.bank(number),
            recording=recording,
        ) as denoiser:  # fmt: skip
            yield denoiser

    def kept(self, number: int) -> dict[str, Tensor]:
        """The latents of a part that were recorded so far, for `restore`."""
        found: dict[str, Tensor] = {}
        for row, steps in self._recordings[number].latents.items():
            if row.trajectory not in (REFERENCE, BANK):
                found[str(row.frame)] = torch.stack([steps[step] for step in sorted(steps)])
        return found

    def restore(
        self,
        number: int,
        kept: Mapping[str, Tensor],
        rows: Sequence[RowId],
        cond: Condition,
        steps: range,
        schedule: Schedule,
    ) -> None:
        """Put back what was recorded of steps that another run has done; while `during` lasts.

        Args:
            number: of the part.
            kept: see `kept`.
            rows: of the part.
            cond: what they are told.
            steps: that are done.
            schedule: of the run.
        """
        recording, bank = self._recordings[number], self.bank(number)
        places = {str(row.frame): place for place, row in enumerate(rows)}
        riding = {} if number else {RowId(REFERENCE, one): ridden for one, ridden in enumerate(self.references)}
        riding |= bank.passengers() if bank else {}
        for turn, step in enumerate(steps):
            for name, latents in kept.items():
                place = places[name]
                now, _ = schedule.step(torch.tensor([step]), [rows[place]])
                recording.see(latents[[turn]], now, cond[[place]])
            for row, passenger in riding.items():
                now, _ = schedule.step(torch.tensor([step]), [row])
                recording.see(passenger.latents.at(step)[None], now, passenger.cond)

    def rows_held(self, rows: Sequence[RowId], max_batch: int, pictures: int, before: int = 0) -> int:
        """Network rows that wait at once for others to look at them, at most.

        Args:
            rows: of a part.
            max_batch: network rows in one call.
            pictures: how many references there will be.
            before: rows that ride along with it, as all parts but the first have them; then it has no anchors.
        """
        if before:
            bank = [RowId(BANK, place) for place in range(before)]
            watching = replace(self.pattern.continued(), references=()).watching(rows, bank=bank)
            return most_held(watching, rows, max_batch, terms=2)
        riding = tuple(RowId(REFERENCE, number) for number in range(pictures))
        places = [place for place, row in enumerate(rows) if row.frame in self.anchors]
        watching = self.pattern.watching(rows, places, riding if self.pattern.references != () else ())
        return most_held(watching, rows, max_batch, terms=2)


def _ridden(row: RowId) -> tuple[int, int]:
    """The order of rows in a bank, however they came there: pictures, those of banks, and frames."""
    return (REFERENCE, BANK).index(row.trajectory) if row.trajectory in (REFERENCE, BANK) else 2, row.frame
