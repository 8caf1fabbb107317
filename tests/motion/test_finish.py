"""Contrast and sharpness of finished pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from segue.motion.finish import Finish


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(3))


def test_at_one_nothing_is_done() -> None:
    given = pictures()
    assert torch.equal(Finish()(given), given)
    assert torch.equal(Finish(1.0, 1.0)(given * 1e-3), given * 1e-3)


@pytest.mark.parametrize("name", ["contrast", "sharpness"])
def test_near_one_little_is_done_and_more_does_more(name: str) -> None:
    given = pictures() * 0.5 + 0.25
    spreads = [float(replace(Finish(), **{name: amount})(given).std()) for amount in (0.0, 0.5, 1.0, 1.3)]
    assert spreads == sorted(spreads)
    assert spreads[1] < spreads[2] < spreads[3]
    assert float((replace(Finish(), **{name: 1.001})(given) - given).abs().max()) < 1e-3


def test_contrast_turns_about_grey_so_that_what_is_grey_stays() -> None:
    given = torch.full((1, 3, 8, 8), 0.5)
    assert torch.equal(Finish(contrast=3)(given), given)
    # The same grey in a bright picture and in a dark one: it must not pulse.
    bright, dark = torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    for picture in (bright, dark):
        picture[..., 4, 4] = 0.4
    bright, dark = Finish(contrast=1.5)(bright), Finish(contrast=1.5)(dark)
    assert torch.equal(bright[..., 4, 4], dark[..., 4, 4])
    assert float(bright[0, 0, 4, 4]) == pytest.approx(0.35)


def test_sharpness_leaves_what_is_plain_and_is_float_throughout() -> None:
    plain = torch.full((1, 3, 16, 16), 0.3)
    assert torch.allclose(Finish(sharpness=4)(plain), plain, atol=1e-6)
    # A film of five passes would lose half a level each time, if it were cut to bytes on the way.
    ramp = torch.linspace(0.2, 0.8, 64).expand(1, 3, 16, 64).contiguous()
    after = ramp
    for _ in range(5):
        after = Finish(sharpness=1.5)(after)
    assert float((after - ramp)[..., 8:-8].mean().abs()) < 1e-4


def test_values_stay_in_range() -> None:
    done = Finish(contrast=5, sharpness=5)(pictures())
    assert 0 <= float(done.min()) <= float(done.max()) <= 1


@pytest.mark.parametrize("values", [{"contrast": -0.1}, {"sharpness": 11}, {"contrast": float("nan")}])
def test_what_is_out_of_range_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be 0 to 10"):
        Finish(**values)
