"""Sharpness, and Pixel-MSE, which is not told without it."""

from __future__ import annotations

import ast
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import segue.evaluation
from evaluation.known import Watched, blurred, kept, noise, pan, scene, whole
from motion.clips import Held
from segue.evaluation.pixel_mse import PixelMse, pixel_mse
from segue.evaluation.sharpness import Kept, Sharpness, sharpness
from segue.evaluation.warp_error import warp_error


def restated(here: NDArray[np.float64], there: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Of one frame, pixel by pixel: gradient energy, and the three shares of the other's detail."""
    channels, height, width = here.shape

    def product(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        across = [
            (a[c, y, x + 1] - a[c, y, x]) * (b[c, y, x + 1] - b[c, y, x])
            for c in range(channels)
            for y in range(height)
            for x in range(width - 1)
        ]
        down = [
            (a[c, y + 1, x] - a[c, y, x]) * (b[c, y + 1, x] - b[c, y, x])
            for c in range(channels)
            for y in range(height - 1)
            for x in range(width)
        ]
        return (float(np.mean(across)) + float(np.mean(down))) / 2

    def fine(a: NDArray[np.float64]) -> float:
        found = [
            (a[c, y - 1, x] + a[c, y + 1, x] + a[c, y, x - 1] + a[c, y, x + 1] - 4 * a[c, y, x]) ** 2
            for c in range(channels)
            for y in range(1, height - 1)
            for x in range(1, width - 1)
        ]
        return float(np.mean(found))

    due = product(there, there)
    return product(here, here), product(here, here) / due, fine(here) / fine(there), product(here, there) / due


def kept_of(found: Sharpness) -> Kept:
    assert found.kept is not None
    return found.kept


def test_it_is_what_loops_find() -> None:
    original = whole(scene((24, 20), 3).frames)
    frames = blurred(original) + noise(original, 0.02)
    naive = np.array([restated(*pair) for pair in zip(frames.double().numpy(), original.double().numpy(), strict=True)])
    found = sharpness(Held(frames), Held(original))
    kept = kept_of(found)
    assert found.gradient == pytest.approx(np.sqrt(naive[:, 0]).mean(), rel=1e-5)
    assert (kept.gradients, kept.fine, kept.shared) == pytest.approx(naive[:, 1:].mean(0), rel=1e-4)
    assert kept.frames == pytest.approx(naive[:, 1], rel=1e-4)
    assert (kept.worst, kept.worst_at) == (pytest.approx(naive[:, 1].min(), rel=1e-4), naive[:, 1].argmin())


def test_blur_lowers_all_of_it_and_noise_is_no_detail() -> None:
    original = whole(scene().frames)
    softer, noisy = (
        kept_of(sharpness(Held(frames), Held(original)))
        for frames in (blurred(original), original + noise(original, 0.04))
    )
    assert softer.gradients is not None
    assert noisy.gradients is not None
    assert softer.fine is not None
    assert softer.shared is not None
    assert softer.fine < softer.gradients < 0.9
    assert softer.shared < 0.95
    energy = sharpness(Held(original)).gradient ** 2
    assert noisy.gradients == pytest.approx(1 + 2 * 0.04**2 / energy, rel=0.15)
    assert noisy.shared == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("contrast", [0.5, 1.0, 1.2])
def test_contrast_is_squared_in_energies(contrast: float) -> None:
    original = whole(scene().frames)
    kept = kept_of(sharpness(Held(0.5 + contrast * (original - 0.5)), Held(original)))
    assert (kept.gradients, kept.fine) == pytest.approx((contrast**2, contrast**2), rel=1e-4)
    assert kept.shared == pytest.approx(contrast, rel=1e-4)


def test_of_plain_frames_nothing_is_kept_or_lost() -> None:
    original = whole(scene(frames=4).frames).clone()
    original[1] = 0.3
    kept = kept_of(sharpness(Held(original), Held(original)))
    assert kept.frames == (1, None, 1, 1)
    assert (kept.gradients, kept.fine, kept.shared) == pytest.approx((1, 1, 1))
    plain = kept_of(sharpness(Held(torch.zeros(2, 3, 8, 8)), Held(torch.zeros(2, 3, 8, 8))))
    assert plain == Kept(None, None, None, None, None, (None, None))


@pytest.mark.parametrize("rounded", [False, True])
def test_of_slopes_no_finest_detail_is_kept_or_lost(rounded: bool) -> None:
    """Their Laplacian is that of the rounding, if of anything: a share of it would be as large as one likes."""
    rise = 1.5 / 255  # Levels by pixel, half of them lost: of all ramps, those that rounding leaves the most detail.
    ramp = rise * (torch.arange(64) + torch.arange(48)[:, None]).expand(2, 3, 48, 64)
    detailed = ramp + noise(ramp, 0.05)
    detailed[1] = ramp[1]
    if rounded:
        ramp, detailed = whole(kept(ramp)), whole(kept(detailed))
    assert (of_ramp := kept_of(sharpness(Held(detailed), Held(ramp)))).fine is None
    assert of_ramp.frames[1] == 1
    # Frames that have some count by themselves.
    assert kept_of(sharpness(Held(detailed), Held(detailed))).fine == 1
    assert kept_of(sharpness(Held(ramp), Held(torch.zeros_like(ramp)))).fine is None
    exact = torch.arange(16).mul(1 / 16).expand(1, 3, 16, 16)
    assert kept_of(sharpness(Held(exact), Held(exact))).fine is None


def test_the_least_sharp_frame_is_named() -> None:
    original = whole(scene().frames)
    changed = original.clone()
    changed[5] = blurred(changed[5:6])[0]
    kept = kept_of(sharpness(Held(changed), Held(original)))
    assert kept.worst_at == 5
    assert kept.worst == min(share for share in kept.frames if share is not None) < 0.9
    meaning = sharpness(Held(changed), Held(original)).measures()[1].meaning
    assert f"least in frame 5: {kept.worst:.3g}" in meaning


def test_frames_are_read_one_by_one() -> None:
    frames, reference = Watched(pan().frames), Watched(pan().frames)
    sharpness(frames, reference)
    assert (frames.most, reference.most) == (1, 1)
    assert max(frames.held, reference.held) <= 2


def test_films_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got 8 frames of \(64, 48\), held against 5 of"):
        sharpness(pan().frames, pan(frames=5).frames)
    with pytest.raises(ValueError, match=r"held against 8 of \(64, 32\)"):
        sharpness(pan().frames, pan(size=(64, 32)).frames)
    with pytest.raises(ValueError, match="1 frame or more, of 3x3 pixels or more; got 0 of"):
        sharpness(kept(torch.zeros(0, 3, 8, 8)))
    with pytest.raises(ValueError, match=r"got 1 of \(2, 8\)"):
        sharpness(kept(torch.zeros(1, 3, 8, 2)))


def test_pixel_mse_is_the_squared_change_between_neighbours() -> None:
    frames = kept(0.2 + 0.6 * whole(pan().frames) + noise(whole(pan().frames), 0.04))
    source = kept(0.2 + 0.6 * whole(pan().frames))
    found = pixel_mse(frames, source)
    assert found.value == warp_error(frames, source).at(1).squared == pytest.approx(2 * 0.04**2, rel=0.1)
    assert found.sharpness == sharpness(frames, source)
    assert found.of_source
    assert pixel_mse(frames).sharpness.kept is None
    assert kept_of(pixel_mse(frames, source, frames).sharpness).gradients == 1


def test_pixel_mse_likes_blur_and_sharpness_tells() -> None:
    source = whole(scene((96, 64)).frames)
    noisy = source + noise(source, 0.03)
    as_it_is, softer = (pixel_mse(kept(frames), kept(source)) for frames in (noisy, blurred(noisy)))
    assert as_it_is.value is not None
    assert softer.value is not None
    assert softer.value < 0.4 * as_it_is.value
    lost = kept_of(softer.sharpness).shared
    assert lost is not None
    assert lost < 0.95


def test_pixel_mse_cannot_be_without_sharpness() -> None:
    required = {field.name for field in fields(PixelMse) if field.default is MISSING}
    assert "sharpness" in required
    with pytest.raises(TypeError, match="sharpness"):
        cast(Any, PixelMse)(0.1, of_source=False, followed=1.0)
    names = [measure.name for measure in PixelMse(0.1, Sharpness(0.02), False, 1.0).measures()]
    assert names == ["Pixel-MSE", "sharpness"]


def test_pixel_mse_is_named_nowhere_else() -> None:
    """So that no report can say it alone."""
    folder = Path(segue.evaluation.__file__).parent
    named: set[str] = set()
    for path in folder.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and any(
                isinstance(said, ast.Constant) and said.value == "Pixel-MSE" for said in ast.walk(node)
            ):
                named.add(path.name)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "pixel_mse":
                assert ast.unparse(node.annotation).startswith("PixelMse"), path
    assert named == {"pixel_mse.py"}
