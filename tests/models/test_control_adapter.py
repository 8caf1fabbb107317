"""A control adapter adds nothing at first, fits its UNet at every size, and is told apart kinds of pictures."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_unet, write_model
from torch import Tensor, nn

import segue
from segue.errors import CheckpointError, ModelError, TaskError
from segue.models.control import Control, controlled
from segue.models.control_adapter import (
    KINDS,
    METADATA,
    AdapterControl,
    ControlAdapter,
    Layout,
    control_from,
    is_adapter,
    learned,
    read_adapter,
    save_adapter,
)
from segue.models.loading import load_model
from segue.types import Call, Conditioning, RowId

SMALL: dict[str, Any] = {"widths": (16, 24), "blocks": (1, 1), "embedding": 16}


def disturbed(adapter: ControlAdapter, seed: int = 1) -> ControlAdapter:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in adapter.taps.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return adapter.eval()


def inputs(rows: int, height: int, width: int, scale: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(rows, 4, height, width, generator=generator)
    picture = torch.rand(rows, 3, height * scale, width * scale, generator=generator)
    return x, torch.linspace(900, 100, rows), picture


@pytest.fixture(scope="module")
def unet() -> Any:
    torch.manual_seed(0)
    return tiny_unet().eval()


@pytest.fixture(scope="module")
def adapter(unet: Any) -> ControlAdapter:
    torch.manual_seed(3)
    return ControlAdapter(Layout.of(unet, 8, **SMALL)).eval()


def answer(unet: Any, x: Tensor, time: Tensor, told: tuple[tuple[Tensor, ...], Tensor] | None) -> Tensor:
    text = torch.randn(len(x), 5, 32, generator=torch.Generator().manual_seed(4))
    more: dict[str, Any] = {}
    if told is not None:
        more = {"down_block_additional_residuals": told[0], "mid_block_additional_residual": told[1]}
    with torch.no_grad():
        return unet(x, time, encoder_hidden_states=text, **more).sample


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 10), (5, 7)])
def test_it_fits_the_unet_at_every_size_and_adds_nothing_at_first(
    unet: Any, adapter: ControlAdapter, height: int, width: int
) -> None:
    x, time, picture = inputs(2, height, width)
    kind = torch.tensor([0, KINDS.index("depth")])
    plain = answer(unet, x, time, None)
    with torch.no_grad():
        assert answer(unet, x, time, adapter(x, time, kind, picture)).equal(plain)
        told = disturbed(ControlAdapter(adapter.layout))(x, time, kind, picture)
    assert not answer(unet, x, time, told).allclose(plain, atol=1e-2)


def test_the_layout_of_three_sizes_is_that_of_the_unet() -> None:
    blocks = {"down_block_types": ("DownBlock2D",) * 3, "up_block_types": ("UpBlock2D",) * 3}
    unet = tiny_unet(block_out_channels=(16, 32, 48), layers_per_block=2, **blocks)
    adapter = disturbed(ControlAdapter(Layout.of(unet, 8, widths=(8, 8, 16), blocks=(1, 0, 1), embedding=8)))
    seen: list[tuple[int, ...]] = []

    def note(_: nn.Module, __: Any, out: Tensor) -> None:
        seen.append(tuple(out.shape))

    stages: Any = unet.down_blocks
    skips = [part for block in stages for part in (*block.resnets, *(block.downsamplers or ()))]
    for part in (unet.conv_in, *skips, unet.mid_block):
        part.register_forward_hook(note)
    x, time, picture = inputs(2, 9, 12)
    answer(unet, x, time, None)
    with torch.no_grad():
        down, middle = adapter(x, time, torch.zeros(2, dtype=torch.int64), picture)
    assert [tuple(part.shape) for part in (*down, middle)] == seen


def test_kinds_say_different_things_and_rows_do_not_hear_each_other(adapter: ControlAdapter) -> None:
    net = disturbed(ControlAdapter(adapter.layout))
    x, time, picture = inputs(1, 6, 6)
    kinds = torch.arange(len(KINDS))
    with torch.no_grad():
        many = net(x.repeat(len(KINDS), 1, 1, 1), time.repeat(len(KINDS)), kinds, picture.repeat(len(KINDS), 1, 1, 1))
        alone = [net(x, time, kinds[[row]], picture) for row in range(len(KINDS))]
    for row, one in enumerate(alone):
        assert all(part[row].allclose(own[0], atol=1e-5) for part, own in zip(many[0], one[0], strict=True))
        others = [other for other in range(len(KINDS)) if other != row]
        assert all(not many[1][row].allclose(many[1][other], atol=1e-3) for other in others)


def test_a_shuffled_picture_says_the_same_to_all_places(adapter: ControlAdapter) -> None:
    net = disturbed(ControlAdapter(adapter.layout))
    x, time, picture = inputs(2, 6, 8)
    with torch.no_grad():
        down, _ = net(x, time, torch.tensor([KINDS.index("shuffle"), KINDS.index("tile")]), picture)
    for part in down:
        assert part[0].allclose(part[0][:, :1, :1], atol=1e-6)
        assert not part[1].allclose(part[1][:, :1, :1], atol=1e-2)


def test_a_picture_of_another_size_is_refused(adapter: ControlAdapter) -> None:
    x, time, picture = inputs(1, 6, 8)
    with pytest.raises(TaskError, match="64x48; got 48x64"):
        adapter(x, time, torch.zeros(1, dtype=torch.int64), picture.mT)


def test_widths_must_fit_the_unet(unet: Any) -> None:
    with pytest.raises(ModelError, match="2 widths"):
        Layout.of(unet, 8, widths=(16, 16, 16), blocks=(1, 1, 1))
    with pytest.raises(ModelError, match="multiples of 8"):
        Layout.of(unet, 8, widths=(16, 20), blocks=(1, 1))


def test_the_file_holds_nearly_the_same_in_a_quarter_of_the_bytes(adapter: ControlAdapter, tmp_path: Path) -> None:
    net = disturbed(ControlAdapter(adapter.layout))
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, net)
    back = read_adapter(path)
    assert back.layout == net.layout and not any(value.requires_grad for value in back.parameters())
    x, time, picture = inputs(2, 6, 8)
    with torch.no_grad():
        (one, _), (other, _) = (each(x, time, torch.tensor([0, 3]), picture) for each in (net, back))
    for before, after in zip(one, other, strict=True):
        assert float((before - after).norm() / before.norm()) < 0.03
    whole = sum(4 * value.numel() for value in net.parameters())
    assert path.stat().st_size < 0.5 * whole, (
        "most of it is weights, whose scales and names take room in so small a net"
    )


def test_what_is_no_adapter_is_refused(tmp_path: Path, adapter: ControlAdapter) -> None:
    path = tmp_path / "adapter.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no control adapter"):
        read_adapter(path)
    save_adapter(path, adapter)
    tensors = load_file(path)
    del tensors["latents.weight"]
    for said in ("{}", "[]", '{"skips": [[1, 99]]}'):
        save_file(tensors, path, {"segue_control_adapter": said})
        with pytest.raises(CheckpointError, match="no control adapter"):
            read_adapter(path)
    torn = deepcopy(adapter)
    next(iter(torn.parameters())).data.fill_(float("nan"))
    save_adapter(path, torn)
    with pytest.raises(CheckpointError, match="not finite"):
        read_adapter(path)


def test_a_controlled_model_hears_it(tmp_path: Path, adapter: ControlAdapter) -> None:
    model = load_model(write_model(tmp_path / "model", vae="tiny"), device="cpu")
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, disturbed(ControlAdapter(adapter.layout)))
    network = control_from(path, "softedge", model)
    assert isinstance(network, AdapterControl) and not network.pooled
    assert control_from(path, "shuffle", model).pooled
    x, _, picture = inputs(2, 8, 8)
    at, _ = model.schedule(4, (64, 64)).step(torch.tensor([0, 2]))
    text = model.text(["a cat", "a dog"])
    call = Call(at, (RowId("a"), RowId("b")), (0, 0))
    steered = controlled(model, [Control("edges", network)])
    shown = replace(text, residual_inputs={"edges": picture})
    with torch.no_grad():
        heard = steered.denoiser.network(x, at.time, shown, call)
        told = network(x, at.time, text, picture, call)
        unet: Any = model.parts["unet"]
        wanted = unet(
            x,
            at.time.float(),
            text.text,
            down_block_additional_residuals=told.down,
            mid_block_additional_residual=told.mid,
        ).sample
    assert heard.allclose(wanted, atol=1e-6)
    assert model.denoiser.network(x, at.time, Conditioning(text.text), call).shape == heard.shape


@pytest.mark.parametrize("place", ["file", "folder"])
def test_one_of_your_own_is_loaded_by_its_place_and_a_kind(place: str, tmp_path: Path, adapter: ControlAdapter) -> None:
    """What `segue train control` writes, with the kinds that it has learned."""
    model = load_model(write_model(tmp_path / "model", vae="tiny"), device="cpu")
    path = tmp_path / "run" / "adapter.safetensors"
    path.parent.mkdir()
    save_adapter(path, disturbed(ControlAdapter(adapter.layout)), ["tile", "pose"])
    source = path if place == "file" else path.parent
    x, time, picture = inputs(1, 8, 8)
    at, _ = model.schedule(4, (64, 64)).step(torch.tensor([0]))
    told = x, time, model.text(["a cat"]), picture, Call(at, (RowId("a"),), (0,))
    found = segue.load_control(source, model, "tile")
    with torch.no_grad():
        heard, wanted = found(*told), control_from(path, "tile", model)(*told)
        other = segue.load_control(str(source), model, "pose")(*told)
    assert all(one.equal(two) for one, two in zip(heard.down, wanted.down, strict=True))
    assert not any(one.equal(two) for one, two in zip(heard.down, other.down, strict=True))
    with pytest.raises(ModelError, match="say which yours are, one of tile, pose"):
        segue.load_control(source, model)
    with pytest.raises(ModelError, match=r'adapter.safetensors has not learned "depth"; expected one of tile, pose'):
        segue.load_control(source, model, "depth")
    with pytest.raises(ModelError, match='no kind "hed"'):
        segue.load_control(source, model, "hed")


def test_a_file_that_says_nothing_of_its_kinds_takes_all(tmp_path: Path, adapter: ControlAdapter) -> None:
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, adapter)
    assert is_adapter(path) and learned(path) == ()
    save_file(load_file(path), path)
    assert not is_adapter(path)
    save_file(load_file(path), path, {METADATA: '{"kinds": ["softedge", "hed"]}'})
    with pytest.raises(CheckpointError, match="what it says of its kinds"):
        learned(path)


def test_another_unet_is_refused(tmp_path: Path, adapter: ControlAdapter) -> None:
    model = load_model(write_model(tmp_path / "model", vae="tiny", block_out_channels=(32, 96)), device="cpu")
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, adapter)
    with pytest.raises(CheckpointError, match="another shape"):
        control_from(path, "softedge", model)
    with pytest.raises(ModelError, match='no kind "hed"'):
        control_from(path, "hed", model)
