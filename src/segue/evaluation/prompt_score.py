"""Does a film show what its prompt says? By CLIP, or by a classifier of a corpus's things, named for what it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from statistics import fmean
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn.functional import normalize

from segue.errors import TaskError
from segue.evaluation.measure import Measure
from segue.types import Frames, Progress, silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.evaluation.recognition import Judge
    from segue.models.perceptual import ClipNetwork

_BATCH = 8
_ARTICLES = ("a", "an", "the", "of", "with", "on", "in", "and")


class PromptScorer(Protocol):
    """What says how well a picture fits a prompt."""

    @property
    def name(self) -> str:
        """The network, to be written beside every number."""
        ...

    @property
    def title(self) -> str:
        """What its score is called."""
        ...

    @property
    def says(self) -> str:
        """What its score is."""
        ...

    def features(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """One vector per picture in [0, 1]; cosines between them mean something."""
        ...

    def scores(self, features: Float[Tensor, "b d"], prompt: str) -> Float[Tensor, " b"]:
        """How well each picture fits a prompt; higher is better."""
        ...


@dataclass(frozen=True)
class ClipScorer:
    """By CLIP: the cosine between the features of a picture and those of a text, as CLIPScore without its factor 2.5.

    Hessel et al. 2021, arXiv:2104.08718. Only the square in the middle of a picture is looked at, as CLIP does it.

    Args:
        network: a checkpoint.
    """

    network: ClipNetwork
    title: str = "CLIP score"
    says: str = "cosine of frame and prompt"

    @property
    def name(self) -> str:
        """The checkpoint."""
        return self.network.name

    def features(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """CLIP's, of length 1."""
        return self.network(pictures).cpu()

    def scores(self, features: Float[Tensor, "b d"], prompt: str) -> Float[Tensor, " b"]:
        """The cosines."""
        return features @ self.network.texts([prompt])[0].cpu()


@dataclass(frozen=True)
class CorpusScorer:
    """By a classifier that learned the things of a corpus: the probability, among its nouns, of the one in the prompt.

    It is no CLIP: it knows its nouns and nothing else of a prompt, and takes the whole picture for one thing.

    Args:
        judge: the classifier.
    """

    judge: Judge
    title: str = "noun probability"
    says: str = "how sure the corpus classifier is, among its nouns, of the one in the prompt"

    @property
    def name(self) -> str:
        """The features that it looks at, and how many nouns it tells apart."""
        return f"corpus classifier of {len(self.judge.nouns)} nouns on {self.judge.features.name}"

    def features(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Standardised, as otherwise all pictures lie in one direction."""
        return self.judge.standardised(self.judge.features(pictures).float().cpu())

    def scores(self, features: Float[Tensor, "b d"], prompt: str) -> Float[Tensor, " b"]:
        """The probabilities.

        Raises:
            TaskError: the prompt has none of its nouns.
        """
        head = self.judge.noun_head
        logits = features @ head[:, :-1].T + head[:, -1]
        return logits.softmax(1)[:, self.judge.nouns.index(noun_in(prompt, self.judge.nouns))]


def noun_in(prompt: str, nouns: Sequence[str]) -> str:
    """The noun of a list that a prompt has: the longest; or the one noun of several words that has its word.

    Raises:
        TaskError: there is none, or a word stands for several.
    """
    words = f" {' '.join(_words(prompt))} "
    whole = [noun for noun in nouns if f" {' '.join(_words(noun))} " in words]
    if whole:
        return max(whole, key=len)
    parts = {noun: set(_words(noun)) & set(words.split()) - set(_ARTICLES) for noun in nouns}
    partial = [noun for noun, shared in parts.items() if shared]
    if len(partial) == 1:
        return partial[0]
    near = partial or [match for word in words.split() for match in get_close_matches(word, nouns, 2)]
    hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    raise TaskError(
        f'"{prompt}" names none of the {len(nouns)} things that the corpus classifier knows{hint} Name one of them, or '
        "score by CLIP"
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text.lower())


@dataclass(frozen=True)
class PromptScore:
    """How well a film fits its prompt, and its frames each other.

    Args:
        prompt: what it should show.
        source_prompt: what the film that it was made from shows; None if that was not said.
        by: what scored it.
        title: what the score is called.
        says: what the score is.
        score: mean over the frames.
        worst: the least score of any frame.
        worst_at: that frame.
        consistency: the mean cosine between the features of neighbouring frames (Tem-Con); None for one frame.
        accuracy: the share of frames whose score for the prompt is no less than that for the source's (Fram-Acc); None
            without a source prompt. Both as FateZero measures them (Qi et al. 2023, arXiv:2303.09535).
        frames: the score of every frame.
    """

    prompt: str
    source_prompt: str | None
    by: str
    title: str
    says: str
    score: float
    worst: float
    worst_at: int
    consistency: float | None
    accuracy: float | None
    frames: tuple[float, ...]

    @staticmethod
    def of(
        features: Float[Tensor, "t d"], prompt: str, scorer: PromptScorer, source_prompt: str | None = None
    ) -> PromptScore:
        """From features of all frames, in their order.

        Raises:
            TaskError: the scorer cannot read a prompt.
        """
        scores = scorer.scores(features, prompt)
        frames = tuple(scores.double().tolist())
        directions = normalize(features.double(), dim=1)
        beside = (directions[1:] * directions[:-1]).sum(1)
        right = None if source_prompt is None else scores >= scorer.scores(features, source_prompt)
        worst = min(range(len(frames)), key=frames.__getitem__)
        return PromptScore(
            prompt, source_prompt, scorer.name, scorer.title, scorer.says,
            score=fmean(frames), worst=frames[worst], worst_at=worst,
            consistency=float(beside.mean()) if len(beside) else None,
            accuracy=None if right is None else float(right.double().mean()), frames=frames,
        )  # fmt: skip

    def measures(self) -> list[Measure]:
        """All numbers, each with its meaning."""
        told = f'{self.says}, mean over the frames ("{self.prompt}"; {self.by}); least in frame {self.worst_at}'
        found = [
            Measure(self.title, self.score, "higher", f"{told}: {self.worst:.3g}"),
            Measure(
                "consistency", self.consistency, "higher", "mean cosine of neighbouring frames' features (Tem-Con)"
            ),
        ]
        if self.source_prompt is not None:
            about = f'share of frames that fit it no less than "{self.source_prompt}" (Fram-Acc)'
            found.append(Measure("edited frames", self.accuracy, "higher", about))
        return found


def prompt_score(
    frames: Frames,
    prompt: str,
    scorer: PromptScorer,
    *,
    source_prompt: str | None = None,
    progress: Progress = silent,
) -> PromptScore:
    """Score a film, read a few frames at a time.

    Args:
        frames: one or more.
        prompt: what they should show.
        scorer: CLIP, or a classifier.
        source_prompt: what the film shows that they were made from.
        progress: told of every few frames.

    Raises:
        TaskError: the scorer cannot read a prompt; said before any frame is read.
        ValueError: there are no frames.
    """
    check_prompts(scorer, prompt, source_prompt)
    return PromptScore.of(features_of(frames, scorer, progress=progress), prompt, scorer, source_prompt)


def check_prompts(scorer: PromptScorer, *prompts: str | None) -> None:
    """Refuse prompts that a scorer cannot read, before frames are.

    Raises:
        TaskError: there is one.
    """
    for prompt in prompts:
        if prompt is not None and not prompt.strip():
            raise TaskError("a prompt that frames are scored with must say something; got an empty one")
        if isinstance(scorer, CorpusScorer) and prompt is not None:
            noun_in(prompt, scorer.judge.nouns)
        elif isinstance(scorer, ClipScorer) and prompt is not None:
            scorer.network.texts([prompt])


def features_of(frames: Frames, scorer: PromptScorer, *, progress: Progress = silent) -> Float[Tensor, "t d"]:
    """The features of all frames, float32 on the CPU.

    Raises:
        ValueError: there are no frames.
    """
    if not len(frames):
        raise ValueError("expected frames to look at, got none")
    found: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(frames), _BATCH):
            found.append(scorer.features(frames[start : start + _BATCH]).float().cpu())
            progress("looking at frames", min(start + _BATCH, len(frames)), len(frames))
    return torch.cat(found)
