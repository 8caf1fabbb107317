"""The rivals of deflickering are what they are told to be, and their table can be filled."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarked import BENCHMARKS, run


@pytest.fixture(scope="module")
def modules() -> Iterator[Any]:
    """Benchmarks, by name."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))


def texture(seed: int, height: int = 56, width: int = 64) -> torch.Tensor:
    """A smooth picture (h, w, 3) in 0 to 255."""
    noise = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")[0].permute(1, 2, 0).clamp(0, 1) * 255


def test_fastblend_searches_as_many_fields_as_its_authors_do(modules: Any) -> None:
    """The counts of its task lists, both sides, for films of 100, 236 and 900 frames."""
    fastblend = modules("fastblend")
    for frames, window, fields in ((100, 15, 11.0), (236, 30, 13.6), (900, 30, 16.2), (100, 3, 7.9)):
        onward = [task for t in range(frames) for task in fastblend.queried(t, window) if task.source != t]
        assert 2 * (len(fastblend.built(frames)) + len(onward)) / frames == pytest.approx(fields, abs=0.05)


def test_fastblend_makes_the_tree_of_the_frames_it_says(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pictures that need no moving, a frame is the plain mean of its window, in both modes."""
    fastblend = modules("fastblend")

    def still(_: Any, source: torch.Tensor, target: torch.Tensor, style: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, style

    monkeypatch.setattr(fastblend.FastBlend, "match", still)
    style = torch.rand(21, 1, 1, 3, generator=torch.Generator().manual_seed(0)) * 255
    for window in (1, 4, 7):
        around = [style[max(0, t - window) : t + window + 1].mean(0) for t in range(21)]
        for mode in ("fast", "balanced"):
            made = fastblend.FastBlend(window, mode, repaired=True)(style, style)
            torch.testing.assert_close(made, torch.stack(around))
            shipped = fastblend.FastBlend(window, mode, repaired=False)(style, style)
            if mode == "fast":
                assert (shipped - made).mean() == pytest.approx(-0.5, abs=0.1), "truncated, not rounded"
            else:
                assert shipped[-1].equal(style[-1].floor()) == (window == 1), "the mean is written one source early"


@pytest.mark.parametrize(("batch", "wrong"), [(1, 0.75), (8, 0.6836), (16, 0.6094)])
def test_fastblend_goes_up_a_level_wrongly_as_shipped(modules: Any, batch: int, wrong: float) -> None:
    fastblend = modules("fastblend")
    coarse, fine = (fastblend.identity(batch, (side, side)) for side in (32, 64))
    shipped = fastblend.upsampled(coarse, (64, 64), False)
    assert (shipped != fine).any(-1).float().mean().item() == pytest.approx(wrong, abs=1e-4)
    assert fastblend.upsampled(coarse, (64, 64), True).equal(fine)


def test_compiled_loops_are_those_in_torch(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fastblend = modules("fastblend")
    if fastblend.loops() is None:
        pytest.skip("no C compiler is here")
    draw = torch.Generator().manual_seed(0)
    pictures = [texture(seed, 20, 24)[None].repeat(2, 1, 1, 2) for seed in range(2)]
    source, target = (fastblend.padded(picture, 6) for picture in pictures)
    places = [torch.randint(0, side, (2, 20, 24), generator=draw, dtype=torch.int32) for side in (20, 24)]
    there, style = torch.stack(places, -1), pictures[0][..., :3]
    most = torch.full((2, 20, 24), 1e30)
    compiled = [fastblend.patch_errors(source, target, there, most, 9, 6), fastblend.vote(style, there, 7)]
    bounded = fastblend.patch_errors(source, target, there, compiled[0].roll(1, 2), 9, 6)
    assert (bounded < compiled[0].roll(1, 2)).equal(compiled[0] < compiled[0].roll(1, 2))
    monkeypatch.setattr(fastblend, "loops", lambda: None)
    restated = [fastblend.patch_errors(source, target, there, most, 9, 6), fastblend.vote(style, there, 7)]
    torch.testing.assert_close(compiled, restated)


def test_fastblend_finds_a_shift(modules: Any) -> None:
    """By three rows and two columns; and the style comes along with the guide."""
    fastblend = modules("fastblend")
    there = texture(3, 56, 64)[None]
    here = there.roll((-3, -2), (1, 2))
    for repaired in (False, True):
        places, style = fastblend.FastBlend(repaired=repaired).match(there, here, there)
        right = places[0, 8:-8, 8:-8] - fastblend.identity(1, (56, 64))[0, 8:-8, 8:-8] == torch.tensor([3, 2])
        assert right.all(-1).float().mean() > 0.95
        assert (style - here)[0, 8:-8, 8:-8].abs().mean() < 1


def test_the_gradient_filter_solves_its_equations(modules: Any) -> None:
    filters = modules("blindfilters")
    rng = np.random.default_rng(0)
    weight, right = rng.uniform(0, 2, (9, 12)), rng.normal(size=(9, 12))
    columns = [filters.laplacian(one.reshape(9, 12)).ravel() for one in np.eye(108)]
    solution = np.linalg.solve(np.stack(columns, 1) + np.diag(weight.ravel()), right.ravel())
    found = filters.solve(weight, right, np.zeros((9, 12)), 1e-10)
    np.testing.assert_allclose(found.ravel(), solution, atol=1e-8)


def test_blind_filters_leave_a_still_and_calm_its_brightness(modules: Any) -> None:
    filters, degrade = modules("blindfilters"), modules("degrade")
    still = (texture(5, 48, 48).permute(2, 0, 1)[None] / 255 * 0.6 + 0.2).expand(8, -1, -1, -1)
    lit = degrade.flickering(still, 1)
    for method in (filters.FlowBlend(3), filters.GradientFilter()):
        assert (method(still, still) - still).abs().max() < 5e-3
    for method in (filters.FlowBlend(3), filters.GradientFilter(20.0)):
        assert method(still, lit).mean((1, 2, 3)).std() < 0.6 * lit.mean((1, 2, 3)).std()
    assert filters.enhanced(still[:1]).sub(still[:1]).abs().max() < 2 / 255


def test_degradations_are_repeatable_and_differ_from_frame_to_frame(modules: Any) -> None:
    degrade = modules("degrade")
    still = (texture(7, 48, 64).permute(2, 0, 1)[None] / 255 * 0.6 + 0.2).expand(4, -1, -1, -1)
    for name, spoil in degrade.DEGRADATIONS.items():
        spoiled = spoil(still, 0)
        assert spoiled.equal(spoil(still, 0)) and not spoiled.equal(spoil(still, 1)), name
        assert spoil(still[:2], 0).equal(spoiled[:2]), "however many frames there are"
        assert (spoiled[1:] - spoiled[:-1]).abs().mean() > 0.01, name
        assert (spoiled - still).mean((2, 3)).abs().max() < 0.35, "it still shows the same"


def test_films_that_no_sharpening_helps_have_no_error_at_95(modules: Any) -> None:
    """What is plain cannot be brought to the sharpness of a clip, and is not told to be the steadiest at it."""
    bench = modules("calmness")
    clean = torch.stack([texture(3, 48, 64).permute(2, 0, 1).roll(shift, 2) / 255 for shift in range(3)])
    footage, aim = bench.Footage(clean, bench.Known(clean)), bench.TensorFrames.rounded(clean)
    softer = torch.nn.functional.avg_pool2d(clean, 3, 1, 1, count_include_pad=False)
    plain = clean.mean((2, 3), keepdim=True).expand_as(clean)
    faint = plain + 0.03 * (clean - plain)
    found = [bench.at_sharpness(bench.TensorFrames.rounded(film), aim, footage) for film in (softer, plain, faint)]
    assert found[0] > 0
    assert found[1:] == pytest.approx([math.nan] * 2, nan_ok=True)


def test_what_is_left_is_flicker_and_what_froze(modules: Any) -> None:
    """Where a film is darker throughout nothing is; a frozen one has none of the clip's movement, and little else."""
    bench = modules("calmness")
    wide = texture(3, 48, 96).permute(2, 0, 1) / 255 * 0.6 + 0.2
    clean = torch.stack([wide[..., 2 * n : 2 * n + 64] for n in range(4)])
    footage = bench.Footage(clean, bench.Known(clean))
    jumping = clean + torch.tensor([0.02, -0.02, 0.02, -0.02]).view(4, 1, 1, 1)
    found = [bench.left(film, footage) for film in (clean, clean - 0.1, jumping, clean[:1].expand_as(clean))]
    assert found[:3] == pytest.approx([0, 0, 0.04], abs=2e-3)
    assert found[3] > 0.02


def test_who_has_no_number_is_not_the_least(modules: Any) -> None:
    least = modules("deflickering")._least

    def rows(*values: float) -> list[dict[str, Any]]:
        methods = ("ours, flow", "Bonneel", "flow warp")
        return [{"method": name, "at 95": value} for name, value in zip(methods, values, strict=False)]

    assert least(rows(2.0, math.nan, 3.0), "at 95") == "ours, flow 2.00, then flow warp 3.00"
    assert least(rows(math.nan, 2.0, 1.0), "at 95") == "flow warp 1.00"
    assert least(rows(math.nan, math.nan), "at 95") == "none"


def test_the_table_is_filled_and_goes_on(tmp_path: Path) -> None:
    methods = ["nothing", "FastBlend, shipped", "flow warp", "Bonneel", "ours, PatchMatch", "ours, flow"]
    asked = ["moving:2", "--frames", "4", "--area", "3000", "--window", "2", "--degradations", "noise"]
    asked += ["--guides", "blind", "-o", str(tmp_path), "--methods"]
    first = run("deflickering", *asked, *methods[:2])
    assert first.count("s a frame") == 3
    second = run("deflickering", *asked, *methods)
    assert second.count("s a frame") == 4, "what is there is not made again"
    rows = [json.loads(path.read_text("utf-8")) for path in (tmp_path / "cells").glob("*.json")]
    assert {row["method"] for row in rows} == {"clean clip", *methods}
    found = {row["method"]: row for row in rows}
    assert found["clean clip"]["warp error"] < found["ours, flow"]["warp error"] < found["nothing"]["warp error"]
    assert found["nothing"]["fields"] == 0 < found["ours, flow"]["remaps"]
    # Pairs (0, 1), (1, 2), (2, 3), (0, 2) and (1, 3), of 4 frames, in both directions.
    assert found["ours, flow"]["fields"] == found["flow warp"]["fields"] == 2 * 5 / 4
    assert second.count("| FastBlend, shipped |") == 1
    with Image.open(tmp_path / "sheets" / "moving:2_noise_blind.png") as sheet:
        assert sheet.width == 6 * 72
