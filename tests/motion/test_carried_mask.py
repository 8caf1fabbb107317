"""Masks that go along with what is shown: exact where ways are, soft as they were given, found again, filled in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from torch import Tensor

from motion.clips import Held, joined, panned
from motion.engines import Still
from segue.errors import TaskError
from segue.motion.carried_mask import CarriedMask
from segue.motion.fields import Fields
from segue.motion.filled import filled
from segue.motion.match import Match, inside

SIZE = (48, 40)
GROUND = torch.tensor([0.2, 0.3, 0.6]).view(3, 1, 1)


@dataclass(frozen=True)
class Disc:
    """A disc that moves over ground that stands, and may pass behind a bar: pictures, masks, and the exact ways.

    It is found again by its pictures, as an engine of correspondence.
    """

    frames: int
    step: float = 1.5
    bar: bool = False
    name: str = "disc"

    def centre(self, number: int) -> tuple[float, float]:
        return 12 + self.step * number, 20.0

    def mask(self, number: int, soft: float = 3.0) -> Tensor:
        x, y = self._places()
        middle = self.centre(number)
        disc = ((8 - ((x - middle[0]) ** 2 + (y - middle[1]) ** 2).sqrt()) / soft + 0.5).clamp(0, 1)
        return torch.where(self._hidden(), torch.zeros(()), disc)

    def picture(self, number: int) -> Tensor:
        x, y = self._places()
        mask = self.mask(number)
        ground = GROUND + 0.1 * torch.sin(x / 3) * torch.sin(y / 4)
        own = torch.tensor([0.9, 0.5, 0.1]).view(3, 1, 1) + 0.1 * torch.sin((x - self.centre(number)[0]) / 2)
        drawn = (ground * (1 - mask) + own * mask).clamp(0, 1)
        return torch.where(self._hidden(), torch.full((), 0.05), drawn)

    @cached_property
    def clip(self) -> Held:
        return Held(torch.stack([self.picture(number) for number in range(self.frames)]))

    @property
    def masks(self) -> Tensor:
        return torch.stack([self.mask(number) for number in range(self.frames)])

    def __call__(self, a: Tensor, b: Tensor, start: tuple[Match, Match] | None = None) -> tuple[Match, Match]:
        known = self.clip.pictures
        one, other = (int((known - picture).abs().amax((1, 2, 3)).argmin()) for picture in (a, b))
        return self._way(one, other), self._way(other, one)

    def _way(self, here: int, there: int) -> Match:
        x, _ = self._places()
        on, by = self.mask(here) > 0.02, self.centre(there)[0] - self.centre(here)[0]
        way = torch.stack([on * by, torch.zeros_like(x)])[None]
        # What stands is hidden by the disc there, and the disc by the bar.
        moved = self.mask(there) > 0.02
        ends = (x + on * by).round().clamp(0, SIZE[0] - 1).long()
        behind = torch.where(on, self._hidden()[0][ends], moved) & ~self._hidden()
        return Match(way, torch.zeros(1, *x.shape), inside(way) * ~behind, whole=False)

    def _hidden(self) -> Tensor:
        x, _ = self._places()
        return (x >= 26) & (x < 30) & self.bar

    def _places(self) -> tuple[Tensor, Tensor]:
        y, x = torch.meshgrid(torch.arange(SIZE[1]).float(), torch.arange(SIZE[0]).float(), indexing="ij")
        return x, y


def carried(disc: Disc, *given: int) -> CarriedMask:
    return CarriedMask(Fields(disc, disc.clip), {number: disc.mask(number) for number in given})


def apart(found: Tensor, due: Tensor) -> float:
    """The mean difference as a share of what the mask covers."""
    return float((found - due).abs().sum() / due.sum())


@pytest.mark.parametrize("given", [(0,), (15,), (0, 15), (7,)])
def test_a_mask_goes_along(given: tuple[int, ...]) -> None:
    disc = Disc(16)
    masks = carried(disc, *given)
    found = masks[:]
    assert found.shape == (16, SIZE[1], SIZE[0]) and len(masks) == 16
    for number in range(16):
        assert apart(found[number], disc.mask(number)) < 0.04, number
    for number in given:
        assert torch.equal(found[number], disc.mask(number))


def test_edges_stay_as_soft_as_they_were() -> None:
    """However far a mask comes, it is resampled once."""
    disc = Disc(16, step=1.3)
    soft = carried(disc, 0).mask(15)
    hard = CarriedMask(Fields(disc, disc.clip), {0: (disc.mask(0) > 0.5).float()}).mask(15)
    for found, given in ((soft, disc.mask(15)), (hard, (disc.mask(0) > 0.5).float())):
        widths = [float(((part > 0.05) & (part < 0.95)).sum()) for part in (found, given)]
        assert widths[0] <= widths[1] + 60, "no more than a pixel around it"
    assert apart(soft, disc.mask(15)) < 0.04


def test_what_is_kept_is_kept_exactly() -> None:
    disc = Disc(16)
    masks = CarriedMask(Fields(disc, disc.clip), {0: (disc.mask(0) > 0.5).float()})
    found = masks.mask(15)
    known = -torch.nn.functional.max_pool2d(-masks.trust(15)[None], 7, 1, 3)[0] > 0.9
    away = (torch.nn.functional.max_pool2d(disc.mask(15)[None], 5, 1, 2)[0] == 0) & known
    assert float(found[away].max()) == 0 and float(away.float().mean()) > 0.3
    assert float(found[disc.mask(15) == 1].min()) > 0.98
    assert torch.equal(found, (found * 255).round() / 255)


def test_it_is_found_again_behind_what_hid_it() -> None:
    disc = Disc(22, bar=True)
    found = carried(disc, 0).mask(21)
    assert apart(found, disc.mask(21)) < 0.06
    assert float(found[:, 26:30].max()) < 0.1, "the bar is none of it"


def test_a_given_mask_is_a_new_beginning() -> None:
    """What was wrong before it is not carried on: a mask may change its mind between two keys."""
    disc = Disc(16)
    none = torch.zeros(SIZE[1], SIZE[0])
    masks = CarriedMask(Fields(disc, disc.clip), {0: disc.mask(0), 8: none})
    assert float(masks.mask(12).max()) == 0
    fading = [float(masks.mask(number).sum()) for number in range(9)]
    assert fading == sorted(fading, reverse=True) and fading[0] > 0 == fading[-1]


def test_trust_says_what_was_filled_in() -> None:
    disc = Disc(16)
    masks = carried(disc, 0)
    assert float(masks.trust(0).min()) == 1
    # The ground where the disc was at first was seen by no frame with a mask.
    was = (disc.mask(0) == 1) & (disc.mask(15) == 0)
    assert float(masks.trust(15)[was].max()) < 0.1 and float(masks.mask(15)[was].max()) < 0.1
    assert float(masks.trust(15)[disc.mask(15) == 1].min()) > 0.5


def test_the_order_of_asking_makes_no_difference() -> None:
    disc = Disc(12)
    on = carried(disc, 0, 8)[:]
    masks = carried(disc, 0, 8)
    back = torch.stack([masks.mask(number) for number in reversed(range(12))]).flip(0)
    assert torch.equal(on, back)


def test_masks_of_all_frames_are_taken_as_they_are_and_nothing_is_searched() -> None:
    engine, clip = Still(), panned(4)
    given = {number: torch.rand(48, 64, generator=torch.Generator().manual_seed(number)) for number in range(4)}
    masks = CarriedMask(Fields(engine, clip), given)
    assert torch.equal(masks[:], torch.stack([given[number] for number in range(4)]))
    assert engine.asked == 0


def test_nothing_is_carried_over_a_cut() -> None:
    clip = joined(panned(3), panned(3, seed=1))
    fields = Fields(Still(), clip, cuts=(3,))
    whole = torch.ones(48, 64)
    with pytest.raises(TaskError, match="shot of the frames 3 to 5 has no mask"):
        CarriedMask(fields, {1: whole})
    masks = CarriedMask(fields, {1: whole, 4: whole * 0})
    assert masks[:].mean((1, 2)).tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "has no mask"),
        ({0: torch.zeros(64, 48)}, "must be 64x48, as the frames; got 48x64"),
        ({4: torch.zeros(48, 64)}, "one of the frames 0 to 3; got one of frame 4"),
        ({0: torch.full((48, 64), 2.0)}, "goes from 2 to 2"),
        ({0: torch.full((48, 64), torch.nan)}, "in .0, 1."),
    ],
)
def test_what_is_no_mask_is_told(given: dict[int, Tensor], why: str) -> None:
    with pytest.raises(TaskError, match=why):
        CarriedMask(Fields(Still(), panned(4)), given)


def test_unknown_values_are_those_of_what_looks_alike() -> None:
    x = torch.arange(64).expand(48, 64)
    picture = torch.where(x < 30, torch.tensor([0.8, 0.2, 0.2]).view(3, 1, 1), GROUND).expand(1, 3, 48, 64)
    due = (x < 30).float()[None, None]
    known = torch.ones(1, 1, 48, 64)
    known[..., 10:38, 22:40] = 0
    wrong = torch.where(known > 0, due, 1 - due)
    assert float((filled(wrong, known, picture) - due).abs().max()) < 0.15
    # What is known is as it was, to the bit; and where nothing is known, there is nothing.
    random = torch.rand(1, 1, 48, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filled(random, torch.ones_like(random), picture), random)
    assert float(filled(random, torch.zeros_like(random), picture).max()) < 1e-3
