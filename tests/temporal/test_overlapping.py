"""Windows along time: every frame is seen, neighbours agree, and what sees single rows sees no windows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from segue.diffusion.loop import collect, denoise
from segue.diffusion.schedule import Schedule
from segue.errors import TaskError
from segue.temporal.overlapping import Overlapping, turn_of, windows_of
from segue.types import Condition, Point, RowId, State
from toy import RowwiseDenoiser, text_of

SD = {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class Mean:
    """What a window's frames have in common: their mean."""

    group: int

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        clips = x.unflatten(0, (-1, self.group))
        return clips.mean(1, keepdim=True).expand_as(clips).flatten(0, 1)


def state(count: int) -> State:
    x = torch.randn(count, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    return State(x, torch.zeros(count, dtype=torch.int64), tuple(RowId("clip", frame) for frame in range(count)))


@pytest.mark.parametrize(
    ("count", "length", "overlap"), [(16, 16, 4), (17, 16, 4), (40, 16, 4), (9, 4, 1), (100, 8, 7)]
)
@pytest.mark.parametrize("loop", [False, True])
def test_windows_reach_every_frame_and_their_neighbours(count: int, length: int, overlap: int, loop: bool) -> None:
    groups = windows_of(count, length, overlap, loop)
    assert {frame for group in groups for frame in group} == set(range(count))
    pairs = [*pairwise(groups), *([(groups[-1], groups[0])] if loop else [])]
    assert len(groups) == 1 or all(len({*one} & {*other}) >= overlap for one, other in pairs)
    assert all(len(group) == length for group in groups)
    assert loop or (groups[0][0], groups[-1][-1]) == (0, count - 1)


def test_no_window_fits_a_shorter_clip() -> None:
    for count, length, overlap in ((8, 16, 4), (16, 8, 8)):
        with pytest.raises(TaskError, match="do not fit"):
            windows_of(count, length, overlap)


@pytest.mark.parametrize("loop", [False, True])
def test_a_denoiser_of_single_rows_sees_no_windows(loop: bool) -> None:
    schedule, cond = Schedule.from_config(SD, 5), text_of(*torch.linspace(-1, 1, 13).tolist())
    plain = collect(denoise(RowwiseDenoiser(), state(13), schedule, cond), schedule)
    windowed = Overlapping(RowwiseDenoiser(group=5), 2, loop)
    assert windowed.group == 1
    assert torch.allclose(collect(denoise(windowed, state(13), schedule, cond), schedule), plain, atol=1e-6)


def test_one_window_is_the_model_itself_and_more_of_them_fade_into_each_other() -> None:
    at, _ = Schedule.from_config(SD, 5).step(torch.zeros(12, dtype=torch.int64), state(12).ids)
    x, cond = state(12).x, text_of(*[0.0] * 12)
    assert torch.allclose(Overlapping(Mean(12), 3)(x, at, cond), Mean(12)(x, at, cond), atol=1e-6)
    made = Overlapping(Mean(6), 2)(x, at, cond)
    jumps = (made[1:] - made[:-1]).flatten(1).norm(dim=1)
    apart = float((made[-1] - made[0]).norm())
    cut = torch.cat([Mean(6)(x[:6], at[range(6)], cond), Mean(6)(x[6:], at[range(6)], cond)])
    assert float(jumps.max()) < 0.7 * float((cut[6] - cut[5]).norm()) < apart * 10


def test_in_a_loop_every_frame_is_inside_of_a_window_at_some_step() -> None:
    at_end = dict.fromkeys(range(12), 0)
    for step in range(8):
        for group in windows_of(12, 6, 2, True, turn_of(step, 6)):
            at_end[group[0]] += 1
    assert max(at_end.values()) <= 4
