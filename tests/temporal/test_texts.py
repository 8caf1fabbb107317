"""Mixes of texts: ends are exact, a line is a line, tokens turn at one rate, and order does not matter."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from segue.temporal.mix import mixed as mixed_latents
from segue.temporal.texts import Words, between, mixed
from segue.types import Conditioning

WORDS: tuple[Words, ...] = ("line", "tokens")


def terms(count: int = 3) -> Conditioning:
    text = torch.randn(count, 5, 8, generator=torch.Generator().manual_seed(0))
    text[:, 0] = text[0, 0]  # as the first token of all prompts is
    text[:, 1] = 0
    return Conditioning(text, pooled=text[:, 2])


@pytest.mark.parametrize("words", WORDS)
def test_ends_are_exact_and_equals_stay(words: Words) -> None:
    some = terms()
    a, b = some[[0, 0, 0]], some[[1, 1, 1]]
    found = between(a, b, torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64), words)
    assert torch.equal(found.text[0], a.text[0])
    assert torch.equal(found.text[2], b.text[0])
    assert torch.allclose(found.text[1, 0], a.text[0, 0], atol=1e-6)
    assert torch.equal(found.text[1, 1], a.text[0, 1])
    assert torch.allclose(between(a, a, torch.full((3,), 0.3, dtype=torch.float64), words).text, a.text, atol=1e-6)
    for row in range(3):
        assert torch.equal(mixed(some, [float(row == other) for other in range(3)], words).text[0], some.text[row])


def test_tokens_turn_as_latents_do() -> None:
    a, b = terms()[[0]], terms()[[1]]
    for share in (0.1, 0.5, 0.8):
        part = torch.tensor([share], dtype=torch.float64)
        found, straight = between(a, b, part, "tokens"), a.lerp(b, part)
        assert torch.allclose(found.text, mixed_latents(a.text, b.text, part, "channels"), atol=1e-6)
        assert torch.equal(between(a, b, part, "line").text, straight.text)
        assert found.pooled is not None and straight.pooled is not None
        assert torch.equal(found.pooled, straight.pooled)
        assert not torch.allclose(found.text, straight.text, atol=1e-2)


@pytest.mark.parametrize("words", WORDS)
def test_many_are_mixed_in_no_order(words: Words) -> None:
    some, shares = terms(4), (0.1, 0.2, 0.3, 0.4)
    every = [mixed(some[list(o)], [shares[row] for row in o], words).text for o in permutations(range(4))]
    assert all(torch.allclose(found, every[0], atol=1e-5) for found in every)
    two = mixed(some, [0.7, 0, 0.3, 0], words).text
    assert torch.equal(two, between(some[[0]], some[[2]], torch.tensor([0.3], dtype=torch.float64), words).text)
    assert torch.allclose(mixed(some, [0.7, 1e-9, 0.3, 0], words).text, two, atol=1e-5)


def test_a_weighted_sum_is_where_lines_end() -> None:
    some = terms(3)
    found = mixed(some, [0.2, 0.3, 0.5], "line").text[0]
    assert torch.allclose(found, (some.text * torch.tensor([0.2, 0.3, 0.5])[:, None, None]).sum(0), atol=1e-6)
