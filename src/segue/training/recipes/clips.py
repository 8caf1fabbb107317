"""Make clips of things that move, with captions that say how; or of footage that has captions.

Packages that are not in `tarballs` are fetched by npm.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ConfigDict
from rich.console import Console

from segue.training.bounds import Count
from segue.training.clip_corpus import ClipsConfig, build_clips
from segue.training.clip_filters import Limits
from segue.training.clip_footage import FootageConfig, build_footage
from segue.training.corpus import CONCEPTS

C = TypeVar("C", ClipsConfig, FootageConfig)


@dataclass(frozen=True)
class Config(ClipsConfig):
    """What moves, and how (see ClipsConfig; of footage, FootageConfig), and where things lie."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    out: Path = Path("runs/clips")
    tarballs: Path = Path("runs/packages")
    concepts: Path = CONCEPTS
    folder: Path | None = None  # of footage with captions, or a shard of it; then nothing is drawn
    windows: Count = 4  # of a shot of footage
    uncaptioned: Literal["skip", "keep"] = "skip"  # footage that nobody said anything of
    mirrored: bool = True  # whether footage may be seen in a mirror
    limits: Limits = field(default_factory=Limits)  # of footage that is learned from


def main(config: Config) -> Path:
    """Make the clips, about 2.4 GB of them, and return their folder; called again, it goes on where it was cut."""
    if config.folder is not None:
        report = build_footage(config.out, config.folder, _part(FootageConfig, config))
        Console(stderr=True).print(str(report), markup=False, highlight=False)
        return config.out
    build_clips(config.out, config.tarballs, _part(ClipsConfig, config), config.concepts)
    return config.out


def _part(kind: type[C], config: Config) -> C:
    return kind(**{field.name: getattr(config, field.name) for field in fields(kind)})
