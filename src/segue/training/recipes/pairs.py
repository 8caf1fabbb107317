"""Make pairs of pictures with what was said to get from one to the other: what the instruct recipe learns from.

Most are made by rule from emoji, as a corpus is. Others a model draws itself: see `segue.training.instruct_drawn`. They
are let through by CLIP, or where there is none, by a classifier of the corpus's things, which
`python benchmarks/models.py --judge-corpus FOLDER` makes. Packages that are not in `tarballs` are fetched with npm.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict

from segue.errors import TrainingError
from segue.evaluation.judge_file import read_judge
from segue.models.perceptual import ClipNetwork
from segue.training.bounds import Count, Natural
from segue.training.corpus import CONCEPTS
from segue.training.instruct_drawn import Drawing
from segue.training.instruct_pairs import PairsConfig, build_pairs
from segue.training.instruct_score import CLIP_LIMITS, JUDGE_LIMITS, ClipPairs, JudgedPairs
from segue.zoo import load


@dataclass(frozen=True)
class Config(PairsConfig):
    """What is changed, and how (see PairsConfig), and where things lie."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    out: Path = Path("runs/pairs")
    tarballs: Path = Path("runs/packages")
    concepts: Path = CONCEPTS
    drawn: Natural = 0  # pairs that a model is asked to draw; some are not let through
    drawn_kinds: tuple[Literal["thing", "colour", "ground", "style"], ...] = ("thing", "colour", "ground", "style")
    samples: Count = 4  # that are drawn of each, of which the best is kept
    model: str = "emoji"  # an embedded model, a folder, or a hub repository: it knows the things of the list
    judge: Path | None = None  # the file of a corpus classifier
    clip: str = ""  # a folder or hub repository of CLIP, which is asked in its place
    device: str = "cpu"


def main(config: Config) -> Path:
    """Make the pairs and return their folder.

    Raises:
        TrainingError: pairs are to be drawn, and nothing says which are good.
    """
    shown = PairsConfig(**{field.name: getattr(config, field.name) for field in fields(PairsConfig)})
    build_pairs(config.out, config.tarballs, shown, config.concepts, drawing=drawing_of(config))
    return config.out


def drawing_of(config: Config) -> Drawing | None:
    """Who draws pairs besides; None if nobody is asked to.

    Raises:
        TrainingError: nothing says which pairs are good.
    """
    if not config.drawn:
        return None
    if config.clip:
        scorer, limits = ClipPairs(ClipNetwork.load(config.clip, config.device)), CLIP_LIMITS
    elif config.judge is not None:
        scorer, limits = JudgedPairs(read_judge(config.judge)), JUDGE_LIMITS
    else:
        raise TrainingError(
            f"drawn={config.drawn} asks for pairs that a model draws, and nothing says which of them are good: give "
            "judge=FILE, which benchmarks/models.py --judge-corpus makes, or clip=FOLDER"
        )
    model = load(config.model, config.device)
    return Drawing(model, scorer, limits, config.drawn, config.drawn_kinds, config.samples, seed=config.seed + 2)
