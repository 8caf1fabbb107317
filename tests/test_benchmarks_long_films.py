# pyright: basic
"""The benchmark of long films: what it measures of a film, and that a film that stays itself departs from nothing."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch

from benchmarked import benchmark
from flickers import textured
from segue.media.clip import Clip, TensorFrames, as_floats, to_uint8
from segue.temporal.zero_shot_motion import Course, carried


def test_what_moves_as_it_is_known_to_departs_little_and_what_fades_departs() -> None:
    first = as_floats(textured(1, (48, 48), seed=2))
    film = carried(first, Course("spin").maps(24, 8.0))
    fading = 0.5 + (film - 0.5) * torch.linspace(1, 0.6, 24)[:, None, None, None]
    with benchmark("long_films") as module:
        still, faded = (module.measured(Clip(TensorFrames(to_uint8(one)), 8.0), "spin") for one in (film, fading))
        assert still["departure"] < 0.5 * faded["departure"] and still["tone"] < 0.5 * faded["tone"]
        assert still["detail"] > 1.2 * faded["detail"]
        assert len(still["departures"]) == 24 and module._thinned([1.0] * 250) == [1.0] * module.POINTS
        with pytest.raises(KeyError):
            module.WAYS["often"]


def test_a_film_is_made_measured_and_drawn(tmp_path: Path) -> None:
    with benchmark("long_films") as module:
        rows = [
            module.film(module.Case(how, "wobble", 6, None), "emoji-fast", 2, (64, 64), 1)
            for how in ("keys 4,4 branches,flow", "keys 4")
        ]
        carried = module.film(
            module.Case("parts, one picture carried", "wobble", 6, None), "emoji-motion", 5, (64, 64), 1
        )
        assert "departure" not in carried and 0 < carried["detail"] < 2
        assert rows[0]["rows"] < rows[1]["rows"] and all(row["megabytes"] > 0 for row in rows)
        module.plot([*rows, carried], tmp_path / "plot.svg")
        with redirect_stdout(StringIO()) as out:
            module.table(rows)
    assert (tmp_path / "plot.svg").read_text().count("<polyline") == 3 and "dashed" in (
        tmp_path / "plot.svg"
    ).read_text()
    assert [json.loads(line)["how"] for line in out.getvalue().splitlines()] == ["keys 4,4 branches,flow", "keys 4"]
