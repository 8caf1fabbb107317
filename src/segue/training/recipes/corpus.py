"""Build the corpus that the other recipes learn from. Packages that are not in `tarballs` are fetched with npm."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import ConfigDict

from segue.training.corpus import CONCEPTS, CorpusConfig, build


@dataclass(frozen=True)
class Config(CorpusConfig):
    """What the corpus shows (see CorpusConfig), and where things lie."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    out: Path = Path("runs/corpus")
    tarballs: Path = Path("runs/packages")
    concepts: Path = CONCEPTS


def main(config: Config) -> Path:
    """Build the corpus, about three minutes for the list and half an hour for every emoji, and return its folder."""
    shown = CorpusConfig(**{field.name: getattr(config, field.name) for field in fields(CorpusConfig)})
    build(config.out, config.tarballs, shown, config.concepts)
    return config.out
