"""Other methods, through the same task: what they are told, and where a run that was stopped goes on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flickers import saved, textured
from segue.errors import InterruptedRunError, TaskError
from segue.media import Clip, read
from segue.media.clip import levels_of
from segue.models.bundle import LatentDiffusion
from segue.tasks.sampling import Execution, Sampling
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_draw import STAGE
from segue.tasks.stylize_outlook import held_bytes
from segue.tasks.stylize_settings import Beginning, Shape
from segue.temporal.rivals.catalogue import RIVALS
from segue.temporal.rivals.fatezero import Fusing
from segue.temporal.rivals.tokenflow import Propagation, Turn
from segue.zoo.load import load
from shown import record

SIZE = (64, 64)


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return load("emoji-fast")


@dataclass(frozen=True)
class Films:
    """What each method makes of a film, made once; and what it told of."""

    model: LatentDiffusion
    film: str
    made: dict[str, tuple[Clip, list[tuple[str, float]]]] = field(
        default_factory=dict[str, tuple[Clip, list[tuple[str, float]]]]
    )

    def __getitem__(self, method: str) -> tuple[Clip, list[tuple[str, float]]]:
        if method not in self.made:
            told: list[tuple[str, float]] = []
            clip = task(self.film, method).run(self.model, progress=lambda what, done, total: told.append((what, done)))
            self.made[method] = clip, told
        return self.made[method]


@pytest.fixture(scope="module")
def films(model: LatentDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Films:
    """Of two shots of two frames."""
    frames = torch.cat([textured(2, SIZE), textured(2, SIZE, seed=6)])
    return Films(model, saved(tmp_path_factory.mktemp("films") / "film.apng", frames))


def task(film: str, method: str, **changes: Any) -> Stylize:
    beginning = Beginning(0.8, source_prompt="a cat")
    shape, sampling = Shape(cuts="2"), Sampling(steps=3, size=SIZE)
    return Stylize(film, "a fox", method=method, beginning=beginning, shape=shape, sampling=sampling, **changes)


def pixels(clip: Clip) -> Tensor:
    return levels_of(clip.frames, slice(None))


@pytest.mark.parametrize("method", RIVALS)
def test_a_run_that_was_stopped_goes_on_with_the_next_shot(method: str, films: Films, tmp_path: Path) -> None:
    asked, (whole, told) = task(films.film, method), films[method]
    # Two steps of three are run on each frame.
    assert [done for what, done in told if what == STAGE] == [4, 8]
    within = [place for place, (what, _) in enumerate(told) if what.startswith(f"{STAGE}: ")]
    assert within[-1] > told.index((STAGE, 4))
    calls = 0

    def stop(what: str, done: float, total: float) -> None:
        nonlocal calls
        calls += 1
        if calls == within[-1] + 1:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="2 of 4 frames are finished") as caught:
        asked.run(films.model, progress=stop, work=tmp_path)
    assert caught.value.partial is not None
    assert torch.equal(pixels(caught.value.partial), pixels(whole)[:2])
    del caught
    again: list[str] = []
    finished = asked.run(films.model, progress=lambda what, done, total: again.append(what), work=tmp_path)
    assert torch.equal(pixels(finished), pixels(whole)) and record(finished) == record(whole)
    # The first shot was not drawn once more.
    assert sum(what.startswith(STAGE) for what in again) < 0.7 * sum(what.startswith(STAGE) for what, _ in told)


@pytest.mark.parametrize("method", RIVALS)
def test_controls_reach_every_method(method: str, films: Films) -> None:
    clip = task(films.film, method, control=("tile",)).run(films.model)
    shown = levels_of(read(films.film).frames, slice(None)).float()
    tiled, plain = (float((pixels(each).float() - shown).abs().mean()) for each in (clip, films[method][0]))
    assert tiled < plain - 1


def test_methods_are_told_apart(films: Films) -> None:
    """None of them is another one under its name."""
    for method, other in combinations(RIVALS, 2):
        assert not torch.equal(pixels(films[method][0]), pixels(films[other][0])), f"{method} and {other}"


def test_what_waits_in_a_step_of_tokenflow_is_said_before(
    films: Films, model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte."""
    steps, found = Propagation.step, list[int]()

    @contextmanager
    def step(tokens: Propagation, turn: Turn) -> Generator[None]:
        with steps(tokens, turn):
            yield
            held = (vars(tokens)[name].values() for name in ("_features", "_places", "_answers"))
            found.append(sum(part.numel() * part.element_size() for parts in held for part in parts))

    monkeypatch.setattr(Propagation, "step", step)
    asked = replace(task(films.film, "tokenflow"), shape=Shape(cuts="none"))
    asked.run(model)
    due = held_bytes(asked.resolved(model, SIZE), model, 4, Execution())
    assert set(found) == {due}
    said = asked.prepared(model).outlook(Execution())
    assert f"what frames look at takes {max(1, round(due / 1e6))} MB of memory in every step" in said


def test_key_frames_that_do_not_fit_into_a_call_are_told_before_anything_is_done(
    model: LatentDiffusion, tmp_path: Path
) -> None:
    film = saved(tmp_path / "film.apng", textured(9, SIZE))
    guided = Sampling(steps=3, guidance_scale=2.0, size=SIZE)  # pyright: ignore
    asked = replace(task(film, "tokenflow"), shape=Shape(cuts="none"), sampling=guided)
    told = list[str]()
    for run in (
        lambda: asked.prepared(model).outlook(Execution(3)),
        lambda: asked.run(model, Execution(3), progress=lambda what, done, total: told.append(what), work=tmp_path),
    ):
        with pytest.raises(TaskError, match=r"2 key frames.* 2 rows each: expected --max-batch 4 or more, got 3"):
            run()
    assert not told and not list(tmp_path.glob(".segue-*"))
    # The terms of guidance need not be in one call.
    assert asked.prepared(model).outlook(Execution(2))


def test_what_waits_in_a_step_of_fatezero_is_said_before(
    films: Films, model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte: what the source asked, and what the middle frame is."""
    steps, found = Fusing.step, list[int]()

    @contextmanager
    def step(fusing: Fusing, number: int) -> Generator[None]:
        with steps(fusing, number):
            yield
            held = (vars(fusing)[name].values() for name in ("_asked", "_seen"))
            parts = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for one in held for part in one}
            found.append(sum(parts.values()))

    monkeypatch.setattr(Fusing, "step", step)
    asked = replace(task(films.film, "fatezero"), shape=Shape(cuts="none"))
    asked.run(model)
    due = held_bytes(asked.resolved(model, SIZE), model, 4, Execution())
    assert max(found) == due > 0
    said = asked.prepared(model).outlook(Execution())
    assert f"what frames look at takes {max(1, round(due / 1e6))} MB of memory in every step" in said


def test_an_unknown_method_is_told_with_all_that_there_are() -> None:
    with pytest.raises(TaskError, match=f"must be one of segue, {', '.join(RIVALS)}; got 'magic'"):
        Stylize("film.mp4", "a fox", method="magic")
