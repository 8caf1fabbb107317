"""`segue train`: a recipe, run or copied."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from segue.cli.fields import verb
from segue.errors import TrainingError


@dataclass(frozen=True)
class Training:
    """What to train.

    Args:
        recipe: name of a recipe, and then fields of its configuration to change, as field=value.
        config: a TOML file of the recipe's fields; left out, the recipe's own.
        copy: write the recipe to this file (and its configuration beside it, as .toml), to change it; train nothing.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    recipe: tuple[str, ...]
    config: Path | None = None
    copy: Path | None = None


@verb
def train(training: Training) -> int:
    """Train a recipe, or go on where it was cut: segue train t2i steps=2000"""
    from segue.training.run import names, run

    if not training.recipe or training.recipe[0] not in names():
        got = f", got {training.recipe[0]!r}" if training.recipe else ""
        raise TrainingError(f"expected a recipe, one of {', '.join(names())}{got}")
    name, *overrides = training.recipe
    if training.copy is not None:
        _copy(name, training.copy)
        return 0
    print(run(name, training.config, overrides))
    return 0


def _copy(name: str, to: Path) -> None:
    from segue.media.disk import written_whole
    from segue.training.run import RECIPES

    for source, target in ((RECIPES / f"{name}.py", to), (RECIPES / f"{name}.toml", to.with_suffix(".toml"))):
        if target.exists():
            raise TrainingError(f"{target} exists already; choose another name for the copy")
        with written_whole(target) as part:
            shutil.copyfile(source, part)
        print(target)
