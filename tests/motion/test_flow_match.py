"""Optical flow as an engine."""

from __future__ import annotations

import torch

from motion.clips import panned
from segue.motion.fields import Fields
from segue.motion.flow_match import FlowMatcher


def plain_with_noise() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(3)
    a, b = (0.8 + 0.01 * torch.randn(1, 3, 48, 64, generator=draws) for _ in range(2))
    return a.clamp(0, 1), b.clamp(0, 1)


def test_plain_areas_are_believed_to_be_blended_but_not_to_be_measured() -> None:
    a, b = plain_with_noise()
    blending, measuring = (FlowMatcher(alike=alike)(a, b)[0].confidence for alike in (True, False))
    assert bool((blending >= measuring).all())
    assert float(blending.mean()) > 0.5
    assert float(blending.mean()) > float(measuring.mean()) + 0.05
    assert set(measuring.unique().tolist()) <= {0.0, 1.0}


def test_what_looks_different_is_not_believed_for_being_plain() -> None:
    a, b = plain_with_noise()
    believed = FlowMatcher()(a, b - 0.3)[0].confidence, FlowMatcher(alike=False)(a, b - 0.3)[0].confidence
    assert torch.allclose(*believed, atol=1e-6)


def test_engines_that_believe_otherwise_have_other_names() -> None:
    assert FlowMatcher().name != FlowMatcher(alike=False).name


def test_nothing_is_found_out_for_it_that_it_makes_no_use_of() -> None:
    fields = Fields(FlowMatcher(), panned(5))
    fields.direct(0, 4)
    assert fields.held == 1
