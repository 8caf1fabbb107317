"""Files to clips and back: video, pictures, sound. No models here.

Names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segue.media.clip import Clip, Provenance, TensorFrames
    from segue.media.disk import check_writable
    from segue.media.reader import read
    from segue.media.writer import Writer, write

_HOME = {
    "Clip": "clip",
    "Provenance": "clip",
    "TensorFrames": "clip",
    "Writer": "writer",
    "check_writable": "disk",
    "read": "reader",
    "write": "writer",
}

__all__ = ["Clip", "Provenance", "TensorFrames", "Writer", "check_writable", "read", "write"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
