"""What test_fused.py runs in processes of their own: Triton reads once, when it is imported, whether it interprets.

`python fused_steps.py steps` and `fields` with TRITON_INTERPRET=1, `binaries` without.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from motion.pictures import texture
from segue.motion import search
from segue.motion.match import Match
from segue.motion.patchmatch import PatchMatcher
from segue.motion.search import Field, Ground

SHAPES = [(2, 1, 1), (2, 5, 1), (4, 7, 17), (2, 16, 16)]


def drawn(shape: tuple[int, int, int], terms: int, coherence: float = 0.0) -> tuple[Ground, Tensor, Tensor, Tensor]:
    """Descriptors whose squares are summed exactly in any order; two lots of ways, and steps away from them."""
    rows, height, width = shape
    draws = torch.Generator().manual_seed(terms)
    here, there = (torch.randint(-3, 4, (rows, height * width, terms), generator=draws).float() for _ in range(2))
    one, other = (torch.randint(-9, 10, (rows, 2, height, width), generator=draws).int() for _ in range(2))
    away = torch.randint(-3, 4, (2, height, width), generator=draws).int()
    return Ground(here, there, height, width, coherence), one, other, away


def steps(fused: Any, patch: pytest.MonkeyPatch) -> None:
    """The same bits as without, wherever rounding has no say."""
    shifts = [(0, 0), (1, 0), (-4, 0), (0, 4), (0, -1), (40, -40)]
    for shape, (terms, coherence) in product(SHAPES, ((16, 0.7), (21, 0.0))):
        ground, one, other, away = drawn(shape, terms, coherence)
        began = Field.of(one, ground)
        with patch.context() as within:
            within.setattr(search, "fused_on", always(fused))
            assert same(Field.of(one, ground), began)
        for shift, step in [*((shift, None) for shift in shifts), ((0, 0), away)]:
            for source in (other, began.way):
                expected = began.tried(ground, source, shift, step)
                assert same(Field(*fused.bettered(began, ground, source, shift, step)), expected), (shape, terms, shift)


def fields(fused: Any, patch: pytest.MonkeyPatch) -> None:
    """Whole fields are those of torch within 1e-6; among themselves they are equal, in any batch or order."""
    patch.setattr(fused, "_BLOCK", 2048)  # to interpret a program takes as long for many pixels as for few
    pictures = torch.cat([texture(20, 23, seed=seed) for seed in range(3)])
    a, b = pictures[:2], pictures[1:]
    still = Match(torch.zeros(2, 2, 20, 23), a[:, 0], a[:, 0], whole=True)
    options: list[tuple[PatchMatcher, dict[str, Any]]] = [
        (PatchMatcher(), {}),
        (PatchMatcher(rounds=(2,), terms=75, sorts=1, begin="random"), {"start": (still, still), "style": (b, a)}),
    ]
    for matcher, given in options:
        expected = matcher(a, b, **given)
        with patch.context() as within:
            within.setattr(search, "fused_on", always(fused))
            there, back = matcher(a, b, **given)
            turned = {name: tuple(reversed(pair)) for name, pair in given.items()}
            alone = {name: tuple(one[1:] for one in pair) for name, pair in given.items()}
            assert equal(matcher(b, a, **turned), (back, there))
            assert equal(matcher(a[1:], b[1:], **alone), (there[1:], back[1:]))
        for one, other in zip((there, back), expected, strict=True):
            agree = (one.way == other.way).all(1)
            assert float(agree.float().mean()) > 0.999
            torch.testing.assert_close(one.error[agree], other.error[agree], rtol=1e-6, atol=1e-9)


def binaries(fused: Any, patch: pytest.MonkeyPatch) -> None:
    """It compiles for a card that need not be there, once for pictures of any size and number, without fused sums."""
    target: object = import_module("triton.backends.compiler").GPUTarget("cuda", 80, 32)

    class Absent:
        def get_current_target(self) -> object:
            return target

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return device

    class Compiled:
        def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
            def run(*args: object, **known: object) -> None:
                made.append(step.run(*args, grid=grid, warmup=True, **known))

            return run

    import_module("triton.runtime").driver.set_active(Absent())
    step = fused._step
    made: list[Any] = []
    patch.setattr(fused, "_step", Compiled())
    for terms, coherence, apart in product((16, 75), (0.0, 0.7), (False, True)):
        for shape, shift in product(SHAPES, ((0, 0), (1, 0), (0, -4))):
            ground, one, other, away = drawn(shape, terms, coherence)
            field = Field(one, one[:, 0].float())
            fused.bettered(field, ground, other, shift, away if apart else None)
    assert len(made) == 8 * 12
    assert len({id(one) for one in made}) == 4
    for one in made:
        assert "fma.rn.f32" not in one.asm["ptx"]


def always(fused: object) -> Callable[[torch.device], object]:
    def fused_on(_: torch.device) -> object:
        return fused

    return fused_on


def same(one: Field, other: Field) -> bool:
    return torch.equal(one.way, other.way) and torch.equal(one.cost, other.cost)


def equal(ones: tuple[Match, Match], others: tuple[Match, Match]) -> bool:
    pairs = zip(ones, others, strict=True)
    return all(torch.equal(a.way, b.way) and torch.equal(a.error, b.error) for a, b in pairs)


if __name__ == "__main__":
    torch.set_num_threads(1)
    kernels = import_module("segue.motion.fused")
    with pytest.MonkeyPatch.context() as patching:
        {"steps": steps, "fields": fields, "binaries": binaries}[sys.argv[1]](kernels, patching)
