"""A device without memory, told as what was being done there and what to change."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from segue.errors import ExhaustedError

_REFUSALS = ("out of memory", "not enough memory", "can't allocate memory")
"""What plain RuntimeErrors say in which devices and main memory refuse an allocation."""

FURTHER = "--offload model, --storage float8 or a smaller --size; segue doctor --model says what each would take"
"""What is left to change when calls cannot be made smaller."""


@contextmanager
def told_if_exhausted(doing: str, change: str) -> Generator[None]:
    """Turn an allocation that fails within into one line.

    Args:
        doing: what, as in "denoising 16 rows of 64x64 latents in one call".
        change: what would take less.

    Raises:
        ExhaustedError: an allocation failed.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_exhaustion(error):
            raise
        raise ExhaustedError(f"out of memory while {doing}: {change}") from error


def is_exhaustion(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _REFUSALS)
