"""Drawn films along the movement of their source where it is theirs: laws, and what it is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from motion.clips import Held, flickering, ground, noisy, panned
from motion.engines import Still
from segue.motion.blend import Blending, blended
from segue.motion.fields import Fields
from segue.motion.followed import Followed
from segue.motion.match import Match, gathered, inside

COUNT, SIZE, STEP = 7, (64, 48), (3, 0)


@dataclass(frozen=True)
class Panning:
    """Knows the step of a clip that is panned, and finds out how many of them there are between two frames."""

    step: tuple[int, int] = STEP
    name: str = "panning"

    def __call__(self, a: Tensor, b: Tensor, start: tuple[Match, Match] | None = None) -> tuple[Match, Match]:
        return self._one(a, b), self._one(b, a)

    def _one(self, a: Tensor, b: Tensor) -> Match:
        ways = [torch.tensor(self.step) * -float(count) for count in range(1 - COUNT, COUNT)]
        found = [way.view(1, 2, 1, 1).expand(1, 2, *a.shape[2:]).contiguous() for way in ways]
        apart = [
            float(((gathered(b, way) - a).square().mean(1) * inside(way)).sum() / inside(way).sum()) for way in found
        ]
        way = found[apart.index(min(apart))]
        return Match(way, torch.zeros_like(way[:, 0]), inside(way), whole=True)


def moving() -> Held:
    return panned(COUNT, size=SIZE, step=STEP)


def along(source: Held | None = None) -> Fields:
    return Fields(Panning(), source or moving())


def face(across: int = 0) -> Tensor:
    """A picture (3, h, w) of two dark spots on plain ground."""
    picture = torch.full((3, SIZE[1], SIZE[0]), 0.8)
    for left in (16 + across, 36 + across):
        picture[:, 20:28, left : left + 6] = 0.1
    return picture


def still() -> Held:
    return Held(face().repeat(COUNT, 1, 1, 1))


def made(style: Held, fields: Fields, grain: float = 1.0) -> Tensor:
    return torch.stack([picture for _, picture, _ in blended(style, fields, Blending(3, grain=grain, every=4))])


def mean_square(pictures: Tensor) -> float:
    return float(pictures.square().mean())


def test_what_follows_its_source_is_blended_as_before() -> None:
    source, inside_both = moving(), (..., slice(8, -8), slice(20, -20))
    for style in (source, Held(1 - source.pictures)):
        found = Followed(along(), style)
        assert all(found.follows(n, n + 1) == 1 for n in range(COUNT - 1))
        assert torch.equal(found.way(1, 5).confidence, along().way(1, 5).confidence)
        assert torch.allclose(made(style, found), made(style, along()), atol=1e-5)
    assert torch.equal(made(source, Followed(along(), source)), made(source, along()))
    light = flickering(source, 0.1)
    assert torch.equal(Followed(along(), light).way(1, 5).way[inside_both], along().way(1, 5).way[inside_both])


def test_a_still_drawing_over_a_moving_source_stays_as_it_is() -> None:
    assert float((made(still(), along()) - face()).abs().max()) > 0.2, "ghosts"
    assert float((made(still(), Followed(along(), still())) - face()).abs().max()) < 0.01


def test_no_second_edges_where_a_still_drawing_flickers() -> None:
    style, spots = noisy(still(), 0.03), (face()[:1] < 0.5).float()
    beside = max_pool2d(spots, 9, 1, 4) - max_pool2d(spots, 3, 1, 1)
    plain, mended = (made(style, fields, grain=0.0) for fields in (along(), Followed(along(), style)))
    before, after = (float(((each.mean(1) - 0.8).abs() * beside).mean() / beside.mean()) for each in (plain, mended))
    assert after < 0.02 < 0.06 < before
    assert mean_square(mended - face()) < 0.4 * mean_square(style.pictures - face()), "it is calmed all the same"


def test_a_drawing_that_moves_otherwise_is_followed_by_its_own_movement() -> None:
    style = Held(torch.stack([face(number) for number in range(COUNT)]))
    found = Followed(along(), style)
    way = found.way(2, 4).way[0]
    assert float(way[0, 22:26, 18:24].median()) == pytest.approx(2, abs=0.4)
    before, after = (mean_square(made(style, fields) - style.pictures) for fields in (along(), found))
    assert after < 0.1 * before


def test_part_of_a_picture_may_follow_and_part_may_not() -> None:
    style = moving().pictures.clone()
    style[..., :24] = ground(5)[:, 10 : 10 + SIZE[1], 10:34]
    found = Followed(along(), Held(style)).way(3, 4).way[0, 0]
    assert float(found[:, :14].abs().max()) == 0
    assert bool((found[:, 36:60] == -STEP[0]).all())


def test_paint_of_its_own_is_no_movement_of_its_own() -> None:
    """Frames are painted anew over what they follow: a search finds something there, too, which means nothing."""
    found = Followed(along(), noisy(moving(), 0.1))
    assert min(found.follows(n, n + 1) for n in range(COUNT - 1)) > 0.95


def test_nothing_is_searched_where_source_or_standing_still_explains_all() -> None:
    for style in (moving(), still()):
        searches = Still()
        Followed(along(), style, matcher=searches).way(0, 5)
        assert searches.asked == 0


def test_backwards_it_is_the_same() -> None:
    source, style = moving(), noisy(still(), 0.03)
    forth = made(style, Followed(along(source), style))
    back = made(style.backwards(), Followed(along(source.backwards()), style.backwards()))
    assert torch.equal(forth, back.flip(0))


def test_what_was_kept_is_found_again_for_these_pictures_only(tmp_path: Path) -> None:
    styles = [noisy(still(), 0.03, seed) for seed in (0, 1)]
    ways = [Followed(along(), style).way(0, 4) for style in styles]
    assert not torch.equal(ways[0].confidence, ways[1].confidence)
    for _ in range(2):
        for style, expected in zip(styles, ways, strict=True):
            searches = Followed(along(), style, folder=tmp_path)
            assert torch.equal(searches.way(0, 4).way, expected.way)
            assert torch.equal(searches.way(0, 4).confidence, expected.confidence)
    pairs = {(0, 4), (0, 2), (2, 4), (0, 1), (1, 2), (2, 3), (3, 4)}
    assert len(list(tmp_path.iterdir())) == 2 * len(pairs)


def test_pictures_of_another_size_or_number_are_told() -> None:
    for style in (panned(COUNT - 1, size=SIZE), panned(COUNT, size=(48, 48))):
        with pytest.raises(ValueError, match=f"expected pictures like those that were compared, {COUNT} of 64x48"):
            Followed(along(), style)
