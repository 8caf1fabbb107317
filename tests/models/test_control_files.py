# pyright: basic
"""Control networks are read from every place and layout, and called by name where they do not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import write_model
from tiny_control import to_original, write_adapter, write_controlnet
from tiny_upscaler import write_upscaler
from tiny_xl import write_xl

from segue.errors import CheckpointError, ModelError, ModelNotFoundError, UnsafeFileError
from segue.models import control_files, kinds
from segue.models.control import Control, controlled
from segue.models.control_files import ControlNet, load_control
from segue.models.hub import Repository
from segue.models.loading import load_model
from segue.models.placement import Placement
from segue.types import Call, Point, RowId
from segue.zoo.load import load as load_placed
from segue.zoo.load import load_control as load_from_zoo

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def net(tmp_path_factory, folder) -> Path:
    return write_controlnet(tmp_path_factory.mktemp("net") / "net", folder, seed=1)


@pytest.fixture(scope="module")
def xl_folder(tmp_path_factory) -> Path:
    return write_xl(tmp_path_factory.mktemp("xl") / "xl")


def answer(network: Any, model) -> torch.Tensor:
    """All that a network adds, as one row of numbers."""
    generator = torch.Generator().manual_seed(0)
    x, hint = torch.randn(1, 4, 8, 8, generator=generator), torch.rand(1, 3, 64, 64, generator=generator)
    at: Point = model.schedule(10, (64, 64)).step(torch.tensor([3]), (RowId("a"),))[0]
    found = network(x, at.time, model.text(["a cat"]), hint, Call(at, at.rows, (0,)))
    parts = (*found.down, *([] if found.mid is None else [found.mid]), *found.within)
    return torch.cat([part.float().flatten() for part in parts])


def test_a_file_of_either_layout_is_the_same_network(net, model, tmp_path):
    expected = answer(load_control(net, model), model)
    assert expected.abs().mean() > 0.01
    for path in (to_original(net, tmp_path / "original.safetensors"), net / WEIGHTS):
        assert torch.equal(answer(load_control(path, model), model), expected)
    assert torch.equal(answer(load_from_zoo(net, model), model), expected)


def test_files_of_shuffle_nets_are_pooled(net, model, tmp_path):
    path = to_original(net, tmp_path / "control_v11e_sd15_shuffle.safetensors")
    assert load_control(path, model).pooled
    assert not load_control(path, model, pooled=False).pooled
    folder = load_control(net, model)
    assert (folder.pooled, load_control(net, model, pooled=True).pooled) == (False, True)
    added = load_control(path, model)(*told(model))
    assert added.mid is not None
    assert {tuple(part.shape[-2:]) for part in (*added.down, added.mid)} == {(1, 1)}


def told(model) -> tuple[Any, ...]:
    at = model.schedule(10, (64, 64)).step(torch.tensor([3]), (RowId("a"),))[0]
    return torch.zeros(1, 4, 8, 8), at.time, model.text(["a cat"]), torch.zeros(1, 3, 64, 64), Call(at, at.rows, (0,))


def test_a_network_is_what_its_model_is(net, folder):
    half = load_model(folder, device="cpu", dtype="bfloat16")
    network = load_control(net, half)
    assert isinstance(network, ControlNet)
    assert network.module.dtype == torch.bfloat16
    assert not network.module.training
    assert not any(parameter.requires_grad for parameter in network.module.parameters())
    exact = load_model(folder, device="cpu")
    expected = answer(load_control(net, exact), exact)
    assert 0 < (answer(network, half) - expected).abs().mean() < 0.1 * expected.abs().mean()
    stored = load_placed(folder, device="cpu", placement=Placement(storage="float8"))
    small = load_control(net, stored)
    assert torch.float8_e4m3fn in {parameter.dtype for parameter in small.module.parameters()}
    assert 0 < (answer(small, stored) - expected).abs().mean() < 0.5 * expected.abs().mean()


def test_nets_of_other_models_are_named(net, folder, model, xl_folder, tmp_path):
    xl, wide = load_model(xl_folder, device="cpu"), load_model(write_model(tmp_path / "wide", layers_per_block=2))
    xl_net = write_controlnet(tmp_path / "xl_net", xl_folder)
    with pytest.raises(
        CheckpointError, match=r"xl_net is a ControlNet for models of text width 80, and .*kl is models"
    ):
        load_control(xl_net, model)
    with pytest.raises(CheckpointError, match="is a ControlNet for models of text width 32"):
        load_control(net, xl)
    with pytest.raises(CheckpointError, match="its layers_per_block is 1, the UNet's 2"):
        load_control(net, wide)
    with pytest.raises(CheckpointError, match="is a ControlNet, and none for"):
        load_control(to_original(net, tmp_path / "original.safetensors"), xl)
    upscaler = load_model(write_upscaler(tmp_path / "upscaler"), device="cpu")
    with pytest.raises(ModelError, match=r"is an upscaler: controls and reference pictures work with the UNets of"):
        load_control(net, upscaler)


def test_inpainting_models_take_the_nets_of_what_they_were_made_from(net, model, tmp_path):
    """The net sees the latents, and neither mask nor picture."""
    inpainting = load_model(write_model(tmp_path / "inpainting", in_channels=9), device="cpu")
    expected = answer(load_control(net, model), model)
    for source in (net, to_original(net, tmp_path / "original.safetensors")):
        network = load_control(source, inpainting)
        assert torch.equal(answer(network, inpainting), expected)
        bound = controlled(inpainting, [Control("edges", network)])
        x, _, text, hint, call = told(inpainting)
        shown = replace(text, concat=torch.zeros(1, 5, 8, 8), residual_inputs={"edges": hint})
        at = call.at
        plain = inpainting.denoiser(x, at, replace(shown, residual_inputs={}))
        assert (bound.denoiser(x, at, shown) - plain).abs().max() > 0.01


def test_a_file_of_another_family_is_named(model, tmp_path, monkeypatch):
    monkeypatch.setattr(control_files, "family_of", lambda config: kinds.SD1)
    place = "control_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({place: torch.zeros(8, 2048)}, tmp_path / "xl.safetensors")
    with pytest.raises(
        CheckpointError, match=r"is a ControlNet for Stable Diffusion XL, and .* is Stable Diffusion 1.x"
    ):
        load_control(tmp_path / "xl.safetensors", model)


def test_models_without_such_a_unet_are_named(net, model):
    def transformer(x, time, cond, call):
        return x

    for family, name in (("sd3", "Stable Diffusion 3"), ("flux", "FLUX"), ("", "of an unknown family")):
        other = replace(model, name="x", family=family, denoiser=replace(model.denoiser, network=transformer))
        with pytest.raises(ModelError, match=f"x is {name}: controls and reference pictures work with the UNets"):
            load_control(net, other)


def test_families_are_called_by_their_names():
    names = [control_files.family_of({"cross_attention_dim": width}) for width in (768, 1024, 2048, 64)]
    assert names == [kinds.SD1, kinds.SD2, kinds.XL, "models of text width 64"]


def test_pictures_of_another_scale_are_refused(net, model, tmp_path):
    odd = Path(shutil.copytree(net, tmp_path / "odd"))
    config = json.loads((odd / "config.json").read_text())
    tensors = load_file(odd / WEIGHTS)
    first = "controlnet_cond_embedding.conv_in.weight"
    save_file({**tensors, first: tensors[first].repeat(1, 2, 1, 1)}, odd / WEIGHTS)
    (odd / "config.json").write_text(json.dumps({**config, "conditioning_channels": 6}))
    with pytest.raises(CheckpointError, match=r"pictures of 6 and 8 pixels per latent; .* has 4, 3 and 8"):
        load_control(odd, model)


def test_adapters_are_read_and_checked(model, xl_folder, tmp_path):
    xl = load_model(xl_folder, device="cpu")
    fits = write_adapter(tmp_path / "fits", (32, 64))
    grey = write_adapter(tmp_path / "grey", (32, 64), in_channels=1)
    light = write_adapter(tmp_path / "light", (32, 64), adapter_type="light_adapter")
    for source in (fits, grey, light):
        assert answer(load_control(source, model), model).abs().mean() > 0.001
    assert load_control(fits, model).weights == (fits / WEIGHTS,)
    with pytest.raises(CheckpointError, match="its levels have \\[32, 48\\] channels, the UNet's \\[32, 64\\]"):
        load_control(write_adapter(tmp_path / "narrow", (32, 48)), model)
    with pytest.raises(CheckpointError, match=r"is a T2I-Adapter for Stable Diffusion 1.x, and"):
        load_control(fits, xl)


def test_what_is_no_control_network_is_named(net, folder, model, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"holds a UNet2DConditionModel; expected a ControlNetModel or a T2IAdapter"
    ):
        load_control(folder / "unet", model)
    with pytest.raises(
        CheckpointError, match=r"is a UNet for .*; expected a ControlNet|is a UNet; expected a ControlNet"
    ):
        load_control(folder / "unet" / WEIGHTS, model)
    pickle = Path(shutil.copytree(net, tmp_path / "pickle"))
    (pickle / WEIGHTS).rename(pickle / "diffusion_pytorch_model.bin")
    with pytest.raises(UnsafeFileError, match="pickle"):
        load_control(pickle, model)
    (tmp_path / "control.ckpt").write_bytes(b"PK")
    with pytest.raises(UnsafeFileError, match="pickle"):
        load_control(tmp_path / "control.ckpt", model)
    whole = load_file(to_original(net, tmp_path / "original.safetensors"))
    cut = {key: value for key, value in whole.items() if "zero_convs.1" not in key}
    save_file(cut, tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointError, match=r"cut.safetensors is"):
        load_control(tmp_path / "cut.safetensors", model)


def test_kinds_are_the_usual_repositories(net, model, monkeypatch):
    asked: list[Repository] = []

    def found(repository: Repository) -> Path:
        asked.append(repository)
        return net

    monkeypatch.setattr(control_files, "download_network", found)
    monkeypatch.setattr(control_files, "family_of", lambda config: kinds.SD1)
    load_control("depth", model)
    load_control("somebody/control@main", model)
    assert asked == [Repository("lllyasviel/control_v11f1p_sd15_depth"), Repository("somebody/control", "main")]
    with pytest.raises(ModelNotFoundError, match=r"or a kind; for Stable Diffusion 1.x, there are: canny, softedge"):
        load_control("scribbles", model)
    with pytest.raises(UnsafeFileError, match="pickle"):
        load_control("somebody/control/net.ckpt", model)
