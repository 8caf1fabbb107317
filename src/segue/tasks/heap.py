"""Memory that long work no longer uses goes back to the system, so that its peak does not grow with its length."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Give free pages of the heap back; nothing where the C library has no means for it.

    Pictures come and go in many sizes. glibc keeps what is freed between others, and these holes add up: to 100 MiB
    over 150 frames of 854x480 pixels.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # No such function, or, on Windows, no such library.
        return None
