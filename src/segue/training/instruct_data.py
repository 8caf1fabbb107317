"""Pairs of pictures in memory, and what a step sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from segue.errors import TrainingError
from segue.training.data import described_lines, stored_pictures


class Told(NamedTuple):
    """What a batch of pairs is told.

    Args:
        before: rows of the pictures that are changed.
        after: rows of what they become.
        instructions: "" where the row is told none.
    """

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    instructions: list[str]


@dataclass(frozen=True)
class EditPairs:
    """Pictures, and which becomes which by what is said.

    Args:
        pictures: all of them.
        before: of each pair, the row of the picture that is changed.
        after: of what it becomes.
        kinds: what changes.
        weights: how often it is drawn; they sum to 1.
        instructions: what may be said.
        captions: of both pictures.
    """

    pictures: UInt8[Tensor, "n h w 3"]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    kinds: tuple[str, ...]
    weights: NDArray[np.float64]
    instructions: tuple[tuple[str, ...], ...]
    captions: tuple[tuple[str, str], ...]

    @classmethod
    def load(cls, folder: Path) -> EditPairs:
        """Read what `segue.training.instruct_pairs.build_pairs` wrote, all of it into memory.

        Raises:
            TrainingError: there are no pairs, or the files are damaged or not of one build.
        """
        if not (folder / "sources.json").exists():
            raise TrainingError(f"no pairs in {folder}: make some first: segue train pairs")
        try:
            lines = described_lines(folder / "pairs.jsonl")
            pictures = stored_pictures(folder)
            rows = np.array([[line["before"], line["after"]] for line in lines], np.int64)
            weights = np.array([line["weight"] for line in lines], np.float64)
            said = tuple(tuple(map(str, line["instructions"])) for line in lines)
            captions = tuple((str(line["captions"][0]), str(line["captions"][1])) for line in lines)
            if not len(lines) or rows.min() < 0 or rows.max() >= len(pictures):
                raise ValueError(f"pairs of {len(pictures)} pictures must name two of them")
            if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0):
                raise ValueError("weights must be finite, not negative, and not all 0")
            if not all(said):
                raise ValueError("every pair needs instructions")
            kinds = tuple(str(line["kind"]) for line in lines)
        except (OSError, ValueError, LookupError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise TrainingError(f"the pairs in {folder} are damaged ({reason}); make them again") from error
        return cls(pictures, rows[:, 0], rows[:, 1], kinds, weights / weights.sum(), said, captions)

    def __len__(self) -> int:
        return len(self.kinds)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> EditPairs:
        """Some pairs of the same pictures."""
        pick = list(map(int, rows))
        weights = self.weights[pick]
        kinds, said = tuple(self.kinds[i] for i in pick), tuple(self.instructions[i] for i in pick)
        captions = tuple(self.captions[i] for i in pick)
        return EditPairs(
            self.pictures, self.before[pick], self.after[pick], kinds, weights / weights.sum(), said, captions
        )

    def split(self, every: int) -> tuple[EditPairs, EditPairs]:
        """(training, validation): every `every`-th picture that was changed goes to validation, with all its pairs."""
        _, source = np.unique(np.minimum(self.before, self.after), return_inverse=True)
        kept = source % every == every - 1
        return self.take(np.flatnonzero(~kept)), self.take(np.flatnonzero(kept))

    def floats(self, rows: Sequence[int] | NDArray[np.int64]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [0, 1]."""
        return self.pictures[rows].permute(0, 3, 1, 2).float() / 255

    def draw(self, rng: np.random.Generator, batch: int, dropped: float, captioned: float = 0.0) -> Told:
        """A batch, as a step sees it.

        A share `dropped` of the rows is told nothing (Brooks, Holynski & Efros 2023, arXiv:2211.09800, section 3.2.1);
        of the others a share `captioned` is told what the picture shows that is wanted, and not what shall be done.
        """
        rows = rng.choice(len(self), batch, p=self.weights)
        said = [str(rng.choice(self.instructions[row])) for row in rows]
        chance, named = rng.random((2, batch))
        said = [
            self.captions[row][1] if u < captioned else words for row, u, words in zip(rows, named, said, strict=True)
        ]
        said = ["" if u < dropped else words for words, u in zip(said, chance.tolist(), strict=True)]
        return Told(self.before[rows], self.after[rows], said)
