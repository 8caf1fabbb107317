"""Run a recipe by name, with its TOML file and single fields overridden: what `segue train` calls."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from segue.errors import TrainingError

RECIPES = Path(__file__).with_name("recipes")


def names() -> list[str]:
    """The recipes that ship with Segue."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def read_config(name: str, config: Path | None = None, overrides: Sequence[str] = ()) -> Any:
    """The recipe's Config from a TOML file (its own if None) and `field=value` overrides, in that order.

    Raises:
        TrainingError: no such recipe or file, a field that the recipe does not have, or a value of the wrong type.
    """
    if name not in names():
        raise TrainingError(f"no recipe called {name!r}; choose one of {', '.join(names())}")
    path = config or RECIPES / f"{name}.toml"
    recipe: Any = importlib.import_module(f"segue.training.recipes.{name}")
    try:
        fields = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"cannot read the configuration {path}: {error}") from error
    for override in overrides:
        field, equals, value = override.partition("=")
        if not equals:
            raise TrainingError(f"expected field=value, got {override!r}; for example steps=100")
        fields[field] = _value(value)
    try:
        return TypeAdapter(recipe.Config).validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise TrainingError(
            f"{name}: {field}: {first['msg']}; fields are {', '.join(recipe.Config.__dataclass_fields__)}"
        ) from error


def run(name: str, config: Path | None = None, overrides: Sequence[str] = ()) -> Path:
    """Train a recipe, or go on with a run that was cut, and return the folder that it exported.

    Raises:
        TrainingError: see `read_config`; or the data or checkpoint cannot be used.
    """
    parsed = read_config(name, config, overrides)
    recipe: Any = importlib.import_module(f"segue.training.recipes.{name}")
    return recipe.main(parsed)


def _value(text: str) -> Any:
    """A value as TOML reads it; anything else is a plain string, so that paths need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
