"""`segue train my.py`: a recipe of the user's own."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cli.conftest import Run

RECIPE = """
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Config:
    out: Path = Path("runs/mine")
    steps: int = 3
    names: tuple[str, ...] = ("a",)


def main(config: Config) -> Path:
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "said.txt").write_text(f"{config.steps} {' '.join(config.names)}")
    return config.out
"""


def said(folder: Path) -> str:
    return (folder / "said.txt").read_text("utf-8")


def test_it_runs_with_its_own_config(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(RECIPE, "utf-8")
    answer = run("train", "my.py")
    assert (answer.code, answer.out, answer.err) == (0, "runs/mine\n", "")
    assert said(tmp_path / "runs" / "mine") == "3 a"


def test_the_toml_beside_it_and_the_line_have_their_say(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(RECIPE, "utf-8")
    (tmp_path / "my.toml").write_text('steps = 5\nnames = ["b", "c"]\n', "utf-8")
    (tmp_path / "other.toml").write_text("steps = 7\n", "utf-8")
    for extra, expected in ([], "5 b c"), (["steps=6"], "6 b c"), (["--config", "other.toml"], "7 a"):
        assert run("train", tmp_path / "my.py", *extra).code == 0
        assert said(tmp_path / "runs" / "mine") == expected


def test_a_recipe_may_be_called_like_a_library(run: Run, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(RECIPE, "utf-8")
    assert run("train", "json.py").code == 0


def test_a_recipe_may_return_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(RECIPE.replace("    return config.out\n", ""), "utf-8")
    assert run("train", "my.py").out == ""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("class Config", "class Settings", "NameError: name 'Config' is not defined"),
        ("def main(config", "def start(config", "my.py is no recipe: expected a dataclass Config and a function main"),
        ("@dataclass(frozen=True)\n", "", "my.py is no recipe: expected a dataclass Config"),
        ("steps: int = 3", "steps: int = = 3", "my.py, line 11: invalid syntax"),
        ("from pathlib", "from pathlab", "my.py, line 5: ModuleNotFoundError: No module named 'pathlab'"),
        ("    return config.out", "    return config.folder", "my.py, line 18: AttributeError: 'Config' object has no"),
        (
            "    return config.out",
            "    raise ValueError('a\\nb')",
            "my.py, line 18: ValueError: a b; SEGUE_TRACEBACK=1",
        ),
    ],
)
def test_what_is_wrong_with_it_is_one_line(old: str, new: str, expected: str, run: Run, tmp_path: Path) -> None:
    annotations = "" if "Settings" in new else "from __future__ import annotations"
    recipe = RECIPE.replace("from __future__ import annotations", annotations).replace(old, new)
    (tmp_path / "my.py").write_text(recipe, "utf-8")
    answer = run("train", "my.py")
    assert answer.code == 1
    assert expected in answer.err
    assert (answer.err.count("\n"), answer.out) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["no.py"], "no.py; `segue train t2i --copy no.py` writes a recipe"),
        (["mine"], "no recipe called 'mine'; choose one of clips, codec, control,"),
        (["my.py", "stepz=1"], "my.py: there is no field stepz; fields are out, steps, names"),
        (["my.py", "steps=many"], "fields are out, steps, names"),
        (["my.py", "--config", "no.toml"], "cannot read the configuration no.toml"),
        (["my.py", "--copy", "other.py"], "--copy takes a recipe that ships with Segue"),
        (["codec", "--copy", "other.txt"], "a name such as other.py"),
        (["--copy", "other.py", "codec"], "--copy takes a recipe that ships with Segue"),
        (["--copy", "codec"], "and nothing else: segue train --copy t2i my.py"),
        (["--copy", "codec", "other.py", "steps=3"], "and nothing else: segue train --copy t2i my.py"),
        (["--copy", "codec", "other.py", "--config", "my.toml"], "and nothing else: segue train --copy t2i my.py"),
        ([], "or a .py file of your own"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(arguments: list[str], expected: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(RECIPE, "utf-8")
    answer = run("train", *arguments)
    assert answer.code == 1
    assert expected in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("line", ["--copy codec my.py", "codec --copy my.py", "codec my.py --copy"])
def test_a_copy_has_a_folder_of_its_own(line: str, run: Run, tmp_path: Path) -> None:
    assert run("train", *line.split()).out.split() == ["my.py", "my.toml"]
    assert tomllib.loads((tmp_path / "my.toml").read_text("utf-8"))["out"] == "runs/my"
    again = run("train", *line.split())
    assert (again.code, "exists already" in again.err) == (1, True)
