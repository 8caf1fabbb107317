"""The best of several edits, which differ in their noise: an edit is a lottery, and tickets may be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segue.evaluation.edited import Words, directions
from segue.evaluation.judge_file import read_judge
from segue.evaluation.prompt_score import ClipScorer, CorpusScorer, check_prompts
from segue.media.clip import as_floats, to_uint8
from segue.models.perceptual import ClipNetwork
from segue.tasks.edit_draw import EditDrawing
from segue.tasks.edit_trial import Found, tried_frames
from segue.tasks.stylize_look import Looking
from segue.tasks.stylize_outlook import rows_of
from segue.temporal.candidates import Candidate, ranked
from segue.temporal.frame_attention import Pattern
from segue.types import silent

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

STAGE = "trying candidates"
JUDGE = ".safetensors"
"""What the name of a judge's file ends in."""


def chosen_seed(drawing: EditDrawing, count: int, by: str, known: Path) -> Found[int]:
    """The best of so many seeds from the task's own on, by the mean over a few frames, each edited by itself.

    Args:
        drawing: of the edit.
        count: of candidates.
        by: who ranks them; see `Change`.
        known: a file that keeps the answer for a run that goes on.

    Raises:
        ModelError: who is to rank them cannot be had.
        TaskError: the prompts cannot be scored.
    """
    if (kept := Found[int].kept(known)) is not None:
        return kept
    frames = tried_frames(len(drawing.source))
    score = _Score(drawing, by, torch.cat([drawing.source[frame : frame + 1] for frame in frames]))

    def made() -> Iterator[tuple[Candidate, Tensor]]:
        for number in range(count):
            seed = drawing.task.seed + number
            yield Candidate(seed), torch.cat([_edited(drawing, frame, seed) for frame in frames])
            drawing.progress(STAGE, number + 1, count)

    best, *_ = ranked(made(), score)
    each = rows_of(drawing.task, drawing.model) * drawing.passes + drawing.prepared.more_evaluations
    answer = Found(best.candidate.seed, each * len(frames) * count)
    answer.keep(known)
    return answer


class _Score:
    """How well an edit fits its words: the direction that it went, if what was there is said; or what it shows."""

    def __init__(self, drawing: EditDrawing, by: str, pictures: Float[Tensor, "n 3 h w"]) -> None:
        self.pictures, self.prompt = pictures, drawing.task.prompt or ""
        self.source_prompt = drawing.prepared.edit.change.source_prompt
        judge = Path(by).expanduser()
        if judge.suffix == JUDGE:
            self.scorer = CorpusScorer(read_judge(judge))
        else:
            self.scorer = ClipScorer(ClipNetwork.load(by))
        check_prompts(self.scorer, self.prompt, None)

    def __call__(self, made: Float[Tensor, "n 3 h w"]) -> float:
        found = self.scorer.features(made)
        if isinstance(self.scorer, ClipScorer) and self.source_prompt:
            words = Words(self.prompt, self.source_prompt, self.scorer.network)
            return float(directions(self.scorer.features(self.pictures), found, words).mean())
        return float(self.scorer.scores(found, self.prompt).mean())


def _edited(drawing: EditDrawing, frame: int, seed: int) -> Float[Tensor, "1 3 h w"]:
    """A frame, edited by itself."""
    folder = drawing.folder / f"candidate-{seed}-{frame}"
    folder.mkdir(exist_ok=True)
    trial = replace(
        drawing,
        task=replace(drawing.task, seed=seed),
        plan=replace(drawing.plan, parts=[(frame, frame + 1)]),
        looking=Looking(drawing.model, Pattern(own=True)),
        folder=folder,
        progress=silent,
    )
    # Rounded as results are: where an edit is small, its direction is in the last levels, too.
    return as_floats(to_uint8(drawing.model.codec.decode(trial(0)).float().cpu()))
