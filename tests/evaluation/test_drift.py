"""What leaves its source slowly, and what only differs from it or flickers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.known import Watched, noise, pan, scene, whole
from motion.clips import Held
from segue.evaluation.drift import drift

FRAMES = 12
TIME = torch.linspace(0, 1, FRAMES).view(-1, 1, 1, 1)


@pytest.fixture(scope="module")
def source() -> Tensor:
    return whole(scene((48, 40), FRAMES).frames)


def test_it_is_what_fitted_lines_say() -> None:
    """Restated with numpy.polyfit, of pictures that are small enough not to be reduced."""
    original = whole(scene((28, 20), 11).frames)
    film = original + noise(original, 0.05) + 0.1 * torch.linspace(0, 1, 11).view(-1, 1, 1, 1) * original
    apart = (film - original).double().numpy()
    time = np.arange(11) / 10
    means = apart.mean((2, 3))
    (rises, _), residuals, *_ = np.polyfit(time, means, 1, full=True)
    found = drift(Held(film), Held(original))
    assert found.colour == pytest.approx(np.sqrt((rises**2).mean()), rel=1e-4)
    spread = ((time - time.mean()) ** 2).sum()
    assert found.colour_error == pytest.approx(np.sqrt((residuals / 9 / spread).mean()), rel=1e-4)
    forms = (apart - means[:, :, None, None]).reshape(11, -1)
    (rises, _), residuals, *_ = np.polyfit(time, forms, 1, full=True)
    assert found.structure == pytest.approx(np.sqrt((rises**2).mean()), rel=1e-4)
    assert found.structure_error == pytest.approx(np.sqrt((residuals / 9 / spread).mean()), rel=1e-4)
    departures = np.sqrt(((apart - apart[:8].mean(0)) ** 2).mean((1, 2, 3)))
    assert found.departures == pytest.approx(departures, rel=1e-4)


def test_a_tint_that_grows_is_drift_of_colour(source: Tensor) -> None:
    tint = torch.tensor([0.06, 0.0, -0.03]).view(1, 3, 1, 1)
    found = drift(Held(source + tint * TIME), Held(source))
    assert found.colour == pytest.approx(((0.06**2 + 0.03**2) / 3) ** 0.5, rel=1e-4)
    assert found.structure < 1e-6
    assert found.colour_error < 1e-6
    assert found.departures[-1] > found.departures[0]
    assert list(found.departures[7:]) == sorted(found.departures[7:])


def test_a_light_that_wanders_is_drift_of_structure(source: Tensor) -> None:
    slope = torch.linspace(-0.1, 0.1, 48).view(1, 1, 1, -1)
    found = drift(Held(source + slope * TIME), Held(source))
    assert found.colour < 1e-6
    assert found.structure == pytest.approx(float(slope.square().mean().sqrt()), rel=0.05)


def test_another_look_is_no_drift(source: Tensor) -> None:
    tint = torch.tensor([0.2, -0.1, 0.05]).view(1, 3, 1, 1)
    found = drift(Held(source + tint), Held(source))
    assert max(found.colour, found.structure, *found.departures) < 1e-5


def test_flicker_is_chance(source: Tensor) -> None:
    errors: list[float] = []
    for seed in range(20):
        light = 0.05 * torch.randn(FRAMES, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
        found = drift(Held(source + light), Held(source))
        errors.append(found.colour / found.colour_error)
        assert found.structure < 1e-6
    assert max(errors) < 4.5  # Student's t of 10 degrees of freedom, in one of twenty times three
    assert 0.5 < sum(error**2 for error in errors) / 20 < 2.5


def test_measures_say_what_chance_does(source: Tensor) -> None:
    found = drift(Held(source + noise(source, 0.1)), Held(source))
    colour, structure = found.measures()
    assert (colour.name, colour.value, colour.better) == ("colour drift", found.colour, "lower")
    assert (structure.name, structure.value) == ("structure drift", found.structure)
    assert f"by chance {found.structure_error:.2g}" in structure.meaning


def test_frames_are_read_one_by_one(source: Tensor) -> None:
    frames, other = Watched(Held(source)), Watched(Held(source))
    told: list[float] = []
    drift(frames, other, progress=lambda what, done, total: told.append(done))
    assert (frames.most, other.most) == (1, 1)
    assert max(frames.held, other.held) <= 2
    assert told == list(range(1, FRAMES + 1))


def test_films_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got 8 frames of \(64, 48\), held against 5 of \(64, 48\)"):
        drift(pan().frames, pan(frames=5).frames)
    with pytest.raises(ValueError, match="3 frames or more"):
        drift(pan(frames=2).frames, pan(frames=2).frames)
