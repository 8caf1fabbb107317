"""Lines in the picture where parts of it meet."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.known import Watched, pan, scene, whole
from motion.clips import Held
from segue.errors import TaskError
from segue.evaluation.seam import seams


@pytest.fixture(scope="module")
def film() -> Tensor:
    return whole(scene((64, 48), 6).frames)


def stepped(frames: Tensor, *, column: int | None = None, row: int | None = None, by: float = 0.05) -> Tensor:
    """All that is right of, or below, a line is lighter."""
    frames = frames.clone()
    if column is not None:
        frames[..., column:] += by
    if row is not None:
        frames[..., row:, :] += by
    return frames


def test_it_is_what_loops_find(film: Tensor) -> None:
    frames = stepped(film, column=24, row=17)[:2, :, :30, :40]
    pixels = frames.double().numpy()

    def energy(x: int) -> float:
        means: list[float] = []
        for one in pixels.reshape(6, 30, 40):
            jumps = [
                (one[y, x] - one[y, x - 1]) - (one[y, x - 1] - one[y, x - 2] + one[y, x + 1] - one[y, x]) / 2
                for y in range(30)
            ]
            means += [sum(jumps[:16]) / 16, sum(jumps[16:]) / 14]
        return float(np.mean(np.square(means)))

    near = [x for x in [*range(15, 23), *range(26, 34)] if x not in (31, 32, 33)]
    (found, other) = seams(Held(frames), columns=(24, 32))
    assert (found.axis, found.at, found.source) == ("column", 24, None)
    assert found.jump == pytest.approx(energy(24) ** 0.5, rel=1e-4)
    assert found.ratio == pytest.approx((energy(24) / statistics.median(map(energy, near))) ** 0.5, rel=1e-4)
    assert found.ratio > max(2.5, other.ratio)
    (turned,) = seams(Held(frames.mT), rows=(24,))
    (alone,) = seams(Held(frames), columns=(24,))
    assert (turned.axis, turned.ratio, turned.jump) == ("row", pytest.approx(alone.ratio), pytest.approx(alone.jump))


def test_a_step_that_stays_is_found_and_its_neighbours_are_not(film: Tensor) -> None:
    frames = Held(stepped(film, column=32, row=20))
    column, row = seams(frames, Held(film), columns=(32,), rows=(20,))
    assert min(column.ratio, row.ratio) > 2
    assert (column.jump, row.jump) == pytest.approx((0.05, 0.05), rel=0.3)
    assert column.source is not None
    assert row.source is not None
    assert max(column.source, row.source) < 1.6
    elsewhere = seams(frames, columns=(10, 54), rows=(9, 40))
    assert max(seam.ratio for seam in elsewhere) < 1.6


def test_larger_steps_stand_out_more(film: Tensor) -> None:
    found = [seams(Held(stepped(film, column=32, by=by)), columns=(32,))[0].ratio for by in (0, 0.02, 0.05, 0.1)]
    assert found == sorted(found)
    assert found[-1] > 2 * found[1]


def test_a_seam_is_found_under_texture() -> None:
    """What crosses a line jumps both ways along it; a seam does not."""
    texture = 0.5 + 0.1 * torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain, tiled = (seams(Held(stepped(texture, column=32, by=by)), columns=(32,))[0] for by in (0.0, 0.15))
    assert plain.ratio == pytest.approx(1, abs=0.2)
    assert tiled.ratio > 2


def test_a_slope_is_no_seam() -> None:
    ramp = torch.linspace(0, 1, 64).expand(2, 3, 32, 64)
    steeper = torch.cat([torch.linspace(0, 0.2, 33)[:-1], torch.linspace(0.2, 1, 32)]).expand(2, 3, 32, 64)
    assert seams(Held(ramp), columns=(32,))[0].jump < 1e-6
    assert seams(Held(steeper), columns=(32,))[0].jump < 0.02
    plain = seams(Held(torch.full((1, 3, 20, 30), 0.4)), columns=(15,), rows=(10,))
    assert [(seam.jump, seam.ratio) for seam in plain] == [(0, 1), (0, 1)]


def test_what_the_source_has_is_said(film: Tensor) -> None:
    framed = film.clone()
    framed[..., :8, :] = 0
    (found,) = seams(Held(framed), Held(framed), rows=(8,))
    assert found.ratio == found.source
    assert found.ratio > 3
    (measure,) = found.measures()
    assert (measure.name, measure.value, measure.better) == ("seam at row 8", found.ratio, "near 1")
    assert f"source: {found.source:.4g}" in measure.meaning
    assert "source" not in seams(Held(framed), rows=(8,))[0].measures()[0].meaning


def test_nothing_asked_is_nothing_read(film: Tensor) -> None:
    frames = Watched(Held(film))
    assert seams(frames) == ()
    assert frames.most == 0
    seams(frames, frames, columns=(5,))
    assert frames.most == 1
    assert frames.held <= 2


@pytest.mark.parametrize(
    ("columns", "rows", "expected"),
    [
        ((1,), (), "at a column from 2 to 62, as there are 64, got 1$"),
        ((8, 63, 20), (), "got 63$"),
        ((), (20, 47), "at a row from 2 to 46, as there are 48, got 47$"),
        ((), (20, 10, 10), "each border once, and row 10 is given twice"),
    ],
)
def test_lines_that_are_no_borders_are_refused(columns: tuple[int, ...], rows: tuple[int, ...], expected: str) -> None:
    with pytest.raises(TaskError, match=expected):
        seams(pan().frames, columns=columns, rows=rows)


def test_films_that_do_not_match_are_refused() -> None:
    film = pan().frames
    for other, said in (
        (pan(frames=9).frames, "9 of"),
        (pan(frames=7).frames, "7 of"),
        (pan(size=(64, 40)).frames, "8 of"),
    ):
        with pytest.raises(ValueError, match=rf"one size and length; got 8 frames of \(64, 48\), held against {said}"):
            seams(film, other, columns=(32,))
    with pytest.raises(ValueError, match=r"1 frame or more, .*; got 0 of \(64, 48\)"):
        seams(Held(torch.zeros(0, 3, 48, 64)), columns=(32,))
    with pytest.raises(ValueError, match=r"of 4x4 pixels or more; got 2 of \(3, 48\)"):
        seams(Held(torch.zeros(2, 3, 48, 3)), rows=(24,))
    assert len(seams(Held(torch.zeros(1, 3, 4, 4)), rows=(2,))) == 1
