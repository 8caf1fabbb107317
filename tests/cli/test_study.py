"""`segue study`: from a folder of films to a page, and from answers to who is preferred; bad input is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Run
from footage import moving
from segue.media import Clip, TensorFrames


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for film in ("one", "two"):
        for number, method in enumerate(("better", "plain", "worse")):
            (tmp_path / "films" / film).mkdir(parents=True, exist_ok=True)
            frames = moving(2, (32, 32)).roll(5 * number, 3)
            Clip(TensorFrames(frames), 10).save(tmp_path / "films" / film / f"{method}.mp4")
    return tmp_path / "films"


def answered(key: dict[str, Any], rater: str, wrong: int) -> str:
    """Prefers what comes first in the alphabet, but once."""
    rows: list[dict[str, Any]] = []
    for number, trial in enumerate(key["trials"]):
        first = (trial["left"] < trial["right"]) != (number == wrong)
        for question in key["asked"][trial["film"]]:
            rows.append({"trial": number, "question": question, "answer": "left" if first else "right", "ms": 2500})
    return json.dumps({"study": key["id"], "rater": rater, "answers": rows})


def test_from_films_to_who_is_preferred(run: Run, films: Path, tmp_path: Path) -> None:
    made = run("study", films, "-o", "page.html", "--seed", "5")
    assert made.code == 0, made.err
    assert "page.html: 6 pairs of 3 methods and 2 films, and 0 once more" in made.out
    assert "segue study page.key.json --answers answers-*.json" in made.out
    key = json.loads((tmp_path / "page.key.json").read_text("utf-8"))
    for i in range(4):
        (tmp_path / f"answers-{i}.json").write_text(answered(key, f"a{i}", i))
    files = [f"answers-{i}.json" for i in range(4)]
    said = run("study", "page.key.json", "--answers", *files)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0] == "consistency: 24 answers of 4 raters, 0 of them no difference"
    order = [line.split()[0] for line in lines[2:5]]
    assert order == ["better", "plain", "worse"]
    assert "so that no side is seen to matter" in lines[5]
    assert "95 % intervals over raters" in lines[-1]
    found = run("study", "page.key.json", "--answers", *files, "--json").json
    assert set(found["questions"]) == {"consistency", "looks"}
    methods = found["questions"]["looks"]["methods"]
    assert methods["better"]["share"]["value"] > 0.7 > 0.3 > methods["worse"]["share"]["value"]
    one = run("study", "page.key.json", "--answers", files[0], "--json").json
    assert one["questions"]["looks"]["methods"]["plain"]["strength"]["half"] is None


def test_machines_get_where_things_are(run: Run, films: Path) -> None:
    said = run("study", films, "--pairs", "3", "--json").json
    assert (said["page"], said["key"], said["pairs"]) == ("study.html", "study.key.json", 3)
    assert said["methods"] == ["better", "plain", "worse"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected one folder of films"),
        (["nowhere"], "there is no folder nowhere"),
        (["films", "films"], "expected one folder of films, FILM/METHOD.mp4; got 2"),
        (["films", "-o", "page.mp4"], "expected a name such as study.html"),
        (["films", "--pairs", "0"], "1 pair or more"),
        (["films", "--keep-all"], "--keep-all is about raters"),
        (["--answers", "a.json"], "expected the key of the page"),
        (["k.json", "--answers", "a.json"], "k.json cannot be read"),
        (["k.json", "--answers", "a.json", "--seed", "5"], "--seed is for making a page"),
        (["k.json", "--answers", "a.json", "-o", "x.html"], "--output is for making a page"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], expected: str, run: Run, films: Path) -> None:
    answer = run("study", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert expected in answer.err.splitlines()[-1]
    assert "Traceback" not in answer.err
