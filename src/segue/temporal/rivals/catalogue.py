"""Every other way of restyling a clip, by name."""

from __future__ import annotations

from collections.abc import Mapping

from segue.errors import TaskError
from segue.temporal.rivals.codec_mode import CodecMode
from segue.temporal.rivals.fatezero import FateZero
from segue.temporal.rivals.inputs import Rival
from segue.temporal.rivals.pix2video import Pix2Video
from segue.temporal.rivals.side_by_side import SideBySide
from segue.temporal.rivals.text2video_zero import Text2VideoZero
from segue.temporal.rivals.tokenflow import TokenFlow

RIVALS: Mapping[str, type[Rival]] = {
    "text2video-zero": Text2VideoZero,
    "pix2video": Pix2Video,
    "fatezero": FateZero,
    "tokenflow": TokenFlow,
    "codec": CodecMode,
    "side-by-side": SideBySide,
}


def find_rival(name: str) -> Rival:
    """The way of this name, with its usual settings.

    Raises:
        TaskError: with the names there are.
    """
    if name not in RIVALS:
        raise TaskError(f"method must be one of {', '.join(RIVALS)}; got {name!r}")
    return RIVALS[name]()
