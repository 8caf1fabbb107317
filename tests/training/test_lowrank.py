"""Trained updates begin as none, are all that is trained, and their file says what the network computed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from tiny import write_model
from torch import Tensor, nn

from segue.models.loading import load_model
from segue.models.lora import applied
from segue.training.lowrank import add_low_rank, save_lora


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), prediction="v_prediction", length=24, vae="tiny")


def answer(unet: nn.Module, text: Tensor) -> Tensor:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return unet(x, torch.tensor([400.0, 10.0]), encoder_hidden_states=text).sample


def disturbed(updates: nn.ModuleDict) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in updates.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)


def test_an_update_begins_as_none_and_is_all_that_is_trained(folder: Path) -> None:
    model: Any = load_model(folder, device="cpu")
    network = copy.deepcopy(model.parts["unet"])
    text = model.text(["apple", "cat"]).text
    before = answer(network, text)
    updates = add_low_rank(network, 2)
    # W + 0 is W; its numbers may lie in another order in memory, by which a convolution chooses its sums.
    assert torch.equal(network.conv_in.weight, model.parts["unet"].conv_in.weight)
    assert answer(network, text).allclose(before, rtol=0, atol=1e-5)
    trained = {id(value) for value in network.parameters() if value.requires_grad}
    assert trained == {id(value) for value in updates.parameters()}
    disturbed(updates)
    assert not answer(network, text).allclose(before, atol=1e-2)


def test_the_file_says_what_the_network_computed_and_diffusers_agrees(folder: Path, tmp_path: Path) -> None:
    model: Any = load_model(folder, device="cpu")
    network = copy.deepcopy(model.parts["unet"])
    updates = add_low_rank(network, 2)
    disturbed(updates)
    text = model.text(["apple", "cat"]).text
    path = tmp_path / "student.safetensors"
    save_lora(path, network, "unet", dict(updates.named_parameters()))
    expected = answer(network, text)
    with applied(model, {path: 1.0}):
        assert answer(model.parts["unet"], text).allclose(expected, atol=5e-3), "half precision is all that is lost"
    pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.load_lora_weights(path)
    assert answer(pipeline.unet, text).allclose(expected, atol=5e-3)


def test_a_small_layer_is_not_given_more_than_it_has(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(8, 3, 3), nn.Linear(2, 50))
    updates = add_low_rank(network, 16)
    save_lora(tmp_path / "small.safetensors", network, "unet", dict(updates.named_parameters()))
    shapes = {key: tuple(value.shape) for key, value in load_file(tmp_path / "small.safetensors").items()}
    assert shapes == {
        "unet.0.lora_A.weight": (3, 8, 3, 3),
        "unet.0.lora_B.weight": (3, 3, 1, 1),
        "unet.1.lora_A.weight": (2, 2),
        "unet.1.lora_B.weight": (50, 2),
    }
