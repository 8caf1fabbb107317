"""What a film is asked besides how it moves: its prompt, its looks, other pictures, and what it was before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segue.errors import TaskError
from segue.evaluation.features import Features
from segue.evaluation.frechet import FrechetDistance, frechet_distance
from segue.evaluation.judge_file import read_judge
from segue.evaluation.looks import Looks, looks
from segue.evaluation.measure import Measure
from segue.evaluation.prompt_score import (
    ClipScorer,
    CorpusScorer,
    PromptScore,
    PromptScorer,
    check_prompts,
    features_of,
)
from segue.media.reader import read
from segue.models import perceptual
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

_BATCH = 8


@dataclass(frozen=True)
class Wanted:
    """What is asked.

    Args:
        prompt: what the film should show; scored by `clip` or `judge`.
        source_prompt: what the film shows that it was made from.
        clip: a folder or a hub repository of CLIP.
        judge: a file of a corpus classifier.
        aesthetic: a safetensors file of a linear head on that CLIP.
        against: pictures or a film that it should look as if it was one of.
        before: the film as it was before it was worked on, to be held against the source as well.
        caption: words that say how what it shows should move.
    """

    prompt: str | None = None
    source_prompt: str | None = None
    clip: str | None = None
    judge: Path | None = None
    aesthetic: Path | None = None
    against: Path | None = None
    before: Path | None = None
    caption: str | None = None

    def __post_init__(self) -> None:
        needs = (
            (self.prompt and not (self.clip or self.judge), "--prompt is scored by --clip-model or by --judge"),
            (self.clip and self.judge, "--clip-model and --judge both score prompts"),
            (self.source_prompt and not self.prompt, "--source-prompt is compared with --prompt"),
            (self.judge and not self.prompt, "--judge scores --prompt"),
            (self.aesthetic and not self.clip, "--aesthetic is a head on the features of --clip-model"),
            (
                self.clip and not (self.prompt or self.aesthetic or self.against),
                "--clip-model is for --prompt, --aesthetic or --against",
            ),
        )
        for wrong, why in needs:
            if wrong:
                raise TaskError(f"{why}: give {'one of them' if 'both' in why else 'it, too'}")
        if self.caption is not None and not self.caption.strip():
            raise TaskError(f'--caption must be words, such as "a bouncing ball"; got {self.caption!r}')


@dataclass(frozen=True)
class Against:
    """How far a film's frames are from other pictures, as sets.

    Args:
        other: where those are.
        distance: between as many frames of each.
        halves: the same between every other one of the other pictures and the rest: what is no distance at all.
    """

    other: Path
    distance: FrechetDistance
    halves: float | None

    def measures(self) -> list[Measure]:
        """The number, with all that it depends on."""
        found, own = self.distance, "" if self.halves is None else f"; between its own halves: {self.halves:.3g}"
        told = f"to {found.pictures[1]} of {self.other.name}, in {found.features}{own}"
        return [Measure("Fréchet distance", found.value, "lower", told)]


@dataclass(frozen=True)
class Answers:
    """What was found out.

    Args:
        looks: how the film looks.
        prompt: how well it fits its prompt.
        against: how far it is from other pictures.
    """

    looks: Looks
    prompt: PromptScore | None = None
    against: Against | None = None

    def measures(self) -> list[Measure]:
        """All numbers, each with its meaning."""
        asked = [*(self.prompt.measures() if self.prompt else []), *(self.against.measures() if self.against else [])]
        return [*asked, *self.looks.measures()]


@dataclass(frozen=True)
class Instruments:
    """The networks that a question needs, loaded."""

    wanted: Wanted
    scorer: PromptScorer | None = None
    head: perceptual.LinearHead | None = None
    features: Features | None = None

    @classmethod
    def of(cls, wanted: Wanted) -> Instruments:
        """Load what is needed, and check that the prompts can be read.

        Raises:
            ModelError: a network cannot be had.
            TaskError: a prompt cannot be scored, or there are no features to compare sets of pictures in.
        """
        network = None if wanted.clip is None else perceptual.ClipNetwork.load(wanted.clip)
        scorer = None if network is None else ClipScorer(network)
        if wanted.judge is not None:
            scorer = CorpusScorer(read_judge(wanted.judge))
        if scorer is not None and wanted.prompt is not None:
            check_prompts(scorer, wanted.prompt, wanted.source_prompt)
        head = None
        if network is not None and wanted.aesthetic is not None:
            head = perceptual.LinearHead.load(wanted.aesthetic, network.width)
        features = network
        if wanted.against is not None and network is None:
            features = usual_features()
        return cls(wanted, scorer, head, features)

    def answers(self, frames: Frames, source: Frames | None = None, *, progress: Progress = silent) -> Answers:
        """Look at a film, once with each network.

        Args:
            frames: of it.
            source: the film that it was made from, whose colours are told beside.
            progress: told of every few frames.
        """
        wanted, scorer = self.wanted, self.scorer
        found = None if scorer is None else features_of(frames, scorer, progress=progress)
        score = None
        if scorer is not None and found is not None and wanted.prompt is not None:
            score = PromptScore.of(found, wanted.prompt, scorer, wanted.source_prompt)
        against = None
        if wanted.against is not None and self.features is not None:
            against = held_against(frames, wanted.against, self.features, progress=progress)
        head = self.head
        beauty = None if head is None or scorer is None else (f"{head.name} on {scorer.name}", head)
        return Answers(looks(frames, source, aesthetic=beauty, features=found, progress=progress), score, against)


def usual_features() -> Features:
    """The features in which sets of pictures are compared where no CLIP is given.

    Raises:
        ModelAccessError: their weights are not here; the message says how to get them.
    """
    return perceptual.EfficientNetFeatures.load()


def held_against(frames: Frames, other: Path, features: Features, *, progress: Progress = silent) -> Against:
    """The Fréchet distance between as many frames of a film and of another, or of a folder of pictures.

    Of the longer one, frames are taken evenly, as the estimate depends on how many there are.

    Raises:
        MediaError: the other one cannot be read.
        TaskError: one of them has fewer than 2 frames.
    """
    others = read(other).frames
    count = min(len(frames), len(others))
    if count < 2:
        raise TaskError(
            f"sets of 2 pictures or more are compared; the film has {len(frames)} and {other} has {len(others)}"
        )
    mine, theirs = (_some(film, count, features, progress) for film in (frames, others))
    halves = frechet_distance(theirs[::2], theirs[1::2], features.name).value if count > 3 else None
    return Against(other, frechet_distance(mine, theirs, features.name), halves)


def _some(frames: Frames, count: int, features: Features, progress: Progress) -> Float[Tensor, "n d"]:
    import torch

    numbers = [i * len(frames) // count for i in range(count)]
    found: list[torch.Tensor] = []
    with torch.no_grad():
        for start in range(0, count, _BATCH):
            pictures = torch.cat([frames[i : i + 1] for i in numbers[start : start + _BATCH]])
            found.append(features(pictures).float().cpu())
            progress("comparing sets of pictures", min(start + _BATCH, count), count)
    return torch.cat(found)
