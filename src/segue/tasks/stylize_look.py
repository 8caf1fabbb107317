"""What frames look at while they are drawn: each other, pictures from elsewhere, and frames of parts before."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from segue.diffusion.schedule import Schedule
from segue.models.attended import model_sites
from segue.temporal.bank import Bank, Recording
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

    Args:
        model: ready to run.
        pattern: whom frames look at.
        anchors: numbers of frames that were chosen, all of the first part.
        references: pictures from elsewhere.
        given: anchors of another film; None if there are none.
        keeps: whether frames of the first part are kept, for later parts or another film.
    """

    model: LatentDiffusion
    pattern: Pattern
    anchors: Sequence[int] = ()
    references: Sequence[Passenger] = ()
    given: Bank | None = None
    keeps: bool = False
    recording: Recording = field(default_factory=Recording)

    @property
    def acts(self) -> bool:
        """Whether anybody looks at anybody else."""
        return self.pattern != Pattern(own=True)

    def ahead(self, frames: int) -> int:
        """How many of so many frames of the first part go ahead, and ride along with later ones."""
        return len({*self.pattern.ahead(frames), *self.anchors})

    @contextmanager
    def during(self, rows: Sequence[RowId], first: bool, records: bool = True) -> Generator[Denoiser]:
        """The denoiser, whose rows look at each other while it lasts.

        Args:
            rows: of a part.
            first: whether it is the first part.
            records: whether what others will look at is kept; not of a run backwards.
        """
        if not self.acts:
            yield self.model.denoiser
            return
        pattern, bank, anchors = self.pattern, self.given, self.anchors
        if not first and self.recording.latents:
            # What the first part looked at is in its bank, too.
            pattern, bank, anchors = replace(pattern.continued(), references=()), self.recording.bank(), ()
        elif not first:
            anchors = ()
        references = self.references if pattern.references != () else ()
        recording = None
        if self.keeps and first:
            recording = self.recording if records else Recording()
        with frame_attention(
            self.model.denoiser, model_sites(self.model), pattern, rows,
            anchors=anchors, references=references, bank=bank, recording=recording,
        ) as denoiser:  # fmt: skip
            yield denoiser

    def kept(self) -> dict[str, Tensor]:
        """The latents that were recorded so far, for `restored`."""
        found: dict[str, Tensor] = {}
        for row, steps in self.recording.latents.items():
            found[f"{row.trajectory}.{row.frame}"] = torch.stack([steps[step] for step in sorted(steps)])
        return found

    def restore(
        self, kept: Mapping[str, Tensor], rows: Sequence[RowId], cond: Condition, steps: range, schedule: Schedule
    ) -> None:
        """Put back what was recorded of steps that another run has done; while `during` lasts.

        Args:
            kept: see `kept`.
            rows: of the part.
            cond: what they are told.
            steps: that are done.
            schedule: of the run.
        """
        places = {f"{row.trajectory}.{row.frame}": place for place, row in enumerate(rows)}
        riding = {RowId(REFERENCE, number): one for number, one in enumerate(self.references)}
        riding |= self.given.passengers() if self.given else {}
        for number, step in enumerate(steps):
            for name, latents in kept.items():
                if name in places:
                    place = places[name]
                    now, _ = schedule.step(torch.tensor([step]), [rows[place]])
                    self.recording.see(latents[[number]], now, cond[[place]])
            for row, passenger in riding.items():
                now, _ = schedule.step(torch.tensor([step]), [row])
                self.recording.see(passenger.latents.at(step)[None], now, passenger.cond)

    def rows_held(self, rows: Sequence[RowId], max_batch: int, pictures: int) -> int:
        """Network rows that wait at once for others to look at them, at most.

        Args:
            rows: of a part.
            max_batch: network rows in one call.
            pictures: how many references there will be.
        """
        bank = self.given.rows if self.given else ()
        riding = tuple(RowId(REFERENCE, number) for number in range(pictures))
        places = [place for place, row in enumerate(rows) if row.frame in self.anchors]
        watching = self.pattern.watching(rows, places, riding if self.pattern.references != () else (), bank)
        return most_held(watching, rows, max_batch, terms=2)
