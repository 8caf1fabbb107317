"""Cards: what an embedded model is, what it knows, and how it is best used. A card.toml lies beside the weights."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segue.errors import CheckpointError

WEIGHTS = Path(__file__).parent / "weights"
CARD = "card.toml"


@dataclass(frozen=True)
class ModelCard:
    """What a model is.

    Args:
        name: what `segue.load` finds it by.
        summary: one line.
        licence: an SPDX expression.
        folder: where its weights are.
        size: (width, height) in pixels that it is made for.
        steps: that suit it.
        guidance_scale: that suits it.
        solver: that suits it; None leaves it to the checkpoint's scheduler.
        vocabulary: the things that it can draw; empty if it knows too many to list.
    """

    name: str
    summary: str
    licence: str
    folder: Path
    size: tuple[int, int] | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    solver: str | None = None
    vocabulary: tuple[str, ...] = field(default=(), repr=False)


def models() -> tuple[ModelCard, ...]:
    """The models that come with this installation, by name.

    Raises:
        CheckpointError: a card cannot be read.
    """
    return tuple(read_card(path.parent) for path in sorted(WEIGHTS.glob(f"*/{CARD}")))


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder; its `[defaults]` are optional, one by one.

    Raises:
        CheckpointError: it is no TOML, or a field is missing, unknown or of the wrong type.
    """
    path = folder / CARD
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        defaults: dict[str, Any] = dict(fields.pop("defaults", {}))
        if "size" in defaults:
            width, height = defaults.pop("size")
            defaults["size"] = (int(width), int(height))
        vocabulary = tuple(str(word) for word in fields.pop("vocabulary", ()))
        return ModelCard(folder=folder, vocabulary=vocabulary, **fields, **defaults)
    except (OSError, tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no model card ({error}); see segue.zoo.cards for its fields") from None
