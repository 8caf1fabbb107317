"""TokenFlow: keys attend jointly, others take over; on attention that can be read, and on a small UNet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segue.errors import TaskError
from segue.models.bundle import LatentDiffusion
from segue.models.loading import load_model
from segue.temporal.rivals.tokenflow import Propagation, TokenFlow, Turn, nearest
from segue.types import Call, Point, RowId
from temporal.rivals.clips import back, inputs


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model(written: Path) -> LatentDiffusion:
    return load_model(written, device="cpu")


@dataclass(frozen=True)
class Spot:
    name: str = "attn1"
    kind: str = "self"


def softmax(hidden: Tensor, context: Tensor | None = None) -> Tensor:
    """Attention of one head that can be read."""
    source = hidden if context is None else context
    return (hidden @ source.transpose(1, 2)).softmax(2) @ torch.tanh(source)


def asked(tokens: Propagation, hidden: Tensor, frames: tuple[int, ...], trajectory: str, term: int = 0) -> Tensor:
    level = torch.full((len(frames),), 0.7, dtype=torch.float64)
    rows = tuple(RowId(trajectory, frame) for frame in frames)
    at = Point(torch.full((len(frames),), 2), 5, level, level, level, rows)
    return tokens(softmax, hidden, None, Call(at, rows, (term,) * len(frames)), Spot())


def drawn(count: int, seed: int) -> Tensor:
    return torch.randn(count, 6, 4, generator=torch.Generator().manual_seed(seed))


def test_keys_attend_to_all_keys_and_others_take_over_what_their_source_is_like() -> None:
    source, clip, tokens = drawn(3, 1), drawn(3, 2), Propagation()
    shuffled = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    source[1] = 2.5 * source[0][shuffled]  # as long as they like: directions are compared
    with tokens.step(Turn((0, 2), {1: ((0, 1.0),)})):
        assert torch.equal(asked(tokens, source[[0, 2]], (0, 2), "source"), softmax(source[[0, 2]]))
        asked(tokens, source[[1]], (1,), "source")
        keys = asked(tokens, clip[[0, 2]], (0, 2), "clip")
        other = asked(tokens, clip[[1]], (1,), "clip")
    both = torch.cat([clip[0], clip[2]])[None].expand(2, -1, -1)
    assert torch.allclose(keys, softmax(clip[[0, 2]], both), atol=1e-6)
    assert torch.equal(other[0], keys[0][shuffled])


def test_two_keys_are_mixed_and_terms_are_kept_apart() -> None:
    source, tokens = drawn(3, 1), Propagation()
    one, two = drawn(3, 4), drawn(3, 5)
    with tokens.step(Turn((0, 2), {1: ((0, 0.7), (2, 0.3))})):
        asked(tokens, source[[0, 2]], (0, 2), "source")
        asked(tokens, source[[1]], (1,), "source")
        keys = [asked(tokens, clip[[0, 2]], (0, 2), "clip", term) for term, clip in enumerate((one, two))]
        others = [asked(tokens, clip[[1]], (1,), "clip", term) for term, clip in enumerate((one, two))]
    unit = source / source.norm(dim=2, keepdim=True)
    nearest_tokens = [(unit[1] @ unit[key].T).argmax(1) for key in (0, 2)]
    for answers, other in zip(keys, others, strict=True):
        wanted = 0.7 * answers[0][nearest_tokens[0]] + 0.3 * answers[1][nearest_tokens[1]]
        assert torch.allclose(other[0], wanted, atol=1e-6)


def test_nothing_is_kept_between_steps() -> None:
    tokens, x = Propagation(), drawn(2, 1)
    with tokens.step(Turn((0, 1), {})):
        asked(tokens, x, (0, 1), "clip")
    assert torch.equal(asked(tokens, x, (0, 1), "clip"), softmax(x))
    with tokens.step(Turn((0,), {1: ((0, 1.0),)})), pytest.raises(KeyError):
        asked(tokens, x[[1]], (1,), "clip")


def test_the_nearer_key_counts_more() -> None:
    assert nearest(3, (1, 9)) == ((1, pytest.approx(0.6791787)), (9, pytest.approx(1 - 0.6791787)))  # sigmoid(6 / 8)
    assert nearest(5, (4, 6, 20)) == ((4, pytest.approx(0.6224593)), (6, pytest.approx(1 - 0.6224593)))
    assert nearest(7, (3,)) == ((3, 1.0),)


def test_keys_are_drawn_anew_one_in_each_chunk() -> None:
    turns = [Turn.of(range(20), 8, 0, step) for step in range(40)]
    for turn in turns:
        assert [key // 8 for key in turn.keys] == [0, 1, 2]
        assert sorted((*turn.keys, *turn.near)) == list(range(20))
    assert {turn.keys[0] for turn in turns} == set(range(8))
    assert {turn.keys[2] for turn in turns} == {16, 17, 18, 19}
    assert Turn.of(range(20), 8, 0, 3) == turns[3]
    assert Turn.of(range(20), 8, 1, 3) != turns[3]


def test_frames_that_are_alike_are_as_if_all_were_keys(model: LatentDiffusion) -> None:
    """All tokens are found where they are, and joint attention to copies of oneself is plain."""
    given = inputs(model, 4)
    alike = replace(given, source=replace(given.source, latents=given.source.latents[[1] * 4]))
    wanted = TokenFlow(span=1).run(alike).latents
    assert torch.allclose(TokenFlow(span=2).run(alike).latents, wanted, atol=1e-4)
    assert torch.allclose(TokenFlow(span=8).run(alike).latents, wanted, atol=1e-4)
    assert torch.allclose(wanted, back(alike), atol=1e-4)


def test_key_frames_that_do_not_fit_into_a_call_are_refused(model: LatentDiffusion) -> None:
    given: dict[str, Any] = {"denoiser": model.batched(3).denoiser}
    with pytest.raises(TaskError, match="raise max_batch"):
        TokenFlow(span=1).run(inputs(model, 4, **given))
    # Neither frames that are no keys, nor the terms of guidance, need one call.
    whole = TokenFlow(span=2).run(inputs(model, 4)).latents
    assert torch.allclose(
        TokenFlow(span=2).run(inputs(model, 4, denoiser=model.batched(2).denoiser)).latents, whole, atol=1e-4
    )


def test_text_and_picture_at_once_is_refused_by_name(model: LatentDiffusion) -> None:
    given = inputs(model, 2)
    sites = [replace(site, kind="joint") for site in given.sites]  # pyright: ignore
    with pytest.raises(TaskError, match="text and picture at once"):
        TokenFlow().run(replace(given, sites=sites))
    with pytest.raises(TaskError, match="1 or more"):
        TokenFlow(span=0)
