# pyright: basic
"""Single files and LoRAs of Stable Diffusion XL, in every spelling; and what they are called on another model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from ldm_layout import to_ldm, unet_key
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny_xl import write_xl

from segue.errors import CheckpointError, ModelNotFoundError
from segue.models.families.sdxl import TIME_IDS
from segue.models.loading import load_model
from segue.models.lora_rows import attached
from segue.models.original_names import original_name
from segue.models.single_file import XL
from segue.models.weights import quiet

PROMPT = "a red apple"


def answer(model) -> torch.Tensor:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    text = model.text([PROMPT])
    told: Any = {"text_embeds": text.pooled, TIME_IDS: torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    time = torch.tensor([400.0])
    return model.parts["unet"](x, time, encoder_hidden_states=text.text, added_cond_kwargs=told).sample


@pytest.fixture(scope="module")
def xl(tmp_path_factory) -> Path:
    return write_xl(tmp_path_factory.mktemp("xl") / "xl")


@pytest.fixture(scope="module")
def xl_model(xl):
    return load_model(xl, device="cpu")


def test_a_single_file_equals_its_folder(xl, xl_model, tmp_path):
    single = to_ldm(xl, tmp_path / "model.safetensors", text="both")
    model = load_model(single, config=xl)
    assert torch.equal(answer(model), answer(xl_model))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(model.codec.decode(latents), xl_model.codec.decode(latents))
    assert (model.family, model.denoiser.prediction, model.defaults.size) == ("sdxl", "epsilon", (64, 64))


def test_what_a_single_file_says_with_marks(xl, tmp_path):
    single = to_ldm(xl, tmp_path / "model.safetensors", text="both")
    marks = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    save_file({**load_file(single), **marks}, tmp_path / "v.safetensors")
    model = load_model(tmp_path / "v.safetensors", config=xl)
    assert model.denoiser.prediction == "v_prediction"
    assert model.scheduler["rescale_betas_zero_snr"]
    assert float(model.schedule(4, (64, 64), solver="ddim").now.sigma[0]) < 1  # leading times stop before the end


def test_a_single_file_that_lacks_a_part_is_refused(xl, tmp_path):
    whole = load_file(to_ldm(xl, tmp_path / "whole.safetensors", text="both"))
    for number, prefix in enumerate(("first_stage_model.", "conditioner.embedders.0", "conditioner.embedders.1")):
        path = tmp_path / f"{number}.safetensors"
        save_file({key: value for key, value in whole.items() if not key.startswith(prefix)}, path)
        with pytest.raises(CheckpointError):
            load_model(path, config=xl)


def test_a_file_and_a_config_of_different_families(xl, folder, tmp_path):
    old = to_ldm(folder, tmp_path / "old.safetensors")
    new = to_ldm(xl, tmp_path / "new.safetensors", text="both")
    with pytest.raises(CheckpointError, match="is made for Stable Diffusion XL: they are no pair"):
        load_model(old, config=xl)
    with pytest.raises(CheckpointError, match=r"is a checkpoint of Stable Diffusion XL, and config .*no pair"):
        load_model(new, config=folder)


@pytest.fixture(scope="module")
def trained(xl, tmp_path_factory) -> Path:
    """A LoRA on the UNet and both text encoders, written by diffusers itself."""
    torch.manual_seed(9)
    place = tmp_path_factory.mktemp("lora")
    with quiet():
        pipeline: Any = StableDiffusionXLPipeline.from_pretrained(xl, local_files_only=True, add_watermarker=False)
        layers = ["to_q", "to_k", "to_out.0", "proj_in", "conv1", "conv_shortcut", "time_emb_proj", "linear_1"]
        pipeline.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=layers))
        for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
            encoder.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj", "fc1"]))
        with torch.no_grad():
            for network in (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2):
                for name, parameter in network.named_parameters():
                    if "lora_B" in name:
                        parameter.normal_(std=0.1)
        StableDiffusionXLPipeline.save_lora_weights(
            place,
            unet_lora_layers=get_peft_model_state_dict(pipeline.unet),  # pyright: ignore
            text_encoder_lora_layers=get_peft_model_state_dict(pipeline.text_encoder),  # pyright: ignore
            text_encoder_2_lora_layers=get_peft_model_state_dict(pipeline.text_encoder_2),  # pyright: ignore
        )
    return place / "pytorch_lora_weights.safetensors"


def test_a_lora_equals_diffusers_with_the_same_file(xl, xl_model, trained):
    with quiet():
        pipeline: Any = StableDiffusionXLPipeline.from_pretrained(xl, local_files_only=True, add_watermarker=False)
        pipeline.load_lora_weights(trained.parent, weight_name=trained.name, adapter_name="it")
        pipeline.set_adapters(["it"], [0.7])
    text, _, pooled, _ = pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=False)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    extra = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    expected = pipeline.unet(x, torch.tensor([400.0]), encoder_hidden_states=text, added_cond_kwargs=extra).sample
    got = load_model(xl, loras={trained: 0.7})
    told: Any = got.text([PROMPT])
    assert torch.allclose(told.text, text, atol=1e-5) and torch.allclose(told.pooled, pooled, atol=1e-5)
    assert torch.allclose(answer(got), expected, atol=1e-4)
    assert (answer(xl_model) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("style", ["kohya", "kohya, original names"])
def test_other_spellings_hold_the_same(style, xl, trained, tmp_path):
    """Trainers of SDXL write the original names of the UNet's layers."""
    renamed = {}
    for key, value in load_file(trained).items():
        part, layer = key.split(".", 1)
        layer, side = layer.removesuffix(".weight").rsplit(".lora_", 1)
        prefix = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}[part]
        if part == "unet" and style != "kohya":
            layer = unet_key(f"{layer}.weight", 1, [True, False]).removesuffix(".weight")
        elif part != "unet":
            layer = "text_model." + layer.removeprefix("text_model.")
        name = prefix + layer.replace(".", "_")
        renamed[f"{name}.lora_{'down' if side == 'A' else 'up'}.weight"] = value
        renamed[f"{name}.alpha"] = torch.tensor(4.0 if part == "unet" else 2.0)
    path = tmp_path / "other.safetensors"
    save_file(renamed, path)
    assert torch.allclose(
        answer(load_model(xl, loras={path: 1.0})), answer(load_model(xl, loras={trained: 1.0})), atol=1e-5
    )


def test_a_curve_reaches_both_encoders(xl, trained):
    waiting: Any = attached(load_model(xl), {trained: "0s:0, 1s:1"})
    merged: Any = load_model(xl, loras={trained: 0.7}).text([PROMPT])
    plain: Any = load_model(xl).text([PROMPT])
    for scale, expected in ((0.7, merged), (0.0, plain)):
        got: Any = waiting.text.at([PROMPT], [scale])
        assert torch.allclose(got.text, expected.text, atol=1e-5)
        assert torch.allclose(got.pooled, expected.pooled, atol=1e-5)


def test_every_layer_has_its_original_name(xl):
    """Those of the full model are as many as the published file has, and no two are alike."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(json.loads((XL / "unet/config.json").read_text()))
    owners = [name for name, module in unet.named_modules() if list(module.parameters(recurse=False))]
    names = [original_name(name, unet.config) for name in owners]
    assert None not in names and len(set(names)) == len(owners)
    assert {"input_blocks.4.1.proj_in", "middle_block.1.transformer_blocks.9.attn2.to_k", "out.2"} <= set(names)
    assert {"output_blocks.2.2.conv", "input_blocks.3.0.op", "label_emb.0.2"} <= set(names)
    assert {"output_blocks.8.0.skip_connection", "input_blocks.1.0.emb_layers.1"} <= set(names)


def test_loras_of_one_family_on_another_are_called_by_name(xl, folder, trained, tmp_path):
    with pytest.raises(CheckpointError, match="is a LoRA for Stable Diffusion XL, and made for a model of another"):
        load_model(folder, loras={trained: 1.0})
    path = tmp_path / "old.safetensors"
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    save_file({f"{layer}.lora_A.weight": torch.zeros(2, 768), f"{layer}.lora_B.weight": torch.zeros(320, 2)}, path)
    with pytest.raises(CheckpointError, match=r"is a LoRA for Stable Diffusion 1\.x, and made for a model of another"):
        load_model(xl, loras={path: 1.0})


def test_what_is_no_lora_is_called_by_name(xl, tmp_path):
    single = to_ldm(xl, tmp_path / "model.safetensors", text="both")
    vae = shutil.copy(xl / "vae/diffusion_pytorch_model.safetensors", tmp_path / "vae.safetensors")
    for path, said in [(single, "is a checkpoint of Stable Diffusion XL, and no"), (vae, "is an autoencoder, and no")]:
        with pytest.raises(CheckpointError, match=f"{said} plain LoRA"):
            load_model(xl, loras={path: 1.0})
    for path, said in [
        (vae, "is an autoencoder: it is one part"),
        (xl / "unet/diffusion_pytorch_model.safetensors", "is a UNet for Stable Diffusion XL: it is"),
    ]:
        with pytest.raises(CheckpointError, match=said):
            load_model(path)
    (tmp_path / "alone").mkdir()
    shutil.copy(vae, tmp_path / "alone/x.safetensors")
    with pytest.raises(
        ModelNotFoundError, match=r"is not a model folder.*; x\.safetensors in it is an autoencoder: it"
    ):
        load_model(tmp_path / "alone")
