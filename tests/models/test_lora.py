# pyright: basic
"""LoRA: the algebra, the formats, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from segue.errors import CheckpointError, ModelNotFoundError, UnsafeFileError
from segue.models.loading import load_model
from segue.models.lora import applied
from segue.models.weights import quiet

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def weight(model, name: str = LAYER) -> torch.Tensor:
    return model.parts["unet"].get_submodule(name).weight


def latents_of(model) -> torch.Tensor:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    time = torch.tensor([400.0])
    return model.parts["unet"](x, time, encoder_hidden_states=model.text(["a red apple"]).text).sample


def layers(network) -> Any:
    return get_peft_model_state_dict(network)


def described(network) -> dict[str, object]:
    """What training scripts write beside a LoRA: PEFT's configuration, made of JSON's types."""
    config = network.peft_config["default"].to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> Path:
    """A LoRA on UNet (attention and convolution) and text encoder, written by diffusers itself."""
    torch.manual_seed(9)
    place = tmp_path_factory.mktemp("lora")
    with quiet():
        pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
        pipeline.unet.add_adapter(
            LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "to_out.0", "conv1"], alpha_pattern={"conv1": 2})
        )
        pipeline.text_encoder.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"]))
        with torch.no_grad():
            for network in (pipeline.unet, pipeline.text_encoder):
                for name, parameter in network.named_parameters():
                    if "lora_B" in name:
                        parameter.normal_(std=0.1)
        StableDiffusionPipeline.save_lora_weights(
            place,
            unet_lora_layers=layers(pipeline.unet),
            text_encoder_lora_layers=layers(pipeline.text_encoder),
            unet_lora_adapter_metadata=described(pipeline.unet),
            text_encoder_lora_adapter_metadata=described(pipeline.text_encoder),
        )
    return place / "pytorch_lora_weights.safetensors"


def test_the_algebra_of_one_layer(folder, model, tmp_path):
    shape = weight(model).shape
    down, up = torch.randn(3, shape[1]), torch.randn(shape[0], 3)
    path = tmp_path / "one.safetensors"
    flat = LAYER.replace(".", "_")
    save_file(
        {
            f"lora_unet_{flat}.lora_down.weight": down,
            f"lora_unet_{flat}.lora_up.weight": up,
            f"lora_unet_{flat}.alpha": torch.tensor(6.0),
        },
        path,
    )
    got = load_model(folder, loras={path: 0.5})
    assert torch.allclose(weight(got), weight(model) + 0.5 * 6 / 3 * up @ down, atol=1e-6)
    other = LAYER.replace("to_q", "to_k")
    assert torch.equal(weight(got, other), weight(model, other))


def test_it_equals_diffusers_with_the_same_file(folder, trained):
    with quiet():
        pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
        pipeline.load_lora_weights(trained.parent, weight_name=trained.name, adapter_name="it")
        pipeline.set_adapters(["it"], [0.7])
    ids = pipeline.tokenizer(["a red apple"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    text = pipeline.text_encoder(ids)[0]
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = pipeline.unet(x, torch.tensor([400.0]), encoder_hidden_states=text).sample
    got = load_model(folder, loras={trained: 0.7})
    assert torch.allclose(got.text(["a red apple"]).text, text, atol=1e-5)
    assert torch.allclose(latents_of(got), expected, atol=1e-4)
    assert (latents_of(load_model(folder)) - expected).abs().max() > 1e-2


def test_scale_zero_is_the_base_model(folder, model, trained):
    got = load_model(folder, loras={trained: 0.0})
    assert torch.equal(latents_of(got), latents_of(model))
    assert got.fingerprint != model.fingerprint


def test_two_files_add_up(folder, trained, tmp_path):
    second = tmp_path / "second.safetensors"
    second.write_bytes(trained.read_bytes())
    both = load_model(folder, loras={trained: 0.25, second: 0.5})
    assert torch.allclose(weight(both), weight(load_model(folder, loras={trained: 0.75})), atol=1e-6)


def test_scoped_and_put_back_bit_by_bit(folder, trained):
    model = load_model(folder)
    before = latents_of(model)
    with applied(model, {trained: 1.0}) as changed:
        assert (latents_of(changed) - before).abs().max() > 1e-2
    assert torch.equal(latents_of(model), before)


def alpha(part: str, layer: str) -> float:
    return 2.0 if part == "text_encoder" or layer.endswith("conv1") else 8.0


@pytest.mark.parametrize("style", ["kohya", "old diffusers"])
def test_other_formats_hold_the_same(style, folder, trained, tmp_path):
    path = tmp_path / "other.safetensors"
    renamed = {}
    for key, value in load_file(trained).items():
        part, layer = key.split(".", 1)
        layer, side = layer.removesuffix(".weight").rsplit(".lora_", 1)
        if style == "kohya":
            prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[part]
            name = prefix + layer.replace("text_model.", "").replace(".", "_")
            renamed[f"{name}.lora_{'down' if side == 'A' else 'up'}.weight"] = value
            renamed[f"{name}.alpha"] = torch.tensor(alpha(part, layer))
        else:
            gain = alpha(part, layer) / (4 if part == "unet" else 2) if side == "B" else 1
            renamed[f"{part}.{layer}.lora.{'down' if side == 'A' else 'up'}.weight"] = value * gain
    save_file(renamed, path)
    assert torch.allclose(
        latents_of(load_model(folder, loras={path: 1.0})),
        latents_of(load_model(folder, loras={trained: 1.0})),
        atol=1e-4,
    )


def test_another_architecture_is_refused_by_name(short_folder, folder, trained, tmp_path):
    path = tmp_path / "wide.safetensors"
    save_file(
        {f"unet.{LAYER}.lora_A.weight": torch.zeros(2, 99), f"unet.{LAYER}.lora_B.weight": torch.zeros(99, 2)}, path
    )
    with pytest.raises(CheckpointError, match=r"another architecture: unet\..*to_q is \(32, 32\), the update is for"):
        load_model(folder, loras={path: 1.0})
    save_file({"unet.nowhere.lora_A.weight": torch.zeros(2, 4), "unet.nowhere.lora_B.weight": torch.zeros(4, 2)}, path)
    with pytest.raises(CheckpointError, match=r"has no layer unet\.nowhere"):
        load_model(folder, loras={path: 1.0})


def test_what_is_no_lora_is_refused(folder, tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        load_model(folder, loras={path: 1.0})
    with pytest.raises(UnsafeFileError, match="pickle"):
        load_model(folder, loras={tmp_path / "x.pt": 1.0})
    save_file({f"lora_unet_{LAYER}.hada_w1_a": torch.zeros(2, 2)}, path)
    with pytest.raises(CheckpointError, match="no plain LoRA"):
        load_model(folder, loras={path: 1.0})
    save_file({f"unet.{LAYER}.lora_A.weight": torch.zeros(2, 32)}, path)
    with pytest.raises(CheckpointError, match="no complete LoRA"):
        load_model(folder, loras={path: 1.0})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(folder, loras={path: 1.0})
