"""Whether half precision pays on this machine: measured, as names of processors tell little."""

from __future__ import annotations

import time
from functools import cache

import torch

PAYS = 1.5
"""How many times as fast products must be. Other work of a network gains less than its products."""
_SIDE, _TRIES = 512, 5


@cache
def quicker_dtype() -> torch.dtype:
    """bfloat16 if this processor's products are quicker in it, else float32; measured once, in some 30 ms.

    Seconds are the process' own, so that others who are at work do not decide.
    """
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.float32
    return torch.bfloat16 if _seconds(torch.float32) > PAYS * _seconds(torch.bfloat16) else torch.float32


def _seconds(dtype: torch.dtype) -> float:
    a = torch.ones(_SIDE, _SIDE, dtype=dtype)
    torch.mm(a, a)
    best = float("inf")
    for _ in range(_TRIES):
        start = time.process_time()
        torch.mm(a, a)
        best = min(best, time.process_time() - start)
    return best
