"""Films that are held against each other: are they of one size and length?"""

from __future__ import annotations

from segue.types import Frames


def check_films(frames: Frames, other: Frames | None = None, *, least: int = 1, side: int = 1) -> None:
    """Refuse films that a measure cannot be taken of.

    Args:
        frames: of which it would be.
        other: what they are held against, if anything.
        least: how many frames it needs.
        side: how many pixels the sides of pictures need.

    Raises:
        ValueError: the films differ in size or length, are too short, or too small.
    """
    if len(frames) < least or min(frames.size) < side:
        wanted = f"{least} {'frame' if least == 1 else 'frames'} or more, of {side}x{side} pixels or more"
        raise ValueError(f"expected {wanted}; got {len(frames)} of {frames.size}")
    if other is not None and (len(other), other.size) != (len(frames), frames.size):
        held = f"{len(frames)} frames of {frames.size}, held against {len(other)} of {other.size}"
        raise ValueError(f"expected films of one size and length; got {held}")
