"""Run a recipe, one that ships with Segue or a file of the user's, with its TOML file and single fields overridden."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tomllib
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from segue.errors import SegueError, TrainingError

RECIPES = Path(__file__).with_name("recipes")


@dataclass(frozen=True)
class Recipe:
    """A recipe that is loaded.

    Args:
        name: as the user gave it.
        module: has a dataclass Config, and main(config).
        config: the TOML file beside it; None if it has none.
        path: of the user's file; None for a recipe that ships with Segue.
    """

    name: str
    module: Any
    config: Path | None
    path: Path | None = None

    def parsed(self, config: Path | None, overrides: Sequence[str]) -> Any:
        """Its Config, from a TOML file (its own if None) and `field=value` overrides, in that order.

        An empty value unsets a field: `start=`.

        Raises:
            TrainingError: no such file, a field that the recipe does not have, or a value of the wrong type.
        """
        said = _read(config or self.config)
        for override in overrides:
            field, equals, value = override.partition("=")
            if not equals:
                raise TrainingError(f"expected field=value, got {override!r}; for example steps=100")
            said[field] = _value(value) if value else self._unset(field)
        known = [item.name for item in fields(self.module.Config)]
        there = f"fields are {', '.join(known)}"
        if other := [field for field in said if field not in known]:
            raise TrainingError(f"{self.name}: there is no field {other[0]}; {there}")
        try:
            return TypeAdapter(self.module.Config).validate_python(said)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise TrainingError(f"{self.name}: {field}: {first['msg']}; {there}") from error

    def _unset(self, field: str) -> str | None:
        """What `field=` means: nothing, which for a plain string is an empty one."""
        return "" if get_type_hints(self.module.Config).get(field) is str else None

    def run(self, config: Any) -> Any:
        """What its main returns.

        Raises:
            TrainingError: the user's own code failed, with the line where it did.
        """
        if self.path is None:
            return self.module.main(config)
        try:
            return self.module.main(config)
        except SegueError:
            raise
        except Exception as error:
            raise TrainingError(_fault(self.path, error)) from error


def names() -> list[str]:
    """The recipes that ship with Segue."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def find_recipe(name: str) -> Recipe:
    """A recipe by its name, or by the path of a Python file, which is run as code of the user's.

    Raises:
        TrainingError: there is none; or the file fails when it is read, or has no Config or no main.
    """
    if name in names():
        return Recipe(name, importlib.import_module(f"segue.training.recipes.{name}"), RECIPES / f"{name}.toml")
    if not name.endswith(".py"):
        raise TrainingError(f"no recipe called {name!r}; choose one of {', '.join(names())}, or give a .py file")
    path = Path(name).expanduser().absolute()
    module = _loaded(path)
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and is_dataclass(config)) or not callable(getattr(module, "main", None)):
        raise TrainingError(f"{path} is no recipe: expected a dataclass Config and a function main(config) in it")
    beside = path.with_suffix(".toml")
    return Recipe(path.name, module, beside if beside.exists() else None, path)


def read_config(name: str, config: Path | None = None, overrides: Sequence[str] = ()) -> Any:
    """The Config of a recipe, from a TOML file (its own if None) and `field=value` overrides, in that order.

    Raises:
        TrainingError: no such recipe or file, a field that the recipe does not have, or a value of the wrong type.
    """
    return find_recipe(name).parsed(config, overrides)


def run(name: str, config: Path | None = None, overrides: Sequence[str] = ()) -> Any:
    """Train a recipe, or go on with a run that was cut; what it returns is the folder that it exported.

    Raises:
        TrainingError: see `find_recipe` and `Recipe`; or the data or checkpoint cannot be used.
    """
    recipe = find_recipe(name)
    return recipe.run(recipe.parsed(config, overrides))


def _loaded(path: Path) -> ModuleType:
    if not path.is_file():
        raise TrainingError(f"there is no file {path}; `segue train t2i --copy {path.name}` writes a recipe")
    # Under a name of its own: a recipe called torch.py must not stand in the way of torch.
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise TrainingError(f"{path} cannot be read as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pydantic look up the types of the Config's fields
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        if isinstance(error, SegueError):
            raise
        raise TrainingError(_fault(path, error)) from error
    return module


def _fault(path: Path, error: Exception) -> str:
    """What went wrong in the user's file, and in which line of it."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    return f"{where}: {type(error).__name__}: {' '.join(str(error).split())}; SEGUE_TRACEBACK=1 shows the way there"


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"cannot read the configuration {path}: {error}") from error


def _value(text: str) -> Any:
    """A value as TOML reads it; anything else is a plain string, so that paths need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
