"""What the values that rooms exchange refuse to do silently."""

from __future__ import annotations

import pytest
import torch

from segue.types import Conditioning


def test_a_window_of_conditioning_is_cut_at_the_scale_of_latents_or_refused() -> None:
    text, concat = torch.zeros(1, 2, 3), torch.arange(16.0).reshape(1, 1, 4, 4)
    window = Conditioning(text, concat=concat).crop(1, 2, 2, 2)
    assert window.concat is not None and torch.equal(window.concat, concat[..., 1:3, 2:4])
    assert window.text is text
    assert Conditioning(text).crop(0, 0, 1, 1).text is text


def test_control_pictures_are_cut_in_pixels_or_refused() -> None:
    picture = torch.arange(3 * 32 * 16.0).reshape(1, 3, 32, 16)
    cond = Conditioning(torch.zeros(1, 2, 3), residual_inputs={"depth": picture})
    window = cond.crop(1, 2, 2, 1, whole=(4, 4)).residual_inputs["depth"]
    assert torch.equal(window, picture[..., 8:24, 8:12])
    with pytest.raises(ValueError, match="depth cannot be cut without the size of all latents"):
        cond.crop(0, 0, 2, 2)
    with pytest.raises(ValueError, match="depth is 16x32, no multiple of latents of 5x4"):
        cond.crop(0, 0, 2, 2, whole=(4, 5))
