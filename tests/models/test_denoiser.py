# pyright: basic
"""What a denoiser does around a network: predictions, guidance, batching."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from segue.diffusion.guidance import classifier_free
from segue.errors import TaskError
from segue.models.bundle import LatentDiffusion
from segue.models.denoiser import PADDING, NetworkDenoiser, Tally, rescaled, x0_from
from segue.types import Call, Conditioning, Guided, Point, RowId, over_rows


def levels(angles: list[float]) -> Point:
    """Variance-preserving levels, one per angle: alpha = cos, sigma = sin."""
    angle = torch.tensor(angles, dtype=torch.float64)
    count = len(angles)
    rows = tuple(RowId(f"row {i}") for i in range(count))
    return Point(torch.zeros(count, dtype=torch.int64), 10, angle.cos(), angle.sin(), angle * 600, rows)


def text(rows: int, seed: int = 0) -> Conditioning:
    return Conditioning(torch.randn(rows, 5, 3, generator=torch.Generator().manual_seed(seed)))


@dataclass
class Spy:
    """A network whose answer depends on the row, its time and its text; it remembers how it was asked."""

    calls: list[Call] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def __call__(self, x: Tensor, time: Tensor, cond: Conditioning, call: Call) -> Tensor:
        assert len(x) == len(time) == len(cond) == len(call.rows) == len(call.term) == len(call.at)
        self.calls.append(call)
        self.sizes.append(len(x))
        return torch.tanh(x * over_rows(cond.text.mean((1, 2)), x) + over_rows(time / 1000, x))


ROWS = 5
AT = levels([0.3, 0.6, 0.9, 1.2, 1.5])
X = torch.randn(ROWS, 4, 6, 6, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_the_right_answer_gives_back_x0(prediction):
    x0, eps = torch.randn(2, ROWS, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    at = AT
    if prediction == "flow_prediction":
        sigma = torch.linspace(0.1, 1.0, ROWS, dtype=torch.float64)
        at = replace(AT, alpha=1 - sigma, sigma=sigma)
    x = at.noised(x0, eps)
    raw = {"epsilon": eps, "sample": x0, "flow_prediction": eps - x0}.get(prediction)
    raw = at.v(x, x0) if raw is None else raw
    assert torch.allclose(x0_from(raw, x, at, prediction), x0, atol=1e-12)


def test_zero_terminal_snr_is_no_problem_for_v_and_sample():
    at = replace(AT[[0]], alpha=torch.zeros(1, dtype=torch.float64), sigma=torch.ones(1, dtype=torch.float64))
    raw = torch.randn(1, 4, 6, 6)
    assert torch.equal(x0_from(raw, X[:1], at, "v_prediction"), -raw)
    assert not x0_from(raw, X[:1], at, "epsilon").isfinite().all()


def test_answers_are_float32_whatever_comes_in():
    half = X.bfloat16()
    assert NetworkDenoiser(Spy(), "epsilon")(half, AT, text(ROWS)).dtype == torch.float32


def test_guidance_is_the_weighted_sum_of_the_raw_answers():
    spy = Spy()
    negative, positive = text(ROWS, 1), text(ROWS, 2)
    scales = torch.tensor([1.0, 2.0, 7.5, 0.5, 3.0])
    got = NetworkDenoiser(spy, "epsilon")(X, AT, classifier_free(positive, negative, scales))
    one = NetworkDenoiser(spy, "sample")
    low, high = one(X, AT, negative), one(X, AT, positive)
    expected = x0_from(low + over_rows(scales, X) * (high - low), X, AT, "epsilon")
    assert torch.allclose(got, expected, atol=1e-4)


def test_guidance_scale_one_is_unguided_and_costs_one_term():
    spy = Spy()
    denoiser = NetworkDenoiser(spy, "v_prediction")
    guided = denoiser(X, AT, classifier_free(text(ROWS, 2), text(ROWS, 1), 1.0))
    assert spy.sizes == [ROWS]
    assert spy.calls[0].term == (1,) * ROWS
    assert torch.equal(guided, denoiser(X, AT, text(ROWS, 2)))


def test_guidance_sets_in_where_it_starts():
    """Rows before it are unguided; where all are, the other term is not asked."""
    spy = Spy()
    denoiser = NetworkDenoiser(spy, "v_prediction")
    late, always = (classifier_free(text(ROWS, 2), text(ROWS, 1), 4.0, start=start) for start in (0.5, 0.0))
    at = replace(AT, index=torch.arange(ROWS), count=ROWS - 1)
    begun = torch.tensor([False, False, True, True, True])
    found = denoiser(X, at, late)
    assert spy.sizes == [2 * ROWS]
    assert torch.equal(found[begun], denoiser(X, at, always)[begun])
    assert torch.equal(found[~begun], denoiser(X, at, text(ROWS, 2))[~begun])
    early = [0, 1]
    denoiser(X[early], at[early], late[early])
    assert spy.sizes[-1] == len(early)


def test_three_terms_share_one_call():
    spy = Spy()
    weights = torch.tensor([[-1.0], [-1.5], [3.5]]).expand(3, ROWS)
    NetworkDenoiser(spy, "epsilon")(X, AT, Guided((text(ROWS, 1), text(ROWS, 2), text(ROWS, 3)), weights))
    assert spy.sizes == [3 * ROWS]
    assert spy.calls[0].term == (0,) * ROWS + (1,) * ROWS + (2,) * ROWS
    assert spy.calls[0].rows == AT.rows * 3


@pytest.mark.parametrize("deterministic", [False, True])
def test_max_batch_bounds_network_rows_and_changes_nothing(deterministic):
    spy = Spy()
    guided = classifier_free(text(ROWS, 2), text(ROWS, 1), 4.0)
    whole = NetworkDenoiser(Spy(), "epsilon", max_batch=64)(X, AT, guided)
    parts = NetworkDenoiser(spy, "epsilon", max_batch=4, deterministic_batch=deterministic)(X, AT, guided)
    assert spy.sizes == ([4, 4, 4] if deterministic else [4, 4, 2])
    assert torch.equal(whole, parts)
    assert spy.calls[-1].term[2:] == ((PADDING,) * 2 if deterministic else ())


def test_groups_stay_together():
    spy = Spy()
    rows = [0, 1, 2, 3]
    NetworkDenoiser(spy, "epsilon", max_batch=5, group=2)(X[rows], AT[rows], text(4))
    assert spy.sizes == [4]
    NetworkDenoiser(spy, "epsilon", max_batch=3, group=2, deterministic_batch=True)(X[rows], AT[rows], text(4))
    assert spy.sizes == [4, 2, 2]
    with pytest.raises(TaskError, match="max_batch must be at least 14"):
        NetworkDenoiser(spy, "epsilon", max_batch=8, group=14)
    with pytest.raises(ValueError, match="groups of 2"):
        NetworkDenoiser(spy, "epsilon", group=2)(X[:3], AT[[0, 1, 2]], text(3))
    assert [call.group for call in spy.calls] == [2] * len(spy.calls)


def test_rescale_restores_the_deviation_of_the_last_term():
    guided, kept = X * 3 + 1, X
    assert torch.allclose(rescaled(guided, kept, 1.0).std((1, 2, 3)), kept.std((1, 2, 3)))
    assert torch.equal(rescaled(guided, kept, 0.0), guided)
    cond = classifier_free(text(ROWS, 2), text(ROWS, 1), 9.0, rescale=1.0)
    denoiser = NetworkDenoiser(Spy(), "sample")
    positive = denoiser(X, AT, text(ROWS, 2))
    assert torch.allclose(denoiser(X, AT, cond).std((1, 2, 3)), positive.std((1, 2, 3)), rtol=1e-4)


def test_rows_must_agree():
    with pytest.raises(ValueError, match="rows disagree"):
        NetworkDenoiser(Spy(), "epsilon")(X, AT, text(3))


def test_a_tally_counts_calls_and_rows():
    tally = Tally()
    denoiser = tally.watching(NetworkDenoiser(Spy(), "epsilon", max_batch=4))
    denoiser(X, AT, classifier_free(text(ROWS, 2), text(ROWS, 1), 4.0))
    assert (tally.calls, tally.rows, tally.sizes) == (3, 10, [4, 4, 2])
    assert 0 < tally.seconds < 10


def real(model: LatentDiffusion, rows: int) -> tuple[Tensor, Point, Guided]:
    x = torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    at = levels(torch.linspace(0.2, 1.4, rows).tolist())
    prompts = [f"a red apple {i}" for i in range(rows)]
    cond = model.text([*prompts, ""])
    return x, at, classifier_free(cond[list(range(rows))], cond[[rows] * rows], 5.0)


def test_on_a_real_network_a_batch_equals_its_rows_one_by_one(model):
    x, at, cond = real(model, 5)
    together = model.denoiser(x, at, cond)
    alone = torch.cat([model.denoiser(x[[i]], at[[i]], cond[[i]]) for i in range(5)])
    assert (together - alone).abs().max() < 1e-4 * together.abs().max()


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("max_batch", [3, 6, 8, 11])
def test_on_a_real_network_padded_rows_are_equal_bit_by_bit(model, threads, max_batch):
    x, at, cond = real(model, 5)
    denoiser = model.batched(max_batch, deterministic=True).denoiser
    together = denoiser(x, at, cond)
    for rows in ([0], [3], [4, 1], [2, 0, 4], [4, 3, 2, 1, 0]):
        assert torch.equal(denoiser(x[rows], at[rows], cond[rows]), together[rows])


def test_without_padding_rows_are_not_equal_bit_by_bit(model):
    """Or the law above would hold vacuously."""
    x, at, cond = real(model, 5)
    denoiser = model.batched(16).denoiser
    together = denoiser(x, at, cond)
    assert not all(torch.equal(denoiser(x[[i]], at[[i]], cond[[i]]), together[[i]]) for i in range(5))


def test_filled_calls_have_a_multiple_of_four_rows_where_they_can():
    for max_batch, group, rows in (
        (3, 1, 3),
        (4, 1, 4),
        (11, 1, 8),
        (16, 1, 16),
        (11, 2, 8),
        (14, 14, 14),
        (60, 14, 56),
    ):
        spy = Spy()
        denoiser = NetworkDenoiser(spy, "epsilon", max_batch=max_batch, group=group, deterministic_batch=True)
        pick = [0] * group
        denoiser(X[pick], AT[pick], text(group))
        assert spy.sizes == [rows]
