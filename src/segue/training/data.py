"""The corpus in memory, and the chance of a step: a function of (seed, step) alone, so a run can be cut anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from segue.errors import TrainingError


@dataclass(frozen=True)
class Corpus:
    """Pictures with the weight they are drawn with and the captions each may have."""

    pictures: UInt8[Tensor, "n h w 3"]
    weights: NDArray[np.float64]
    captions: tuple[tuple[str, ...], ...]

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """Read what `segue.training.corpus.build` wrote, all of it into memory (50 KB a picture at 128 pixels).

        The pictures are held against the hash that was taken when they were built, which takes about 3 s a GB.

        Raises:
            TrainingError: there is no corpus, or its files are damaged or not of one build.
        """
        if not (folder / "sources.json").exists():
            raise TrainingError(f"no corpus in {folder}: build one first: segue train corpus")
        try:
            return cls._checked(folder)
        except (OSError, ValueError, LookupError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise TrainingError(f"the corpus in {folder} is damaged ({reason}); rebuild it") from error

    @classmethod
    def _checked(cls, folder: Path) -> Corpus:
        """The corpus of a folder; whatever is raised says that it is damaged."""
        pictures, lines = stored_pictures(folder), described_lines(folder / "manifest.jsonl")
        weights = np.array([line["weight"] for line in lines], np.float64)
        captions = tuple(tuple(line["captions"]) for line in lines)
        if len(lines) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures, {len(lines)} lines in manifest.jsonl")
        if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0):
            raise ValueError("weights must be finite, not negative, and not all 0")
        if not all(said and all(isinstance(caption, str) for caption in said) for said in captions):
            raise ValueError("every picture needs captions")
        return cls(pictures, weights / weights.sum(), captions)

    def __len__(self) -> int:
        return len(self.pictures)

    def split(self, every: int) -> tuple[Corpus, Corpus]:
        """(training, validation): every `every`-th picture goes to validation."""
        chosen = np.arange(len(self)) % every == every - 1
        return self.take(np.flatnonzero(~chosen)), self.take(np.flatnonzero(chosen))

    def take(self, rows: NDArray[np.int64]) -> Corpus:
        weights = self.weights[rows]
        return Corpus(self.pictures[rows], weights / weights.sum(), tuple(self.captions[i] for i in rows))

    def floats(self, rows: Sequence[int] | NDArray[np.int64]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [0, 1]."""
        return self.pictures[rows].permute(0, 3, 1, 2).float() / 255


def stored_pictures(folder: Path) -> UInt8[Tensor, "n h w 3"]:
    """The pictures of a folder, held against the hash that its sources.json tells.

    Raises:
        OSError, ValueError, LookupError: they are damaged.
    """
    wanted = json.loads((folder / "sources.json").read_text("utf-8"))["pictures_sha256"]
    with (folder / "pictures.npy").open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
            raise ValueError("pictures.npy is not the file that sources.json tells of")
    pictures = np.load(folder / "pictures.npy", allow_pickle=False)
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3 or not len(pictures):
        raise ValueError(f"expected pictures of uint8 (n, h, w, 3), got {pictures.dtype} {pictures.shape}")
    return torch.from_numpy(pictures)


def described_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of one JSON object a line."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def windows(
    pictures: Float[Tensor, "b c h w"], corners: NDArray[np.float64], side: int, multiple: int = 1
) -> Float[Tensor, "b c side side"]:
    """A square of `side` out of each picture.

    Args:
        corners: (b, 2), where the upper left corner is, down and to the right, as shares of the room that there is.
        multiple: of which corners are.
    """
    room = np.array([length - side for length in pictures.shape[-2:]]) // multiple
    places = np.minimum((corners * (room + 1)).astype(np.int64), room) * multiple
    cut = [one[:, y : y + side, x : x + side] for one, (y, x) in zip(pictures, places.tolist(), strict=True)]
    return torch.stack(cut)


def step_rng(seed: int, step: int) -> np.random.Generator:
    """The generator of a step: choices made with it are the same in a run that was cut and resumed."""
    return np.random.default_rng((seed, step))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The same for torch; on the CPU, so that the noise does not depend on the device."""
    state = np.random.SeedSequence((seed, step, 1)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))
