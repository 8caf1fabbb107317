# pyright: basic
"""An instruction adapter: what it adds, where it looks, its file, and what it is put beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write_model
from tiny_xl import write_xl
from torch import Tensor, nn

from segue.diffusion.guidance import instructed
from segue.diffusion.loop import denoise
from segue.diffusion.starts import from_seeds
from segue.errors import CheckpointError, ModelError, ModelNotFoundError, TaskError, UnsafeFileError
from segue.models.control import Control, controlled
from segue.models.control_adapter import ControlAdapter, Layout, control_from, save_adapter
from segue.models.instruct_adapter import HEAD_WIDTH, HEADS, InstructAdapter, InstructLayout, Move, rest_of
from segue.models.instruct_files import read_instruct, save_instruct, with_instruct, with_instruct_file
from segue.models.loading import load_model
from segue.models.time_inserted import TimeSettings, with_time
from segue.types import RowId

SMALL: Any = {"width": 16, "before": 1, "after": 1, "embedding": 32}
LAYOUT = InstructLayout(((16, 0), (16, 1)), (16, 1), 4, 24, **SMALL, widths=(16, 24), blocks=(1, 1))


def stirred(adapter: InstructAdapter, seed: int = 1) -> InstructAdapter:
    """With numbers in what is 0 at first."""
    generator = torch.Generator().manual_seed(seed)
    assert adapter.move is not None
    for parameter in [*adapter.taps.parameters(), *adapter.move.out.parameters()]:
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return adapter.requires_grad_(False)


def for_model(model: Any, seed: int = 1) -> InstructAdapter:
    levels = len(model.parts["unet"].config["block_out_channels"])
    torch.manual_seed(seed)
    layout = InstructLayout.of(model.parts["unet"], **SMALL, widths=(16,) * levels, blocks=(1,) * levels)
    return stirred(InstructAdapter(layout), seed)


def inputs(rows: int, height: int = 8, width: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x, picture = torch.randn((2, rows, 4, height, width), generator=generator)
    return x, torch.linspace(1, 990, rows), torch.randn((rows, 7, 24), generator=generator), picture


@pytest.fixture
def adapter() -> InstructAdapter:
    torch.manual_seed(0)
    return stirred(InstructAdapter(LAYOUT))


@pytest.fixture(scope="module", params=["sd", "xl"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model") / request.param
    return load_model((write_xl if request.param == "xl" else write_model)(folder), device="cpu")


def asked(model: Any, rows: int = 1) -> tuple[Tensor, Any, Any]:
    """Noisy latents, a level, and words with a picture."""
    generator = torch.Generator().manual_seed(2)
    x, picture = torch.randn((2, rows, 4, 8, 8), generator=generator)
    now, _ = model.schedule(5, (64, 64)).step(torch.zeros(rows, dtype=torch.int64))
    return x, now, replace(model.text(["make it green"] * rows), concat=picture)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 4), (5, 7)])
def test_it_adds_what_the_unet_has_room_for_and_nothing_at_first(height: int, width: int) -> None:
    found, guess = InstructAdapter(LAYOUT)(*inputs(2, height, width))
    half = (-(-height // 2), -(-width // 2))
    assert [part.shape for part in found.down] == [(2, 16, height, width), (2, 16, *half)]
    assert found.mid is not None and found.mid.shape == (2, 16, *half)
    assert guess.shape == (2, 4, height, width)
    assert all(float(part.detach().abs().max()) == 0 for part in (*found.down, found.mid))


def test_a_row_that_is_shown_nothing_adds_nothing(adapter: InstructAdapter) -> None:
    x, time, text, picture = inputs(3)
    picture[1] = 0
    found, _ = adapter(x, time, text, picture)
    sizes = torch.stack([part.flatten(1).abs().amax(1) for part in found.down])
    assert bool((sizes[:, 1] == 0).all()) and bool((sizes[:, [0, 2]] > 1e-3).all())


@pytest.mark.parametrize("part", range(4), ids=["latents", "time", "words", "picture"])
def test_all_that_it_is_told_counts_in_its_own_row_alone(part: int, adapter: InstructAdapter) -> None:
    told = inputs(2)
    found, guess = adapter(*told)
    other = [one.clone() for one in told]
    other[part][1] = {1: 500.0}.get(part, -other[part][1])
    again, guessed = adapter(*other)
    apart = (found.down[0] - again.down[0]).flatten(1).abs().amax(1)
    assert float(apart[0]) < 1e-5 and float(apart[1]) > 1e-4
    sees = part >= 2  # what becomes of a picture is a matter of the picture and the words
    assert (float((guess - guessed)[1].abs().max()) > 1e-5) is sees


def test_things_are_moved_to_where_the_words_say() -> None:
    """With a map of places that turns the sign of x, each place looks at the one across."""
    layout = replace(LAYOUT, moves=1, waves=6)
    move = Move(layout).requires_grad_(False)
    for parameter in move.parameters():
        parameter.zero_()
    side = 2 * layout.waves
    same = torch.eye(2 * side)
    mirror = torch.diag(torch.cat([torch.ones(side), -torch.ones(layout.waves), torch.ones(layout.waves)]))
    maps = torch.zeros(2 * side, HEADS, HEAD_WIDTH)
    keys = torch.zeros(HEADS, HEAD_WIDTH, 2 * side)
    maps[:, :, : 2 * side], keys[:, : 2 * side] = 30 * mirror[:, None], same
    move.maps[0], move.key.weight[:] = maps.flatten(1), keys.flatten(0, 1)
    move.pick.bias.fill_(1)
    for convolution in (move.value, move.out):
        convolution.weight[:, :, 0, 0] = torch.eye(layout.width)
    move.norm.weight.fill_(1)
    move.stay.bias.fill_(-100)
    x = torch.randn(2, layout.width, 4, 6, generator=torch.Generator().manual_seed(3))
    moved = move(x, torch.zeros(2, layout.embedding))
    assert float((moved - move.norm(x).flip(-1)).abs().max()) < 1e-3
    assert float((moved - move.norm(x)).abs().max()) > 1


def test_a_model_without_a_picture_or_with_an_untrained_adapter_draws_as_before(model: Any) -> None:
    taught = with_instruct(model, for_model(model))
    x, now, cond = asked(taught)
    before = model.denoiser(x, now, model.text([""]))
    assert taught.instructs and not model.instructs
    assert torch.equal(taught.denoiser(x, now, replace(cond, concat=torch.zeros_like(x))), before)
    assert float((taught.denoiser(x, now, cond) - before).abs().max()) > 1e-3
    levels = len(model.parts["unet"].config["block_out_channels"])
    fresh = InstructAdapter(
        InstructLayout.of(model.parts["unet"], **SMALL, widths=(16,) * levels, blocks=(1,) * levels)
    ).requires_grad_(False)
    assert torch.equal(with_instruct(model, fresh).denoiser(x, now, cond), before)


def test_guidance_towards_picture_and_words(model: Any) -> None:
    taught = with_instruct(model, for_model(model))
    x, now, cond = asked(taught, 2)
    nothing = taught.text(["", ""])
    guided = instructed(cond, nothing, cond.concat, [3.0, 1.0], [1.5, 1.0])
    found = taught.denoiser(x, now, guided)
    plain, seen, told = (
        taught.denoiser(x, now, one)
        for one in (
            replace(nothing, concat=torch.zeros_like(x)), replace(nothing, concat=cond.concat), cond,
        )
    )  # fmt: skip
    assert torch.allclose(found[0], (plain + 1.5 * (seen - plain) + 3.0 * (told - seen))[0], atol=1e-3)
    assert torch.allclose(found[1], told[1], atol=1e-4)


def test_without_its_picture_it_says_what_it_needs(model: Any) -> None:
    taught = with_instruct(model, for_model(model))
    x, now, cond = asked(taught)
    with pytest.raises(TaskError, match=r"this is an instruction model.*got none"):
        taught.denoiser(x, now, replace(cond, concat=None))
    with pytest.raises(TaskError, match="latents of 4x8x8; got 4x4x4"):
        taught.denoiser(x, now, replace(cond, concat=torch.ones(1, 4, 4, 4)))
    with pytest.raises(ModelError, match="is shown pictures already"):
        with_instruct(taught, for_model(model))


def test_it_acts_beside_a_control_and_with_layers_along_time(tmp_path: Path) -> None:
    model: Any = load_model(write_model(tmp_path / "model"), device="cpu")
    taught = with_instruct(model, for_model(model))
    x, now, cond = asked(taught, 2)
    alone = taught.denoiser(x, now, cond)
    levels = len(model.parts["unet"].config["block_out_channels"])
    edges = ControlAdapter(Layout.of(model.parts["unet"], 8, widths=(16,) * levels, blocks=(1,) * levels))
    for tap in edges.taps.parameters():
        nn.init.normal_(tap, std=0.1)
    save_adapter(tmp_path / "edges.safetensors", edges)
    control = Control("edges", control_from(tmp_path / "edges.safetensors", "canny", taught))
    told = replace(cond, residual_inputs={"edges": torch.rand(2, 3, 64, 64)})
    both = controlled(taught, [control]).denoiser(x, now, told)
    only = controlled(model, [control]).denoiser(x, now, rest_of(told))
    assert float((both - alone).abs().max()) > 1e-3 and float((both - only).abs().max()) > 1e-3
    moving = with_time(model, TimeSettings(inner=16, heads=2, head_width=8, vector=16, frames=2))
    told_film = with_instruct(moving, for_model(model)).over(2)
    # Layers along time begin as none, so that each frame is drawn as the picture is.
    assert torch.allclose(told_film.denoiser(x, now, cond), alone, atol=1e-5)


def test_a_whole_run_is_the_same_from_the_file(model: Any, tmp_path: Path) -> None:
    adapter = for_model(model)
    save_instruct(tmp_path / "told.safetensors", adapter, model)
    assert (tmp_path / "told.safetensors").stat().st_size < 0.4 * 4 * sum(p.numel() for p in adapter.parameters())
    read = with_instruct_file(model, tmp_path / "told.safetensors")
    assert read.fingerprint != model.fingerprint and "instruct" in read.parts

    def drawn(taught: Any) -> Tensor:
        schedule = taught.schedule(4, (64, 64))
        state = from_seeds([7], [RowId("a")], schedule, (4, 8, 8), taught.device)
        _, _, cond = asked(taught)
        guided = instructed(cond, taught.text([""]), cond.concat, 2.0, 1.0)
        return list(denoise(taught.denoiser, state, schedule, guided))[-1].x

    exact, stored = drawn(with_instruct(model, adapter)), drawn(read)
    assert float((exact - stored).abs().mean()) < 0.05 * float(exact.abs().mean())
    assert torch.equal(stored, drawn(with_instruct_file(model, tmp_path / "told.safetensors")))


def test_what_is_no_adapter_is_refused(tmp_path: Path, adapter: InstructAdapter) -> None:
    model: Any = load_model(write_model(tmp_path / "model"), device="cpu")
    file = tmp_path / "told.safetensors"
    with pytest.raises(ModelNotFoundError):
        with_instruct_file(model, file)
    save_instruct(file, adapter, model)
    with pytest.raises(CheckpointError, match=r"made for a UNet of another shape.*text of 24 channels"):
        with_instruct_file(model, file)
    unet = model.parts["unet"]
    levels = len(unet.config["block_out_channels"])
    with pytest.raises(ModelError, match=f"needs {levels} widths"):
        InstructLayout.of(unet, widths=(16,), blocks=(1,))
    with pytest.raises(ModelError, match="multiples of 8"):
        InstructLayout.of(unet, width=20, widths=(16,) * levels, blocks=(1,) * levels)
    whole = file.read_bytes()
    file.write_bytes(whole[:-50])
    with pytest.raises(CheckpointError, match=r"damaged|is cut"):
        read_instruct(file)
    edges = ControlAdapter(Layout.of(unet, 8, widths=(16,) * levels, blocks=(1,) * levels))
    save_adapter(file, edges)
    with pytest.raises(CheckpointError, match="holds no instruction adapter: expected a file that"):
        read_instruct(file)
    file.write_bytes(whole.replace(b'\\"width\\": 16', b'\\"width\\": 24'))
    with pytest.raises(CheckpointError, match="is no instruction adapter of Segue"):
        read_instruct(file)
    pickled = tmp_path / "told.bin"
    pickled.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UnsafeFileError):
        with_instruct_file(model, pickled)
