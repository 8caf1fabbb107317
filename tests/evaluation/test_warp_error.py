"""What changes along a known motion is what was done to the frames."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluation.known import Exact, Watched, blurred, kept, noise, pan, scene, whole
from motion.clips import Held
from segue.evaluation.warp_error import Changes, warp_error
from segue.training.scene import Scene


def cubic(offset: float) -> float:
    """Keys 1981, a = -0.75, as torch has it."""
    x, a = abs(offset), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def sampled(picture: NDArray[np.float64], x: float, y: float) -> NDArray[np.float64]:
    """One colour out of (3, h, w)."""
    _, height, width = picture.shape
    found = np.zeros(3)
    for j in range(math.floor(y) - 1, math.floor(y) + 3):
        for i in range(math.floor(x) - 1, math.floor(x) + 3):
            pixel = picture[:, min(max(j, 0), height - 1), min(max(i, 0), width - 1)]
            found += cubic(x - i) * cubic(y - j) * pixel
    return found.clip(0, 1)


def restated(known: Scene, frames: NDArray[np.float64], early: int, late: int) -> tuple[float, float, float]:
    """Absolute and squared change and the share that counts, pixel by pixel."""
    flow, seen = known.flow(late, early)[0].numpy(), known.visible(late, early)[0].numpy()
    absolute, squared, count = 0.0, 0.0, 0
    _, _, height, width = frames.shape
    for y in range(height):
        for x in range(width):
            if seen[y, x]:
                brought = sampled(frames[early], x + float(flow[0, y, x]), y + float(flow[1, y, x]))
                apart = brought - frames[late, :, y, x]
                absolute, squared, count = absolute + np.abs(apart).mean(), squared + (apart**2).mean(), count + 1
    return absolute / count, squared / count, count / (height * width)


def test_it_is_what_loops_find() -> None:
    known = scene((32, 24), 5)
    original = whole(known.frames)
    frames = original + noise(original, 0.05)
    found = warp_error(Held(frames), known.frames, intervals=(1, 3), matcher=Exact(known))
    assert (found.matcher, found.of_source, found.compared_at) == ("exact", True, (32, 24))
    pairs = {1: [(0, 1), (1, 2), (2, 3), (3, 4)], 3: [(0, 3), (1, 4)], None: [(0, i) for i in range(1, 5)]}
    assert [span.interval for span in found.spans] == list(pairs)
    for span in found.spans:
        naive = [restated(known, frames.double().numpy(), *pair) for pair in pairs[span.interval]]
        own = [restated(known, original.double().numpy(), *pair)[0] for pair in pairs[span.interval]]
        assert [pair.absolute for pair in span.pairs] == pytest.approx([one[0] for one in naive], rel=1e-3)
        assert [pair.squared for pair in span.pairs] == pytest.approx([one[1] for one in naive], rel=1e-3)
        assert [pair.followed for pair in span.pairs] == pytest.approx([one[2] for one in naive])
        assert [pair.own for pair in span.pairs] == pytest.approx(own, rel=1e-2)
        assert (span.absolute, span.squared, span.followed) == pytest.approx(np.mean(naive, 0), rel=1e-3)
        assert span.own == pytest.approx(np.mean(own), rel=1e-2)


@pytest.mark.parametrize("deviation", [0.02, 0.06])
def test_noise_is_what_it_is_at_every_distance(deviation: float) -> None:
    """The difference of two samples has twice the variance: 2 s^2, and 2 s / sqrt(pi) as a mean absolute one."""
    known = pan()
    original = 0.2 + 0.6 * whole(known.frames)
    found = warp_error(Held(original + noise(original, deviation)), Held(original), intervals=(1, 2, 4))
    for span in found.spans:
        assert span.squared == pytest.approx(2 * deviation**2, rel=0.08)
        assert span.absolute == pytest.approx(2 * deviation / math.pi**0.5, rel=0.08)
        assert span.own is not None
        assert span.own < 0.004
        assert 0.5 < span.followed <= 1


def test_optical_flow_is_nearly_as_good_as_the_exact_one() -> None:
    known = scene((96, 64), 4)
    frames = kept(whole(known.frames) + noise(whole(known.frames), 0.03))
    exact = warp_error(frames, known.frames, intervals=(1,), matcher=Exact(known)).at(1)
    found = warp_error(frames, known.frames, intervals=(1,)).at(1)
    assert found.absolute == pytest.approx(exact.absolute, rel=0.15)


def test_what_flickers_is_seen_and_blur_is_not() -> None:
    known = scene((96, 64), 6)
    original = whole(known.frames)
    light = 1 + 0.1 * torch.tensor([1, -1, 1, -1, 1, -1.0]).view(-1, 1, 1, 1)

    def error(frames: torch.Tensor) -> float:
        found = warp_error(kept(frames), known.frames, intervals=(1,)).at(1).absolute
        assert found is not None
        return found

    clean = error(original)
    assert error(original * light) > 5 * clean
    assert error(original + noise(original, 0.05)) > 5 * clean
    assert error(blurred(original)) <= clean


def test_its_own_flow_is_said_to_be_its_own() -> None:
    frames = pan().frames
    found = warp_error(frames)
    assert not found.of_source
    assert {span.own for span in found.spans} == {None}
    assert all("its own flow" in measure.meaning for measure in found.measures())
    against = warp_error(frames, frames)
    assert [measure.name for measure in against.measures()] == [
        "warp error",
        "warp error at 8",
        "warp error to the first",
    ]
    first = against.measures()[0]
    assert (first.value, first.better) == (against.at(1).absolute, "lower")
    assert "source's flow" in first.meaning
    assert f"source: {against.at(1).own:.4g}" in first.meaning
    assert against.at(1).own == against.at(1).absolute


def test_over_a_cut_nothing_is_said() -> None:
    one, other = (whole(scene((64, 48), 4, seed).frames) for seed in (1, 2))
    found = warp_error(kept(torch.cat([one, other])), intervals=(1,))
    assert [pair.absolute is None for pair in found.at(1).pairs] == [i == 3 for i in range(7)]
    known = [pair.absolute for pair in found.at(1).pairs if pair.absolute is not None]
    assert found.at(1).absolute == pytest.approx(sum(known) / 6)
    assert [pair.absolute is None for pair in found.at(None).pairs] == [i >= 3 for i in range(7)]


def test_an_interval_that_is_longer_than_the_film_has_no_pairs() -> None:
    found = warp_error(pan(frames=3).frames, intervals=(1, 8), to_first=False)
    assert found.at(8) == Changes(8, None, None, None, 0.0, ())
    assert warp_error(pan(frames=3).frames, intervals=()).spans[0].interval is None
    with pytest.raises(KeyError, match=r"at the intervals \[1, 8\], not at None"):
        found.at(None)


def test_only_as_many_frames_as_the_longest_interval_are_held() -> None:
    frames, source = Watched(pan(frames=14).frames), Watched(pan(frames=14).frames)
    told: list[float] = []
    warp_error(frames, source, intervals=(1, 4), progress=lambda what, done, total: told.append(done / total))
    for watched in (frames, source):
        assert watched.most == 1
        assert watched.held <= 7  # the interval, the frame, the first one, and the last call's
    assert told == pytest.approx([i / 14 for i in range(1, 15)])


def test_of_far_pairs_one_in_so_many_is_taken() -> None:
    frames = pan(frames=12).frames
    every, fewer = (warp_error(frames, intervals=(1, 3), every=step) for step in (1, 4))
    assert fewer.at(1) == every.at(1)
    assert fewer.at(3).pairs == every.at(3).pairs[::4]  # later frames 3, 7 and 11
    assert fewer.at(None).pairs == every.at(None).pairs[::4]  # 1, 5 and 9
    assert fewer.at(3).absolute == pytest.approx(sum(pair.absolute or 0 for pair in fewer.at(3).pairs) / 3)


def test_large_pictures_are_reduced() -> None:
    wide = kept(torch.zeros(2, 3, 300, 1200))
    assert warp_error(wide, intervals=(1,), to_first=False).compared_at == (1024, 256)


def test_what_cannot_be_compared_is_refused() -> None:
    frames = pan().frames
    with pytest.raises(ValueError, match=r"got 8, \[0\] and 1"):
        warp_error(frames, intervals=(0,))
    with pytest.raises(ValueError, match=r"one in 1 or more pairs; got 8, \[1, 8\] and 0"):
        warp_error(frames, every=0)
    with pytest.raises(ValueError, match="expected 2 frames or more"):
        warp_error(pan(frames=1).frames)
    with pytest.raises(ValueError, match=r"the source has 5 frames of \(64, 48\), not 8 of \(64, 48\)"):
        warp_error(frames, pan(frames=5).frames)
    with pytest.raises(ValueError, match=r"of \(64, 32\), not"):
        warp_error(frames, pan(size=(64, 32)).frames)
