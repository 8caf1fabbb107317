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
    with pytest.raises(ValueError, match="depth"):
        Conditioning(text, concat=concat, residual_inputs={"depth": torch.zeros(1, 3, 32, 32)}).crop(0, 0, 2, 2)
