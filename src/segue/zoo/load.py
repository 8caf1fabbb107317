"""`segue.load`: an embedded model by name, or any other by path or hub id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.errors import ModelNotFoundError
from segue.zoo.cards import CARD, ModelCard, models, read_card

if TYPE_CHECKING:
    import torch

    from segue.models.bundle import LatentDiffusion
    from segue.types import Prediction

DEFAULT = "emoji"
VARIABLE = "SEGUE_MODEL"
"""Environment variable that names the model to load when none is asked for."""


def load(
    source: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    prediction: Prediction | None = None,
    config: str | Path | None = None,
    loras: Mapping[str | Path, float] | None = None,
) -> LatentDiffusion:
    """A model, ready to use.

    Args:
        source: the name of an embedded model (`segue.zoo.models()` lists them); a folder of the diffusers layout; a
            single .safetensors file; a hub repository. None is what SEGUE_MODEL names, or else the embedded "emoji".
        device: "cpu", "cuda", "mps"; None takes the fastest that this machine has.
        dtype: "float32", "float16" or "bfloat16"; None is float32 on the CPU and float16 elsewhere.
        prediction: what the network predicts, where the files cannot tell.
        config: a folder of the diffusers layout whose configurations a single file shall be read with.
        loras: LoRA files and their scales, merged into the weights.

    Raises:
        ModelError: with the reason, and what to do; see `segue.models.loading.load_model`.
    """
    wanted = source if source is not None else os.environ.get(VARIABLE) or DEFAULT
    card = find_card(wanted)
    from segue.models.loading import load_model

    model = load_model(
        card.folder if card else wanted,
        device=device,
        dtype=dtype,
        prediction=prediction,
        config=config,
        loras=loras,
        name=str(wanted),
    )
    return model if card is None else with_card(model, card)


def find_card(source: str | Path) -> ModelCard | None:
    """The card of an embedded model, or of a local folder that has one.

    Raises:
        ModelNotFoundError: a bare name that is no embedded model, and no file or folder here.
    """
    folder = Path(source).expanduser()
    known = models()
    named = [card for card in known if isinstance(source, str) and card.name == source]
    if named:
        return named[0]
    if folder.exists():
        return read_card(folder) if (folder / CARD).is_file() else None
    if isinstance(source, str) and "/" not in source and not folder.suffix:
        there = ", ".join(card.name for card in known) or "none in this installation"
        raise ModelNotFoundError(
            f'there is no embedded model "{source}" (there are: {there}). Give one of these, the path of a folder or '
            f"of a .safetensors file, or a hub repository as owner/name; {VARIABLE} sets the default"
        )
    return None


def with_card(model: LatentDiffusion, card: ModelCard) -> LatentDiffusion:
    """The model with the defaults of its card."""
    said: dict[str, Any] = {
        key: getattr(card, key)
        for key in ("size", "steps", "guidance_scale", "solver")
        if getattr(card, key) is not None
    }
    return replace(model, defaults=replace(model.defaults, **said))
