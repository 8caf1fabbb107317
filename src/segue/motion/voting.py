"""A picture made anew from the patches of another, each pixel by the vote of all patches that cover it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.motion.match import Match


def voted(match: Match, there: Float[Tensor, "b c h w"], patch: int) -> Float[Tensor, "b c h w"]:
    """What lies there, brought here by whole patches: the mean of what each patch that covers a pixel says of it.

    The pixel p lies in the patches around p - o, each of which was found around p - o + way(p - o), so that it says
    there(p + way(p - o)). Patches beyond the border of `here`, and what they would take from beyond that of `there`,
    have no vote (Wexler et al. 2007, "Space-time completion of video"); every pixel has that of its own patch. Ways
    that are not whole are rounded to the nearest pixel. Where all ways are equal, nothing is blurred.

    Args:
        match: ways from here to there.
        there: pictures, or fields, of the size of the ways.
        patch: pixels along a side; odd. 1 gathers.

    Raises:
        ValueError: another size, or an even patch.
    """
    if there.shape[0] != len(match) or there.shape[2:] != match.way.shape[2:]:
        raise ValueError(f"ways of shape {tuple(match.way.shape)} do not lead into {tuple(there.shape)}")
    if patch < 1 or patch % 2 == 0:
        raise ValueError(f"patches are an odd number of pixels wide; got {patch}")
    batch, channels, height, width = there.shape
    way = match.way.round().long()
    x = torch.arange(width, device=way.device)
    y = torch.arange(height, device=way.device)[:, None]
    source = there.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    first = torch.arange(batch, device=way.device)[:, None, None] * (height * width)
    mean = torch.zeros(batch, height, width, channels, dtype=there.dtype, device=there.device)
    votes = torch.zeros(batch, height, width, 1, dtype=there.dtype, device=there.device)
    for across, down in _offsets(patch):
        # Where a patch's middle lies beyond the border, the nearest pixel's way is read, and not counted.
        rows, columns = (y - down).clamp(0, height - 1), (x - across).clamp(0, width - 1)
        asked = way[:, :, rows, columns]
        at_x, at_y = x + asked[:, 0], y + asked[:, 1]
        counts = (rows == y - down) & (columns == x - across)
        counts = counts & (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
        if across == down == 0:
            counts = torch.ones_like(counts)
        place = first + at_y.clamp(0, height - 1) * width + at_x.clamp(0, width - 1)
        said = source.index_select(0, place.flatten()).view_as(mean)
        votes.add_(counts[..., None])
        # A mean that runs stays as it is, to the bit, while all say the same.
        mean.add_((said - mean) * (counts[..., None] / votes))
    return mean.permute(0, 3, 1, 2)


def _offsets(patch: int) -> list[tuple[int, int]]:
    """(across, down) from the pixels to the middles that cover them, their own first, so that each has a vote."""
    reach = range(-(patch // 2), patch // 2 + 1)
    return sorted(((across, down) for down in reach for across in reach), key=lambda place: place != (0, 0))
