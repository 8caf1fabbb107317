"""What is developed once is not developed again, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segue.media.clip import levels_of, to_uint8
from segue.tasks import album as albums
from segue.tasks.album import Album
from segue.tasks.branching import Branching
from segue.tasks.pace import Pace
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.transition import Transition
from toy import PatchCodec, toy_model

TASK = Transition(("a red apple", "a lemon"), seconds=1.2, fps=10, sampling=Sampling(steps=8))


class Counting(PatchCodec):
    """Counts the pictures that it decodes."""

    def __init__(self) -> None:
        self.decoded: list[int] = []

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded.append(len(latents))
        return super().decode(latents)


def developer(asked: list[int]):
    def develop(latents: Tensor, names: Sequence[int], positions: Sequence[float]) -> Tensor:
        asked.extend(names)
        # Like a network's, these sums depend a little on how many are made together.
        return (latents.sigmoid() + 1e-6 * len(latents)).expand(-1, 3, -1, -1).clamp(0, 1)

    return develop


def latents(count: int) -> Tensor:
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "task",
    [
        TASK,
        replace(TASK, fill="blend"),
        replace(TASK, pace=Pace(loop="pingpong")),
        replace(TASK, tree=Branching(ghosting=0.05)),
        replace(TASK, tree=Branching(smoothness=0.01, max_branches=30)),
        replace(TASK, tree=Branching(depth="auto")),
    ],
    ids=["plain", "blend", "pingpong", "ghosting", "smoothness", "auto"],
)
def test_a_film_is_decoded_once(task: Transition, tmp_path: Path) -> None:
    """From the first measurement to the file, no picture more than once; previews of depths come on top."""
    codec = Counting()
    clip = task.run(replace(toy_model(), codec=codec))
    clip.save(tmp_path / "film")
    record = clip.provenance.record if clip.provenance else {}
    nodes = len(record["plan"]["nodes"])
    previews = 5 if task.tree.depth == "auto" else 0
    assert sum(codec.decoded) <= nodes + previews
    assert sum(codec.decoded) >= len({shot[0] for shot in record["plan"]["shots"]})
    _ = clip.frames[:]
    clip.save(tmp_path / "again")


def test_what_is_written_is_what_was_measured() -> None:
    """Bytes are the rounded floats, whichever was asked for first."""
    one, other = TASK.run(toy_model()), TASK.run(toy_model())
    whole = slice(0, len(one))
    floats, levels = one.frames[whole], levels_of(other.frames, whole)
    assert torch.equal(levels, to_uint8(floats))
    assert torch.equal(levels_of(one.frames, whole), levels)
    assert torch.equal(other.frames[whole], floats)


def test_a_full_album_makes_again_what_it_could_not_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(albums, "FLOATS", 2 * 3 * 16 * 4)
    monkeypatch.setattr(albums, "LEVELS", 3 * 3 * 16)
    album, x = Album(developer(asked)), latents(5)
    every, places = list(range(5)), dict.fromkeys(range(5), 0.0)
    floats = album(x, every, [0.0] * 5)
    levels = album.levels(every, dict(enumerate(x)), places)
    assert torch.equal(torch.stack(levels), to_uint8(floats))
    # The first three stay as bytes, the last two as floats.
    assert asked == every and album.developed == 5
    album.rest()
    album.levels(every, dict(enumerate(x)), places)
    assert asked == [*every, 3, 4]


def test_the_bits_of_a_picture_do_not_depend_on_who_asked_first() -> None:
    """Every call has one shape; what only fills it up is not counted."""
    x = latents(5)
    one, other = Album(developer([]), batch=4), Album(developer([]), batch=4)
    whole = one(x, range(5), [0.0] * 5)
    assert torch.equal(whole[[3]], other(x[[3]], [3], [0.0]))
    assert torch.equal(whole, other(x, range(5), [0.0] * 5))
    assert (one.developed, other.developed) == (5, 5)
    loose = Album(developer([]), batch=1)
    assert not torch.equal(whole, loose(x, range(5), [0.0] * 5)), "the toy shows what is to be shown"


def test_an_accelerator_decodes_several_small_pictures_and_a_large_one_alone() -> None:
    model, here = replace(toy_model(), device=torch.device("meta")), toy_model()
    assert Execution().decoded_at_once(here, (64, 64)) == 1
    assert Execution().decoded_at_once(model, (512, 512)) == 4
    assert Execution(max_batch=4).decoded_at_once(model, (512, 512)) == 2
    assert Execution().decoded_at_once(model, (1024, 1024)) == Execution().decoded_at_once(model, (2048, 2048)) == 1
    assert Execution(deterministic_batch=True).decoded_at_once(model, (64, 64)) == 1
