"""The losses weigh what their papers say, whatever the prediction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segue.training.data import step_generator
from segue.training.losses import TrainedPrediction, min_snr_weight, prediction_error
from segue.training.recipes.t2i import trained_levels
from segue.types import Point, over_rows

BOTH: tuple[TrainedPrediction, ...] = ("v_prediction", "flow_prediction")


def points(prediction: TrainedPrediction) -> Point:
    return trained_levels(prediction).at(torch.tensor([0, 100, 300, 500, 700, 900, 999]))


def noisy(at: Point) -> tuple[Tensor, Tensor]:
    x0, eps = torch.randn(2, len(at), 4, 4, 4, generator=step_generator(0, 0), dtype=torch.float64).unbind()
    return x0, at.noised(x0, eps)


@pytest.mark.parametrize("prediction", BOTH)
def test_the_loss_is_the_squared_error_of_what_is_predicted(prediction: TrainedPrediction) -> None:
    """An error e in v, or in the velocity, moves x0 by -sigma e."""
    at = points(prediction)
    x0, x = noisy(at)
    for error in (0.0, 0.5):
        loss = prediction_error(at, x, x0 - over_rows(at.sigma, x0) * error, x0, prediction)
        assert float(loss) == pytest.approx(error**2, abs=1e-9)


@pytest.mark.parametrize("prediction", BOTH)
def test_min_snr_weighs_errors_of_x0_by_the_clipped_signal_to_noise_ratio(prediction: TrainedPrediction) -> None:
    """Hang et al. 2023, section 3.4: sum over levels of min(SNR, gamma) |x0 - said|^2."""
    at = points(prediction)
    x0, x = noisy(at)
    said = x0 + 0.1 * torch.randn(x0.shape, generator=step_generator(0, 1), dtype=torch.float64)
    snr = (at.alpha / at.sigma) ** 2
    expected = (snr.clamp(max=5) * (said - x0).square().mean((1, 2, 3))).mean()
    assert float(prediction_error(at, x, said, x0, prediction, 5.0)) == pytest.approx(float(expected), rel=1e-9)


def test_the_weight_of_v_is_that_of_the_paper() -> None:
    """min(SNR, gamma) / (SNR + 1) for v-prediction."""
    at = points("v_prediction")
    snr = (at.alpha / at.sigma) ** 2
    torch.testing.assert_close(min_snr_weight(at, 5.0), snr.clamp(max=5) / (snr + 1))


def test_a_large_gamma_clips_nothing() -> None:
    """What is left is the weight of x0-prediction by its SNR: alpha^2."""
    at = points("v_prediction")
    torch.testing.assert_close(min_snr_weight(at, 1e9), at.alpha**2)
