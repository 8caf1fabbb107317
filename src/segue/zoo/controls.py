"""Control adapters that come with Segue: which kinds of control pictures which embedded model follows by itself.

Each is a folder beside the models' with its weights and a control.toml:

    name = "emoji-control"                # of its folder
    summary = "..."
    licence = "MIT"                       # an SPDX expression
    base = "emoji"                        # the embedded model that it was trained with
    weights = "adapter.safetensors"       # a file in the folder
    kinds = ["softedge", "tile"]          # that it has learned
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.errors import CheckpointError, ModelError
from segue.zoo import cards

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion
    from segue.models.control import ControlNetwork

CARD = "control.toml"


@dataclass(frozen=True)
class ControlCard:
    """What a control adapter is.

    Args:
        name: of its folder.
        summary: one line.
        licence: an SPDX expression.
        base: the embedded model that it was trained with; models that are LoRAs of it can take it, too.
        weights: its file.
        kinds: of control pictures that it has learned.
    """

    name: str
    summary: str
    licence: str
    base: str
    weights: Path
    kinds: tuple[str, ...]

    def is_for(self, model: LatentDiffusion) -> bool:
        """Whether a model has the UNet of its base, with LoRAs merged or not."""
        unet = (cards.WEIGHTS / self.base / "unet").resolve()
        return any(file.resolve().parent == unet for file, _ in model.weights)


def controls() -> tuple[ControlCard, ...]:
    """The control adapters that come with this installation.

    Raises:
        CheckpointError: a card is no TOML, or a field is missing, unknown or of the wrong type.
    """
    return tuple(_read(path) for path in sorted(cards.WEIGHTS.glob(f"*/{CARD}")))


def embedded_control(kind: str, model: LatentDiffusion) -> ControlNetwork | None:
    """The adapter that comes with a model, told of a kind of control pictures; None if the model comes with none, or
    if this is no kind but a file, a folder or a repository.

    Raises:
        ModelError: the model's adapter has not learned this kind.
        CheckpointError: its card or its file is damaged.
    """
    card = next((card for card in controls() if card.is_for(model)), None)
    if card is None:
        return None
    elsewhere = "/" in kind or bool(Path(kind).suffix) or Path(kind).exists()
    if kind not in card.kinds and elsewhere:
        return None
    if kind not in card.kinds:
        raise ModelError(
            f'{card.name}, the control adapter of {model.name}, knows no "{kind}"; expected one of '
            f"{', '.join(card.kinds)}"
        )
    return read_control(card.weights, kind, model)


def read_control(path: Path, kind: str, model: LatentDiffusion) -> ControlNetwork:
    """A control adapter of a file, as `segue train control` writes it, told of a kind of control pictures.

    Args:
        path: of the file.
        kind: one of `segue.models.control_adapter.KINDS`.
        model: which it is to control, where it is put beside.

    Raises:
        UnsafeFileError: a pickle.
        CheckpointError: damaged, something else, or made for a UNet of another shape.
        ModelError: there is no such kind, or the model has no UNet that could be controlled.
    """
    from segue.models.control_adapter import control_from

    return control_from(path, kind, model)


def _read(path: Path) -> ControlCard:
    try:
        said: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        known = {field.name for field in fields(ControlCard)}
        if other := sorted(said.keys() ^ known):
            raise ValueError(f"{other[0]} is {'unknown' if other[0] in said else 'missing'}")
        if not all(isinstance(said[key], str) and said[key] for key in known - {"kinds"}):
            raise ValueError("all fields but kinds are words in quotes")
        if not (isinstance(said["kinds"], list) and all(isinstance(kind, str) for kind in said["kinds"])):
            raise ValueError("kinds is a list of words")
    except (OSError, tomllib.TOMLDecodeError, ValueError) as error:
        raise CheckpointError(f"{path} is no card of a control adapter ({error}); see segue.zoo.controls") from None
    said["weights"], said["kinds"] = path.parent / said["weights"], tuple(said["kinds"])
    return ControlCard(**said)
