"""Distances between pictures that follow what a person would say, and where their weights come from.

    LatentDistance              on latents; needs no weights
    Lpips                       LPIPS on AlexNet or VGG16
    EfficientNetDistance        a distance of deep features; not LPIPS
    ClipNetwork                 features of pictures and texts, from a checkpoint that is yours

Lpips and EfficientNetDistance need weights that are no part of this installation; `fetch` gets them, and so does
`segue models --fetch`. Names are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segue.models.perceptual.archives import is_here, names, weights_path
    from segue.models.perceptual.clip import ClipNetwork, LinearHead
    from segue.models.perceptual.efficientnet import EfficientNetDistance, EfficientNetFeatures
    from segue.models.perceptual.latents import LatentDistance
    from segue.models.perceptual.lpips import Lpips
    from segue.models.perceptual.weights import convert, fetch

_HOME = {
    "ClipNetwork": "clip",
    "EfficientNetDistance": "efficientnet",
    "EfficientNetFeatures": "efficientnet",
    "LatentDistance": "latents",
    "LinearHead": "clip",
    "Lpips": "lpips",
    "convert": "weights",
    "fetch": "weights",
    "is_here": "archives",
    "names": "archives",
    "weights_path": "archives",
}

__all__ = [
    "ClipNetwork",
    "EfficientNetDistance",
    "EfficientNetFeatures",
    "LatentDistance",
    "LinearHead",
    "Lpips",
    "convert",
    "fetch",
    "is_here",
    "names",
    "weights_path",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
