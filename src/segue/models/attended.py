"""Where frames attend to each other in a model, and how many bytes of each the others wait for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING, Any

from segue.errors import TaskError
from segue.models.attention import Site, sites
from segue.models.control import PART

if TYPE_CHECKING:
    from torch import nn

    from segue.models.bundle import LatentDiffusion

WITHIN = "self", "joint"
"""Kinds of sites at which pictures are attended to."""
_BLOCK = re.compile(r"(mid_block|down_blocks|up_blocks)(?:\.(\d+))?\.")


def model_sites(model: LatentDiffusion) -> tuple[Site, ...]:
    """All attention of what denoises in a model: its backbone, and the control networks beside it.

    Raises:
        TaskError: it has no network to step into.
    """
    if model.backbone is None:
        raise TaskError(f"attention across frames acts in the attention of a network, and {model.name} has none")
    controls = {name: part for name, part in model.parts.items() if name.startswith(PART)}
    found = [*sites(model.backbone), *(site for name, part in controls.items() for site in sites(part, f"{name}."))]
    return tuple(found)


def attended_bytes(
    model: LatentDiffusion, size: tuple[int, int], *, kinds: Collection[str] = WITHIN, most: float = inf
) -> int:
    """Bytes that wait for others of one network row, at all sites where pictures are attended to.

    A frame of n guidance terms is n network rows; `segue.temporal.frame_attention.most_held` says how many wait at
    once. Where a network has no blocks that are halved, every site is taken to be as large as the latents.

    Args:
        model: its backbone, and the control networks beside it.
        size: (width, height) in pixels.
        kinds: of sites that are counted; what pictures ask there is as large as what they say.
        most: tokens of a site, up to which it is counted.

    Raises:
        TaskError: the model has no network to step into.
    """
    counted = (tokens * width for tokens, width in _sized_sites(model, size, kinds) if tokens <= most)
    return sum(counted) * model.dtype.itemsize


def attended_tokens(model: LatentDiffusion, size: tuple[int, int]) -> int:
    """Tokens of one network row at all sites where pictures are attended to, as `attended_bytes` counts them.

    Raises:
        TaskError: the model has no network to step into.
    """
    return sum(tokens for tokens, _ in _sized_sites(model, size, WITHIN))


def _sized_sites(model: LatentDiffusion, size: tuple[int, int], kinds: Collection[str]) -> Iterator[tuple[int, int]]:
    """Of each site its tokens, and how many numbers each of them has."""
    networks = {f"{name}.": part for name, part in model.parts.items() if name.startswith(PART)}
    for site in model_sites(model):
        if site.kind in kinds:
            prefix = next((name for name in networks if site.name.startswith(name)), "")
            network = networks.get(prefix, model.backbone)
            width, height = (side // model.grid for side in size)
            for _ in range(_halvings(network, site.name.removeprefix(prefix))):
                width, height = -(-width // 2), -(-height // 2)
            attention: Any = site.module
            yield width * height, attention.to_q.in_features


def _halvings(network: nn.Module | None, name: str) -> int:
    """How often latents are halved before a site of a UNet, or of a copy of its first half."""
    down: Any = getattr(network, "down_blocks", ())
    # What stands in a block is at the size that the blocks before it left.
    before = list(accumulate((getattr(block, "downsamplers", None) is not None for block in down), initial=0))
    found = _BLOCK.match(name)
    if found is None or not len(down):
        return 0
    if found[1] == "mid_block":
        return before[-1]
    number = int(found[2])
    return before[number if found[1] == "down_blocks" else len(down) - 1 - number]
