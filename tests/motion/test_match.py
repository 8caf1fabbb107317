"""Laws of correspondences, whoever found them."""

from __future__ import annotations

import pytest
import torch

from motion.pictures import moved, texture
from segue.motion.flow_match import FlowMatcher
from segue.motion.match import Match, Matcher, ends, gathered, inside, returned
from segue.motion.patchmatch import PatchMatcher

ENGINES: list[Matcher] = [PatchMatcher(), FlowMatcher()]
named = pytest.mark.parametrize("matcher", ENGINES, ids=["patchmatch", "flow"])


def whole(seed: int, height: int = 12, width: int = 15, batch: int = 2) -> Match:
    """Whole ways to anywhere within the picture."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randint(0, width, (batch, height, width), generator=draws) - torch.arange(width)
    y = torch.randint(0, height, (batch, height, width), generator=draws) - torch.arange(height)[:, None]
    error, confidence = torch.rand(2, batch, height, width, generator=draws)
    return Match(torch.stack([x, y], 1).float(), error, confidence, whole=True)


def still(height: int = 12, width: int = 15, batch: int = 2) -> Match:
    """Everything stays, for certain."""
    none = torch.zeros(batch, height, width)
    return Match(torch.zeros(batch, 2, height, width), none, none + 1, whole=True)


def test_along_two_whole_ways_is_along_the_composed_one() -> None:
    a, b, c = whole(1), whole(2), whole(3)
    there = torch.rand(2, 4, 12, 15, generator=torch.Generator().manual_seed(0))
    assert torch.equal(a.then(b).remap(there), a.remap(b.remap(there)))
    assert torch.equal(a.then(b).then(c).way, a.then(b.then(c)).way)
    assert torch.allclose(a.then(b).then(c).confidence, a.then(b.then(c)).confidence)
    assert torch.allclose(a.then(b).then(c).error, a.then(b.then(c)).error)


def test_staying_adds_nothing_before_or_after() -> None:
    a = whole(1)
    for one in (a.then(still()), still().then(a)):
        assert torch.equal(one.way, a.way)
        assert torch.equal(one.error, a.error)
        assert torch.equal(one.confidence, a.confidence)
    there = torch.rand(2, 3, 12, 15)
    assert torch.equal(still().remap(there), there)


def test_a_slice_is_of_rows() -> None:
    a = whole(1)
    there = torch.rand(2, 3, 12, 15)
    assert len(a[1:]) == 1
    assert a.size == (15, 12)
    assert torch.equal(a[1:].remap(there[1:]), a.remap(there)[1:])


def test_pixels_are_those_that_ways_end_at() -> None:
    a = whole(1)
    x, y = torch.meshgrid(torch.arange(15.0), torch.arange(12.0), indexing="xy")
    places = torch.stack([x, y])[None].expand(2, -1, -1, -1)
    assert torch.equal(gathered(places, a.way), places + a.way)
    assert torch.equal(ends(a.way), (y + a.way[:, 1]).long() * 15 + (x + a.way[:, 0]).long())
    far = torch.full((1, 2, 12, 15), 99.0)
    assert torch.equal(ends(far), torch.full((1, 12, 15), 179)), "beyond is the border"
    assert float(inside(far).max()) == 0
    assert float(inside(a.way).min()) == 1


def test_ways_to_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="do not lead into"):
        whole(1).remap(torch.zeros(2, 3, 12, 14))
    with pytest.raises(ValueError, match="do not lead into"):
        whole(1).then(whole(2)[1:])


@named
def test_engines_answer_alike(matcher: Matcher) -> None:
    a, b = moved(4, -3)
    there, back = matcher(a, b)
    for match in (there, back):
        assert len(match) == 1
        assert match.size == (96, 96)
        assert match.error.shape == match.confidence.shape == (1, 96, 96)
        assert float(match.error.min()) >= 0
        assert 0 <= float(match.confidence.min()) <= float(match.confidence.max()) <= 1
    inner = (..., slice(16, -16), slice(16, -16))
    assert float((there.way[inner] - torch.tensor([4.0, -3.0]).view(1, 2, 1, 1)).abs().median()) < 0.1
    assert float((there.remap(b) - a)[inner].abs().mean()) < 0.005
    assert float(there.confidence[inner].mean()) > 0.95
    assert float(returned(there.way, back)[inner].median()) < 0.1
    assert matcher.name


@named
def test_swapping_swaps_and_rows_are_alone(matcher: Matcher) -> None:
    (a, b), (c, d) = moved(4, -3, seed=1), moved(-5, 2, seed=2)
    there, back = matcher(torch.cat([a, c]), torch.cat([b, d]))
    other, again = matcher(d, c)
    for one, two in ((there[1:], again), (back[1:], other)):
        assert torch.equal(one.way, two.way)
        assert torch.equal(one.error, two.error)
        assert torch.equal(one.confidence, two.confidence)


@named
def test_different_pictures_are_not_believed(matcher: Matcher) -> None:
    a, b = texture(96, 96, seed=1), texture(96, 96, seed=2)
    assert float(matcher(a, b)[0].confidence.mean()) < 0.35
