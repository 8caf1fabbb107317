"""Latents larger than what the network sees: windows cover them, and agree with the whole where they can."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from segue.diffusion.guidance import classifier_free
from segue.diffusion.schedule import Schedule
from segue.diffusion.tiles import ALIGNED, TiledDenoiser, starts_of, windows
from segue.types import Condition, Conditioning, Guided, Point, RowId
from toy import RowwiseDenoiser, text_of

ROWS = tuple(RowId(name) for name in "ab")


def at(step: int = 3) -> Point:
    schedule = Schedule.from_config({"prediction_type": "v_prediction"}, 10)
    return schedule.step(torch.full((2,), step, dtype=torch.int64), ROWS)[0]


def latents(height: int, width: int) -> Tensor:
    return torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Told:
    """Answers with the picture that is told beside the latents, and remembers what it saw."""

    group: int = 1
    sizes: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        assert len(x) == len(at) == len(cond)
        self.sizes.append(tuple(x.shape))
        term = cond.terms[-1] if isinstance(cond, Guided) else cond
        assert term.concat is not None
        assert term.concat.shape[-2:] == x.shape[-2:]
        return term.concat + 0 * x


@pytest.mark.parametrize("length", [5, 16, 17, 24, 31, 64, 100])
@pytest.mark.parametrize(
    ("tile", "overlap"), [(16, 0), (16, 8), (24, 12), (32, 24), (8, 2), (8, 7), (16, 14), (32, 25)]
)
def test_windows_cover_every_latent_and_share_what_is_asked(length: int, tile: int, overlap: int) -> None:
    starts = starts_of(length, tile, overlap)
    ends = [min(start + tile, length) for start in starts]
    assert starts[0] == 0
    assert ends[-1] == length
    assert all(end - after >= overlap for end, after in zip(ends[:-1], starts[1:], strict=True))
    if tile - overlap >= ALIGNED:
        assert all(start % ALIGNED == 0 for start in starts[:-1])
    assert len(set(starts)) == len(starts)


@pytest.mark.parametrize("together", [1, 3, 50])
@pytest.mark.parametrize("guided", [False, True])
def test_tiles_are_the_whole_where_pixels_do_not_look_at_each_other(together: int, guided: bool) -> None:
    x, cond = latents(40, 72), text_of(0.3, -0.2)
    told: Condition = classifier_free(cond, text_of(0.0, 0.1), 3.0) if guided else cond
    whole = RowwiseDenoiser()(x, at(), told)
    tiled = TiledDenoiser(RowwiseDenoiser(), 16, 4, together)(x, at(), told)
    assert (tiled - whole).abs().max() < 1e-6
    assert whole.std() > 0.1


def test_each_window_is_told_its_own_part_of_the_picture() -> None:
    x, picture = latents(40, 72), latents(40, 72).flip(0)
    cond = replace(text_of(0.0, 0.0), concat=picture)
    seen = Told()
    assert (TiledDenoiser(seen, 16, 8, 2)(x, at(), cond) - picture).abs().max() < 1e-6
    assert {size[-2:] for size in seen.sizes} == {(16, 16)}
    assert max(size[0] for size in seen.sizes) == 4


def test_what_fits_is_left_to_the_denoiser() -> None:
    seen, x = Told(), latents(16, 12)
    cond = replace(text_of(0.0, 0.0), concat=x)
    assert torch.equal(TiledDenoiser(seen, 16, 4)(x, at(), cond), x)
    assert seen.sizes == [(2, 4, 16, 12)]


def test_where_windows_disagree_one_passes_smoothly_into_the_other() -> None:
    answers = iter(torch.arange(100.0).tolist())

    @dataclass(frozen=True)
    class Each:
        group: int = 1

        def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
            return torch.full_like(x, next(answers))

    line = TiledDenoiser(Each(), 24, 8)(latents(8, 40), at(), text_of(0.0, 0.0))[0, 0, 0]
    assert len(windows(8, 40, 24, 8)) == 2
    assert line[0] == 0
    assert line[-1] == 1
    assert (line.diff() >= 0).all()
    assert line.diff().max() < 0.3


def test_impossible_windows_are_refused() -> None:
    for tile, overlap, together in ((16, 16, 1), (16, -1, 1), (16, 4, 0)):
        with pytest.raises(ValueError, match="cannot share"):
            TiledDenoiser(RowwiseDenoiser(), tile, overlap, together)


@dataclass(frozen=True)
class Copies:
    """A Denoiser whose x0 is the control picture that it is shown, at the size of the latents."""

    group: int = 1

    def __call__(self, x: Tensor, at: Point, cond: Condition) -> Tensor:
        assert isinstance(cond, Conditioning)
        return avg_pool2d(cond.residual_inputs["depth"], 2).expand_as(x)


def test_windows_see_their_part_of_the_control_pictures() -> None:
    picture = torch.rand(2, 1, 80, 80, generator=torch.Generator().manual_seed(0))
    cond = Conditioning(text_of(0.0, 0.0).text, residual_inputs={"depth": picture})
    x = latents(40, 40)
    for together in (1, 3):
        tiled = TiledDenoiser(Copies(), 16, 4, together)(x, at(), cond)
        assert torch.allclose(tiled, Copies()(x, at(), cond), atol=1e-6)
    odd = replace(cond, residual_inputs={"depth": picture[..., :79]})
    with pytest.raises(ValueError, match="no multiple of latents"):
        TiledDenoiser(Copies(), 16, 4)(x, at(), odd)
