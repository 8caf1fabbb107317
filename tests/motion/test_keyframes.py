"""All frames from a few."""

from __future__ import annotations

import pytest
import torch

from motion.clips import Held, joined, noisy, panned
from motion.engines import Shifts, Still
from segue.motion.fields import Fields
from segue.motion.flow_match import FlowMatcher
from segue.motion.keyframes import keyed, neighbours


def keys_of(clip: Held, places: list[int]) -> Held:
    return Held(clip.pictures[places])


def made(keys: Held, places: list[int], fields: Fields, numbers: list[int] | None = None) -> dict[int, torch.Tensor]:
    return {number: picture for number, picture, _ in keyed(keys, places, fields, numbers=numbers)}


def painted(clip: Held) -> Held:
    """Of other colours, as a style may be."""
    return Held(1 - 0.8 * clip.pictures.flip(1))


@pytest.mark.parametrize("places", [[0, 12], [3, 9], [6], [0, 4, 5, 12]])
@pytest.mark.parametrize("engine", [Shifts(), FlowMatcher()], ids=["whole", "parts"])
def test_frames_between_are_what_the_keys_would_show(places: list[int], engine: Shifts | FlowMatcher) -> None:
    guide = panned(13, step=(1, 1))
    style = painted(guide)
    for number, picture, trust in keyed(keys_of(style, places), places, Fields(engine, guide)):
        if number in places:
            assert torch.equal(picture, style.pictures[number])
            assert float(trust.min()) == 1
        assert float((picture - style.pictures[number])[:, 14:-14, 14:-14].abs().mean()) < 0.012, number
        assert bool(picture.isfinite().all())
        assert 0 <= float(trust.min()) <= float(trust.max()) <= 1


def test_one_key_for_a_clip_that_stands_still_is_every_frame() -> None:
    still = Held(panned(1).pictures.repeat(6, 1, 1, 1))
    style = painted(still)
    for places in ([2], [0, 5]):
        for picture in made(keys_of(style, places), places, Fields(FlowMatcher(), still)).values():
            assert torch.allclose(picture, style.pictures[0], atol=1e-6)


def test_backwards_it_is_the_same_and_the_order_does_not_matter() -> None:
    guide = noisy(panned(11), 0.02)
    style, places = noisy(panned(11), 0.1, seed=4), [1, 5, 10]
    engine = Shifts(doubt=0.6)
    forth = made(keys_of(style, places), places, Fields(engine, guide))
    mirrored = [10 - place for place in reversed(places)]
    back = made(keys_of(style.backwards(), mirrored), mirrored, Fields(engine, guide.backwards()))
    for number, picture in forth.items():
        assert torch.equal(picture, back[10 - number])
    for number, picture in made(keys_of(style, places), places, Fields(engine, guide), [7, 0, 3, 2]).items():
        assert torch.equal(picture, forth[number])


def test_what_one_key_does_not_show_comes_from_the_other() -> None:
    """A thing covers a corner in the first half: behind it, the ground is only in the later key."""
    guide = Held(panned(1, size=(64, 48)).pictures.repeat(9, 1, 1, 1))
    guide.pictures[:5, :, 8:28, 8:28] = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1)
    style, places = painted(guide), [0, 8]
    fields = Fields(Shifts(reach=0), guide)
    covered = slice(11, 25), slice(11, 25)
    for number, picture in made(keys_of(style, places), places, fields).items():
        apart = (picture - style.pictures[number])[(slice(None), *covered)].abs().mean()
        assert float(apart) < 0.02, number


def test_detail_between_keys_is_as_strong_as_in_them() -> None:
    guide = panned(9, step=(0, 0))
    style, places = noisy(guide, 0.1), [0, 8]

    def strength(picture: torch.Tensor) -> float:
        return float((picture[..., 1:] - picture[..., :-1]).square().mean())

    due = strength(style.pictures[0])
    for picture in made(keys_of(style, places), places, Fields(Shifts(reach=0), guide)).values():
        assert strength(picture) == pytest.approx(due, rel=0.1)


def test_keys_serve_their_own_shot() -> None:
    film = joined(panned(5, 1), panned(6, 2))
    fields = Fields(Shifts(), film, cuts=(5,))
    places = [1, 7]
    both = made(keys_of(painted(film), places), places, fields)
    one = made(keys_of(painted(film), [1]), [1], Fields(Shifts(), Held(film.pictures[:5])))
    assert all(torch.equal(both[number], one[number]) for number in range(5))
    assert neighbours(places, fields, 4) == (1,)
    assert neighbours(places, fields, 5) == (7,)
    assert neighbours(places, fields, 7) == (7,)
    with pytest.raises(ValueError, match="the shot of frames 5 to 10 has no key"):
        keyed(keys_of(film, [1]), [1], fields)
    assert list(made(keys_of(film, [1]), [1], fields, [2])) == [2]


@pytest.mark.parametrize("places", [[], [3, 1], [0, 0], [0, 9], [0]])
def test_places_that_are_none_are_refused(places: list[int]) -> None:
    clip = panned(5)
    with pytest.raises(ValueError, match="expected"):
        keyed(Held(clip.pictures[:2]), places, Fields(Shifts(), clip))
    with pytest.raises(ValueError, match="frames are 0 to 4"):
        keyed(Held(clip.pictures[:1]), [0], Fields(Shifts(), clip), numbers=[5])


@pytest.mark.parametrize("backwards", [False, True])
def test_far_keys_need_no_pair_to_be_searched_twice(backwards: bool) -> None:
    engine, clip = Still(), Held(torch.zeros(121, 3, 20, 20))
    numbers = list(range(121))
    fields = Fields(engine, clip, memory=0)
    made(Held(clip.pictures[:3]), [0, 60, 120], fields, numbers[::-1] if backwards else numbers)
    assert engine.asked == 120


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_key_that_is_not_finite_is_named(value: float) -> None:
    clip = panned(5)
    keys = Held(clip.pictures[[0, 4]].clone())
    keys.pictures[1, 1, 3, 5] = value
    for numbers in ([4], [1]):
        with pytest.raises(ValueError, match=r"key at frame 4 .* not finite"):
            made(keys, [0, 4], Fields(Shifts(), clip), numbers)


def test_progress_is_told() -> None:
    told: list[float] = []
    clip = panned(4)
    fields = Fields(Shifts(), clip)
    list(keyed(keys_of(clip, [0]), [0], fields, progress=lambda what, done, total: told.append(done / total)))
    assert told == [0.25, 0.5, 0.75, 1]
