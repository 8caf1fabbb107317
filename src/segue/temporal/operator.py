"""What an operator does when it does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from segue.types import Point


class Identity:
    """An operator that changes nothing; others override the places where they act."""

    def on_latents(self, x: Float[Tensor, "b c h w"], at: Point) -> Float[Tensor, "b c h w"]:
        """See `segue.types.Operator`."""
        return x

    def on_denoised(self, x0: Float[Tensor, "b c h w"], at: Point) -> Float[Tensor, "b c h w"]:
        """See `segue.types.Operator`."""
        return x0

    def on_stepped(
        self, x: Float[Tensor, "b c h w"], x0: Float[Tensor, "b c h w"], at: Point
    ) -> Float[Tensor, "b c h w"]:
        """See `segue.types.Operator`."""
        return x
