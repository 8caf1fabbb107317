"""Optical flow, warping along it, and where it can be believed."""

from __future__ import annotations

import subprocess
import sys

import cv2
import pytest
import torch
from torch import Tensor

from segue.motion.flow import flow
from segue.motion.occlusion import followed
from segue.motion.warp import stepped, warp


def texture(height: int = 80, width: int = 112, seed: int = 0) -> Tensor:
    """One picture (1, 3, h, w) with something to hold on to everywhere."""
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def moved(dx: int, dy: int, size: int = 64) -> tuple[Tensor, Tensor]:
    """Two windows of one texture; what lies in the first at (x, y) lies in the second at (x + dx, y + dy)."""
    whole = texture()
    return whole[..., 8 : 8 + size, 24 : 24 + size], whole[..., 8 - dy : 8 - dy + size, 24 - dx : 24 - dx + size]


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, -2), (-5, 4), (10, 1)])
def test_a_translation_is_found(dx: int, dy: int) -> None:
    a, b = moved(dx, dy)
    found = flow(a, b)
    assert found.shape == (1, 2, 64, 64)
    inner = found[..., 16:-16, 16:-16]
    assert float((inner - torch.tensor([dx, dy]).view(1, 2, 1, 1)).abs().max()) < 0.3
    apart, brought_back = ((other - a)[..., 16:-16, 16:-16].abs().mean() for other in (b, warp(b, found)))
    assert float(brought_back) < 0.005 < 0.05 < float(apart)


def test_equal_pictures_do_not_move() -> None:
    a = texture()
    assert torch.equal(flow(a, a), torch.zeros(1, 2, 80, 112))
    flat = torch.full((2, 3, 16, 16), 0.4)
    assert torch.equal(flow(flat, flat), torch.zeros(2, 2, 16, 16))


def test_rows_do_not_influence_each_other_nor_does_what_came_before() -> None:
    (a, b), (c, d) = moved(3, 1), moved(-4, 2)
    together = flow(torch.cat([a, c]), torch.cat([b, d]))
    assert torch.equal(together[1:], flow(c, d))
    assert torch.equal(together[:1], flow(a, b))
    assert torch.equal(together, flow(torch.cat([a, c]), torch.cat([b, d])))


def test_threads_are_as_they_were() -> None:
    before = cv2.getNumThreads()
    try:
        for threads in (1, 2):
            cv2.setNumThreads(threads)
            flow(*moved(1, 1))
            assert cv2.getNumThreads() == threads
    finally:
        cv2.setNumThreads(before)


def test_importing_it_changes_nothing() -> None:
    code = (
        "import cv2; cv2.setNumThreads(2); before = cv2.getNumThreads(), cv2.useOptimized();"
        "import segue.motion.flow, segue.motion.warp, segue.motion.occlusion;"
        "print(before == (cv2.getNumThreads(), cv2.useOptimized()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_the_face_loads_nothing() -> None:
    code = "import sys, segue.motion; print({'torch', 'cv2'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("shape", [(1, 3, 15, 40), (1, 1, 40, 40), (3, 40, 40)])
def test_what_has_no_flow_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sides of 16 pixels or more"):
        flow(torch.zeros(shape), torch.zeros(shape))
    with pytest.raises(ValueError, match="of one shape"):
        flow(torch.zeros(1, 3, 40, 40), torch.zeros(1, 3, 40, 41))


def test_no_pictures_have_no_flow() -> None:
    assert flow(torch.zeros(0, 3, 32, 40), torch.zeros(0, 3, 32, 40)).shape == (0, 2, 32, 40)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8])
def test_ways_in_steps_are_followed_to_the_same_answer(channels: int) -> None:
    """By OpenCV, which has a table of 32 steps of a pixel, as by torch, which is asked where gradients are wanted."""
    draws = torch.Generator().manual_seed(channels)
    pictures = torch.rand(2, channels, 24, 31, generator=draws)
    ways = 6 * torch.randn(2, 2, 24, 31, generator=draws)
    exact = warp(pictures.clone().requires_grad_(), stepped(ways)).detach()
    assert torch.allclose(warp(pictures, stepped(ways)), exact, atol=2e-6)
    assert torch.equal(warp(pictures, ways), warp(pictures.clone().requires_grad_(), ways).detach()), "others are not"
    assert float((stepped(ways) - ways).abs().max()) <= 1 / 64
    assert warp(pictures[:0], stepped(ways)[:0]).shape == (0, channels, 24, 31)


def test_warping_by_whole_pixels_moves_them() -> None:
    a = texture()
    along = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 80, 112)
    assert torch.allclose(warp(a, along)[..., 4:-4, 4:-4], a[..., 2:-6, 7:-1], atol=1e-4)
    for elsewhere in (2.0, 2.01):  # In steps, and between them.
        along = torch.zeros(1, 2, 80, 112)
        along[..., 56:] = elsewhere
        assert torch.equal(warp(a, along)[..., :56], a[..., :56]), "where a way has no length, nothing is rounded"


def test_what_is_followed_is_what_is_seen_in_both() -> None:
    """A square slides by 12 pixels over a ground that stands still: the ground that it covers is lost."""
    there, back = torch.zeros(1, 2, 40, 64), torch.zeros(1, 2, 40, 64)
    there[:, 0, 10:30, 8:28] = 12
    back[:, 0, 10:30, 20:40] = -12
    seen = followed(there, back)[0]
    assert bool(seen[12:28, 10:26].all())  # the square
    assert not bool(seen[12:28, 30:38].any())  # the ground that it comes to lie on
    assert bool(seen[:, 42:].all())
    assert bool(seen[:8].all())


def test_different_pictures_are_not_followed_and_borders_end() -> None:
    a, b = texture(seed=1), texture(seed=2)
    assert float(followed(flow(a, b), flow(b, a)).float().mean()) < 0.5
    right = torch.tensor([5.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 20, 30)
    inside = followed(right, -right)[0]
    assert bool(inside[:, :25].all())
    assert not bool(inside[:, 25:].any())
