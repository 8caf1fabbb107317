"""`segue train`: a recipe, run or copied."""

from __future__ import annotations

import json
import re
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
        recipe: name of a recipe, or a .py file of your own, and then fields of its configuration to change, as
            field=value.
        config: a TOML file of the recipe's fields; left out, the one beside the recipe.
        copy: train nothing; write the named recipe to the .py file that is given after it (and its configuration beside
            that, as .toml), to change it and to run it: segue train --copy t2i my.py, and then segue train my.py.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    recipe: tuple[str, ...]
    config: Path | None = None
    copy: bool = False


@verb
def train(training: Training) -> int:
    """Train a recipe, or go on where it was cut: segue train t2i steps=2000"""
    from segue.training.run import names, run

    if not training.recipe:
        raise TrainingError(f"expected a recipe, one of {', '.join(names())}, or a .py file of your own")
    name, *overrides = training.recipe
    if training.copy:
        if len(overrides) != 1 or training.config is not None:
            raise TrainingError(
                "--copy takes a recipe and the .py file to write it to, and nothing else: segue train --copy t2i my.py"
            )
        _copy(name, Path(overrides[0]).expanduser())
        return 0
    made = run(name, training.config, overrides)
    if made is not None:
        print(made)
    return 0


def _copy(name: str, to: Path) -> None:
    """A recipe and its configuration, which is given a folder of its own: it must not go on with the original's run."""
    from segue.media.disk import written_whole
    from segue.training.run import RECIPES, names

    if name not in names():
        raise TrainingError(f"--copy takes a recipe that ships with Segue, one of {', '.join(names())}; got {name!r}")
    if to.suffix != ".py":
        raise TrainingError(f"a recipe is a Python file; give the copy a name such as {to.stem}.py")
    config = to.with_suffix(".toml")
    for target in (to, config):
        if target.exists():
            raise TrainingError(f"{target} exists already; choose another name for the copy")
    with written_whole(to) as part:
        shutil.copyfile(RECIPES / f"{name}.py", part)
    said = re.sub(r"^out\s*=.*\n", "", (RECIPES / f"{name}.toml").read_text("utf-8"), flags=re.MULTILINE)
    with written_whole(config) as part:
        part.write_text(f"out = {json.dumps(f'runs/{to.stem}')}\n{said}", "utf-8")
    print(to, config, sep="\n")
