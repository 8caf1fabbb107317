"""What families that denoise with a transformer share: it is read with a look at what it is, and told what it knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from segue.errors import CheckpointError, ModelError
from segue.models.weights import read_json, read_network
from segue.types import Conditioning, Prediction

_FAMILIES = {"SD3Transformer2DModel": "Stable Diffusion 3", "FluxTransformer2DModel": "FLUX"}


def read_transformer(
    kind: type[Any], folder: Path, device: torch.device, dtype: torch.dtype
) -> tuple[Any, tuple[Path, ...]]:
    """The transformer of a model folder, and its files.

    Raises:
        CheckpointError: it is that of another family.
    """
    said = str(read_json(folder / "transformer" / "config.json").get("_class_name", kind.__name__))
    if said != kind.__name__:
        family = _FAMILIES.get(said)
        raise CheckpointError(
            f"{folder} has the index of {_FAMILIES[kind.__name__]}, but its transformer is "
            + (f"that of {family} ({said})" if family else f"a {said}, which Segue does not read")
        )
    return read_network(kind, folder / "transformer", "diffusion_pytorch_model", device, dtype)


def check_flow(prediction: Prediction | None, scheduler: Mapping[str, Any], name: str) -> None:
    """Refuse to read a flow-matching model as anything else.

    Raises:
        ModelError: it was said to predict something else.
        CheckpointError: its scheduler is of another kind.
    """
    if prediction not in (None, "flow_prediction"):
        raise ModelError(f"{name} predicts the velocity of a flow; prediction must be left out, got {prediction!r}")
    kind = str(scheduler.get("_class_name"))
    if not kind.startswith("FlowMatch"):
        raise CheckpointError(f"{name}: expected a scheduler for flow matching; got {kind}")


def check_told(cond: Conditioning, extra: frozenset[str] = frozenset()) -> None:
    """Refuse parts that a transformer told text and a pooled vector has no place for.

    Args:
        cond: what it is told.
        extra: what it takes besides.

    Raises:
        ValueError: a part is missing, or one is left over.
    """
    over = [part for part in ("text_mask", "concat", "label") if getattr(cond, part) is not None]
    over += sorted(cond.residual_inputs) + sorted(cond.extra.keys() - extra)
    missing = ["pooled"] if cond.pooled is None else sorted(extra - cond.extra.keys())
    if over or missing:
        raise ValueError(
            f"this network takes {', '.join(('text', 'pooled', *sorted(extra)))}; the conditioning "
            + (f"also has {over[0]}" if over else f"has no {missing[0]}")
        )
