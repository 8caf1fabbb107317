"""PatchMatch: what it finds, and that nothing but the two pictures decides it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from motion.pictures import moved, texture
from segue.motion.match import Match
from segue.motion.patchmatch import PatchMatcher
from segue.motion.voting import voted


def same(one: Match, other: Match) -> bool:
    """Equal to the bit."""
    pairs = ((one.way, other.way), (one.error, other.error), (one.confidence, other.confidence))
    return all(torch.equal(a, b) for a, b in pairs) and one.whole == other.whole


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, -2), (-7, 5), (20, -13)])
@pytest.mark.parametrize("matcher", [PatchMatcher(), PatchMatcher(rounds=(4,), terms=75)], ids=["default", "exact"])
def test_a_known_shift_is_found(dx: int, dy: int, matcher: PatchMatcher) -> None:
    a, b = moved(dx, dy, 101, 120)
    there, back = matcher(a, b)
    inner = (slice(None), slice(None), slice(24, -24), slice(24, -24))
    for match, way in ((there, (dx, dy)), (back, (-dx, -dy))):
        assert match.whole
        right = (match.way[inner] == torch.tensor(way).view(1, 2, 1, 1)).all(1)
        assert float(right.float().mean()) > 0.99
        assert float(match.error[:, 24:-24, 24:-24][right].max()) == 0
        assert float(match.confidence[:, 24:-24, 24:-24][right].mean()) > 0.99


def test_equal_pictures_stay() -> None:
    for picture in (texture(64, 48), torch.full((1, 3, 33, 40), 0.3)):
        there, back = PatchMatcher()(picture, picture)
        assert same(there, back)
        assert float(there.way.abs().max()) == 0
        assert float(there.error.abs().max()) == 0
        assert float(there.confidence.min()) == 1


@pytest.mark.parametrize("size", [(64, 64), (37, 53)])
@pytest.mark.parametrize("matcher", [PatchMatcher(), PatchMatcher(finest=1, begin="random", sorts=2, seed=3)])
def test_no_row_knows_of_another_and_swapping_swaps(size: tuple[int, int], matcher: PatchMatcher) -> None:
    pictures = torch.cat([texture(*size, seed=seed) for seed in range(4)])
    a, b = pictures[:3], pictures[[1, 3, 2]]
    there, back = matcher(a, b)
    again, other = matcher(b, a)
    assert same(there, other)
    assert same(back, again)
    for row in range(3):
        alone = matcher(a[row : row + 1], b[row : row + 1])
        assert same(alone[0], there[row : row + 1])
        assert same(alone[1], back[row : row + 1])


def test_waves_of_pairs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (torch.cat([texture(24, 30, seed=seed + row) for row in range(3)]) for seed in (0, 10))
    whole = PatchMatcher()(a, b, start=PatchMatcher(seed=1)(a, b), style=(b, a))
    monkeypatch.setattr("segue.motion.patchmatch._AT_ONCE", 1)
    parts = PatchMatcher()(a, b, start=PatchMatcher(seed=1)(a, b), style=(b, a))
    assert same(whole[0], parts[0])
    assert same(whole[1], parts[1])


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 1), (7, 33), (17, 16)])
@pytest.mark.parametrize("finest", [0, 2])
def test_tiny_and_odd_pictures_have_ways_within(size: tuple[int, int], finest: int) -> None:
    height, width = size
    a, b = torch.rand(2, 2, 3, height, width, generator=torch.Generator().manual_seed(0))
    for match in PatchMatcher(finest=finest)(a, b):
        assert match.way.shape == (2, 2, height, width)
        assert match.error.shape == match.confidence.shape == (2, height, width)
        x = torch.arange(width) + match.way[:, 0]
        y = torch.arange(height)[:, None] + match.way[:, 1]
        assert ((x >= 0) & (x < width) & (y >= 0) & (y < height)).all()
        assert torch.equal(match.way, match.way.round())
        assert (match.error >= 0).all()
        assert ((match.confidence >= 0) & (match.confidence <= 1)).all()


def test_the_error_is_that_of_the_patches() -> None:
    a, b = texture(40, 44, seed=1), texture(40, 44, seed=2)
    there, _ = PatchMatcher(terms=75)(a, b)
    for x, y in ((10, 12), (20, 5), (36, 30)):
        dx, dy = (int(value) for value in there.way[0, :, y, x])
        if 2 <= x + dx < 42 and 2 <= y + dy < 38:
            apart = a[0, :, y - 2 : y + 3, x - 2 : x + 3] - b[0, :, y + dy - 2 : y + dy + 3, x + dx - 2 : x + dx + 3]
            assert float(there.error[0, y, x]) == pytest.approx(float(apart.square().mean()), rel=1e-4)


def test_what_ends_coarsely_is_repeated() -> None:
    a, b = moved(8, -4, 65, 70)
    there, _ = PatchMatcher(finest=2)(a, b)
    inner = there.way[..., 16:48, 16:48]
    assert torch.equal(inner, inner[..., ::4, ::4].repeat_interleave(4, -1).repeat_interleave(4, -2))
    assert float((inner[0].mean((1, 2)) - torch.tensor([8.0, -4.0])).abs().max()) < 1


def _anything(shape: Tensor, seed: int) -> Match:
    height, width = shape.shape[2:]
    way = torch.randint(-30, 30, (1, 2, height, width), generator=torch.Generator().manual_seed(seed)).float()
    return Match(way, shape[:, 0], shape[:, 0], whole=True)


def test_a_start_helps_and_never_commands() -> None:
    """A small thing goes far over ground that stays: coarsely it cannot be seen, and only who is told finds it."""
    ground, thing = texture(96, 96), texture(10, 10, seed=5)
    a, b = ground.clone(), ground.clone()
    a[..., 20:30, 10:20] = thing
    b[..., 60:70, 71:81] = thing
    wrong = _anything(a, 0)
    right = Match(torch.tensor([61.0, 40.0]).view(1, 2, 1, 1).expand(1, 2, 96, 96), a[:, 0], a[:, 0], whole=True)
    alone, helped, misled = (PatchMatcher()(a, b, start)[0] for start in (None, (right, wrong), (wrong, wrong)))
    found = [float((one.way[:, 0, 22:28, 12:18] == 61).float().mean()) for one in (alone, helped)]
    assert found[0] < 0.1 < 0.95 < found[1]
    for one in (helped, misled):
        assert float((one.way[..., 40:, :60] == 0).float().mean()) > 0.98
    assert float(misled.error.mean()) < 1.02 * float(alone.error.mean())


def test_what_is_covered_is_not_believed() -> None:
    ground = texture(96, 96)
    patch = texture(24, 24, seed=5)
    a, b = ground.clone(), ground.clone()
    a[..., 36:60, 20:44] = patch
    b[..., 36:60, 32:56] = patch
    there, back = PatchMatcher()(a, b)
    covered = there.confidence[0, 40:56, 48:54].mean()  # ground beside the patch, upon which it moves
    seen = there.confidence[0, 40:56, 26:38].mean()
    assert float(covered) < 0.3 < 0.9 < float(seen)
    assert float((there.way[0, 0, 42:54, 26:38] == 12).float().mean()) > 0.95
    assert float(back.confidence[0, 40:56, 22:28].mean()) < 0.3


def test_with_a_style_the_patches_brought_over_agree() -> None:
    """A guide of noise leads anywhere; what overlapping patches say of one pixel of the style differs less."""
    draws = torch.Generator().manual_seed(0)
    a, b = texture(64, 64, seed=1), texture(64, 64, seed=2)
    one, other = 0.5 + 0.01 * torch.randn(2, 1, 3, 64, 64, generator=draws)
    apart: list[float] = []
    for weight in (None, 100.0, 0.01):
        style = None if weight is None else (a, b)
        there, _ = PatchMatcher(guide_weight=weight or 1.0)(one, other, style=style)
        apart.append(float((voted(there, b, 5) - there.remap(b)).square().mean()))
    assert apart[2] < apart[1] < apart[0]
    assert apart[2] < 0.5 * apart[0]


def test_ways_over_flat_ground_keep_to_those_beside_them() -> None:
    """Where nothing but noise decides, what an agreeing way may cost more is worth a few of the jumps."""
    a, b = 0.5 + 0.005 * torch.randn(2, 3, 3, 48, 48, generator=torch.Generator().manual_seed(0))

    def apart(matcher: PatchMatcher) -> float:
        way = matcher(a, b)[0].way
        return float((way[..., 1:] - way[..., :-1]).abs().mean())

    assert apart(PatchMatcher()) < 0.96 * apart(PatchMatcher(coherence=0))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"patch": 4}, "odd"),
        ({"rounds": ()}, "rounds"),
        ({"rounds": (1, 0)}, "rounds"),
        ({"rounds": (1.5,)}, "rounds"),
        ({"patch": 5.0}, "patch"),
        ({"terms": 8.5}, "terms"),
        ({"reach": True}, "reach"),
        ({"seed": 0.5}, "seed"),
        ({"seed": -1}, "seed"),
        ({"coherence": float("inf")}, "coherence"),
        ({"coherence": float("nan")}, "coherence"),
        ({"floor": float("inf")}, "floor"),
        ({"tolerance": float("inf")}, "tolerance"),
        ({"guide_weight": float("nan")}, "guide_weight"),
        ({"terms": 0}, "terms"),
        ({"reach": 0}, "reach"),
        ({"finest": -1}, "finest"),
        ({"begin": "anywhere"}, "begin"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"coherence": -1e-4}, "coherence"),
        ({"sorts": -1}, "sorts"),
        ({"guide_weight": -1.0}, "guide_weight"),
    ],
)
def test_fields_out_of_range_are_named(change: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        PatchMatcher(**change)  # pyright: ignore[reportArgumentType]


def test_shapes_that_do_not_fit_are_named() -> None:
    a, matcher = torch.zeros(1, 3, 16, 16), PatchMatcher()
    for wrong in (torch.zeros(1, 3, 16, 15), torch.zeros(2, 3, 16, 16), torch.zeros(1, 1, 16, 16)):
        with pytest.raises(ValueError, match=r"\(b, 3, h, w\)"):
            matcher(a, wrong)
    with pytest.raises(ValueError, match="style"):
        matcher(a, a, style=(a, torch.zeros(1, 3, 8, 8)))
    far = _anything(torch.zeros(1, 3, 8, 8), 0)
    with pytest.raises(ValueError, match="start"):
        matcher(a, a, (far, far))
    there, back = matcher(a[:0], a[:0])
    assert len(there) == len(back) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pictures_that_are_not_finite_are_refused(value: float) -> None:
    a = texture(16, 16)
    spoiled = a.clone()
    spoiled[0, 1, 3, 5] = value
    for pictures, style in (((a, spoiled), None), ((spoiled, a), None), ((a, a), (a, spoiled))):
        with pytest.raises(ValueError, match="not finite"):
            PatchMatcher()(*pictures, style=style)


def test_its_name_tells_all_settings_apart() -> None:
    names = {PatchMatcher().name, PatchMatcher(terms=8).name, PatchMatcher(seed=1).name, PatchMatcher(rounds=(2,)).name}
    assert len(names) == 4
