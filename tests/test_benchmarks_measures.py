"""Each measure of films sees its own fault, and is blind to the others, on a drawn clip and on real footage."""

from __future__ import annotations

import json

import pytest

from benchmarked import run
from footage import real_clip

Table = dict[str, dict[str, float]]


def small(named: str) -> Table:
    return json.loads(run("measures", named, "--frames", "10", "--area", "12000", "--json"))[named]


@pytest.fixture(scope="module", params=["drawn", "real"])
def table(request: pytest.FixtureRequest) -> Table:
    return small("moving:3" if request.param == "drawn" else str(real_clip("wolf.mp4")))


def test_blur_is_taken_for_calm_by_all_but_sharpness(table: Table) -> None:
    clean, soft, softer = table["none"], table["blur"], table["more blur"]
    for name in ("Pixel-MSE", "warp", "sharp", "finest", "shared"):
        assert clean[name] > soft[name] > softer[name]
    assert max(soft["sharp"], softer["shared"]) < 0.85
    assert table["noise, blurred"]["Pixel-MSE"] < 0.25 * table["noise"]["Pixel-MSE"]


def test_noise_is_flicker_and_change_and_no_detail(table: Table) -> None:
    clean, noise = table["none"], table["noise"]
    for name in ("flicker", "warp", "at 8", "first", "Pixel-MSE"):
        assert noise[name] > 2 * clean[name]
    assert noise["sharp"] > 1.5
    assert noise["shared"] == pytest.approx(1, abs=0.05)
    assert noise["light"] < clean["light"] + 0.5


def test_light_that_jumps_is_told_from_noise(table: Table) -> None:
    clean, flicker = table["none"], table["flicker"]
    assert flicker["light"] > 5 * max(clean["light"], table["noise"]["light"])
    assert flicker["warp"] > 2 * clean["warp"]
    assert flicker["sharp"] == pytest.approx(1, abs=0.2)


def test_what_grows_is_drift_and_what_stays_is_a_seam(table: Table) -> None:
    assert table["tint"]["colour"] == pytest.approx(255 * 0.06 * (2 / 3) ** 0.5, rel=0.1)
    for name in ("none", "blur", "noise", "half"):
        assert table[name]["colour"] < 1
    assert table["half"]["seam"] > 1.3 * table["none"]["seam"]
    assert table["half"]["warp"] < table["none"]["warp"] + 1


def test_tables_have_all_of_it() -> None:
    lines = run("measures", "moving:1", "--frames", "4", "--area", "4000").splitlines()
    assert lines[1] == "### moving:1"
    columns = lines[3].count("|")
    assert [line.split("|")[1].strip() for line in lines[5:]] == [
        "none",
        "blur",
        "more blur",
        "noise",
        "noise, blurred",
        "flicker",
        "strokes",
        "tint",
        "half",
    ]
    assert {line.count("|") for line in lines[3:]} == {columns}
