"""The names that users see: what there is, what it is called, and that nothing is spelled twice."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import errors

ROOT = Path(__file__).parents[1]
TASKS = [
    segue.Animate,
    segue.Deflicker,
    segue.Edit,
    segue.Image,
    segue.Live,
    segue.Stylize,
    segue.Transition,
    segue.Upscale,
]
PARTS = [segue.Sampling, segue.Branching, segue.Execution]


def test_every_promised_name_is_there() -> None:
    for name in segue.__all__:
        assert getattr(segue, name) is not None
    assert sorted(segue.__all__) == dir(segue)
    assert len(set(segue.__all__)) == len(segue.__all__)


def test_the_checker_and_the_interpreter_see_the_same_names() -> None:
    """Names under TYPE_CHECKING and names that are loaded on first use are two lists; they must agree."""
    tree = ast.parse(Path(inspect.getfile(segue)).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    homes = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {*homes, "__version__"} == set(segue.__all__)
    for name, home in homes.items():
        assert getattr(import_module(str(home)), name) is getattr(segue, name)


def test_a_public_name_is_never_hidden_by_a_room() -> None:
    """`import segue.models` would replace a function called `models` in the face."""
    rooms = {path.stem for path in Path(inspect.getfile(segue)).parent.iterdir()} - {"errors"}
    assert not rooms & set(segue.__all__)


def test_an_unknown_name_says_so() -> None:
    with pytest.raises(AttributeError, match="'segue' has no attribute 'Tranzition'"):
        getattr(segue, "Tran" + "zition")


def test_the_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]
    assert version("segue") == segue.__version__
    assert f"## {segue.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_command_is_installed() -> None:
    (command,) = (entry for entry in distribution("segue").entry_points if entry.group == "console_scripts")
    assert command.name == "segue"
    assert callable(command.load())


@pytest.mark.parametrize("kind", [*TASKS, *PARTS], ids=lambda kind: kind.__name__)
def test_tasks_are_frozen_values_of_few_documented_fields(kind: type[Any]) -> None:
    assert is_dataclass(kind)
    settings: Any = vars(kind)["__dataclass_params__"]
    assert settings.frozen
    assert kind.__pydantic_config__ == {"extra": "forbid"}
    assert len(fields(kind)) <= 13
    described = inspect.getdoc(kind) or ""
    for item in fields(kind):
        assert re.search(rf"^ +{item.name}: \S", described, flags=re.MULTILINE), f"{kind.__name__}.{item.name}"


@pytest.mark.parametrize("kind", TASKS, ids=lambda kind: kind.__name__)
def test_what_a_picture_shows_or_where_it_is_is_all_that_must_be_said(kind: type[Any]) -> None:
    required = [item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING]
    if kind is segue.Animate:  # one of two: words, or a picture
        with pytest.raises(errors.TaskError, match="say what is to move"):
            kind()
        assert not required
    else:
        assert required in (["prompt"], ["prompts"], ["input"], ["input", "prompt"])


def test_the_tree_of_errors_is_the_one_that_is_drawn() -> None:
    kinds = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
    drawn = re.findall(r"(\w+Error)\b", errors.__doc__ or "")
    assert set(drawn) == set(kinds)
    for kind in kinds.values():
        assert issubclass(kind, errors.SegueError)
        assert inspect.getdoc(kind)


def test_every_requirement_has_an_open_range_and_a_tested_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    tested = {
        re.split("==", line)[0].lower().replace("_", "-"): line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    }
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in tested.values())
    for requirement in [*project["dependencies"], *extras]:
        name = re.split(r"[\[<>=]", requirement)[0]
        assert ">=" in requirement, f"{requirement} has no lowest version"
        assert "==" not in requirement, f"{requirement} is pinned; exact versions belong into constraints.txt"
        assert name in tested, f"{name} is missing in constraints.txt"
