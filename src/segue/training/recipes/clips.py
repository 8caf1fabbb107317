"""Make clips of things that move, with captions that say how. Packages not in `tarballs` are fetched by npm."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import ConfigDict

from segue.training.clip_corpus import ClipsConfig, build_clips
from segue.training.corpus import CONCEPTS


@dataclass(frozen=True)
class Config(ClipsConfig):
    """What moves, and how (see ClipsConfig), and where things lie."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    out: Path = Path("runs/clips")
    tarballs: Path = Path("runs/packages")
    concepts: Path = CONCEPTS


def main(config: Config) -> Path:
    """Make the clips, about 2.4 GB of them, and return their folder; called again, it goes on where it was cut."""
    shown = ClipsConfig(**{field.name: getattr(config, field.name) for field in fields(ClipsConfig)})
    build_clips(config.out, config.tarballs, shown, config.concepts)
    return config.out
