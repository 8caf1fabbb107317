"""Two pictures of one layout: one attends within itself exactly as the other does, for a share of the run.

After Prompt-to-Prompt (Hertz et al. 2022, arXiv:2208.01626, section 3.2), in the form in which pairs for
InstructPix2Pix were drawn (Brooks, Holynski & Efros 2023, arXiv:2211.09800, section 3.1.2): from the same noise, and
with the same maps of self-attention early in the run. What a place looks like is its own; which places belong together
is the other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segue.types import Call, RowId

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.temporal.attention import Place, Plain
    from segue.temporal.rivals.inputs import Reader


@dataclass(frozen=True)
class Follows:
    """Which row another one follows, and for how long.

    Args:
        row: whose maps are taken.
        until: share of the run, in [0, 1], counted from its start.
    """

    row: RowId
    until: float


@dataclass(frozen=True)
class SharedMaps:
    """An adapter for sites of self-attention; see `segue.models.attention.attached`.

    Both rows of a pair must be in the same call, so that a model's `max_batch` must hold all rows with all their terms.

    Args:
        reader: of maps.
        follows: of each row that follows another.
    """

    reader: Reader
    follows: Mapping[RowId, Follows]

    def __call__(
        self,
        plain: Plain,
        hidden: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m e"] | None,
        call: Call,
        site: Place,
    ) -> Float[Tensor, "b n d"]:
        """The site's answer; that of rows which follow nobody is left alone.

        Raises:
            ValueError: a row that is followed is not in the call.
        """
        answer = plain(hidden, context)
        if site.kind != "self" or hidden.ndim != 3:
            return answer
        places = {name: place for place, name in enumerate(zip(call.rows, call.term, strict=True)) if name[1] >= 0}
        progress = call.at.progress.tolist()
        pairs: list[tuple[int, int]] = []
        for (row, term), place in places.items():
            followed = self.follows.get(row)
            if followed is None or progress[place] >= followed.until:
                continue
            if (followed.row, term) not in places:
                raise ValueError(f"{row} follows {followed.row}, which is not in its call: take a larger max_batch")
            pairs.append((place, places[followed.row, term]))
        if not pairs:
            return answer
        mine, theirs = (list(column) for column in zip(*pairs, strict=True))
        weights = self.reader.weights(site, hidden[theirs], hidden[theirs])
        answer = answer.clone()
        answer[mine] = self.reader.answer(site, weights, hidden[mine]).to(answer.dtype)
        return answer
