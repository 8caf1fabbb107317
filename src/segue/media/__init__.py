"""Files to clips and back: video, pictures, sound. No models here.

Names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segue.media.audio import Audio
    from segue.media.beats import Beats, find_beats, find_onsets
    from segue.media.clip import Clip, Provenance, TensorFrames
    from segue.media.disk import check_writable
    from segue.media.reader import read
    from segue.media.resize import fit
    from segue.media.sheet import contact_sheet
    from segue.media.spool import Spool
    from segue.media.writer import Writer, write

_HOME = {
    "Audio": "audio",
    "Beats": "beats",
    "Clip": "clip",
    "Provenance": "clip",
    "Spool": "spool",
    "TensorFrames": "clip",
    "Writer": "writer",
    "check_writable": "disk",
    "contact_sheet": "sheet",
    "find_beats": "beats",
    "find_onsets": "beats",
    "fit": "resize",
    "read": "reader",
    "write": "writer",
}

__all__ = [
    "Audio",
    "Beats",
    "Clip",
    "Provenance",
    "Spool",
    "TensorFrames",
    "Writer",
    "check_writable",
    "contact_sheet",
    "find_beats",
    "find_onsets",
    "fit",
    "read",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
