"""What a command says when it is done."""

from __future__ import annotations

from pathlib import Path

import torch

from segue.cli.result import Result
from segue.media.clip import Clip, Provenance, TensorFrames


def line(ended: str) -> list[str]:
    frames = TensorFrames(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    clip = Clip(frames, 12, provenance=Provenance({"scores": {"ended": ended}}))
    return Result(Path("x.mp4"), clip, 2, True, 1.0).line().splitlines()


def test_what_was_asked_of_a_film_is_answered() -> None:
    reached = "smoothness 0.05 is not reached: so long a way needs about 30 frames, and the film has 20"
    assert line(f"the budget of 7 branches was used; {reached}")[1:] == [reached]


def test_why_a_tree_ended_is_left_to_the_record() -> None:
    assert len(line("the budget of 7 branches was used")) == 1
