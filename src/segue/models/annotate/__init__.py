"""Control pictures: what a control network is shown of a clip, drawn by algorithms or found by networks.

    annotator = find_annotator("softedge")
    annotator(pictures)             (t, 3, h, w) in [0, 1], each frame by itself
    annotator.over(clip.frames)     those of a whole clip, drawn when they are asked for

canny, softedge, lineart, tile, shuffle, palette and none need no weights. Names are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segue.models.annotate.annotator import Annotator
    from segue.models.annotate.kinds import KINDS, find_annotator
    from segue.models.annotate.skeleton import draw_skeleton

_HOME = {
    "Annotator": "annotator",
    "KINDS": "kinds",
    "draw_skeleton": "skeleton",
    "find_annotator": "kinds",
}

__all__ = ["KINDS", "Annotator", "draw_skeleton", "find_annotator"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
