# pyright: basic
"""What weights are stored as, and where networks wait: no bit is lost by waiting, few by storing."""

from __future__ import annotations

import copy
import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import write_model
from tiny_flow import write_flux, write_sd3
from tiny_xl import write_xl
from torch import nn

from segue.errors import MissingExtraError, ModelError
from segue.models.bundle import LatentDiffusion
from segue.models.lora import merged
from segue.models.placement import Placement, Residence, _addressed, placed, store, stored_layers
from segue.tasks.image import Image
from segue.tasks.outlook import Asked, outlook
from segue.tasks.sampling import Sampling
from segue.zoo.load import load

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LATENTS = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def own(model: LatentDiffusion) -> LatentDiffusion:
    """A model of one's own, whose networks may be changed."""
    parts = {name: copy.deepcopy(part) for name, part in model.parts.items()}
    network: Any = model.denoiser.network
    text: Any = model.text
    codec: Any = model.codec
    return replace(
        model,
        parts=parts,
        denoiser=replace(model.denoiser, network=replace(network, unet=parts["unet"])),
        text=replace(text, encoder=parts["text_encoder"]),
        codec=replace(codec, vae=parts["vae"]),
    )


def made(model: LatentDiffusion) -> torch.Tensor:
    """A picture by all networks of a model: text, one call, decoding."""
    cond = model.text(["a boat", "a house", "a boat"])
    point, _ = model.schedule(4, (64, 64)).step(torch.tensor([1, 1, 2]))
    return model.codec.decode(model.denoiser(LATENTS, point, cond))


def bytes_of(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in network.parameters())


def test_networks_that_wait_elsewhere_make_the_same_bits(own: LatentDiffusion, monkeypatch) -> None:
    whole = made(own)
    residence = Residence(dict(own.parts), CPU)
    residence.guard()
    came: list[str] = []
    enter, leave = residence.enter, residence.leave

    def entered(name: str) -> None:
        if residence.inside != name:
            came.append(name)
        enter(name)

    def left() -> None:
        """Where there is one device, what is away still lies at hand: spoil it, so that its use is seen."""
        leave()
        for name, part in own.parts.items():
            if name != residence.inside:
                for tensor in part.parameters():
                    tensor.data = torch.full_like(tensor.data, float("nan"))

    monkeypatch.setattr(residence, "enter", entered)
    monkeypatch.setattr(residence, "leave", left)
    left()
    assert torch.equal(made(own), whole)
    assert came == ["text_encoder", "unet", "vae"]
    assert all(tensor.isnan().all() for tensor in own.parts["unet"].parameters())
    assert torch.equal(made(own), whole)
    assert came == ["text_encoder", "unet", "vae"] * 2


def test_a_network_that_stays_is_not_fetched_again(own) -> None:
    residence = Residence(dict(own.parts), CPU)
    residence.guard()
    made(own)
    before = [tensor.data_ptr() for tensor in own.parts["vae"].parameters()]
    own.codec.decode(LATENTS)
    assert residence.inside == "vae"
    assert [tensor.data_ptr() for tensor in own.parts["vae"].parameters()] == before


def test_layers_that_wait_elsewhere_make_the_same_bits(own, monkeypatch) -> None:
    whole = made(own)
    monkeypatch.setattr("segue.models.placement.SHARED", ())
    assert torch.equal(made(placed(own, Placement(offload="sequential"), CPU)), whole)
    hooked = [module for module in own.parts["unet"].modules() if hasattr(module, "_diffusers_hook")]
    assert len(hooked) > 20


def test_float8_takes_a_quarter_of_float32_and_every_byte_is_accounted_for(own) -> None:
    before = {name: bytes_of(part) for name, part in own.parts.items()}
    layers = {name: stored_layers(part) for name, part in own.parts.items()}
    numbers = {
        name: sum(p.numel() for layer in found for p in layer.parameters(recurse=False))
        for name, found in layers.items()
    }
    model = placed(own, Placement(storage="float8"), CPU)
    for name in ("unet", "text_encoder"):
        assert numbers[name] > 0
        assert bytes_of(model.parts[name]) == before[name] - 3 * numbers[name]
    assert bytes_of(model.parts["vae"]) == before["vae"]
    assert {layer.weight.dtype for layer in layers["unet"]} == {torch.float8_e4m3fn}


def test_float8_computes_in_the_dtype_of_the_model_and_changes_little(own) -> None:
    whole = made(own)
    model = placed(own, Placement(storage="float8"), CPU)
    again = made(model)
    assert model.parts["unet"].dtype == torch.float32
    assert not torch.equal(again, whole)
    assert (again - whole).abs().mean() < 0.02
    assert torch.equal(made(model), again)
    assert model.parts["unet"].get_submodule("conv_in").weight.dtype == torch.float8_e4m3fn


@pytest.mark.parametrize("write", [write_xl, write_sd3, write_flux])
def test_every_family_can_be_kept_otherwise(write, tmp_path, monkeypatch) -> None:
    folder = write(tmp_path / "model")
    task = Image("a boat", sampling=Sampling(steps=2))

    def picture(**how: Any) -> torch.Tensor:
        return task.run(load(folder, "cpu", placement=Placement(**how))).frames[0:1]

    whole, small = picture(), picture(storage="float8")
    assert not torch.equal(small, whole)
    assert (small - whole).abs().mean() < 0.05
    monkeypatch.setattr("segue.models.placement.SHARED", ())
    for offload in ("model", "sequential"):
        assert torch.equal(picture(offload=offload), whole)
        assert torch.equal(picture(offload=offload, storage="float8"), small)


@pytest.mark.parametrize("write", [write_sd3, write_flux])
def test_t5_is_moved_by_one_alone(write, tmp_path, monkeypatch) -> None:
    """T5 is called again and again, and nobody in between; what is away is spoilt, so that its use is seen."""
    folder = write(tmp_path / "model")
    prompts = ("a cat", "a red apple", "a green apple")
    plain: Any = load(folder, "cpu").text
    guard, leave = Residence.guard, Residence.leave

    def guarded(residence: Residence) -> None:
        guard(residence)
        residence.leave()

    def left(residence: Residence) -> None:
        leave(residence)
        for part in residence.networks.values():
            for tensor in part.parameters():
                tensor.data = torch.full_like(tensor.data, float("nan"))

    monkeypatch.setattr(Residence, "guard", guarded)
    monkeypatch.setattr(Residence, "leave", left)
    monkeypatch.setattr("segue.models.placement.SHARED", ())
    text: Any = load(folder, "cpu", placement=Placement(offload="model")).text
    for prompt in prompts:
        assert torch.equal(text.t5([prompt]), plain.t5([prompt]))
    for prompt in prompts:
        assert torch.equal(text([prompt]).text, plain([prompt]).text)


def test_text_encoders_are_told_where_embeddings_go(tmp_path) -> None:
    text: Any = load(write_flux(tmp_path / "model"), "cpu").text
    there = _addressed(text, torch.device("meta"), visits=False)
    assert (text.t5.device.type, there.t5.device.type) == ("cpu", "meta")
    assert (text.t5.visits, there.t5.visits) == (True, False)
    assert there.t5.encoder is text.t5.encoder
    assert _addressed(text.clip, torch.device("meta"), visits=False) is text.clip


def test_storage_is_a_part_of_what_a_model_is_and_waiting_is_not(own, monkeypatch) -> None:
    monkeypatch.setattr("segue.models.placement.SHARED", ())
    plain = own.fingerprint
    assert placed(copy.copy(own), Placement(offload="model"), CPU).fingerprint == plain
    assert replace(own, placement=Placement(storage="float8")).fingerprint != plain


def test_loras_come_before_storage(folder, own, tmp_path) -> None:
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    width = own.parts["unet"].get_submodule(layer).weight.shape[0]
    factors = {"A": torch.randn(2, width), "B": torch.randn(width, 2)}
    file = tmp_path / "lora.safetensors"
    save_file({f"unet.{layer}.lora_{side}.weight": factor for side, factor in factors.items()}, file)
    model = load(folder, "cpu", loras={file: 1.0}, placement=Placement(storage="float8"))
    base, stored = (made.parts["unet"].get_parameter(f"{layer}.weight") for made in (own, model))
    wanted = base + factors["B"] @ factors["A"]
    assert torch.equal(stored.float(), wanted.to(torch.float8_e4m3fn).float())
    with pytest.raises(ModelError, match="are stored in float8, and a LoRA is merged before that"):
        merged(model, {file: 1.0})


def test_a_model_is_placed_once(own) -> None:
    model = placed(own, Placement(storage="float8"), CPU)
    with pytest.raises(ModelError, match="load it anew"):
        placed(model, Placement(), CPU)


def test_what_cannot_be_is_refused_by_name() -> None:
    made: Any = Placement
    with pytest.raises(ModelError, match=r"storage must be float8 or int8, or left out; got 'fp8'"):
        made(storage="fp8")
    with pytest.raises(ModelError, match=r"offload must be model or sequential"):
        made(offload="all")
    with pytest.raises(ModelError, match="int8 stay on the device: leave offload out"):
        Placement(storage="int8", offload="model")
    for device in ("cpu", "mps"):
        with pytest.raises(ModelError, match=f"makes room on a graphics card, and {device} computes in main memory"):
            Placement(offload="model").check(torch.device(device))
    Placement(offload="model").check(CUDA)


def test_int8_is_refused_where_a_network_waits(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("segue.models.placement.store", lambda *_: None)
    with pytest.raises(ModelError, match=r"text_encoder_2 of .* waits in main memory: take storage float8"):
        load(write_flux(tmp_path / "flux"), "cpu", placement=Placement(storage="int8"))
    load(write_sd3(tmp_path / "sd3", with_t5=False), "cpu", placement=Placement(storage="int8"))


@pytest.mark.parametrize(("write", "waits"), [(write_flux, True), (write_sd3, True), (write_model, False)])
def test_a_forecast_refuses_the_storage_that_loading_refuses(write, waits, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("segue.models.placement.store", lambda *_: None)
    folder, placement = write(tmp_path / "model"), Placement(storage="int8")
    asked = Asked(folder, "cpu", placement=placement)
    for ask in (lambda: load(folder, "cpu", placement=placement), lambda: outlook(asked, timed=False)):
        with pytest.raises(ModelError, match="take storage float8") if waits else nullcontext():
            ask()


def test_int8_asks_for_its_package(own, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(MissingExtraError, match=r'pip install "segue\[int8\]"'):
        store(own.parts["unet"], "int8", torch.float32)


def test_int8_keeps_products_in_a_byte(own) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed: it is the extra [int8]")
    whole = made(own)
    model = placed(own, Placement(storage="int8"), CPU)
    again = made(model)
    assert not torch.equal(again, whole)
    assert (again - whole).abs().mean() < 0.02
