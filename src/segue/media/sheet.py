"""Contact sheets: a clip at one glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segue.errors import MediaError
from segue.media.clip import to_uint8
from segue.media.resize import fit_pictures

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

    from segue.types import Frames


def contact_sheet(
    frames: Frames, count: int = 24, columns: int = 6, *, width: int | None = None, gap: int = 4
) -> UInt8[Tensor, "3 h w"]:
    """Pictures of a clip, evenly spaced from the first to the last, in rows on white.

    Args:
        count: how many pictures; all, if there are fewer.
        columns: pictures in a row.
        width: of one picture, in pixels; by default as it is.
        gap: pixels between pictures.

    Raises:
        MediaError: if there are no frames, or a number is below 1.
    """
    if not len(frames) or min(count, columns) < 1:
        raise MediaError(
            f"expected frames, and a count and columns of at least 1, got {len(frames)}, {count}, {columns}"
        )
    count = min(count, len(frames))
    numbers = [round(i * (len(frames) - 1) / max(1, count - 1)) for i in range(count)]
    wide, high = frames.size
    if width is not None:
        wide, high = width, max(1, round(high * width / wide))
    columns, rows = min(columns, count), -(-count // columns)
    sheet = torch.full((3, rows * (high + gap) - gap, columns * (wide + gap) - gap), 255, dtype=torch.uint8)
    for place, number in enumerate(numbers):
        top, left = place // columns * (high + gap), place % columns * (wide + gap)
        picture = fit_pictures(frames[number : number + 1], (wide, high), "stretch")
        sheet[:, top : top + high, left : left + wide] = to_uint8(picture)[0]
    return sheet
