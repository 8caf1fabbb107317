"""A bank as tensors and plain values, to be written to a file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from segue.temporal.bank import Anchor, Bank
from segue.temporal.passengers import parts_of
from segue.types import Condition, Conditioning, Guided, RowId

if TYPE_CHECKING:
    from torch import Tensor

LATENTS = ("latents", "alphas", "sigmas")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def parted(bank: Bank) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and what they are. What several rows are told alike is there once."""
    told: list[Tensor] = []
    rows: list[dict[str, Any]] = []
    for anchor in bank.anchors:
        cond = anchor.cond
        rows.append(
            {
                "name": [anchor.name.trajectory, anchor.name.frame],
                "sees": list(anchor.sees),
                "own": anchor.own,
                "terms": [
                    {name: _place(part, told) for name, part in parts_of(term).items()}
                    for term in (cond.terms if isinstance(cond, Guided) else (cond,))
                ],
                "guidance": _guidance(cond),
            }
        )
    tensors = {"latents": torch.stack([one.latents for one in bank.anchors])}
    tensors |= {"alphas": bank.alphas, "sigmas": bank.sigmas}
    tensors |= {f"told.{place}": part for place, part in enumerate(told)}
    return tensors, {"count": bank.count, "first": bank.first, "anchors": rows}


def joined(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> Bank:
    """The bank that was parted.

    Raises:
        ValueError, KeyError, TypeError or IndexError: these are not the parts of one.
    """
    latents, alphas, sigmas = (tensors[name] for name in LATENTS)
    rows = said["anchors"]
    if not 0 < len(rows) == len(latents) or latents.ndim != 5 or not latents.isfinite().all():
        raise ValueError(f"latents of shape {tuple(latents.shape)} are not those of {len(rows)} rows")
    count, first = int(said["count"]), int(said["first"])
    if not 0 <= first < count == first + latents.shape[1] or not len(alphas) == len(sigmas) == latents.shape[1]:
        raise ValueError(f"{latents.shape[1]} steps from {first} on do not end at {count}")
    anchors: list[Anchor] = []
    for place, row in enumerate(rows):
        if any(not 0 <= other < place for other in row["sees"]):
            raise ValueError(f"row {place} looks at what comes after it")
        terms = tuple(
            conditioning_of({name: tensors[f"told.{int(number)}"] for name, number in term.items()})
            for term in row["terms"]
        )
        trajectory, frame = row["name"]
        cond: Condition = terms[0]
        if row["guidance"] is not None:
            weights = torch.tensor(row["guidance"]["weights"], dtype=torch.float64)[:, None]
            dtype = DTYPES[row["guidance"]["dtype"]]
            cond = Guided(terms, weights.to(dtype), float(row["guidance"]["rescale"]), float(row["guidance"]["start"]))
        name = RowId(str(trajectory), int(frame))
        anchors.append(Anchor(name, latents[place].float(), cond, tuple(row["sees"]), int(row["own"])))
    return Bank(tuple(anchors), count, first, alphas.double(), sigmas.double())


def conditioning_of(parts: Mapping[str, Tensor]) -> Conditioning:
    """The conditioning that has these parts."""
    found: dict[str, Any] = {"residual_inputs": {}, "extra": {}}
    for name, part in parts.items():
        outer, _, inner = name.partition(".")
        if inner:
            found[outer][inner] = part
        else:
            found[outer] = part
    return Conditioning(**found)


def _guidance(cond: Condition) -> dict[str, Any] | None:
    if not isinstance(cond, Guided):
        return None
    dtype = next(name for name, dtype in DTYPES.items() if dtype == cond.weights.dtype)
    weights = cond.weights[:, 0].double().tolist()
    return {"weights": weights, "dtype": dtype, "rescale": cond.rescale, "start": cond.start}


def _place(part: Tensor, told: list[Tensor]) -> int:
    """Where a tensor is among those that are written, added if it is new."""
    part = part.detach().cpu()
    for place, other in enumerate(told):
        if other.dtype == part.dtype and torch.equal(other, part):
            return place
    told.append(part)
    return len(told) - 1
