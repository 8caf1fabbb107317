"""FreeU: what a UNet has worked out counts more, and what it hands over unseen counts less, in its first layers up.

Si et al. 2023, arXiv:2309.11497, equations 2 to 4: features of the backbone are multiplied by b, and in the skip
connections the low frequencies by s, in the first stage up (b1, s1) and the second (b2, s2). There is nothing to train.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from segue.errors import TaskError

if TYPE_CHECKING:
    from segue.models.bundle import LatentDiffusion

NAMES = ("b1", "b2", "s1", "s2")
MOST = 4.0
"""Of each factor; the authors' are from 0.2 to 1.6."""


def check_freeu(factors: tuple[float, float, float, float]) -> None:
    """Raise TaskError if one is out of its range."""
    for name, factor in zip(NAMES, factors, strict=True):
        if not 0 < factor <= MOST:
            raise TaskError(f"{name} of freeu must be in (0, {MOST:g}], got {factor:g}; 1 changes nothing")


@contextmanager
def freed(model: LatentDiffusion, factors: tuple[float, float, float, float] | None) -> Generator[None]:
    """FreeU at work in a model's UNet until the end of the block; then it is as it was.

    Args:
        model: whose UNet it is.
        factors: b1, b2, s1 and s2; None for none.

    Raises:
        TaskError: the model has no UNet.
    """
    if factors is None:
        yield
        return
    unet = model.parts.get("unet")
    blocks = list(getattr(unet, "up_blocks", ()))
    if not blocks:
        raise TaskError(
            f"freeu acts between the layers of a UNet, and {model.name} has none: leave it out, or take another model"
        )
    before = [{name: getattr(block, name, None) for name in NAMES} for block in blocks]
    try:
        for block in blocks:
            for name, factor in zip(NAMES, factors, strict=True):
                setattr(block, name, factor)
        yield
    finally:
        for block, values in zip(blocks, before, strict=True):
            for name, value in values.items():
                setattr(block, name, value)
