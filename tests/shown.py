"""What a test looks at in a finished clip: its pixels, and what its record says."""

from __future__ import annotations

from typing import Any

import torch

from segue.media.clip import Clip


def pixels(clip: Clip) -> torch.Tensor:
    """All frames, (t, 3, h, w) in [0, 1]."""
    return clip.frames[0 : len(clip)]


def record(clip: Clip) -> dict[str, Any]:
    """What lies beside it in JSON."""
    assert clip.provenance is not None
    return dict(clip.provenance.record)
