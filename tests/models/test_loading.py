# pyright: basic
"""Where models come from, and one clear line for everything that is no model."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from ldm_layout import to_ldm
from safetensors.torch import load_file, save_file
from tiny import write_model
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from segue.errors import CheckpointError, ModelError, ModelNotFoundError, ScheduleError, UnsafeFileError
from segue.models.devices import find_device
from segue.models.families import sd
from segue.models.loading import find_dtype, load_model
from segue.models.single_file import CONFIGS, SD1, SD2, XL, clip_tokenizer, find_config
from segue.models.weights import Entry, freeze, read_header

UNET = "unet/diffusion_pytorch_model.safetensors"


def answer(model) -> torch.Tensor:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    text = model.text(["a red apple"]).text
    latents = model.parts["unet"](x, torch.tensor([400.0]), encoder_hidden_states=text).sample
    return torch.cat([latents.flatten(), model.codec.decode(latents).flatten()])


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("text", ["clip", "open_clip"])
def test_a_single_file_equals_its_folder(text, folder, tmp_path):
    source = folder
    if text == "open_clip":
        source = write_model(tmp_path / "two", use_linear_projection=True, attention_head_dim=(2, 4))
    single = to_ldm(source, tmp_path / "model.safetensors", text=text)
    model = load_model(single, config=source)
    assert torch.equal(answer(model), answer(load_model(source)))
    assert (model.denoiser.prediction, model.name) == ("epsilon", str(single))


@pytest.mark.parametrize("upcast", [False, True])
def test_a_single_file_is_read_in_the_dtype_that_is_asked_for_from_the_first(upcast, folder, tmp_path, monkeypatch):
    """Weights that pass through float32 would take twice the memory; an autoencoder that overflows keeps it."""
    config = Path(shutil.copytree(folder, tmp_path / "config"))
    vae = config / "vae/config.json"
    vae.write_text(json.dumps({**json.loads(vae.read_text()), "force_upcast": upcast}))
    single = to_ldm(folder, tmp_path / "whole.safetensors")
    whole, read = load_model(single, config=config, device="cpu"), []

    def seen(network, device, dtype):
        read.append({weight.dtype for weight in network.parameters()})
        freeze(network, device, dtype)

    monkeypatch.setattr("segue.models.single_file.freeze", seen)
    model = load_model(single, config=config, device="cpu", dtype="float16")
    assert read == [{torch.float16}, {torch.float16}, {torch.float32 if upcast else torch.float16}]
    for part, network in model.parts.items():
        exact = part == "vae" and upcast
        for ours, theirs in zip(network.parameters(), whole.parts[part].parameters(), strict=True):
            assert ours.dtype == (torch.float32 if exact else torch.float16)
            assert torch.equal(ours, theirs.to(ours.dtype))


def test_a_single_file_can_be_told_what_it_predicts(folder, tmp_path):
    single = to_ldm(folder, tmp_path / "model.safetensors")
    model = load_model(single, config=folder, prediction="v_prediction")
    assert model.denoiser.prediction == model.scheduler["prediction_type"] == "v_prediction"


def header(first: tuple[int, ...], text: tuple[int, ...]) -> dict[str, Entry]:
    return {
        "model.diffusion_model.input_blocks.0.0.weight": Entry("F16", first),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": Entry("F16", text),
    }


SCALAR = Entry("F16", ())


def test_versions_are_told_apart_by_shapes():
    path = Path("m.safetensors")
    xl = header((320, 4, 3, 3), (640, 2048))
    assert find_config(path, header((320, 4, 3, 3), (320, 768)), None) == SD1
    assert find_config(path, header((320, 4, 3, 3), (320, 1024)), None) == SD2
    assert find_config(path, header((320, 9, 3, 3), (320, 768)), None) == SD1
    assert find_config(path, header((320, 8, 3, 3), (320, 768)), None) == SD1
    assert find_config(path, xl, None) == XL
    assert find_config(path, {**xl, "conditioner.embedders.1.x": SCALAR}, None) == XL
    for entries, said in [
        (header((320, 5, 3, 3), (320, 1024)), r"takes 5 channels.*expected 4 .*, 9 .* or 8 \(instructions\)"),
        ({**xl, "edm_vpred.sigma_max": SCALAR}, "of the kind of CosXL"),
        (header((320, 4, 3, 3), (320, 99)), "of no family that its shapes tell"),
        (
            header((320, 4, 3, 3), (640, 1280)),
            "the refiner of Stable Diffusion XL.*load the base model",
        ),
        ({**xl, "edm_mean": SCALAR}, r"is Playground 2\.5"),
        ({"unet.a.lora_A.weight": SCALAR}, "is a LoRA: load the model"),
        ({"down_blocks.0.resnets.0.x": SCALAR}, "is a UNet: it is one part of a model folder"),
        ({"double_blocks.0.x": SCALAR}, "is a transformer for FLUX: it is one part"),
        ({"model.diffusion_model.joint_blocks.0.x": SCALAR}, "is a checkpoint of Stable Diffusion 3: give the folder"),
        ({"some.thing": SCALAR}, r"unknown layout \(1 tensors, such as some\.thing\)"),
    ]:
        with pytest.raises(CheckpointError, match=said):
            find_config(path, entries, None)


@pytest.mark.parametrize(
    ("name", "unet", "text"),
    [
        ("sd15", 859_520_964, 123_060_480),
        ("sd21", 865_910_724, 340_387_840),
        ("sdxl", 2_567_463_684, 123_060_480),
        ("sdxl", 2_567_463_684, 694_659_840),
    ],
)
def test_the_configurations_that_ship_are_those_of_the_published_models(name, unet, text):
    """By their numbers of parameters; the sizes are those of the published weight files."""
    with torch.device("meta"):
        network: Any = UNet2DConditionModel.from_config(json.loads((CONFIGS / name / "unet/config.json").read_text()))
        second = text > 600_000_000
        config = json.loads((CONFIGS / name / f"text_encoder{'_2' * second}/config.json").read_text())
        kind = CLIPTextModelWithProjection if second else CLIPTextModel
        encoder = kind(CLIPTextConfig(**config))
    assert sum(p.numel() for p in network.parameters()) == unet
    assert sum(p.numel() for p in encoder.parameters()) == text


def test_the_tokenizer_that_ships_is_clips():
    tokenizer = clip_tokenizer(SD1 / "tokenizer")
    assert (len(tokenizer), tokenizer.model_max_length) == (49408, 77)
    ids = tokenizer("a photo of an astronaut riding a horse on mars").input_ids
    assert ids == [49406, 320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496, 49407]
    assert tokenizer.pad_token_id == 49407
    assert clip_tokenizer(SD2 / "tokenizer").pad_token_id == 0  # "!"


def test_half_precision_variants_are_found(folder, copy):
    plain = copy / UNET
    tensors = {key: value.half() for key, value in load_file(plain).items()}
    save_file(tensors, copy / "unet/diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"})
    assert torch.equal(answer(load_model(copy)), answer(load_model(folder)))
    assert load_model(copy, dtype="bfloat16").weights[0][0].name == "diffusion_pytorch_model.fp16.safetensors"
    plain.unlink()
    assert load_model(copy).weights[0][0].name == "diffusion_pytorch_model.fp16.safetensors"


def test_sharded_weights_are_followed(folder, copy):
    network = UNet2DConditionModel.from_pretrained(copy / "unet")
    (copy / UNET).unlink()
    network.save_pretrained(copy / "unet", max_shard_size="200KB")
    shards = sorted((copy / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    model = load_model(copy)
    assert [path for path, _ in model.weights][: len(shards)] == shards
    assert torch.equal(answer(model), answer(load_model(folder)))
    shards[-1].unlink()
    with pytest.raises(CheckpointError, match="names a file that is not beside it"):
        load_model(copy)


@pytest.mark.parametrize("keep", [4, 60, 3000, 30_000])
def test_truncated_files_are_noticed(keep, copy):
    whole = (copy / UNET).read_bytes()
    (copy / UNET).write_bytes(whole[:keep])
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model\.safetensors is .* it again"):
        load_model(copy)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", struct.pack("<Q", 20) + b"{" * 30, b"\0" * 4096])
def test_what_is_no_safetensors_file_is_noticed(content, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="again"):
        read_header(path)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("went-off"),))


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_are_refused_by_name_and_by_content(protocol, copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bomb = pickle.dumps(Bomb(), protocol=protocol)
    for name in ("m.ckpt", "m.pt", "m.safetensors"):
        (tmp_path / name).write_bytes(bomb)
        with pytest.raises(UnsafeFileError, match=r"can run any code.*convert it"):
            load_model(tmp_path / name)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "zip.safetensors")
    with pytest.raises(UnsafeFileError, match="under the name of a safetensors file"):
        load_model(tmp_path / "zip.safetensors")
    (copy / UNET).rename(copy / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(UnsafeFileError, match=r"diffusion_pytorch_model\.bin has no safetensors beside it"):
        load_model(copy)
    assert not (tmp_path / "went-off").exists()


def test_weights_of_another_architecture_are_refused(copy, folder, tmp_path):
    wider = write_model(tmp_path / "wider", block_out_channels=(32, 96))
    shutil.copy(wider / UNET, copy / UNET)
    with pytest.raises(CheckpointError, match="does not hold the UNet2DConditionModel that its config"):
        load_model(copy)
    tensors = load_file(folder / UNET)
    tensors.pop("conv_in.weight")
    save_file(tensors, copy / UNET, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 tensors are missing, such as conv_in\.weight"):
        load_model(copy)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
@pytest.mark.parametrize("value", ["many", None, [1], {"a": 1}])
def test_a_damaged_configuration_is_named(part, value, copy):
    """What reads configurations checks the types of their fields, each library with errors of its own."""
    size = {"text_encoder": "hidden_size", "unet": "block_out_channels", "vae": "latent_channels"}[part]
    path = copy / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), size: value}))
    with pytest.raises(CheckpointError, match=f"{part} does not hold"):
        load_model(copy)


def test_what_a_model_is_used_with_must_be_said(copy):
    path = copy / "unet/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sample_size": {"a": 1}}))
    with pytest.raises(CheckpointError, match="do not say enough"):
        load_model(copy)


def test_a_scheduler_that_says_what_cannot_be_is_named(copy):
    path = copy / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "beta_start": {"a": 1}}))
    with pytest.raises(ScheduleError, match="says what cannot be"):
        load_model(copy).schedule(4, (64, 64))


def test_parts_that_do_not_belong_together_are_refused(copy, short_folder, tmp_path):
    odd = write_model(tmp_path / "odd", in_channels=7)
    with pytest.raises(CheckpointError, match="the UNet takes 7 channels, the autoencoder gives 4"):
        load_model(odd)
    narrow = write_model(tmp_path / "narrow", cross_attention_dim=16)
    with pytest.raises(CheckpointError, match="expects text of width 16, the text encoder gives 32"):
        load_model(narrow)
    for file in (copy / "tokenizer").iterdir():
        file.unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_model(copy)


def test_a_single_file_that_lacks_a_part_is_refused(folder, tmp_path):
    single = to_ldm(folder, tmp_path / "whole.safetensors")
    for prefix in ("first_stage_model.", "cond_stage_model.", "model.diffusion_model.middle_block."):
        path = tmp_path / f"{prefix}safetensors"
        tensors = {key: value for key, value in load_file(single).items() if not key.startswith(prefix)}
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match="does not fit the architecture"):
            load_model(path, config=folder)


def test_other_folders_are_refused(copy, tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"is not a model folder: expected model_index\.json"):
        load_model(tmp_path)
    (copy / "scheduler/scheduler_config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"scheduler_config\.json is missing"):
        load_model(copy)
    (copy / "model_index.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        load_model(copy)
    (copy / "model_index.json").write_text('{"_class_name": "SanaPipeline"}')
    with pytest.raises(CheckpointError, match="is made for SanaPipeline; Segue reads Stable Diffusion"):
        load_model(copy)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "nowhere.safetensors", Path("nowhere/model")])
def test_missing_paths_are_not_looked_for_on_the_hub(source):
    with pytest.raises(ModelNotFoundError, match="there is no model at"):
        load_model(source)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has the device")
def test_of_a_device_that_is_not_there_one_sentence_is_told():
    """PyTorch's has a list of all that it was compiled for."""
    with pytest.raises(ModelError) as caught:
        find_device("mps")
    assert str(caught.value).startswith('device "mps" cannot be used here (')
    assert len(str(caught.value)) < 200


def test_devices_and_dtypes_that_are_not_there(folder):
    with pytest.raises(ModelError, match=r'device "warp" cannot be used here \(.*"cpu" always can'):
        load_model(folder, device="warp")
    with pytest.raises(ModelError, match="dtype must be one of float32, float16, bfloat16 or auto; got int8"):
        load_model(folder, dtype="int8")
    assert find_dtype(None, torch.device("cuda")) == torch.float16
    assert find_dtype(torch.bfloat16, torch.device("cpu")) == torch.bfloat16


def test_loading_is_silent_and_leaves_the_libraries_as_they_were(folder, capfd):
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    rooms = (diffusers_logging, transformers_logging)
    before = [(room.get_verbosity(), room.is_progress_bar_enabled()) for room in rooms]
    load_model(folder)
    assert [(room.get_verbosity(), room.is_progress_bar_enabled()) for room in rooms] == before
    assert capfd.readouterr() == ("", "")


def test_the_family_names_its_parts(model):
    assert model.parts.keys() == {"unet", "text_encoder", "vae"}
    assert isinstance(model.denoiser.network, sd.UNetNetwork)
