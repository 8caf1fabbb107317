"""Many figures with their sticks, drawn once: what a control network learns poses from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from segue.training.figure import MOTIONS, figure_clip
from segue.training.journal import watched


@dataclass(frozen=True)
class Posed:
    """Figures that do something: their pictures, what of these they cover, and their key points drawn as sticks."""

    pictures: UInt8[Tensor, "n h w 3"]
    alphas: UInt8[Tensor, "n h w"]
    sticks: UInt8[Tensor, "n h w 3"]

    def __len__(self) -> int:
        return len(self.pictures)

    def split(self, every: int) -> tuple[Posed, Posed]:
        """(training, validation): every `every`-th figure goes to validation."""
        kept = torch.arange(len(self)) % every == every - 1
        learned, unseen = (Posed(self.pictures[rows], self.alphas[rows], self.sticks[rows]) for rows in (~kept, kept))
        return learned, unseen

    @classmethod
    def prepared(cls, kept: Path, count: int, size: tuple[int, int], seed: int) -> Posed:
        """So many, of people who all differ; kept in a file while the number, (width, height) and seed are the same.

        One of 128 pixels takes 0.2 s.
        """
        key = f"{count} {size} {seed}"
        names = ("pictures", "alphas", "sticks")
        if kept.exists():
            with safe_open(kept, "pt") as file:
                if file.metadata()["made_of"] == key:
                    return cls(*(file.get_tensor(name) for name in names))
        made: list[tuple[Tensor, Tensor, Tensor]] = []
        with watched("drawing figures", count) as tell:
            for number in range(count):
                made.append(_drawn(number, size, np.random.default_rng((seed, number))))
                tell(number + 1)
        found = cls(*(torch.stack(part).contiguous() for part in zip(*made, strict=True)))
        part = kept.with_name(kept.name + ".part")
        save_file({name: getattr(found, name) for name in names}, part, {"made_of": key})
        part.replace(kept)
        return found


def _drawn(subject: int, size: tuple[int, int], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    from segue.models.annotate import draw_skeleton

    clip = figure_clip(
        subject,
        str(rng.choice(sorted(MOTIONS))),
        size=size,
        frames=1,
        seed=int(rng.integers(1, 2**31)),
        phase=float(rng.random()),
        height=float(rng.uniform(0.6, 0.8)),
    )
    picture, sticks = (_bytes(part[0].permute(1, 2, 0)) for part in (clip.frames[0:1], draw_skeleton(clip.key_points)))
    return picture, _bytes(clip.alpha(0)), sticks


def _bytes(values: Tensor) -> Tensor:
    return (values.clamp(0, 1) * 255 + 0.5).byte()
