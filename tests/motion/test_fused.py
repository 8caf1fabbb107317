"""Each step of a search as one launch: that it is asked for where it should be, and finds what torch finds."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from motion.pictures import texture
from segue.motion import search
from segue.motion.match import Match
from segue.motion.patchmatch import PatchMatcher
from segue.motion.search import Field, Ground

with_triton = pytest.mark.skipif(find_spec("triton") is None, reason="no triton, which comes with torch for CUDA")


def run(check: str, **environment: str) -> None:
    """One check of fused_steps.py, in a process of its own."""
    script = Path(__file__).with_name("fused_steps.py")
    path = os.pathsep.join([str(script.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run([sys.executable, str(script), check], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr


@with_triton
@pytest.mark.parametrize("check", ["steps", "fields"])
def test_interpreted_it_finds_what_torch_finds(check: str) -> None:
    run(check, TRITON_INTERPRET="1")


@with_triton
def test_it_compiles_once_for_pictures_of_any_size_and_number(tmp_path: Path) -> None:
    run("binaries", TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))


def test_without_a_card_nobody_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(search, "loaded", lambda: asked.append("asked"))
    picture = texture(20, 24)
    PatchMatcher()(picture, picture.flip(3))
    assert search.fused_on(torch.device("cpu")) is None
    assert asked == []
    search.fused_on(torch.device("cuda"))
    assert asked == ["asked"]


def test_without_triton_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "segue.motion.fused", raising=False)
    assert search.loaded.__wrapped__() is None


def bettered(
    field: Field, ground: Ground, source: Tensor, shift: tuple[int, int] = (0, 0), away: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The kernel's contract, restated with indices."""
    height, width = field.way.shape[2:]
    x, y = torch.arange(width), torch.arange(height)

    def beside(way: Tensor, across: int, down: int) -> Tensor:
        return way[..., (y - down).clamp(0, height - 1)[:, None], (x - across).clamp(0, width - 1)]

    way = beside(source, *shift) + (0 if away is None else away)
    places = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
    farthest = torch.tensor([width - 1, height - 1]).view(2, 1, 1)
    way = (torch.minimum((places + way).clamp(min=0), farthest) - places).int()
    cost = ground.costs(way).view_as(field.cost)
    usual = sum(beside(field.way, *one).float() for one in ((1, 0), (-1, 0), (0, 1), (0, -1))) / 4
    nearer = [(one - usual).abs().sum(1).clamp(max=2) for one in (field.way, way)]
    better = field.cost - cost + ground.coherence * (nearer[0] - nearer[1]) > 0
    return torch.where(better[:, None], way, field.way), torch.where(better, cost, field.cost)


@pytest.mark.parametrize("size", [(33, 40), (5, 1)])
def test_where_it_is_there_each_candidate_is_one_call(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (torch.cat([texture(*size, seed=seed + row) for row in range(2)]) for seed in (0, 5))
    right = Match(torch.full((2, 2, *size), 2.0), a[:, 0], a[:, 0], whole=True)
    start = right, right
    matcher = PatchMatcher(sorts=2, begin="random")
    expected = matcher(a, b, start=start)
    calls: list[int] = []

    def counted(field: Field, *given: object) -> tuple[Tensor, Tensor]:
        calls.append(field.cost.numel())
        return bettered(field, *given)  # pyright: ignore[reportArgumentType]

    kernels = SimpleNamespace(bettered=counted)

    def always(_: torch.device) -> SimpleNamespace:
        return kernels

    monkeypatch.setattr(search, "fused_on", always)
    found = matcher(a, b, start=start)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.way, other.way)
        assert torch.equal(one.error, other.error)
    if size == (33, 40):
        # Two levels: 2 rounds each; the starts of both patches, what is believed, and for the coarser one a draw.
        # A round draws at 4, 2, 1, or coarsely at 20, 10, 5, 2, 1; then come 2 sorted, and 4 neighbours 4 and 1 away.
        assert calls.count(4 * 33 * 40) == 2 + 1 + 2 * (3 + 2 + 8)
        assert calls.count(4 * 17 * 20) == 2 + 1 + 1 + 2 * (5 + 2 + 8)
