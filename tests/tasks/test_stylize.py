"""Films that are drawn anew: one loop, frames that agree, parts that join."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flickers import saved, textured
from segue.diffusion.guidance import classifier_free
from segue.diffusion.loop import collect, denoise
from segue.diffusion.noise import start_noise
from segue.diffusion.starts import from_latents
from segue.errors import InterruptedRunError
from segue.media import Clip, read
from segue.media.clip import levels_of, to_uint8
from segue.tasks.rerun import Rerun
from segue.tasks.sampling import Sampling
from segue.tasks.stylize import Stylize
from segue.tasks.stylize_draw import moments
from segue.tasks.stylize_plan import parts_of
from segue.tasks.stylize_settings import Agreement, Beginning, Shape
from segue.types import RowId
from shown import record
from toy import toy_model

SIZE = (48, 32)
ALONE = Agreement(attention="self", deflicker=0, blend=0.0)
"""Every frame by itself."""


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path / "film.apng", textured(9, SIZE))


def pixels(clip: Clip) -> Tensor:
    return levels_of(clip.frames, slice(None))


def small(film: str, **changes: Any) -> Stylize:
    """A quick one, drawn in the size of the film."""
    agreement = Agreement("self", around=2)
    usual = Stylize(film, "one", agreement=agreement, shape=Shape(cuts="none"), sampling=Sampling(size=SIZE))
    return replace(usual, **changes)


def test_it_is_the_loop_and_nothing_else(film: str) -> None:
    model = toy_model()
    task = small(film, negative="two", seed=3, agreement=ALONE, beginning=Beginning(strength=0.5))
    clip = task.run(model)
    schedule, texts = model.schedule(10, SIZE), model.text(["one", "two"])
    frames = read(film).frames[:]
    noise = start_noise(3, (12, 16, 24)).expand(9, -1, -1, -1)
    rows = [RowId("clip", number) for number in range(9)]
    state = from_latents(model.codec.encode(frames), noise, schedule, 0.5, rows)
    cond = classifier_free(texts[[0] * 9], texts[[1] * 9], 2.0)
    drawn = model.codec.decode(collect(denoise(model.denoiser, state, schedule, cond), schedule))
    assert torch.equal(pixels(clip), to_uint8(drawn))
    assert (clip.size, clip.fps, len(clip)) == (SIZE, 5, 9)


def test_a_rerun_makes_the_same_film(film: str, tmp_path: Path) -> None:
    clip = small(film).run(toy_model())
    clip.save(tmp_path / "a.apng")
    again = Rerun.read(tmp_path / "a.json").run(toy_model())
    assert torch.equal(pixels(again), pixels(clip))
    assert record(again) == record(clip)


def test_parts_join(film: str) -> None:
    """Where frames do not look at each other, drawing them in parts changes nothing."""
    whole, parts = (
        small(film, agreement=ALONE, shape=Shape(cuts="none", window=window, overlap=2)).run(toy_model())
        for window in (9, 4)
    )
    assert record(parts)["plan"]["parts"] == [(0, 4), (2, 6), (3, 7), (5, 9)]
    assert int((pixels(whole).int() - pixels(parts).int()).abs().max()) <= 1


@pytest.mark.parametrize(
    ("shots", "frames", "window", "overlap", "expected"),
    [
        ([0], 5, 8, 2, [(0, 5)]),
        ([0], 9, 4, 0, [(0, 4), (2, 6), (5, 9)]),
        ([0], 8, 4, 0, [(0, 4), (4, 8)]),
        ([0, 3], 8, 8, 2, [(0, 3), (3, 8)]),
        ([0, 1], 7, 4, 2, [(0, 1), (1, 5), (3, 7)]),
    ],
)
def test_parts_cover_every_shot(
    shots: list[int], frames: int, window: int, overlap: int, expected: list[tuple[int, int]]
) -> None:
    assert parts_of(shots, frames, window, overlap) == expected


def test_parts_overlap_by_what_is_asked_for() -> None:
    for frames in range(1, 60):
        for window in range(1, 13):
            for overlap in range(window // 2 + 1):
                found = parts_of([0], frames, window, overlap)
                assert found[0][0] == 0 and found[-1][1] == frames
                for (first, stop), (later, end) in pairwise(found):
                    assert first < later and later <= stop - overlap and stop < end
                    assert stop - first == end - later == window


def test_moments_are_spread_and_leave_the_end_free() -> None:
    assert moments(0, 8, 20) == ()
    assert moments(3, 8, 20) == (11, 14, 17)
    assert moments(99, 8, 20) == tuple(range(8, 18))
    assert moments(2, 0, 4) == (1, 2)
    assert moments(5, 0, 1) == ()


@pytest.mark.parametrize("at", [3, 11, 19])
def test_what_is_drawn_is_gone_on_with(film: str, tmp_path: Path, at: int) -> None:
    task = small(film, shape=Shape(cuts="none", window=5, overlap=2))
    whole = task.run(toy_model())
    calls = 0

    def stop(what: str, done: float, total: float) -> None:
        nonlocal calls
        assert 0 <= done <= total
        calls += what == "drawing frames"
        if calls == at:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match=r"interrupted; \d of 9 frames are finished; the same") as caught:
        task.run(toy_model(), progress=stop, work=tmp_path)
    partial = caught.value.partial
    count = 0 if partial is None else len(partial)
    if partial is not None:
        assert torch.equal(pixels(partial), pixels(whole)[:count])
        assert not record(partial)["complete"]
    del partial, caught
    told: list[float] = []
    finished = task.run(
        toy_model(), progress=lambda what, done, total: told.append(done) if what == "drawing frames" else None,
        work=tmp_path,
    )  # fmt: skip
    assert told[0] > 0
    assert torch.equal(pixels(finished), pixels(whole))
    assert record(finished) == record(whole)
    (hidden,) = tmp_path.glob(".segue-*")
    finished.frames.discard()  # pyright: ignore
    assert not hidden.exists()
