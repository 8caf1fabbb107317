"""Cards: what an embedded model is, what it knows, and how it is best used. A card.toml lies beside the weights.

    name = "emoji"                        # of its folder
    summary = "..."
    licence = "MIT"                       # an SPDX expression
    concepts = 2                          # different things; the vocabulary also has their other names
    vocabulary = ["apple", "cup of coffee", "coffee"]

    [words]                               # what may be said of a thing, in kinds of any name
    colours = ["red", "dark blue"]
    styles = ["flat", "line art"]

    [defaults]
    size = [128, 128]
    steps = 20
    guidance_scale = 3.0
    solver = "ddim"

A model that is derived from another has no weights of its own but a LoRA, and takes what its card leaves out from its
base, an embedded model that has none itself:

    base = "emoji"
    lora = "student.safetensors"          # a file in the card's folder, merged at scale 1
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from segue.errors import CheckpointError, ModelNotFoundError

WEIGHTS = Path(__file__).parent / "weights"
CARD = "card.toml"
INHERITED = ("concepts", "size", "steps", "guidance_scale", "solver", "vocabulary", "words")
"""What a derived model takes from its base where its own card is silent."""

_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "summary", "licence", "base", "lora", "solver"), (str,)),
    **dict.fromkeys(("concepts", "steps"), (int,)),
    "guidance_scale": (int, float),
}


@dataclass(frozen=True)
class ModelCard:
    """What a model is.

    Args:
        name: what `segue.load` finds it by.
        summary: one line.
        licence: an SPDX expression.
        folder: where its weights are.
        base: the embedded model that it is derived from; None if its weights are its own.
        lora: the LoRA in its folder that is merged into the weights of its base; None without a base.
        concepts: how many different things it can draw; None if nobody counted.
        size: (width, height) in pixels that it is made for.
        steps: that suit it.
        guidance_scale: that suits it.
        solver: that suits it; None leaves it to the checkpoint's scheduler.
        vocabulary: the things that it can draw, by all their names; empty if it knows too many to list.
        words: what else it understands, by kind: colours, styles, places.
    """

    name: str
    summary: str
    licence: str
    folder: Path
    base: str | None = None
    lora: str | None = None
    concepts: int | None = None
    size: tuple[int, int] | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    solver: str | None = None
    vocabulary: tuple[str, ...] = field(default=(), repr=False)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]], repr=False)

    @property
    def weights(self) -> Path:
        """The folder of the diffusers layout: its own, or its base's."""
        return self.folder if self.base is None else WEIGHTS / self.base


def names() -> tuple[str, ...]:
    """What the models that come with this installation are called; no card is read."""
    return tuple(sorted(path.parent.name for path in WEIGHTS.glob(f"*/{CARD}")))


def models() -> tuple[ModelCard, ...]:
    """The models that come with this installation, by name.

    Raises:
        ModelError: see `read_card`.
    """
    return tuple(embedded(name) for name in names())


def embedded(name: str) -> ModelCard:
    """The card of one of `names()`.

    Raises:
        ModelError: see `read_card`.
        CheckpointError: the card has another name than its folder, by which it is found.
    """
    card = read_card(WEIGHTS / name)
    if card.name != name:
        raise CheckpointError(
            f'{card.folder / CARD} says name = "{card.name}", and its folder is {name}: they must be alike'
        )
    return card


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder; its `[defaults]` are optional, one by one. A base fills in what is left out.

    Raises:
        CheckpointError: it is no TOML, or a field is missing, unknown or of the wrong type; the model has both a base
            and weights of its own, or its base has a base.
        ModelNotFoundError: there is no such base, or no such LoRA in the folder.
    """
    card = _parsed(folder)
    if card.base is None:
        return card
    where = folder / CARD
    if card.base not in names():
        there = ", ".join(name for name in names() if WEIGHTS / name != folder) or "none"
        raise ModelNotFoundError(f'{where}: its base "{card.base}" is no embedded model (there are: {there})')
    base = _parsed(WEIGHTS / card.base)
    if base.base is not None:
        raise CheckpointError(
            f'{where}: its base "{card.base}" has a base itself, "{base.base}"; a model is derived from one that has '
            "weights of its own"
        )
    said = {key: getattr(card, key) or getattr(base, key) for key in INHERITED}
    return replace(card, **said)


def _parsed(folder: Path) -> ModelCard:
    path = folder / CARD
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
        said.update(said.pop("defaults", {}))
        card = _card(folder, said)
    except (OSError, tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no model card ({error}); see segue.zoo.cards for its fields") from None
    if card.lora is None:
        return card
    if (folder / "model_index.json").exists():
        raise CheckpointError(f"{path} names a base, and its folder has weights of its own; it can only have one")
    if not (folder / card.lora).is_file():
        raise ModelNotFoundError(f'{folder / card.lora} is missing; it makes "{card.name}" out of "{card.base}"')
    return card


def _card(folder: Path, said: dict[str, Any]) -> ModelCard:
    known = {item.name for item in fields(ModelCard)} - {"folder"}
    for key, value in said.items():
        if key not in known:
            raise TypeError(f"there is no field {key}")
        if key in _TYPES and (not isinstance(value, _TYPES[key]) or isinstance(value, bool)):
            raise TypeError(f"{key} must be {_TYPES[key][-1].__name__}, got {value!r}")
    if "size" in said:
        width, height = said["size"]
        said["size"] = (int(width), int(height))
    said["vocabulary"] = _strings(said.get("vocabulary", []), "vocabulary")
    said["words"] = {kind: _strings(words, f"words.{kind}") for kind, words in said.get("words", {}).items()}
    card = ModelCard(folder=folder, **said)
    if (card.base is None) != (card.lora is None):
        raise ValueError("base and lora are given together")
    if card.lora is not None and Path(card.lora).name != card.lora:
        raise ValueError(f"lora must be the name of a file in the same folder, got {card.lora!r}")
    return card


def _strings(values: Any, name: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{name} must be a list of words")
    return tuple(values)
