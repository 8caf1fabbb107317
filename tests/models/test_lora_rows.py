# pyright: basic
"""LoRAs whose scale differs from row to row: equal to merged ones, row by row, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_flow import write_flux, write_sd3

from segue.diffusion.guidance import classifier_free
from segue.errors import CheckpointError, TaskError
from segue.models.loading import load_model
from segue.models.lora import applied
from segue.models.lora_rows import SCALES, RowScaledText, attached
from segue.tasks.sampling import Sampling
from segue.tasks.transition import Transition
from segue.types import RowId
from segue.zoo.load import load

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
CURVE = "0s:0, 1s:1"


def write_lora(path: Path, model, layers: tuple[str, ...], seed: int = 0, rank: int = 3) -> Path:
    """Random factors of some layers, given as part.name."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in layers:
        part, _, name = layer.partition(".")
        weight = model.parts[part].get_submodule(name).weight
        kernel = (1,) * (weight.ndim - 2)
        tensors[f"{layer}.lora_A.weight"] = 0.3 * torch.randn(rank, *weight.shape[1:], generator=draw)
        tensors[f"{layer}.lora_B.weight"] = 0.3 * torch.randn(weight.shape[0], rank, *kernel, generator=draw)
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def drawing(model, tmp_path_factory) -> Path:
    """Of linear layers and convolutions of the UNet, one of which has a stride."""
    layers = (
        f"unet.{ATTENTION}",
        "unet.conv_in",
        "unet.down_blocks.0.downsamplers.0.conv",
        "unet.mid_block.resnets.0.conv1",
    )
    return write_lora(tmp_path_factory.mktemp("lora") / "drawing.safetensors", model, layers)


@pytest.fixture(scope="module")
def writing(model, tmp_path_factory) -> Path:
    """Of the text encoder, too."""
    names = [name for name, _ in model.parts["text_encoder"].named_modules() if name.endswith("q_proj")]
    layers = (f"unet.{ATTENTION}", *(f"text_encoder.{name}" for name in names))
    return write_lora(tmp_path_factory.mktemp("lora") / "writing.safetensors", model, layers, seed=1)


def answers(model, scales: list[list[float]] | None = None) -> torch.Tensor:
    """x0 of three rows, guided, with as many scales each as there are LoRAs."""
    texts = model.text(["a red apple", "a cat", "", ""])
    rows, draw = 3, torch.Generator().manual_seed(2)
    positive, negative = texts[[0, 1, 0]], texts[[2, 2, 3]]
    if scales is not None:
        extra = {SCALES: torch.tensor(scales)}
        positive, negative = replace(positive, extra=extra), replace(negative, extra=extra)
    at = model.schedule(5, (64, 64)).step(torch.tensor([1, 1, 3]), [RowId("row", row) for row in range(rows)])[0]
    x = torch.randn(rows, 4, 8, 8, generator=draw)
    return model.denoiser(x, at, classifier_free(positive, negative, 3.0))


def test_each_row_is_as_if_its_own_scale_were_merged(folder, drawing) -> None:
    told = attached(load_model(folder), {drawing: CURVE})
    scales = [0.0, 0.5, 1.3]
    found = answers(told, [[scale] for scale in scales])
    for row, scale in enumerate(scales):
        merged = answers(load_model(folder, loras={drawing: scale}))
        assert torch.allclose(found[row], merged[row], atol=1e-4)
        assert scale == 0 or (found[row] - answers(load_model(folder))[row]).abs().max() > 1e-2


def test_a_scale_of_zero_changes_no_bit(folder, drawing) -> None:
    told = attached(load_model(folder), {drawing: CURVE})
    assert torch.equal(answers(told, [[0.0]] * 3), answers(load_model(folder)))


@pytest.mark.parametrize("deterministic", [False, True])
def test_rows_keep_their_scales_however_calls_are_cut(folder, drawing, deterministic: bool) -> None:
    told = attached(load_model(folder), {drawing: CURVE})
    scales = [[0.2], [0.9], [0.4]]
    whole = answers(told, scales)
    for size in (1, 4):
        assert torch.allclose(answers(told.batched(size, deterministic=deterministic), scales), whole, atol=1e-4)


def test_two_files_have_two_scales_and_one_may_be_merged(folder, model, drawing, tmp_path) -> None:
    second = write_lora(tmp_path / "second.safetensors", model, (f"unet.{ATTENTION}",), seed=5)
    third = write_lora(tmp_path / "third.safetensors", model, ("unet.conv_in",), seed=6)
    told = load(str(folder), loras={drawing: CURVE, third: 0.4, second: "0s:1, 1s:0"})
    assert told.lora_curves == (CURVE, "0s:1, 1s:0")
    merged = load_model(folder, loras={drawing: 0.7, second: 0.2, third: 0.4})
    assert torch.allclose(answers(told, [[0.7, 0.2]] * 3), answers(merged), atol=1e-4)


def test_texts_are_encoded_with_the_scale_that_is_told(folder, writing) -> None:
    told = attached(load_model(folder), {writing: CURVE})
    assert isinstance(told.text, RowScaledText)
    for scale in (0.0, 0.6):
        merged = load_model(folder, loras={writing: scale})
        assert torch.allclose(told.text.at(["a cat"], [scale]).text, merged.text(["a cat"]).text, atol=1e-5)
    plain = load_model(folder).text(["a cat"]).text
    assert (told.text.at(["a cat"], [0.6]).text - plain).abs().max() > 1e-2
    assert torch.equal(told.text(["a cat"]).text, plain)


def test_a_lora_of_the_unet_alone_leaves_texts_alone(folder, drawing) -> None:
    assert not isinstance(attached(load_model(folder), {drawing: CURVE}).text, RowScaledText)


def test_what_is_no_film_is_refused(folder, drawing) -> None:
    with pytest.raises(TaskError, match="changes over a film, and this is none: give it one number"):
        answers(attached(load_model(folder), {drawing: CURVE}))


def test_the_fingerprint_knows_the_curve(folder, drawing) -> None:
    base = load_model(folder)
    prints = {attached(base, {drawing: curve}).fingerprint for curve in (CURVE, "0s:0, 1s:0.5")}
    assert len(prints | {base.fingerprint}) == 3


def test_other_architectures_are_refused(folder, short_model, tmp_path) -> None:
    path = tmp_path / "wrong.safetensors"
    save_file({"unet.nowhere.lora_A.weight": torch.ones(1, 2), "unet.nowhere.lora_B.weight": torch.ones(2, 1)}, path)
    with pytest.raises(CheckpointError, match="has no layer"):
        attached(short_model, {path: CURVE})


@pytest.mark.parametrize(("write", "part"), [(write_flux, "text_encoder_2"), (write_sd3, "text_encoder_3")])
def test_a_curve_reaches_t5_and_leaves_nothing_behind(write, part, tmp_path) -> None:
    folder = write(tmp_path / "model")
    base = load(folder, "cpu")
    names = [name for name, layer in base.parts[part].named_modules() if isinstance(layer, torch.nn.Linear)]
    lora = write_lora(tmp_path / "t5.safetensors", base, tuple(f"{part}.{name}" for name in names))
    task = Transition(("a cat", "a red apple"), seconds=0.5, sampling=Sampling(steps=2, size=(32, 32)))
    told = load(folder, "cpu", loras={lora: "0s:0, 0.5s:1"})
    plain, curved = (task.run(model).frames[:] for model in (base, told))
    assert torch.equal(plain[0], curved[0]), "the curve begins at 0"
    assert (plain[-1] - curved[-1]).abs().max() > 1e-4
    text = base.text(["a cat"]).text
    assert isinstance(told.text, RowScaledText)
    assert not torch.equal(told.text.at(["a cat"], [1.0]).text, text)
    assert torch.equal(told.text(["a cat"]).text, text)
    with applied(base, {lora: 1.0}):
        assert torch.allclose(base.text(["a cat"]).text, told.text.at(["a cat"], [1.0]).text, atol=1e-4)
    assert torch.equal(base.text(["a cat"]).text, text)
