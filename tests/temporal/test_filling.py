# pyright: basic
"""What lies between two frames: branches begin as their ends do, and pixels go where flow takes them."""

from __future__ import annotations

import torch

from flickers import textured
from segue.media.clip import as_floats
from segue.temporal.filling import flowed, forked
from segue.types import RowId
from toy import toy_model


def test_branches_at_the_ends_begin_as_the_ends_do() -> None:
    model, generator = toy_model(), torch.Generator().manual_seed(1)
    schedule = model.schedule(10, (32, 24))
    left, right, noises = (torch.randn(3, 4, 3, 4, generator=generator) for _ in range(3))
    rows = tuple(RowId("clip", frame) for frame in range(3))
    state = forked(left, right, [0.0, 0.5, 1.0], noises, schedule, 0.5, rows)
    assert state.step.tolist() == [5, 5, 5]
    now, _ = schedule.step(state.step, rows)
    assert torch.equal(state.x[0], now.noised(left, noises)[0])
    assert torch.equal(state.x[2], now.noised(right, noises)[2])
    middle = 0.5 * (now.noised(left, noises)[1] + now.noised(right, noises)[1])
    # Spherical: along the mean of both, and longer.
    assert torch.nn.functional.cosine_similarity(state.x[1].flatten(), middle.flatten(), 0) > 0.999
    assert state.x[1].norm() > middle.norm()
    same = forked(left, left, [0.0, 0.3, 1.0], noises, schedule, 0.5, rows)
    assert torch.allclose(same.x, now.noised(left, noises), atol=1e-5)


def test_pixels_go_half_of_the_way() -> None:
    picture = as_floats(textured(1, (64, 48), seed=3))[0]
    left, half, right = (picture.roll(by, 2) for by in (0, 3, 6))
    (found,) = flowed(left, right, [0.5])
    inner = (slice(None), slice(8, -8), slice(12, -12))
    off, crossed = (float((one - half)[inner].abs().mean()) for one in (found, 0.5 * (left + right)))
    assert off < 0.35 * crossed
    assert torch.allclose(flowed(left, left, [0.25, 0.75]), left.expand(2, -1, -1, -1), atol=1e-6)
