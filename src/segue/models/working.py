"""What a loaded model takes of memory while it works, beside its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.errors import CheckpointError
from segue.models.skeleton import CODEC, DENOISERS, META, Skeleton
from segue.models.weights import MISFITS, quiet

if TYPE_CHECKING:
    from torch import nn

    from segue.models.bundle import LatentDiffusion


def working_bytes(model: LatentDiffusion, rows: int, size: tuple[int, int], pictures: int) -> int:
    """Bytes of tensors in a call of the denoiser, or while pictures are decoded, whichever takes more.

    Layers along time that were put into a UNet are not counted: they see the same latents, and look at fewer at once.

    Args:
        model: its networks' configurations are read, and no weights.
        rows: of the call.
        size: (width, height) in pixels.
        pictures: that are decoded together.

    Returns:
        0 where nobody knows what the networks are given.
    """
    parts = {name: model.parts[name] for name in (*DENOISERS, CODEC) if name in model.parts}
    if CODEC not in parts or len(parts) < 2:
        return 0
    try:
        bare = {name: _without_weights(part) for name, part in parts.items()}
        known = Skeleton(model.name, bare, model.dtype, model.family, model.scheduler, Path())
        works = known.call(rows, size), known.decoding(pictures, size, None)
    except (CheckpointError, *MISFITS):
        return 0
    on_cpu = model.device.type == "cpu"
    return max(work.reordered if on_cpu else work.peak for work in works)


def _without_weights(network: nn.Module) -> nn.Module:
    kind: Any = type(network)
    with quiet(), META:
        made: nn.Module = kind.from_config(dict(getattr(network, "config", {})))
        return made.to(META, next(network.parameters()).dtype).eval().requires_grad_(False)
