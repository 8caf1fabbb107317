"""Pictures as a person would paint them with few broad strokes: what guides a stroke edit, made from a photograph.

As SDEdit simulates strokes (Meng et al. 2021, arXiv:2108.01073, appendix C.2): a median filter of 23 pixels at 256,
then a palette of 6 colours. For tests and demonstrations; people paint their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segue.errors import MediaError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

COLOURS = 6
BRUSH = 23 / 256
"""Width of a stroke, as a share of the picture's shorter side."""
_MOST_COLOURS = 256


def strokes(
    picture: Float[Tensor, "3 h w"], *, colours: int = COLOURS, brush: int | None = None
) -> Float[Tensor, "3 h w"]:
    """A picture in broad strokes of few colours.

    Args:
        picture: in [0, 1].
        colours: how many are left, 2 to 256; chosen by median cut.
        brush: width of a stroke in pixels, odd; left out, 23 / 256 of the shorter side. 1 keeps all edges.

    Raises:
        MediaError: colours or brush are out of range.
    """
    from PIL import Image, ImageFilter

    if not 2 <= colours <= _MOST_COLOURS:
        raise MediaError(f"expected 2 to {_MOST_COLOURS} colours, got {colours}")
    width = brush if brush is not None else round(BRUSH * min(picture.shape[-2:])) // 2 * 2 + 1
    if width < 1 or width % 2 == 0:
        raise MediaError(f"expected a brush of an odd number of pixels, 1 or more, got {width}")
    pixels = (picture.detach().cpu() * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
    image = Image.fromarray(pixels.numpy())
    # Pillow divides by zero where a filter of one pixel has nothing to do.
    broad = image.filter(ImageFilter.MedianFilter(width)) if width > 1 else image
    flat = broad.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    painted = torch.frombuffer(bytearray(flat.tobytes()), dtype=torch.uint8).view(*pixels.shape)
    return (painted.permute(2, 0, 1).float() / 255).to(picture)
