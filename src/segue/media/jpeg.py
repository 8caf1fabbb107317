"""One picture as the bytes of a JPEG, to be looked at."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from segue.media.clip import to_uint8

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

QUALITY = 90


def jpeg(picture: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"]) -> bytes:
    """A picture, as bytes or in [0, 1], compressed with loss.

    Raises:
        MediaError: it has another shape, or values outside [0, 1].
    """
    pixels = to_uint8(picture[None])[0].permute(1, 2, 0).contiguous().cpu().numpy()
    packed = BytesIO()
    Image.fromarray(pixels).save(packed, "JPEG", quality=QUALITY)
    return packed.getvalue()
